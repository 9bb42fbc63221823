"""What a picture looks like while it is drawn: the predicted latents as colours, without the decoder.

A map from latents and their squares to RGB is close enough for a thumbnail and costs nothing. It is fitted once per
model, by least squares, on plain scenes that the model's own encoder turns into latents: a square on a background.
"""

import math
from typing import Any

import PIL.Image
import torch
from PIL.Image import Image
from torch import Tensor

SCENES, WIDTH = 48, 12  # and latents a side of each
SIDE = 128  # pixels at most of a preview


class Previewer:
    """Latents of one pipeline -> small pictures."""

    def __init__(self, pipeline: Any) -> None:
        """Nothing is fitted yet."""
        self._pipeline = pipeline
        self._factors: Tensor | None = None  # (features, 3)

    def make_preview(self, latents: Tensor, width: int, height: int) -> Image:
        """The first picture of these latents.

        Args:
            latents: clean, as the pipeline's denoiser knows them.
            width, height: of the finished picture, for pipelines that pack latents into sequences.
        """
        if self._factors is None:
            self._factors = _fit(self._pipeline)
        grid = unpack_latents(self._pipeline, latents, width, height)[:1].float()
        step = max(1, math.ceil(max(grid.shape[2:]) / SIDE))
        if step > 1:
            grid = torch.nn.functional.avg_pool2d(grid, step)
        factors = self._factors.to(grid.device)
        # No matrix product: on a busy CPU its threads wait for each other far longer than this takes.
        colours = (_features(grid)[0, ..., None] * factors[:, None, None]).sum(0)
        return PIL.Image.fromarray(colours.clamp(0, 1).mul(255).round().byte().cpu().numpy())


def unpack_latents(pipeline: Any, latents: Tensor, width: int, height: int) -> Tensor:
    """(pictures, channels, rows, columns), also where the denoiser works on a sequence of patches, or on frames."""
    if latents.ndim == 4:
        return latents
    if latents.ndim == 5:  # Kandinsky 5's: (pictures, 1, rows, columns, channels)
        return latents.squeeze(1).movedim(-1, 1)
    grid: Tensor = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
    return grid


@torch.no_grad()
def _fit(pipeline: Any) -> Tensor:
    vae = pipeline.vae
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    ground, square = torch.rand(2, SCENES, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    # Pure colours among them, or a VAE that is not linear has all pictures greyish.
    ground[::2], square[1::2] = ground[::2].round(), square[1::2].round()
    colours = ground.repeat(1, 1, WIDTH, WIDTH)
    colours[:, :, WIDTH // 4 : -WIDTH // 4, WIDTH // 4 : -WIDTH // 4] = square
    pixels = colours.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    device = pipeline._execution_device
    upcast = vae.dtype == torch.float16 and vae.config.force_upcast  # its encoder overflows in half precision
    if upcast:
        vae.to(torch.float32)
    try:
        latents = vae.encode(pixels.to(device, vae.dtype) * 2 - 1).latent_dist.mode().float().cpu()
    finally:
        if upcast:
            vae.to(torch.float16)
    latents = (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    rows = _features(latents).movedim(1, -1).flatten(0, 2)
    factors: Tensor = torch.linalg.lstsq(rows, colours.movedim(1, -1).flatten(0, 2)).solution
    return factors


def _features(grid: Tensor) -> Tensor:
    """(pictures, channels, rows, columns) of latents -> what makes colours: them, their squares and a constant."""
    return torch.cat([grid, grid.square(), torch.ones_like(grid[:, :1])], dim=1)


class Prediction:
    """What the denoiser's latest step says the finished latents are."""

    def __init__(self) -> None:
        """Nothing is predicted yet."""
        self._step: tuple[Any, Tensor, float, Tensor] | None = None

    def observe(self, scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> None:
        """Note a step, to be worked out only if somebody looks."""
        self._step = scheduler, output, timestep, sample

    def latents(self) -> Tensor | None:
        """The predicted clean latents, or None before the first step."""
        return _predict_clean_latents(*self._step) if self._step else None


def _predict_clean_latents(scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    """The clean latents that a step's output implies; for flows, diffusion that predicts noise, or the velocity."""
    steps, time = int(scheduler.config.num_train_timesteps), float(timestep)
    if not hasattr(scheduler, "alphas_cumprod"):
        return sample - time / steps * output
    alpha = float(scheduler.alphas_cumprod[min(steps - 1, max(0, round(time)))])
    signal, noise = math.sqrt(alpha), math.sqrt(1 - alpha)
    if float(scheduler.init_noise_sigma) > 1:  # samples of the Euler kind, scaled so that the signal counts 1
        sample = signal * sample
    if scheduler.config.prediction_type == "v_prediction":
        return signal * sample - noise * output
    return (sample - noise * output) / signal
