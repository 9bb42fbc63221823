"""Make the model from nothing: `python -m training.train`. Stops when its time is up; run again, it goes on.

The stages stand in `main` in their order. Each is described in the file that does it.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from training import checkpoint
from training.clock import Clock
from training.data import PoolMaker
from training.diffusion import Denoiser, cache_latents, train_denoiser
from training.export import export
from training.models import build_text_encoder, build_unet, build_vae
from training.tokenizer import build_tokenizer, encode
from training.vae import normalise, polish_decoder, train_vae


def main() -> None:
    """Train what is not trained yet, save after every stage, and export the model once all is there."""
    options = _options()
    deadline = time.monotonic() + options.limit
    maker = PoolMaker(options.scenes)
    torch.manual_seed(time.time_ns() % 2**31)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vae = build_vae().to(device, memory_format=torch.channels_last)
    tokenizer = build_tokenizer()
    net = Denoiser(build_unet(), build_text_encoder(tokenizer))
    net.unet.to(device, memory_format=torch.channels_last)
    net.text_encoder.to(device)
    average = net.average()

    if not _train_vae(vae, options, deadline, maker, device):
        return
    both = {"unet": net.unet, "text": net.text_encoder, "mean-unet": average.unet, "mean-text": average.text_encoder}
    clock = Clock(options.unet, checkpoint.restore(options.folder, "denoiser", both), deadline)
    pool = maker.ready()
    scenes = pool.scenes.to(device)
    if not clock.done:
        latents = _timed("latents", lambda: cache_latents(vae, scenes))
        empty = torch.from_numpy(encode(tokenizer, [""])[0]).to(device)
        keep = partial(_save, options.folder, both, clock)
        train_denoiser(net, average, latents, pool.tokens.to(device), empty, clock, options.batch, keep)
        keep()
        del latents
    if clock.done:
        polished = build_vae().to(device, memory_format=torch.channels_last)
        polished.load_state_dict(vae.state_dict())
        clock = Clock(options.polish, checkpoint.restore(options.folder, "decoder", {"vae": polished}), deadline)
        if not clock.done:
            polish_decoder(polished, scenes, clock, options.pictures)
            checkpoint.save(options.folder, "decoder", {"vae": polished}, clock.spent)
        vae = polished
    export(options.model, vae, average, tokenizer)


def _train_vae(vae: AutoencoderKL, options: argparse.Namespace, deadline: float, maker: PoolMaker, device: str) -> bool:
    """Restore or train the autoencoder; whether it is finished."""
    clock = Clock(options.vae, checkpoint.restore(options.folder, "vae", {"vae": vae}), deadline)
    if clock.done:
        return True
    scenes = maker.first().scenes.to(device)
    train_vae(vae, scenes, clock, options.pictures)
    if clock.done:
        normalise(vae, scenes)
    checkpoint.save(options.folder, "vae", {"vae": vae}, clock.spent)
    return clock.done


def _save(folder: Path, nets: dict[str, nn.Module], clock: Clock) -> None:
    checkpoint.save(folder, "denoiser", nets, clock.spent)


def _timed(what: str, work: Callable[[], Tensor]) -> Tensor:
    start = time.monotonic()
    result = work()
    print(f"{what}: {time.monotonic() - start:.0f}s", flush=True)
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".train/run"), help="checkpoints")
    parser.add_argument("--model", type=Path, default=Path("models/shapes"), help="where the finished model goes")
    parser.add_argument("--limit", type=float, default=3600, help="seconds this run may take")
    parser.add_argument("--vae", type=float, default=270, help="seconds for the autoencoder")
    parser.add_argument("--unet", type=float, default=500, help="seconds for UNet and text encoder")
    parser.add_argument("--polish", type=float, default=40, help="seconds for the decoder alone")
    parser.add_argument("--scenes", type=int, default=240_000)
    parser.add_argument("--batch", type=int, default=256, help="latents in one step")
    parser.add_argument("--pictures", type=int, default=64, help="pictures in one step")
    return parser.parse_args()


if __name__ == "__main__":
    main()
