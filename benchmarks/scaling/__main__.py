"""Runs the simulation and keeps what it found: `python -m benchmarks.scaling`. Minutes on two cores."""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.results import FOLDER, read
from benchmarks.scaling.findings import FILE, Findings, write_findings
from benchmarks.scaling.measured import ONE, read_inputs
from benchmarks.scaling.play import play
from benchmarks.scaling.scenarios import AT_ONCE, find_pace, list_runs, list_variations


def main() -> None:
    """Every run, on all cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FILE, help="file of findings")
    options = parser.parse_args()
    report = read(FOLDER / "gpu.json")
    inputs, gpu = read_inputs(report), report.scenes[ONE].machine.gpu or ""
    runs = [("", run) for run in list_runs(inputs)] + list(list_variations(inputs))
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        found = tuple(pool.map(play, *zip(*runs, strict=True)))
    paces = {at_once: find_pace(inputs.service, at_once) for at_once in AT_ONCE}
    findings = Findings(datetime.now(UTC).date().isoformat(), gpu, inputs.figures, paces, found)
    write_findings(findings, options.out)


if __name__ == "__main__":
    main()
