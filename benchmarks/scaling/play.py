"""One run of the scenarios -> a finding; in a module that processes which are started anew can import."""

from benchmarks.scaling.findings import Finding
from benchmarks.scaling.scenarios import Run


def play(varied: str, run: Run) -> Finding:
    """What comes of the run; a line of it is printed."""
    summary, load, policy = run.play(), run.load, run.policy
    print(f"{load.title}, {load.shape}, {run.name}{varied and f', {varied}'}: {summary}", flush=True)
    return Finding(load.title, load.shape, load.rate, run.name, policy.max_workers, policy.active, summary, varied)
