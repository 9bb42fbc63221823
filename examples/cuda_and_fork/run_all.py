"""Starts every program, sends it a request, prints a table of what is seen, and compares it with what was seen before.

python -m examples.cuda_and_fork.run_all              all programs, on the GPU if there is one, else on the stand-in
python -m examples.cuda_and_fork.run_all flask ...    those whose names begin so; cuda_calls is one, too
    --stand-in          the stand-in, whatever there is
    --environments DIR  where make_environments has put them
    --to DIR            keep the results and each program's output there
    --keep              put what is seen among the results that docs/cuda-and-fork.md shows; then `make docs`

Results are written after each program: a run that is cut off has them up to there. --keep drops what another GPU or
other versions have shown. The exit code is 1 when something differs from results/.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from examples.cuda_and_fork.harness import gpu, results, table
from examples.cuda_and_fork.harness.cases import CASES, PROGRAMS, Case
from examples.cuda_and_fork.harness.observe import observe
from examples.cuda_and_fork.harness.results import CUDA, STAND_IN, Call, Results, Seen
from examples.cuda_and_fork.make_environments import ENVIRONMENTS, find_python

CALLS = "cuda_calls"


def run(names: list[str], device: str, environments: Path, folder: Path) -> Iterator[Results]:
    """Run what is named, or all, one after the other. At first and after each: what has been seen so far."""
    where = gpu.name() if device == CUDA else "stand-in for CUDA, no GPU"
    results = Results(where, read_versions(), {})
    yield results
    for case in find_cases(names):
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        seen = try_case(case, choose_python(case, environments), device, folder / case.name)
        results = dataclasses.replace(results, cases={**results.cases, case.name: seen})
        yield results
    if device == CUDA and (CALLS in names or not names):
        yield dataclasses.replace(results, calls=try_calls())


def try_case(case: Case, python: Path, device: str, folder: Path) -> Seen:
    """What the case shows, or why it could not be seen: the others are worth seeing all the same."""
    try:
        return observe(case, python, device, folder)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return Seen("", "not seen", 0, "", "nothing", f"{type(error).__name__}: {error}")


def choose_python(case: Case, environments: Path) -> Path:
    """The interpreter of the case's environment, or the one that runs this. Raises SystemExit where there is none."""
    if not case.environment:
        return Path(sys.executable)
    python = find_python(environments / case.environment)
    if not python.exists():
        raise SystemExit(f"{python} is missing; make it with: python -m examples.cuda_and_fork.make_environments")
    return python


def read_versions() -> dict[str, str]:
    """Of what all programs share."""
    return {"Python": platform.python_version()} | {
        name: importlib.metadata.version(name).partition("+")[0] for name in ("torch", "diffusers")
    }


def try_calls() -> tuple[Call, ...]:
    """What cuda_calls.py prints."""
    ran = subprocess.run(
        [sys.executable, PROGRAMS / "cuda_calls.py"], capture_output=True, text=True, check=True, timeout=300
    )
    return tuple(Call(**json.loads(line)) for line in ran.stdout.splitlines())


def find_cases(names: list[str]) -> list[Case]:
    """The cases whose names begin like one of these, or all. Raises SystemExit for a name like which none begins."""
    known = [case.name for case in CASES]
    if unknown := [name for name in names if not any(one.startswith(name) for one in [*known, CALLS])]:
        raise SystemExit(f"got {', '.join(unknown)}; there are {', '.join([*known, CALLS])}")
    return [case for case in CASES if not names or case.name.startswith(tuple(names))]


def main() -> None:
    """Run, show, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    device = STAND_IN if options.stand_in or not gpu.has_cuda() else CUDA
    folder = options.to or Path(tempfile.mkdtemp(prefix="cuda_and_fork-"))
    kept = results.path_of(device)
    for seen in run(options.names, device, options.environments, folder):
        results.write(seen, folder / f"{device}.json")
        if options.keep and (seen.cases or seen.calls):
            results.write(results.merge(seen, kept), kept)
    show(seen)
    differences = results.find_differences(seen, kept)
    print(f"\nresults and outputs: {folder}", *differences, sep="\n")
    raise SystemExit(bool(differences))


def show(seen: Results) -> None:
    """The tables, on standard output."""
    print(f"{table.tell_versions(seen)}\n\n{table.markdown(table.case_rows(seen))}")
    if seen.calls:
        print(f"\n{table.markdown(table.call_rows(seen))}")


if __name__ == "__main__":
    main()
