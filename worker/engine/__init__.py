"""The only code that knows torch and diffusers: it turns the tables' names into objects that compute."""

import transformers

# Without torchvision transformers warns at every import of an image processor, and then does the same with Pillow.
transformers.utils.logging.set_verbosity_error()
