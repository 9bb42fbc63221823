"""A style for the embedded model: a LoRA that draws its scenes as neon signs. `python -m training.lora`.

The captions are the model's own, so the style needs no word of its own. Whatever model is in `models/shapes` is what is
taught; its autoencoder, text encoder and weights stay as they are. On one idle processor core it takes some 15 minutes.
"""

import argparse
import math
import time
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from training.captions import caption
from training.diffusion import CAPTION_DROPOUT, noised
from training.neon import render_neon
from training.scenes import Spec, pack, realise, sample_spec
from training.tokenizer import encode

RANK = 6
# Attention alone cannot redraw edges: the UNet's outer blocks, which do the fine parts, have none.
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
TARGETS += ("conv1", "conv2", "conv_shortcut", "time_emb_proj")
PEAK_RATE, WARM_UP = 2e-3, 20


def main() -> None:
    """Draw and encode the scenes, teach, save."""
    options = _options()
    random = Random(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = StableDiffusionPipeline.from_pretrained(options.model).to(device)
    specs = [sample_spec(random) for _ in range(options.scenes)]
    latents = draw(pipe, specs, random)
    torch.manual_seed(1)
    teach(pipe, specs, latents, Random(1), options.steps, options.batch)
    save(pipe.unet, options.target)


@torch.no_grad()
def draw(pipe: StableDiffusionPipeline, specs: list[Spec], random: Random, batch: int = 20) -> Tensor:
    """One neon picture for each spec, as scaled latents: (N, 4, 32, 32)."""
    start, parts = time.monotonic(), []
    for n in range(0, len(specs), batch):
        scenes = pack([realise(spec, random) for spec in specs[n : n + batch]])
        pictures = render_neon(scenes.to(pipe.device))
        parts.append(pipe.vae.encode(pictures).latent_dist.mean * pipe.vae.config.scaling_factor)
    print(f"latents {len(specs)} {time.monotonic() - start:.0f}s", flush=True)
    return torch.cat(parts)


def teach(
    pipe: StableDiffusionPipeline, specs: list[Spec], latents: Tensor, random: Random, steps: int, batch: int
) -> None:
    """Add the LoRA to the pipeline's UNet and train it; each step words its scenes anew."""
    unet, device = pipe.unet.requires_grad_(False), latents.device
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS)))
    parameters = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    alphas, start, mean = pipe.scheduler.alphas_cumprod.to(device), time.monotonic(), 0.0
    for step in range(steps):
        chosen = random.choices(range(len(specs)), k=batch)
        noisy, velocity, times, _ = noised(latents[chosen], alphas)
        guess = unet(noisy, times, _text(pipe, [specs[n] for n in chosen], random)).sample
        # Unlike the model's own training all timesteps weigh the same: the noisiest decide that the wall is dark.
        loss = F.mse_loss(guess, velocity)
        optimizer.param_groups[0]["lr"] = PEAK_RATE * _rate(step, steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        mean += (loss.item() - mean) / min(step + 1, 50)
        if step % 25 == 0:
            print(f"lora {step} {time.monotonic() - start:.0f}s loss {mean:.4f}", flush=True)


@torch.no_grad()
def _text(pipe: StableDiffusionPipeline, specs: list[Spec], random: Random) -> Tensor:
    """The specs worded and encoded, a few as the empty caption: (B, 77, 192)."""
    words = ["" if random.random() < CAPTION_DROPOUT else caption(spec, random) for spec in specs]
    ids = torch.from_numpy(encode(pipe.tokenizer, words)).long().to(pipe.device)
    return pipe.text_encoder(ids).last_hidden_state


def _rate(step: int, steps: int) -> float:
    """A short warm-up, then half a cosine to 0."""
    return min(1.0, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2


def save(unet: UNet2DConditionModel, target: Path) -> None:
    """Write the LoRA, and nothing else of the UNet, in fp16."""
    weights = {key: value.half().contiguous() for key, value in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(target.parent, unet_lora_layers=weights, weight_name=target.name)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/shapes"), help="what is taught")
    parser.add_argument("--target", type=Path, default=Path("models/loras/neon.safetensors"))
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8, help="latents in one step")
    return parser.parse_args()


if __name__ == "__main__":
    main()
