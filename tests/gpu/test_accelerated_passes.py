"""ACCELERATION on a GPU: graphs draw what passes draw as they are written, to the bit; compiled ones, nearly."""

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion
from diffusers.utils.torch_utils import randn_tensor

from tests.helpers.drawing import draw, load_engine
from tests.helpers.every_kind import JOBS, Pictures, drawn, equipped
from tests.helpers.tiny_addons import FAMILIES, Kits
from worker.engine.engine import Engine
from worker.engine.warm_up import warm_up

PROMPTS = ("a red circle", "two blue squares on yellow", "a green triangle above a white star", "")


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    """The peak signal-to-noise ratio; infinite for equal ones."""
    error = float(np.square(one - other).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_are_exact(family: str, dtype: str, kits: Kits) -> None:
    """In any order, with adapters that come and go, and while other threads use the device."""
    plain = equipped(kits, family, DTYPE=dtype, ACCELERATION="off")
    graphed = equipped(kits, family, DTYPE=dtype, ACCELERATION="graphs")
    expected = [drawn(plain, **job) for job in JOBS]
    with others_at_work():
        for _ in range(3):
            for job, pictures in zip(JOBS, expected, strict=True):
                for one, other in zip(drawn(graphed, **job), pictures, strict=True):
                    assert np.array_equal(one, other), job
    assert graphed.mode == "graphs"


@contextmanager
def others_at_work() -> Iterator[None]:
    """Inside the `with` other threads compute on the device, as those that encode do."""
    done = threading.Event()
    numbers = torch.rand(256, 256, device="cuda")

    def work() -> None:
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            while not done.is_set():
                (numbers @ numbers).sum().item()

    with ThreadPoolExecutor(2) as threads:
        working = [threads.submit(work) for _ in range(2)]
        try:
            yield
        finally:
            done.set()
    for one in working:
        one.result()


@pytest.mark.parametrize(("dtype", "least"), [("float16", 50.0), ("bfloat16", 35.0)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_in_a_batch_is_very_nearly_itself_alone(family: str, dtype: str, least: float, kits: Kits) -> None:
    alone, together = (equipped(kits, family, DTYPE=dtype, MAX_BATCH=most) for most in ("1", "4"))
    near = []
    for job in JOBS:
        several = {**job, "num_images": 4}
        near += [decibels(*pair) for pair in zip(drawn(together, **several), drawn(alone, **several), strict=True)]
    print(f"\n{family} in {dtype}, four at once: least {min(near):.1f} dB, median {sorted(near)[len(near) // 2]:.1f}")
    assert min(near) > least


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The embedded model, compiled, with the processes that there were meanwhile."""
    cache = tmp_path_factory.mktemp("compiled")
    engine = load_engine(ACCELERATION="compile", COMPILE_CACHE=str(cache), DTYPE="float16")
    with children() as seen:
        warm_up(engine)
    assert not [name for name in seen if "python" in name], "a forked child has a copy of this process"
    assert any(Path(cache).rglob("*")), "nothing is kept"
    return engine


@contextmanager
def children() -> Iterator[set[str]]:
    """The names of all child processes that there are inside the `with`."""
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        process = psutil.Process()
        while not done.wait(0.01):
            for child in process.children(recursive=True):
                with suppress(psutil.Error):  # it has ended
                    seen.add(child.name())

    with ThreadPoolExecutor(1) as thread:
        thread.submit(watch)
        try:
            yield seen
        finally:
            done.set()


def cases() -> Iterator[dict[str, object]]:
    """32 of them."""
    for prompt in PROMPTS:
        for seed in range(4):
            for guidance in (1.0, 4.0):
                yield {"prompt": prompt, "seed": seed, "guidance_scale": guidance}


def test_what_is_compiled_is_as_near_to_the_truth_as_what_is_written(compiled: Engine) -> None:
    """Near-lossless: no farther from float32 than float16 is by itself, but for a tenth."""
    written = load_engine(ACCELERATION="off", DTYPE="float16")
    exact = load_engine(ACCELERATION="off", DTYPE="float32")
    ours, theirs, between = [], [], []
    for case in cases():
        one, other = (picture(engine, case) for engine in (compiled, written))
        with noise_in_half_precision():
            truth = picture(exact, case)
        ours.append(float(np.square(one - truth).mean()))
        theirs.append(float(np.square(other - truth).mean()))
        between.append(decibels(one, other))
    print(f"\nto float32: compiled {np.mean(ours):.3f}, written {np.mean(theirs):.3f}; between: {min(between):.1f} dB")
    assert compiled.mode == "compile"
    assert np.mean(theirs) < 10, "else it is not the same picture"
    assert np.sqrt(np.mean(ours)) <= 1.1 * np.sqrt(np.mean(theirs))
    assert np.percentile(between, 5) >= 30


@contextmanager
def noise_in_half_precision() -> Iterator[None]:
    """Inside the `with` a seed is the noise that it is in float16; torch draws other numbers in float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_stable_diffusion, "randn_tensor", draw_noise)
        yield


def draw_noise(shape: tuple[int, ...], dtype: torch.dtype, **named: Any) -> torch.Tensor:
    """As diffusers' `randn_tensor`."""
    noise: torch.Tensor = randn_tensor(shape, dtype=torch.float16, **named).to(dtype)
    return noise


def picture(engine: Engine, case: dict[str, object]) -> Pictures:
    """Of the model's own size."""
    model = engine.capabilities
    (one,) = draw(engine, **{"width": model.width, "height": model.height, **case})
    return np.asarray(one.image, np.float64)


def test_a_damaged_cache_is_done_without(tmp_path: Path, compiled: Engine) -> None:
    first = load_engine(ACCELERATION="compile", COMPILE_CACHE=str(tmp_path), DTYPE="float16")
    warm_up(first)
    expected = picture(first, {"prompt": "a red circle", "seed": 1})
    for file in tmp_path.rglob("*"):
        if file.is_file():
            file.write_bytes(b"no code at all")
    second = load_engine(ACCELERATION="compile", COMPILE_CACHE=str(tmp_path), DTYPE="float16")
    warm_up(second)
    found = picture(second, {"prompt": "a red circle", "seed": 1})
    assert second.mode in ("compile", "graphs")
    assert decibels(found, expected) > 30
