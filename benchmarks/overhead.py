"""The scene about what a job costs beside drawing: the real worker, with clocks on its parts, and no drawing."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

import worker.engine.generate as generate
import worker.runtime.job as job
import worker.runtime.loaded_model as loaded_model
import worker.runtime.replicas as replicas
from benchmarks.contestants import environment
from benchmarks.results import Case
from benchmarks.scenes import Scene
from worker.api.contract import OWN
from worker.engine.drawing import Item
from worker.request import GeneratedImage
from worker.runtime.worker import Worker

SIDES = (512, 1024)
WARM_UPS = 3
# What the worker calls for each part, in the order of a job.
PARTS = {
    "parse": "parsing and checking the request",
    "make_plan": "planning",
    "draw_jobs": "the engine, around the drawing",
    "format_metadata": "the parameters for the file",
    "encode": "encoding PNG",
    "deliver": "base64, and counting the answer's bytes",
    "write_answer": "the answer",
}
OF_CONTRACT = ("parse", "write_answer")
REST = "the rest: threads, the log's line, figures"


def play(scene: Scene, rounds: int) -> list[Case]:
    """Ask for pictures of two sizes in turns."""
    with environment({"MODEL_NAME": "", "MAX_PIXELS": str(max(SIDES) ** 2)}):
        worker = Worker()
    if worker.failure:
        raise worker.failure
    spent: dict[int, list[dict[str, float]]] = {side: [] for side in SIDES}
    for number in range(rounds + WARM_UPS):
        for side in SIDES:
            spent[side].append(_clock_job(worker, scene, side, number))
    return [case for side in SIDES for case in _report(side, spent[side][WARM_UPS:])]


def _clock_job(worker: Worker, scene: Scene, side: int, number: int) -> dict[str, float]:
    """Seconds of each part, by its name, and of the whole by the empty one."""
    given = {"prompt": "a big blue star", "width": side, "height": side, "seed": number, "output_format": "png"}
    picture = make_picture(side, number)

    def draw_batch(_: Any, items: Sequence[Item]) -> list[GeneratedImage]:
        return [GeneratedImage(item.picture, picture, nsfw=False) for item in items]

    with patch.object(generate, "draw_batch", draw_batch), _clocks() as spent:
        started = time.perf_counter()
        answer: Any = worker.handle({"id": "benchmark", "input": given})
        whole = time.perf_counter() - started
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return {**spent, REST: whole - sum(spent.values()), "": whole}


@contextmanager
def _clocks() -> Iterator[dict[str, float]]:
    """Inside the `with`, what each part has taken."""
    spent: dict[str, float] = {}

    def clocked(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return work(*given, **named)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - started

        return call

    of_contract: Any = {name: clocked(PARTS[name], getattr(OWN, name)) for name in OF_CONTRACT}
    contract = replace(OWN, **of_contract)
    with ExitStack() as stack:
        stack.enter_context(patch.object(job, "choose_contract", lambda _: contract))
        for name, title in PARTS.items():
            if name not in OF_CONTRACT:
                place = replicas if name == "draw_jobs" else loaded_model
                stack.enter_context(patch.object(place, name, clocked(title, getattr(place, name))))
        yield spent


def make_picture(side: int, seed: int) -> Image.Image:
    """Soft colours with a little noise, which a file's format finds about as hard as a photograph."""
    chance = np.random.default_rng(seed)
    patches = Image.fromarray(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    soft = np.asarray(patches.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64)
    noisy = soft + chance.normal(0, 3, soft.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _report(side: int, spent: Sequence[dict[str, float]]) -> Iterator[Case]:
    whole = f"{side}x{side}"
    yield Case(whole, tuple(one[""] for one in spent))
    for title in (*PARTS.values(), REST):
        yield Case(f"{whole}: {title}", tuple(one[title] for one in spent), part_of=whole)
