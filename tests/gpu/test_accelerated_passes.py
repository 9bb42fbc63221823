"""ACCELERATION on a GPU: graphs draw what passes draw as they are written, to the bit; compiled ones, nearly."""

import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion
from diffusers.utils.torch_utils import randn_tensor
from torch.nn.functional import avg_pool2d

from builder.build_launcher import build
from tests.helpers.drawing import draw, load_engine
from tests.helpers.every_kind import JOBS, drawn, equipped
from tests.helpers.tiny_addons import FAMILIES, Kits
from worker.engine.engine import Engine
from worker.engine.warm_up import warm_up

PROMPTS = ("a red circle", "two blue squares on yellow", "a green triangle above a white star", "")
SIDES = ((256, 256), (192, 256))  # the model's own, which a start compiles, and another one


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
    width, height = SIDES[1]
    draw(engine, width=width, height=height, num_images=4)
    assert engine.graphs is not None
    engine.graphs.wait()
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
    for prompt, seed, guidance, (width, height) in product(PROMPTS, range(2), (1.0, 4.0), SIDES):
        yield {"prompt": prompt, "seed": seed, "guidance_scale": guidance, "width": width, "height": height}


def test_what_is_compiled_is_as_near_to_the_truth_as_what_is_written(compiled: Engine) -> None:
    """Near-lossless: no farther from float32 than float16 is by itself, but for a tenth."""
    written = load_engine(ACCELERATION="off", DTYPE="float16")
    exact = load_engine(ACCELERATION="off", DTYPE="float32")
    ours, theirs, between, alike = [], [], [], []
    for case in cases():
        one, other = (picture(engine, case) for engine in (compiled, written))
        assert compiled.mode == "compile", case
        with noise_in_half_precision():
            truth = picture(exact, case)
        ours.append(float(np.square(one - truth).mean()))
        theirs.append(float(np.square(other - truth).mean()))
        between.append(decibels(one, other))
        alike.append(structural_similarity(one, other))
    print(f"\nto float32: compiled {np.mean(ours):.3f}, written {np.mean(theirs):.3f}")
    print(f"between: {min(between):.1f} dB, a structural similarity of {min(alike):.4f}, at least")
    assert len(between) == 32
    assert np.mean(theirs) < 10, "else it is not the same picture"
    assert np.sqrt(np.mean(ours)) <= 1.1 * np.sqrt(np.mean(theirs))
    assert np.percentile(between, 5) >= 30
    assert np.percentile(alike, 5) >= 0.95


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


def picture(engine: Engine, case: dict[str, object]) -> np.ndarray:
    """Of the model's own size, unless another is said."""
    model = engine.capabilities
    (one,) = draw(engine, **{"width": model.width, "height": model.height, **case})
    return np.asarray(one.image, np.float64)


def structural_similarity(one: np.ndarray, other: np.ndarray) -> float:
    """SSIM of Wang et al. (2004), with a window of 7 x 7 pixels of one weight, over all channels.

    Args:
        one, other: (rows, columns, channels), values from 0 to 255.
    """
    stacked = torch.from_numpy(np.stack([one, other, one * one, other * other, one * other]))
    mean, mean_other, square, square_other, product_of_both = avg_pool2d(stacked.movedim(-1, 1), 7, stride=1)
    spread, spread_other = square - mean**2, square_other - mean_other**2
    together = product_of_both - mean * mean_other
    low, high = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean * mean_other + low) * (2 * together + high)
    below = (mean**2 + mean_other**2 + low) * (spread + spread_other + high)
    return float((above / below).mean())


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


COMPILE = """
import sys
from pathlib import Path
from tests.helpers.drawing import draw, load_engine
from worker.engine.denoiser import compiled
from worker.engine.warm_up import warm_up

compiled.LAUNCHER = Path(sys.argv[1])
engine = load_engine(ACCELERATION="compile", COMPILE_CACHE=sys.argv[2], DTYPE="float16")
warm_up(engine)
draw(engine, width=engine.capabilities.width, height=engine.capabilities.height)
print("drawn by", engine.mode)
"""


def test_passes_are_compiled_without_a_c_compiler_where_the_launcher_is_built(tmp_path: Path) -> None:
    """As in the image, which has none; nor is there a cache in which anything might be."""
    launcher = tmp_path / "launcher.so"
    spec = find_spec("triton")
    assert spec is not None and spec.origin is not None
    build(Path(spec.origin).parent / "backends" / "nvidia", launcher)
    ways = {"with": launcher, "without": tmp_path / "none"}
    said = {name: compile_without_a_compiler(path, tmp_path / name) for name, path in ways.items()}
    assert "drawn by compile" in said["with"], said["with"]
    assert "drawn by graphs" in said["without"], "else there is a compiler after all"


def compile_without_a_compiler(launcher: Path, cache: Path) -> str:
    """What a process says that compiles with this launcher, and finds no programs."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX")}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(launcher), str(cache)],
        env={**environment, "PATH": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout
