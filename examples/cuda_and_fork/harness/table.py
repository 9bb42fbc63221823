"""Results as the tables of docs/cuda-and-fork.md."""

from collections.abc import Iterator
from pathlib import Path

from examples.cuda_and_fork.harness.cases import CASES, PROGRAMS, WORKER, Case
from examples.cuda_and_fork.harness.results import CUDA, STAND_IN, Results, Seen, read

Row = tuple[str, ...]
ROOT = PROGRAMS.parents[2]
NOT_YET = "Not run yet."
NO_GPU_YET = "not run on a GPU yet"


def case_rows(results: Results, elsewhere: Results | None = None) -> Iterator[Row]:
    """A head, and a row for each case: as a GPU's results show it, or marked, as `elsewhere` does, which has none."""
    with_memory = elsewhere is not None or any(seen.held_mib is not None for seen in results.cases.values())
    head = ("program", "processes", "loads", "CUDA initialised in", "the caller got")
    yield (*head, "GPU memory") if with_memory else head
    for case in CASES:
        if seen := results.cases.get(case.name):
            memory = (f"{seen.held_mib} MiB" if seen.held_mib else "none",) if with_memory else ()
            yield *case_cells(case, seen), *memory
        elif elsewhere and (seen := elsewhere.cases.get(case.name)):
            yield *case_cells(case, seen), NO_GPU_YET


def case_cells(case: Case, seen: Seen) -> Row:
    """What does not depend on the device."""
    program = f"[{case.title.format(seen.version)}](../{find_program(case).relative_to(ROOT)})"
    got = seen.answer + (f": `{shorten(seen.error)}`" if seen.error else "")
    return program, seen.tree, str(seen.loads), seen.cuda_in or "none", got


def find_program(case: Case) -> Path:
    """The case's file."""
    return ROOT / WORKER if case.program == WORKER else PROGRAMS / case.program


def shorten(error: str) -> str:
    """The first sentence: what follows in torch's own text is the advice that this is all about."""
    return error.partition(". ")[0]


def call_rows(results: Results) -> Iterator[Row]:
    """A head, and a row for each call."""
    yield "the parent calls", "`torch.cuda.is_initialized()`", "its forked child, `.to('cuda')`"
    for call in results.calls:
        called = "`import torch` alone" if call.call == "pass" else f"`{call.call}`"
        yield called, str(call.initialised), shorten(call.child)


def tables(folder: Path) -> Iterator[tuple[str, str]]:
    """The document's tables by their names: this folder's results from a GPU, and the stand-in's for what they lack."""
    gpu, stand_in = folder / f"{CUDA}.json", read(folder / f"{STAND_IN}.json")
    results, elsewhere = (read(gpu), stand_in) if gpu.exists() else (stand_in, None)
    yield "runs", f"{tell_versions(results)}:\n\n{markdown(case_rows(results, elsewhere))}"
    yield "calls", markdown(call_rows(results)) if results.calls else NOT_YET


def tell_versions(results: Results) -> str:
    """For example: NVIDIA H100, Python 3.12.3, torch 2.11.0, diffusers 0.42.1."""
    return ", ".join([results.on, *(f"{name} {version}" for name, version in results.versions.items())])


def markdown(rows: Iterator[Row]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
