"""The scene about starting: processes from their start to their first picture, in turns. Must not import torch.

A file that this process had mapped would stay in the system's cache.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.results import Case
from benchmarks.scenes import Scene
from tests.helpers.python_path import python_path

ROOT = Path(__file__).parent.parent
GPU = Path("/dev/nvidiactl")
START_FILES = Path(sys.prefix) / "start-files.txt"  # see builder/list_start_files.py
COUNTING = Path(__file__).with_name("counting")
PROMPT = "a big blue star on a yellow background"
PLAIN, OURS = "the plain script", "this worker"
PARTS = ("imports", "load", "first picture")
# What a line says that ends a part.
PLAIN_ENDS = (r"^imported$", r"^loaded$", r"\.png$")
OURS_ENDS = (r"\bdevice (cuda|cpu)", r"\bloaded .* in ", r"\.png$")
MAX_SECONDS = 600.0
WARM_UPS = 1  # starts that are not measured: byte code is written once in a life


@dataclass(frozen=True)
class Start:
    """How one process is started, and what it has said at the end of each part.

    Attributes:
        ends: a pattern for each of `PARTS`.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    ends: Sequence[str]


@dataclass
class Seen:
    """What was seen of one way to start.

    Attributes:
        laps: of every round, the seconds of each part.
        disk_bytes: read from the disk, of every round; none where the system does not tell.
    """

    laps: list[list[float]] = field(default_factory=list)
    disk_bytes: list[int] = field(default_factory=list)
    modules: int = 0


def play(
    scene: Scene, model: Path, rounds: int, ours: Sequence[Mapping[str, str]], keep_cache: bool = False
) -> list[Case]:
    """Start the plain script and this worker in turns, the cache of files dropped before each unless it is kept."""
    starts = [_plain_start(scene, model), *(_our_start(scene, model, settings) for settings in ours)]
    seen = {start.name: Seen() for start in starts}
    with _listed_files():
        for start in starts * WARM_UPS:
            _run(start, Seen())
        for _ in range(rounds):
            for start in starts:
                if not keep_cache:
                    drop_caches([model, *map(Path, filter(None, sys.path)), ROOT / "worker"])
                _run(start, seen[start.name])
    return [case for start in starts for case in _report(start.name, seen[start.name])]


@contextmanager
def _listed_files() -> Iterator[None]:
    """Inside the `with`, the files that a start with a GPU reads ahead are listed, as in the image."""
    if START_FILES.exists() or not GPU.exists():
        yield
        return
    command = [sys.executable, "-m", "builder.list_start_files"]
    for _ in range(2):  # the first writes the byte code that is listed
        listed = subprocess.run(command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, text=True, check=True)
    START_FILES.write_text(listed.stdout)
    try:
        yield
    finally:
        START_FILES.unlink()


def _environment() -> dict[str, str]:
    """That of this process; with byte code, which an image has."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _plain_start(scene: Scene, model: Path) -> Start:
    call = {
        "prompt": PROMPT,
        "width": scene.side,
        "height": scene.side,
        "num_inference_steps": scene.steps,
        "guidance_scale": scene.guidance,
        "seed": 1,
    }
    name = str(json.loads((model / "model_index.json").read_text())["_class_name"])
    device = "cpu" if os.environ.get("CUDA_VISIBLE_DEVICES") == "" else "cuda"
    script = str(Path(__file__).with_name("cold_plain.py"))
    return Start(PLAIN, (script, str(model), name, device, json.dumps(call)), {}, PLAIN_ENDS)


def _our_start(scene: Scene, model: Path, settings: Mapping[str, str]) -> Start:
    given = {
        "prompt": PROMPT,
        "width": scene.side,
        "height": scene.side,
        "num_inference_steps": scene.steps,
        "guidance_scale": scene.guidance,
        "scheduler": scene.scheduler,
        "seed": 1,
    }
    name = ", ".join([OURS, *(f"`{key}={value}`" for key, value in settings.items())])
    command = (str(ROOT / "handler.py"), "--test_input", json.dumps({"input": given}))
    return Start(name, command, {"MODEL_NAME": str(model), **settings}, OURS_ENDS)


def _run(start: Start, seen: Seen) -> None:
    """Start it in an empty folder, note when it says what, and let it end.

    Raises:
        RuntimeError: it has not drawn; with what it has said.
    """
    env = {**_environment(), **start.env, "PYTHONPATH": python_path(COUNTING), "COUNT_MODULES": "1"}
    waiting, laps, said = list(start.ends), [], []
    with tempfile.TemporaryDirectory() as folder:
        last = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, *start.command],
            env=env,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for line in process.stdout or ():
                said.append(line)
                if waiting and re.search(waiting[0], line):
                    now = time.perf_counter()
                    laps.append(now - last)
                    last = now
                    if not waiting[1:]:
                        seen.disk_bytes += _disk_bytes(process.pid)
                    waiting = waiting[1:]
                elif line.startswith("modules "):
                    seen.modules = int(line.split()[1])
            process.wait(MAX_SECONDS)
    if waiting or process.returncode:
        raise RuntimeError(f"{start.name} did not draw:\n{''.join(said)[-4000:]}")
    seen.laps.append(laps)
    print(
        f"{start.name}: {', '.join(f'{part} {lap:.2f} s' for part, lap in zip(PARTS, laps, strict=True))}", flush=True
    )


def _disk_bytes(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/io").read_text()
    except OSError:
        return []
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("read_bytes")]


def drop_caches(places: Sequence[Path]) -> None:
    """Have the system forget what it has kept of the files in these folders, as far as it lets a user ask for that."""
    if not hasattr(os, "posix_fadvise"):
        return
    os.sync()  # what is not written yet cannot be forgotten
    for path in dict.fromkeys(path for place in places for path in _list_files(place)):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _list_files(place: Path) -> Iterator[str]:
    for folder, _, names in os.walk(place):
        yield from (os.path.join(folder, name) for name in names)


def _report(name: str, seen: Seen) -> Iterator[Case]:
    read = [f"{statistics.median(seen.disk_bytes) / 1e6:,.0f} MB read from the disk"] if seen.disk_bytes else []
    notes = ", ".join([f"{seen.modules:,} modules", *read])
    against = (PLAIN,) if name != PLAIN else ()
    yield Case(name, tuple(sum(laps) for laps in seen.laps), against, notes=notes)
    for number, part in enumerate(PARTS):
        yield Case(f"{name}: {part}", tuple(laps[number] for laps in seen.laps), part_of=name)
