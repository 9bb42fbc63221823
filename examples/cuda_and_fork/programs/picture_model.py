"""The model of all the programs here: `load` it, then `draw`. What happens is noted, with the process it happened in.

With `CUDA_AND_FORK_DEVICE=cuda` it is this repository's embedded Stable Diffusion on CUDA. Anything else takes the
stand-in, which draws nothing worth looking at and refuses after a fork in the words of torch.
"""

import base64
import io
import os
from pathlib import Path
from typing import Any

from notes import noting

WEIGHTS = Path(__file__).resolve().parents[3] / "models" / "shapes"

pipeline: Any  # has no value, and no existence, before load()


def load() -> None:
    """Bring the model onto the device, which is what initialises CUDA in this process."""
    global pipeline
    with noting("loaded"):
        pipeline = read_pipeline().to("cuda")


def draw(prompt: str) -> dict[str, str]:
    """{"image": a PNG in base64}."""
    with noting("drew"):
        picture = pipeline(prompt, num_inference_steps=4).images[0]
    file = io.BytesIO()
    picture.save(file, "PNG")
    return {"image": base64.b64encode(file.getvalue()).decode()}


def read_pipeline() -> Any:
    """The pipeline in main memory. Imports here, so that programs without a GPU start soon."""
    if os.environ.get("CUDA_AND_FORK_DEVICE") != "cuda":
        from stand_in import StandInPipeline

        return StandInPipeline.from_pretrained(WEIGHTS)
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(WEIGHTS)
