"""The denoiser and its text encoder, trained together on latents: velocity prediction, EMA.

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
# The velocity's squared error is the picture's times SNR + 1 (Salimans & Ho 2022, "Progressive Distillation for Fast
# Sampling of Diffusion Models", section 4). That factor is cut off here, so that the last, nearly clean steps do not
# take the network's strength. Min-SNR weights, min(SNR, 5), are cut off likewise, but all but ignore the noisiest
# steps, in which background and places are settled.
MOST_WEIGHT = 10.0
# Sampling starts from pure noise, which training otherwise never sees: the schedule's last step still holds 7 % of
# the picture, enough to give the background away.
PURE_NOISE, PURE_NOISE_FROM = 0.04, 980
# Guidance pushes samples too far: at 7.5 they hold up to 1.7 times the picture when half of the noise is gone. This
# share of the inputs holds up to 1 + INFLATION * sigma^2 times the picture, and the target leads back to the picture.
INFLATED, INFLATION = 0.1, 0.8


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


@dataclass(frozen=True)
class Material:
    """What there is to learn from, on one device.

    Attributes:
        latents: (N, 4, 32, 32).
        tokens: (N, wordings, 77) token ids.
        empty: (77,) token ids of the empty caption.
    """

    latents: Tensor
    tokens: Tensor
    empty: Tensor

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Random latents and one caption of each, some left out."""
        device = self.latents.device
        index = torch.randint(len(self.latents), (count,), device=device)
        ids = self.tokens[index, torch.randint(self.tokens.shape[1], (count,), device=device)]
        ids = torch.where(torch.rand(count, 1, device=device) < CAPTION_DROPOUT, self.empty, ids)
        return self.latents[index].float(), ids.long()


def train_denoiser(
    net: Denoiser, average: Denoiser, material: Material, clock: Clock, batch: int, keep: Callable[[], None]
) -> None:
    """Train for the clock's time.

    Args:
        net: trained in place.
        average: its moving average, moved along.
        material: what is learned from.
        clock: how long.
        batch: latents in one step.
        keep: saves what there is; called now and then.
    """
    fast = material.latents.is_cuda
    alphas = build_scheduler().alphas_cumprod.to(material.latents.device)
    parameters, followers, begun = net.parameters(), average.parameters(), clock.spent > 0
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=fast)
    unet, text_encoder = (torch.compile(m) if fast else m for m in (net.unet, net.text_encoder))
    while clock.tick():
        latents, ids = material.draw(batch)
        noisy, velocity, times, weight = noised(latents, alphas)
        with torch.autocast(latents.device.type, torch.bfloat16):
            text = text_encoder(ids).last_hidden_state
            guess = unet(noisy.contiguous(memory_format=torch.channels_last), times, text).sample
        loss = (weight * F.mse_loss(guess.float(), velocity, reduction="none")).mean()
        optimizer.param_groups[0]["lr"] = clock.rate(PEAK_RATE)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        _follow(followers, parameters, EMA_DECAY if begun else min(EMA_DECAY, clock.steps / (10 + clock.steps)))
        if clock.steps % KEEP_EVERY == 0:
            keep()
        if clock.steps % 250 == 1:
            print(f"unet {clock.steps} {clock.spent:.0f}s loss {loss.item():.4f}", flush=True)


def noised(latents: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noise at random timesteps, some of it with nothing or too much of the latents in it.

    The velocity is the one that leads back to the latents, whatever the input holds: samplers take
    signal * noisy - spread * velocity for them.

    Returns:
        Noisy latents, the velocity to predict, timesteps (B,), weights of the squared error (B, 1, 1, 1).
    """
    count, device = len(latents), latents.device
    chance = torch.rand(3, count, 1, 1, 1, device=device)
    pure, inflated = chance[0] < PURE_NOISE, chance[1] < INFLATED
    late = torch.randint(PURE_NOISE_FROM, len(alphas), (count,), device=device)
    times = torch.where(pure.flatten(), late, torch.randint(len(alphas), (count,), device=device))
    alpha = alphas[times][:, None, None, None]
    signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
    held = signal * (1 + inflated * INFLATION * chance[2] * (1 - alpha))
    noise = torch.randn_like(latents)
    noisy = torch.where(pure, noise, held * latents + spread * noise)
    velocity = (signal * noisy - latents) / spread
    return noisy, velocity, times, (MOST_WEIGHT * (1 - alpha)).clamp(max=1)


@torch.no_grad()
def _follow(followers: list[nn.Parameter], parameters: list[nn.Parameter], decay: float) -> None:
    """Move the average a step towards the trained weights."""
    torch._foreach_lerp_([*followers], [*parameters], 1 - decay)
