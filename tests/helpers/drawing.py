"""Loading an engine and drawing with it, as a job would, in one line each."""

import base64
import gc
import io
import math
import os
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageChops, ImageStat
from PIL.Image import Image
from torch._subclasses.fake_tensor import FakeTensor

from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.engine.load.devices import choose_devices
from worker.engine.load.loader import load
from worker.plan import make_plan
from worker.request import GeneratedImage
from worker.settings import Settings, read_settings

SMALL: dict[str, Any] = {
    "prompt": "a red square",
    "width": 64,
    "height": 64,
    "num_inference_steps": 4,
    "guidance_scale": 7.5,
    "seed": 7,
}


def load_engine(**environment: str) -> Engine:
    """The engine that a worker with exactly these settings in its environment has."""
    known = {name.upper() for name in Settings.model_fields} | {"HF_AUTH_TOKEN"}
    with pytest.MonkeyPatch.context() as patch:
        for name in known & set(os.environ):
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        settings = read_settings()
        return load(settings, choose_devices(settings)[0])


def draw(engine: Engine, deadline: float | None = None, **fields: Any) -> list[GeneratedImage]:
    """All that a job with these fields draws; what is not given is small."""
    request = parse({"id": "test", "input": {**SMALL, **fields}}, engine.capabilities)[0]
    return list(generate(engine, make_plan(request), lambda *_: None, deadline))


def picture(engine: Engine, **fields: Any) -> Image:
    """The one picture of such a job."""
    (drawn,) = draw(engine, **fields)
    return drawn.image


def decibels(ours: Image, theirs: Image) -> float:
    """Peak signal-to-noise ratio over the pixels; infinite for equal ones."""
    error = np.square(np.asarray(ours, float) - np.asarray(theirs, float)).mean()
    return 10 * math.log10(255**2 / error) if error else math.inf


def assert_same(ours: Image, theirs: Image) -> None:
    """Pixel for pixel the same picture, and not an empty one."""
    assert ours.size == theirs.size
    assert ImageChops.difference(ours, theirs).getbbox(alpha_only=False) is None
    assert ImageStat.Stat(ours).stddev[0] > 1, "an empty picture proves nothing"


def scene(width: int = 64, height: int = 64, seed: int = 0) -> Image:
    """A picture of soft random colours, no two alike."""
    patches = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Pillow.fromarray(patches).resize((width, height), Pillow.Resampling.BICUBIC)


def hole(width: int = 64, height: int = 64) -> Image:
    """A mask whose middle is white."""
    mask = Pillow.new("L", (width, height))
    mask.paste(255, (width // 4, height // 4, width * 3 // 4, height * 5 // 8))
    return mask


def uri(image: Image) -> str:
    """The picture as jobs bring it."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def bytes_alive() -> int:
    """Bytes of every tensor that anything still holds; those that share memory count once."""
    gc.collect()
    everything = gc.get_objects()
    kinds = {kind for kind in set(map(type, everything)) if issubclass(kind, torch.Tensor)}
    found = [one for one in everything if type(one) in kinds and not one.is_meta]
    tensors = [one for one in found if not isinstance(one, FakeTensor)]  # which a compiler only imagines
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())
