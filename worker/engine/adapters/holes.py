"""What of the job's mask a ControlNet is shown: each kind of those that fill holes wants its own form of them."""

from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import ControlNetModel
from torch import Tensor

from worker.engine.adapters.flux_inpainting import FluxInpaintingControlNetModel
from worker.request import Control

HIDDEN = -1.0


def show_hole(control: Control, controlnet: Any) -> Any:
    """The picture that this ControlNet follows, with its hole as that kind wants it.

    Where the pipeline takes the mask itself, and where there is none, this is the picture as it came.

    Args:
        controlnet: that follows it.
    """
    if control.hole is None:
        return control.image
    if isinstance(controlnet, ControlNetModel):  # black is 0 here, and white 1
        return _cut_out(control, low=0.0)
    if isinstance(controlnet, FluxInpaintingControlNetModel):
        controlnet.hide(control.hole)
        return _cut_out(control, low=-1.0)
    if control.mode is not None:
        black = PIL.Image.new("RGB", control.image.size)
        return PIL.Image.composite(black, control.image, control.hole.point(lambda value: 255 * (value > 0)))
    return control.image


def _cut_out(control: Control, low: float) -> Tensor:
    """(1, 3, rows, columns), from `low` to 1, and -1 where the hole is."""
    pixels = np.asarray(control.image, np.float32) / 255 * (1 - low) + low
    pixels[np.asarray(control.hole) > 127] = HIDDEN
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]
