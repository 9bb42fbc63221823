"""The autoencoder: pictures <-> latents. Trained first and frozen; at the end its decoder alone is polished.

It knows pictures only, no captions.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from training.clock import Clock
from training.models import SCALING_FACTOR
from training.render import Packed, render

# Pictures -> their copies, and the latents' divergence from unit noise.
Copy = Callable[[Tensor], tuple[Tensor, Tensor]]

KL_WEIGHT = 1e-4
EDGE_WEIGHT = 4.0
PEAK_RATE = 8e-4
POLISH_RATE = 3e-4
LATENT_NOISE = 0.1  # most that is added to latents in training, in their own deviations
DRAWN_AT_ONCE = 8  # steps for which pictures are drawn together: drawing few takes as long as drawing many
POLISH_NOISE = 0.12  # what sampling leaves in latents of unit deviation
POLISH_OVERSHOOT = 0.15  # how far guidance pushes latents outwards


def train_vae(vae: AutoencoderKL, scenes: Packed, clock: Clock, batch: int) -> None:
    """Train encoder and decoder for the clock's time. `scenes` is on the device of `vae`."""

    def copy(pictures: Tensor) -> tuple[Tensor, Tensor]:
        posterior = vae.encode(pictures).latent_dist
        latents = posterior.sample()
        deviation = latents.detach().float().std((0, 2, 3), keepdim=True)
        amount = LATENT_NOISE * torch.rand(len(latents), 1, 1, 1, device=latents.device) * deviation
        copies = vae.decode(latents + amount * torch.randn_like(latents)).sample
        return copies, posterior.kl().mean() / posterior.mean[0].numel()

    _fit(vae, list(vae.parameters()), _compiled(copy, scenes), scenes, clock, batch, PEAK_RATE)


def polish_decoder(vae: AutoencoderKL, scenes: Packed, clock: Clock, batch: int) -> None:
    """Train the decoder alone on latents a little off, as sampling makes them."""
    nothing = torch.zeros((), device=scenes.place.device)

    def copy(pictures: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            latents = vae.encode(pictures).latent_dist.mode()
        each = (len(latents), 1, 1, 1)
        noise = POLISH_NOISE * torch.rand(each, device=latents.device) * torch.randn_like(latents) / SCALING_FACTOR
        stretch = 1 + POLISH_OVERSHOOT * torch.rand(each, device=latents.device)
        return vae.decode(latents * stretch + noise).sample, nothing

    trained = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    _fit(vae, trained, _compiled(copy, scenes), scenes, clock, batch, POLISH_RATE)


def _compiled(copy: Copy, scenes: Packed) -> Copy:
    return torch.compile(copy) if scenes.place.is_cuda else copy


def _fit(
    vae: AutoencoderKL,
    parameters: list[nn.Parameter],
    copy: Copy,
    scenes: Packed,
    clock: Clock,
    batch: int,
    peak: float,
) -> None:
    """Draw scenes, copy them, step; until the clock says stop."""
    vae.train()
    device = scenes.place.device
    optimizer = torch.optim.AdamW(
        parameters, lr=peak, betas=(0.9, 0.99), weight_decay=1e-3, fused=device.type == "cuda"
    )
    drawn: list[Tensor] = []
    while clock.tick():
        drawn = drawn or list(torch.split(_drawn(scenes, DRAWN_AT_ONCE * batch), batch))
        pictures = drawn.pop()
        with torch.autocast(device.type, torch.bfloat16):
            copies, kl = copy(pictures)
        error = difference(copies.float(), pictures)
        loss = error + KL_WEIGHT * kl.float()
        optimizer.param_groups[0]["lr"] = clock.rate(peak)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if clock.steps % 100 == 1:
            print(f"vae {clock.steps} {clock.spent:.0f}s error {error.item():.4f} kl {kl.item():.2f}", flush=True)
    vae.eval()


def _drawn(scenes: Packed, count: int) -> Tensor:
    """Pictures of random scenes."""
    pictures = render(scenes.pick(torch.randint(len(scenes), (count,), device=scenes.place.device)))
    return pictures.contiguous(memory_format=torch.channels_last)


def difference(copies: Tensor, pictures: Tensor) -> Tensor:
    """How far copies are from pictures: absolute and squared error, more at edges, and the error of their gradients."""
    error = copies - pictures
    right, down = _gradients(pictures)
    edges = F.pad(right, (0, 1)).abs().amax(1, keepdim=True) + F.pad(down, (0, 0, 0, 1)).abs().amax(1, keepdim=True)
    weight = 1 + EDGE_WEIGHT * (F.max_pool2d(edges, 5, 1, 2) > 0.1)
    error_right, error_down = _gradients(error)
    slopes = error_right.abs().mean() + error_down.abs().mean()
    return (weight * (error.abs() + 2 * error**2)).mean() + 0.5 * slopes


def _gradients(pictures: Tensor) -> tuple[Tensor, Tensor]:
    return pictures[..., 1:] - pictures[..., :-1], pictures[..., 1:, :] - pictures[..., :-1, :]


@torch.no_grad()
def normalise(vae: AutoencoderKL, scenes: Packed) -> None:
    """Fold each latent channel's mean and deviation into the two 1x1 convolutions.

    Afterwards latents times SCALING_FACTOR have mean 0 and deviation 1, and pictures are as before.
    """
    latents = torch.cat([encode(vae, scenes.pick(slice(i, i + 64))) for i in range(0, min(len(scenes), 2048), 64)])
    latents = latents / SCALING_FACTOR
    mean, scale = latents.mean((0, 2, 3)), SCALING_FACTOR * latents.std((0, 2, 3))
    channels = len(mean)
    before, after = vae.quant_conv, vae.post_quant_conv
    after.bias += (after.weight[:, :, 0, 0] * mean).sum(1)
    after.weight *= scale[None, :, None, None]
    before.weight[:channels] /= scale[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean) / scale
    before.bias[channels:] -= 2 * scale.log()


def means(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """The means of the pictures' latents, not scaled."""
    latents: Tensor = vae.encode(pictures).latent_dist.mean
    return latents


@torch.no_grad()
def encode(vae: AutoencoderKL, scenes: Packed, means: Callable[[AutoencoderKL, Tensor], Tensor] = means) -> Tensor:
    """Scenes -> latents (B, 4, 32, 32), scaled, float32. `means` may be a compiled one."""
    device = scenes.place.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        latents = means(vae, render(scenes).contiguous(memory_format=torch.channels_last))
    return latents.float() * SCALING_FACTOR
