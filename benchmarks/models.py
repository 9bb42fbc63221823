"""The models that the scenes draw with, as folders to load them from; random weights, nothing is fetched."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.scenes import TINY, Size
from worker.settings import EMBEDDED_MODEL
from worker.spared_imports import spare_imports

ROOT = Path(__file__).parent.parent
TITLES = {
    "embedded": "the embedded model",
    "sd15": "Stable Diffusion 1.5",
    "sdxl": "Stable Diffusion XL",
    "sd35": "Stable Diffusion 3.5 Large Turbo",
    "flux": "FLUX.1 dev",
    "z-image": "Z-Image Turbo",
    "klein": "FLUX.2 klein 4B",
    "klein-9b": "FLUX.2 klein 9B",
    "qwen": "Qwen-Image Lightning",
    "chroma": "Chroma1 Flash",
}


def title_of(name: str, size: Size) -> str:
    """For readers."""
    return TITLES[name] if name not in TINY else f"{TITLES[name]}, {'full size' if size == 'full' else 'tiny'}"


def prepare_model(name: str, size: Size, folder: Path) -> Path:
    """The model in a folder of its own inside this one, made in another process unless it is there.

    That process ends with the tens of gigabytes that it takes; and a scene about starting must not have torch loaded.
    """
    if name not in TINY:
        return EMBEDDED_MODEL
    place = folder / f"{name}-{size}"
    if not place.exists():
        unfinished = place.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "benchmarks.models", name, size, str(unfinished)], check=True, cwd=ROOT)
        unfinished.rename(place)
    return place


def _make(name: str, size: str) -> Any:
    if size == "full":
        from benchmarks import full_size

        return full_size.make(name)
    return make_tiny(name)


def make_tiny(name: str) -> Any:
    """The pipeline of this model in tiny form, one of `TINY`, in this process."""
    from tests.helpers import tiny_flows, tiny_models, tiny_transformers

    tiny: dict[str, Callable[[], Any]] = {
        "sd15": tiny_models.sd1,
        "sdxl": tiny_models.sdxl,
        "sd35": tiny_transformers.sd3,
        "flux": tiny_transformers.flux,
        "z-image": partial(tiny_flows.z_image, shift=3.0),
        "klein": tiny_flows.flux2_klein,
        "klein-9b": tiny_flows.flux2_klein,
        "qwen": tiny_transformers.qwen,
        "chroma": tiny_transformers.chroma,
    }
    return tiny[name]()


if __name__ == "__main__":
    spare_imports(["bitsandbytes", "gguf", "torchao"])  # no weight is quantised
    _make(sys.argv[1], sys.argv[2]).save_pretrained(sys.argv[3], safe_serialization=True)
