"""What previews cost: a job that shows them and the same job without, in turns, in one process; `make bench-previews`.

Two figures, as shares of the job's time: by how much the medians differ, which other processes disturb, and what making
the previews takes, the device's earlier work waited for before the clock starts. The map from latents to colours is
fitted once in a worker's life and told apart. The embedded model draws anywhere; where there is a GPU, the published
architectures in full size do too, with random weights.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import runpod
import torch
from PIL.Image import Image

from benchmarks import full_size
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.engine.load.devices import choose_devices
from worker.engine.load.loader import load
from worker.engine.preview import Previewer
from worker.engine.steps import MakePreview
from worker.plan import make_plan
from worker.runtime.progress import Progress
from worker.settings import Settings

JOB = {"prompt": "a big blue star on a yellow background", "seed": 1}  # in the family's default size and steps


def main() -> None:
    """Print one line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="jobs with and without previews")
    pairs = parser.parse_args().pairs
    # As much as the SDK does before its thread waits for the network.
    runpod.serverless.progress_update = lambda job, update: json.dumps(update)
    makers: dict[str, Callable[[], Engine]] = {"embedded": lambda: load(Settings(), choose_devices(Settings())[0])}
    if torch.cuda.is_available():
        makers |= {"SD 1.x": lambda: whole(full_size.make("sd15")), "SDXL": lambda: whole(full_size.make("sdxl"))}
    for name, make in makers.items():
        measure(name, make(), pairs)


def whole(pipeline: Any) -> Engine:
    """An engine around a pipeline that comes from no file; it goes through one."""
    with tempfile.TemporaryDirectory() as folder:
        pipeline.save_pretrained(folder)
        return load(Settings(model_name=folder), choose_devices(Settings())[0])


def measure(name: str, engine: Engine, pairs: int) -> None:
    """Draw with and without previews in turns, after one job of each to warm up."""
    for preview in (False, True):
        timed(engine, preview)
    fit = fitting_seconds(engine)
    without, beside, making, looks = [], [], [], []
    for _ in range(pairs):
        without.append(timed(engine, False)[0])
        took, watch = timed(engine, True)
        beside.append(took)
        making.append(watch.seconds)
        looks.append(watch.looks)
    job = statistics.median(without)
    print(
        f"{name} on {engine.device}: {job:.3f} s a job, {statistics.median(looks):.0f} previews; "
        f"medians differ by {(statistics.median(beside) - job) / job:+.2%}, "
        f"making previews takes {statistics.median(making) / job:.3%}; fitted once in {fit:.3f} s",
        flush=True,
    )


def fitting_seconds(engine: Engine) -> float:
    """How long the map to colours takes to fit: by so much is a worker's first preview slower than its second."""
    previewer, unet = Previewer(engine.pipeline), engine.pipeline.unet
    side = unet.config.sample_size
    latents = torch.zeros(1, unet.config.in_channels, side, side, device=engine.device)
    first, second = (seconds(lambda: previewer.make_preview(latents, side, side)) for _ in range(2))
    return first - second


class Watch:
    """Adds up the seconds in which previews are made."""

    def __init__(self, progress: Progress) -> None:
        """None made yet."""
        self._progress = progress
        self.seconds, self.looks = 0.0, 0

    def step(self, done: int, total: int, make_preview: MakePreview | None) -> None:
        """As `Progress.step`, and the update's whole way to the SDK counts once a preview is asked for."""
        self._started: float | None = None
        self._progress.step(done, total, (lambda: self._look(make_preview)) if make_preview else None)
        if self._started is not None:
            self.seconds += time.perf_counter() - self._started

    def _look(self, make_preview: MakePreview) -> Image | None:
        wait()
        self._started = time.perf_counter()
        self.looks += 1
        return make_preview()


def timed(engine: Engine, preview: bool) -> tuple[float, Watch]:
    """Seconds from the request to the picture."""
    request = parse({"input": {**JOB, "preview": preview}}, engine.capabilities)[0]
    watch = Watch(Progress({"id": "job"}, silent=False))
    return seconds(lambda: list(generate(engine, make_plan(request), watch.step))), watch


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes, on the device too."""
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def wait() -> None:
    """Until the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
