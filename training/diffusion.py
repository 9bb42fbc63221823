"""The denoiser and its text encoder, trained together on latents: velocity prediction, min-SNR weights, EMA.

It knows latents and token ids; pictures and words are behind it.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from training.clock import Clock
from training.models import LATENT_CHANNELS, LATENT_SIDE, build_scheduler
from training.render import Packed
from training.vae import encode, means

LATENT = (LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE)
PEAK_RATE = 7e-4
EMA_DECAY = 0.999
CAPTION_DROPOUT = 0.1
KEEP_EVERY = 3000  # steps
MIN_SNR = 5.0  # Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy"
# Sampling starts from pure noise, which training otherwise never sees: the schedule's last step still holds 7 % of
# the picture, enough to give the background away.
PURE_NOISE, PURE_NOISE_FROM = 0.04, 980


@dataclass(frozen=True)
class Denoiser:
    """What is trained here, and its moving average, which is what is shipped."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel

    def average(self) -> "Denoiser":
        """A copy to hold the moving average."""
        return Denoiser(*(copy.deepcopy(net).requires_grad_(False) for net in (self.unet, self.text_encoder)))

    def parameters(self) -> list[nn.Parameter]:
        """Of both networks."""
        return [*self.unet.parameters(), *self.text_encoder.parameters()]


def cache_latents(vae: AutoencoderKL, scenes: Packed, batch: int = 500) -> Tensor:
    """Every scene as latents: (N, 4, 32, 32) bfloat16."""
    latents = torch.empty(len(scenes), *LATENT, dtype=torch.bfloat16, device=scenes.place.device)
    fast = torch.compile(means) if latents.is_cuda else means
    for start in range(0, len(scenes), batch):
        part = slice(start, start + batch)
        latents[part] = encode(vae, scenes.pick(part), fast)
    return latents


def train_denoiser(
    net: Denoiser,
    average: Denoiser,
    latents: Tensor,
    tokens: Tensor,
    empty: Tensor,
    clock: Clock,
    batch: int,
    keep: Callable[[], None],
) -> None:
    """Train for the clock's time.

    Args:
        net: trained in place.
        average: its moving average, moved along.
        latents: (N, 4, 32, 32).
        tokens: (N, wordings, 77) token ids.
        empty: (77,) token ids of the empty caption.
        clock: how long.
        batch: latents in one step.
        keep: saves what there is; called now and then.
    """
    device = latents.device
    alphas = build_scheduler().alphas_cumprod.to(device)
    parameters = net.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=latents.is_cuda)
    unet, text_encoder = (torch.compile(m) if latents.is_cuda else m for m in (net.unet, net.text_encoder))
    while clock.tick():
        index = torch.randint(len(latents), (batch,), device=device)
        ids = tokens[index, torch.randint(tokens.shape[1], (batch,), device=device)]
        ids = torch.where(torch.rand(batch, 1, device=device) < CAPTION_DROPOUT, empty, ids).long()
        noisy, velocity, times, weight = noised(latents[index].float(), alphas)
        with torch.autocast(device.type, torch.bfloat16):
            text = text_encoder(ids).last_hidden_state
            guess = unet(noisy.contiguous(memory_format=torch.channels_last), times, text).sample
        error = F.mse_loss(guess.float(), velocity, reduction="none").mean((1, 2, 3))
        loss = (weight * error).mean()
        optimizer.param_groups[0]["lr"] = clock.rate(PEAK_RATE)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        _follow(average, net, clock.steps)
        if clock.steps % KEEP_EVERY == 0:
            keep()
        if clock.steps % 250 == 1:
            print(f"unet {clock.steps} {clock.spent:.0f}s loss {loss.item():.4f}", flush=True)


def noised(latents: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noise, at random timesteps: noisy latents, the velocity to predict, timesteps, weights of the loss."""
    count, device = len(latents), latents.device
    pure = torch.rand(count, device=device) < PURE_NOISE
    late = torch.randint(PURE_NOISE_FROM, len(alphas), (count,), device=device)
    times = torch.where(pure, late, torch.randint(len(alphas), (count,), device=device))
    alpha = alphas[times]
    signal, spread = (part.sqrt()[:, None, None, None] for part in (alpha, 1 - alpha))
    noise = torch.randn_like(latents)
    noisy = torch.where(pure[:, None, None, None], noise, signal * latents + spread * noise)
    snr = alpha / (1 - alpha)
    return noisy, signal * noise - spread * latents, times, snr.clamp(max=MIN_SNR) / (snr + 1)


@torch.no_grad()
def _follow(average: Denoiser, net: Denoiser, steps: int) -> None:
    """Move the average a step towards the trained weights; faster at first."""
    decay = min(EMA_DECAY, (1 + steps) / (10 + steps))
    torch._foreach_lerp_(average.parameters(), net.parameters(), 1 - decay)
