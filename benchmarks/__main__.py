"""The benchmark: scenes in turn, each in a process of its own, each written down as soon as it is over.

`make bench` plays those for a CPU, `make bench-gpu` those for a GPU; those whose
names begin with `gpus` are for several. Some at a time:

    python -m benchmarks --device cuda --models /tmp/models --out benchmarks/results/gpu.json sd15-1 sdxl-1

A scene replaces what the file holds of it, and the others stay. `--ours ACCELERATION=graphs` plays this worker with
settings; given several times, once with each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import results
from benchmarks.play import Task
from benchmarks.results import SceneResult
from benchmarks.scenes import ON_A_CPU, ON_A_GPU, SCENES

ROOT = Path(__file__).parent.parent
MAX_DRIFT = 2.0  # times a recorded ratio; machines differ, and those that others use, too


def main() -> None:
    """Play what the command line says."""
    options = parse_options()
    names = options.scenes or (ON_A_GPU if options.device == "cuda" else ON_A_CPU)
    with tempfile.TemporaryDirectory() as folder:
        problems = [f"{name}: failed" for name in names if not _play(name, options, Path(folder))]
        # What other programs did meanwhile is no news of this one: what is slow is played once more.
        for name in _list_slow(names, options):
            print(f"\n{name}: slow, hence once more", flush=True)
            _play(name, options, Path(folder))
    for lines in _list_slow(names, options).values():
        problems += lines
    print(*problems, sep="\n", file=sys.stderr)
    raise SystemExit(1 if problems else 0)


def _list_slow(names: Sequence[str], options: argparse.Namespace) -> dict[str, list[str]]:
    """The scenes that have passed what is allowed, with a line for each ratio."""
    if not options.compare:
        return {}
    seen, recorded = results.read(options.out), results.read(options.compare)
    lines = {name: list(list_slower(seen, recorded, [name])) for name in names}
    return {name: found for name, found in lines.items() if found}


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="*", metavar="scene", help=", ".join(scene.name for scene in SCENES))
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--size", choices=("tiny", "full"), help="of models with random weights; full on a GPU")
    parser.add_argument("--rounds", type=int, help="of every scene; its own number if left out")
    parser.add_argument("--models", type=Path, help="folder in which models are kept for the next time")
    parser.add_argument("--out", type=Path, required=True, help="file of results")
    parser.add_argument("--keep-cache", action="store_true", help="of files, when starting is measured")
    parser.add_argument("--compare", type=Path, help="file of results whose ratios may not be passed twice")
    parser.add_argument(
        "--ours", action="append", default=[], metavar="NAME=VALUE[,NAME=VALUE]", help="settings of this worker"
    )
    options = parser.parse_args()
    if unknown := set(options.scenes) - {scene.name for scene in SCENES}:
        parser.error(f"no such scene: {', '.join(sorted(unknown))}")
    return options


def _play(name: str, options: argparse.Namespace, folder: Path) -> bool:
    """Whether the scene could be played; prints what it showed.

    Args:
        folder: where models are made, unless the caller keeps them.
    """
    task = Task(
        scene=name,
        size=options.size or ("full" if options.device == "cuda" else "tiny"),
        models=str(options.models or folder),
        out=str(options.out.resolve()),
        rounds=options.rounds,
        keep_cache=options.keep_cache,
        ours=[dict(pair.split("=", 1) for pair in one.split(",")) for one in options.ours] or [{}],
    )
    # Tiny models are too little work to share: with more threads they mostly wait for each other.
    alone = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if options.device == "cpu" else {}
    started = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.play", json.dumps(asdict(task))]
    done = subprocess.run(command, env={**os.environ, **alone}, cwd=ROOT)
    print(f"\n{name}: {time.monotonic() - started:.0f} s in all", flush=True)
    if done.returncode == 0:
        print(*summarize(results.read(options.out).scenes[name]), sep="\n", flush=True)
    return done.returncode == 0


def summarize(result: SceneResult) -> Iterator[str]:
    """Lines for people who wait."""
    yield f"  {result.subject} ({result.machine.gpu or result.machine.cpu})"
    shares: dict[str, list[str]] = {}
    for (name, other), ratio in result.ratios().items():
        shares.setdefault(name, []).append(f"{ratio:.2f} of {other}")
    for case in result.cases:
        yield f"  {case.median:9.4f} s  {'; '.join([case.name, *shares.get(case.name, [])])}"
    if result.floor:
        yield f"  {result.floor.seconds:9.4f} s  floor, at {result.floor.matmul_tflops:.2f} TFLOP/s"


def list_slower(seen: results.Report, recorded: results.Report, names: Sequence[str]) -> Iterator[str]:
    """A line for each ratio of these scenes that is more than `MAX_DRIFT` times what was recorded, or was not."""
    for name in (name for name in names if name in seen.scenes and name in recorded.scenes):
        before = recorded.scenes[name].ratios()
        for (case, other), ratio in seen.scenes[name].ratios().items():
            if (case, other) not in before:
                yield f"{name}: what {case} takes of {other} was not recorded"
            elif ratio > (limit := MAX_DRIFT * before[case, other]):
                yield f"{name}: {case} took {ratio:.2f} of {other}; at most {limit:.2f} is allowed"


if __name__ == "__main__":
    main()
