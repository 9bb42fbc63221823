"""What JOBS_AT_ONCE gains: 12 waiting jobs of 0.2 s through the real SDK, and how long one alone takes.

The worker is the real one, but for its engine, which sleeps instead of drawing; so this measures what stands around it.
"""

import argparse
import time
from pathlib import Path

import httpx

from local_endpoint import EndpointConfig, LocalEndpoint, LocalWorker
from local_endpoint.events import FINAL_KINDS

ROOT = Path(__file__).parent.parent
PACED = ROOT / "tests" / "platform" / "paced_worker.py"
JOB = {"input": {"prompt": "draw 0.2", "width": 64, "height": 64}}


def measure(at_once: int, count: int) -> tuple[float, float]:
    """Seconds from the first take to the last result of `count` jobs that wait for the worker, and of one alone."""
    env = {"JOBS_AT_ONCE": str(at_once), "PYTHONPATH": str(ROOT)}
    with (
        LocalEndpoint(EndpointConfig()) as endpoint,
        httpx.Client(base_url=endpoint.url, headers={"Authorization": "Bearer local"}, timeout=60) as http,
    ):
        waiting = [_submit(http) for _ in range(count)]
        with LocalWorker(endpoint, PACED, cwd=ROOT, env=env, log_path=Path("/dev/null")):
            started = endpoint.events.wait("taken", timeout=300).at
            together = max(_wait(endpoint, job_id) for job_id in waiting) - started
            time.sleep(1.5)  # until the worker waits for a job
            started = time.monotonic()
            return together, _wait(endpoint, _submit(http)) - started


def _submit(http: httpx.Client) -> str:
    return str(http.post("/run", json=JOB).raise_for_status().json()["id"])


def _wait(endpoint: LocalEndpoint, job_id: str) -> float:
    """When it ended."""
    return endpoint.events.wait(*FINAL_KINDS, job_id=job_id, timeout=60).at


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=12)
    options = parser.parse_args()
    print("| `JOBS_AT_ONCE` | 12 waiting jobs of 0.2 s | one alone |\n|---|---|---|")
    for at_once in (1, 2, 4, 8):
        together, alone = measure(at_once, options.jobs)
        print(f"| {at_once} | {together:.1f} s | {alone:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
