"""The VAE's decoder: kept from NaN and infinity, which would silently be a black picture, and from much memory; and
what it has decoded becomes a picture."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import PIL.Image
import torch
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor

from worker.errors import NonFiniteOutputError


class DecoderGuard:
    """Lets a VAE's decoder take and give finite numbers only, and the memory of one picture.

    What overflows in half precision is decoded again in float32. What was decoded in float32 anyway is looked at when
    all is done: to wait for it sooner would leave a GPU without work.
    """

    def __init__(self) -> None:
        """Nothing is guarded yet."""
        self._unread: list[Tensor] = []  # (2,): whether latents, and what they were decoded to, are finite

    def watch(self, vae: Any) -> None:
        """Take the place of its `decode`."""
        decode = vae.decode

        @functools.wraps(decode)
        def guarded(latents: Tensor, *rest: Any, **named: Any) -> Any:
            if len(latents) > 1:
                return _join([guarded(one, *rest, **named) for one in torch.split(latents, 1)])
            result = decode(latents, *rest, **named)
            dtype, found = vae.dtype, _find_finite(latents, result)
            if dtype != torch.float32 and found.tolist() == [True, False]:
                vae.to(torch.float32)
                try:
                    result = decode(latents.float(), *rest, **named)
                finally:
                    vae.to(dtype)
                found = _find_finite(latents, result)
            self._unread.append(found)
            return result

        vae.decode = guarded

    @contextmanager
    def checking(self) -> Iterator[None]:
        """Check what is decoded inside the `with`, at its end.

        Raises:
            NonFiniteOutputError: it holds NaN or infinity, or what it was decoded from.
        """
        self._unread.clear()
        yield
        found = [one.tolist() for one in self._unread]
        if not all(latents for latents, _ in found):
            raise NonFiniteOutputError("the latents contain NaN or infinity; try DTYPE=bfloat16 or float32")
        if not all(pixels for _, pixels in found):
            raise NonFiniteOutputError("the decoded picture contains NaN or infinity; try DTYPE=bfloat16 or float32")


def _find_finite(latents: Tensor, result: Any) -> Tensor:
    return torch.stack([one.isfinite().all().to(result[0].device) for one in (latents, result[0])])


def _join(results: list[Any]) -> Any:
    """What pictures decoded one by one would be, decoded at once."""
    pixels = torch.cat([one[0] for one in results])
    return (pixels,) if isinstance(results[0], tuple) else type(results[0])(sample=pixels)


def convert_on_device(pipeline: Any) -> None:
    """Have pictures become bytes where they are decoded: less has to travel, and the CPU need not compute them."""
    processor: Any = getattr(pipeline, "image_processor", None)
    if type(processor) is VaeImageProcessor:
        processor.postprocess = functools.partial(_postprocess, processor)


def _postprocess(
    processor: VaeImageProcessor, image: Tensor, output_type: str = "pil", do_denormalize: list[bool] | None = None
) -> Any:
    """As `VaeImageProcessor.postprocess`, the same bytes."""
    if output_type != "pil":
        return VaeImageProcessor.postprocess(processor, image, output_type, do_denormalize)
    pixels = VaeImageProcessor.postprocess(processor, image, "pt", do_denormalize).float().mul(255).round()
    return [PIL.Image.fromarray(one) for one in pixels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()]


def decode_by_tiles(vae: Any) -> None:
    """Tiles of 512 pixels: those of the VAE's own size, 1024 for SDXL's, would save nothing at native size."""
    if not hasattr(vae, "enable_tiling"):
        return
    vae.enable_tiling()
    if hasattr(vae, "tile_latent_min_size"):
        scale = vae.tile_sample_min_size / vae.tile_latent_min_size
        vae.tile_sample_min_size, vae.tile_latent_min_size = 512, int(512 / scale)


TILE_SIZES = ("tile_sample_min_size", "tile_latent_min_size")  # of an AutoencoderKL


@contextmanager
def low_memory(vae: Any) -> Iterator[None]:
    """Decode by tiles inside the `with`: slower, with a small part of the memory, and very nearly the same picture."""
    if not hasattr(vae, "enable_tiling") or getattr(vae, "use_tiling", False):
        yield
        return
    sizes = {name: getattr(vae, name) for name in TILE_SIZES if hasattr(vae, name)}
    decode_by_tiles(vae)
    try:
        yield
    finally:
        vae.disable_tiling()
        for name, size in sizes.items():
            setattr(vae, name, size)
