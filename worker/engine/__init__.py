"""The only code that knows torch and diffusers: it turns the tables' names into objects that compute."""

import logging

from worker.files import settle_temporary_folder

settle_temporary_folder()  # for whose name torch asks when it is imported

import transformers  # noqa: E402
from huggingface_hub.utils import logging as hub_logging  # noqa: E402
from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: E402

# Without torchvision transformers warns at every import of an image processor, and then does the same with Pillow.
transformers.utils.logging.set_verbosity_error()

# peft imports bitsandbytes wherever it is installed, which then warns of kernels that only CPUs would need; and with
# 8-bit weights it tells of every single cast.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# Where fp8 is wanted, torchao is imported, which warns of kernels for other devices and versions of Python, and of its
# own enums; and diffusers of kinds of weights that torchao no longer has.
for _name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer"):
    logging.getLogger(_name).setLevel(logging.ERROR)

# Retries and progress bars are noise in a worker's log; what finally failed is said once, by the caller.
hub_logging.set_verbosity(logging.CRITICAL)
disable_progress_bars()
