"""Make the model from nothing: `python -m training.train`. Stops when its time is up; run again, it goes on.

The stages stand in `main` in their order. Each is described in the file that does it.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTokenizer

from training import checkpoint
from training.clock import Clock
from training.data import PoolMaker
from training.diffusion import LATENT, Denoiser, Material, cache_latents, train_denoiser
from training.export import export
from training.models import build_text_encoder, build_unet, build_vae
from training.render import Packed
from training.tokenizer import build_tokenizer, encode
from training.vae import normalise, polish_decoder, train_vae


def main(arguments: list[str] | None = None) -> None:
    """Train what is not trained yet, save after every stage, and export the model once all is there."""
    options = _options(arguments)
    options.deadline = time.monotonic() + options.limit
    tokenizer = build_tokenizer()
    maker = PoolMaker(options.scenes, tokenizer)
    device = _prepare(time.time_ns() % 2**31)
    net = _untrained(tokenizer, device)
    average = net.average()
    clock = _resumed(options, net, average)
    if device == "cuda" and not (options.folder / "vae-0.safetensors").exists():
        get_context("spawn").Process(target=_rehearse, args=(tokenizer, options.batch), daemon=True).start()
    vae = build_vae().to(device, memory_format=torch.channels_last)
    if not _train_vae(vae, options, maker, device):
        return
    pool = maker.ready()
    scenes = pool.scenes.to(device)
    if not clock.done:
        latents = _timed("latents", lambda: cache_latents(vae, scenes))
        empty = torch.from_numpy(encode(tokenizer, [""])[0]).to(device)
        keep = partial(_save, options.folder, net, average, clock)
        material = Material(latents, pool.tokens.to(device), empty)
        train_denoiser(net, average, material, clock, options.batch, keep)
        keep()
        del latents, material
    if clock.done:
        vae = _polished(vae, scenes, options, device)
    export(options.model, vae, average, tokenizer)


def _prepare(seed: int) -> str:
    """Settings for speed, and the device."""
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    return "cuda" if torch.cuda.is_available() else "cpu"


def _untrained(tokenizer: CLIPTokenizer, device: str) -> Denoiser:
    unet = build_unet().to(device, memory_format=torch.channels_last)
    return Denoiser(unet, build_text_encoder(tokenizer).to(device))


def _rehearse(tokenizer: CLIPTokenizer, batch: int) -> None:
    """Two steps on nothing, in a process beside the first stage: they leave the compiled networks in torch's cache."""
    device = _prepare(0)
    net = _untrained(tokenizer, device)
    empty = torch.from_numpy(encode(tokenizer, [""])[0]).to(device)
    material = Material(torch.zeros(1, *LATENT, dtype=torch.bfloat16, device=device), empty[None, None], empty)
    start = time.monotonic()
    train_denoiser(net, net.average(), material, Clock(1e-9), batch, lambda: None)
    print(f"rehearsal: {time.monotonic() - start:.0f}s", flush=True)


def _train_vae(vae: AutoencoderKL, options: argparse.Namespace, maker: PoolMaker, device: str) -> bool:
    """Restore or train the autoencoder; whether it is finished."""
    clock = Clock(options.vae, checkpoint.restore(options.folder, "vae", {"vae": vae}), options.deadline)
    if clock.done:
        return True
    scenes = maker.first().scenes.to(device)
    train_vae(vae, scenes, clock, options.pictures)
    if clock.done:
        normalise(vae, scenes)
    checkpoint.save(options.folder, "vae", {"vae": vae}, clock.spent)
    return clock.done


def _polished(vae: AutoencoderKL, scenes: Packed, options: argparse.Namespace, device: str) -> AutoencoderKL:
    """The autoencoder with its decoder polished, as far as time allows."""
    polished = build_vae().to(device, memory_format=torch.channels_last)
    polished.load_state_dict(vae.state_dict())
    clock = Clock(options.polish, checkpoint.restore(options.folder, "decoder", {"vae": polished}), options.deadline)
    if not clock.done:
        polish_decoder(polished, scenes, clock, options.pictures)
        checkpoint.save(options.folder, "decoder", {"vae": polished}, clock.spent)
    return polished


def _parts(net: Denoiser, average: Denoiser) -> dict[str, nn.Module]:
    """The networks of the denoiser's checkpoint by their names there."""
    return {
        "unet": net.unet,
        "text": net.text_encoder,
        "mean-unet": average.unet,
        "mean-text": average.text_encoder,
    }


def _resumed(options: argparse.Namespace, net: Denoiser, average: Denoiser) -> Clock:
    """Restore the denoiser, if there is a checkpoint, and its clock."""
    return Clock(options.unet, checkpoint.restore(options.folder, "denoiser", _parts(net, average)), options.deadline)


def _save(folder: Path, net: Denoiser, average: Denoiser, clock: Clock) -> None:
    checkpoint.save(folder, "denoiser", _parts(net, average), clock.spent)


def _timed(what: str, work: Callable[[], Tensor]) -> Tensor:
    start = time.monotonic()
    result = work()
    print(f"{what}: {time.monotonic() - start:.0f}s", flush=True)
    return result


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".train/run"), help="checkpoints")
    parser.add_argument("--model", type=Path, default=Path("models/shapes"), help="where the finished model goes")
    parser.add_argument("--limit", type=float, default=3600, help="seconds this run may take")
    parser.add_argument("--vae", type=float, default=290, help="seconds for the autoencoder")
    parser.add_argument("--unet", type=float, default=540, help="seconds for UNet and text encoder")
    parser.add_argument("--polish", type=float, default=40, help="seconds for the decoder alone")
    parser.add_argument("--scenes", type=int, default=280_000)
    parser.add_argument("--batch", type=int, default=512, help="latents in one step")
    parser.add_argument("--pictures", type=int, default=64, help="pictures in one step")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
