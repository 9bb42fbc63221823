"""The table of figures: `python -m training.evaluate`. Draws held-out and handwritten prompts, judges, prints.

By default a small sample at the default guidance; with `--full` every prompt and every scheduler.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from training.cases import Case, handwritten, held_out
from training.judge import judge
from training.score import Score, score, shares

STEPS = 20
GUIDANCE = 2.0
# name -> (diffusers class, what differs from the model's own config, guidance scale)
SETTINGS: dict[str, tuple[str, dict[str, bool], float]] = {
    "LMS": ("LMSDiscreteScheduler", {}, GUIDANCE),
    "LMS, guidance 2.5": ("LMSDiscreteScheduler", {}, 2.5),
    "LMS, guidance 3": ("LMSDiscreteScheduler", {}, 3.0),
    "LMS, guidance 7.5": ("LMSDiscreteScheduler", {}, 7.5),
    "Euler": ("EulerDiscreteScheduler", {}, GUIDANCE),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, GUIDANCE),
    "DDIM": ("DDIMScheduler", {}, GUIDANCE),
    "PNDM": ("PNDMScheduler", {}, GUIDANCE),
}


def main() -> None:
    """Print one line of the table for each setting."""
    options = _options()
    device, dtype = ("cuda", torch.float16) if torch.cuda.is_available() else ("cpu", torch.float32)
    pipe = StableDiffusionPipeline.from_pretrained(options.model, dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    config = pipe.scheduler.config
    cases, free = held_out(options.prompts), handwritten()[:: 1 if options.full else 4]
    print(_row("per cent right", list(shares([]))))
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as executor:
        for name in SETTINGS if options.full else list(SETTINGS)[:1]:
            kind, changes, guidance = SETTINGS[name]
            pipe.scheduler = getattr(diffusers, kind).from_config(config, **changes)
            for title, batch in ((name, cases), (f"{name}, by hand", free)):
                pictures = draw(pipe, [case.prompt for case in batch], guidance, options.batch)
                scores = list(executor.map(_judged, batch, pictures, chunksize=8))
                print(_row(title, [_cell(value) for value in shares(scores).values()]), flush=True)
                if options.failures:
                    _list_failures(batch, scores)


def draw(pipe: StableDiffusionPipeline, prompts: list[str], guidance: float, batch: int = 8) -> NDArray[np.uint8]:
    """Pictures (N, 256, 256, 3); the n-th has the seed n."""
    parts = []
    for start in range(0, len(prompts), batch):
        some = prompts[start : start + batch]
        generators = [torch.Generator().manual_seed(start + n) for n in range(len(some))]
        drawn = pipe(some, num_inference_steps=STEPS, guidance_scale=guidance, generator=generators, output_type="np")
        parts.append((drawn.images * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def _judged(case: Case, picture: NDArray[np.uint8]) -> Score:
    return score(case.spec, *judge(picture))


def _list_failures(cases: list[Case], scores: list[Score]) -> None:
    for number, (case, result) in enumerate(zip(cases, scores, strict=True)):
        if result.all == (0, 1):
            wrong = [name for name, (right, asked) in vars(result).items() if right < asked]
            print(f"    seed {number}: {case.prompt!r}: {', '.join(wrong)}")


def _row(title: str, cells: list[str]) -> str:
    return f"| {title:<24} | " + " | ".join(f"{cell:>11}" for cell in cells) + " |"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/shapes"))
    parser.add_argument("--full", action="store_true", help="500 prompts, every setting")
    parser.add_argument("--batch", type=int, default=8, help="pictures at a time")
    parser.add_argument("--failures", action="store_true", help="list what was wrong")
    options = parser.parse_args()
    options.prompts = 500 if options.full else 32
    return options


if __name__ == "__main__":
    main()
