"""A long life in one sitting: `make soak` sends 2,000 mixed jobs, one in five hostile, through the real worker.

The worker takes four at once, and some are cancelled. Every other job must have exactly one result and no progress
after it; memory, threads and open files must stay flat; and no secret may appear where it does not belong. The same in
short, one at a time, is a test (tests/platform/test_a_long_life.py).
"""

import argparse
import base64
import io
import itertools
import json
import random
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from PIL import Image

from local_endpoint import EndpointConfig, LocalEndpoint, LocalWorker
from local_endpoint.events import FINAL_KINDS, Event

ROOT = Path(__file__).parent.parent

TOKEN, BUCKET_KEY, PROMPT, SIGNATURE = "hf_canary0token", "canary0bucket0key", "canary0prompt", "canary0signature"
CANCELLED = "cancelled"
CROSSING_S = 1.0  # within which what was on its way when the worker was told of a cancel may still come
WARM_UP = 0.2  # share of the jobs after which memory is watched
SAMPLE_EVERY = 5  # jobs
COLOURS = ("red", "green", "blue", "yellow", "white", "black")
SHAPES = ("circle", "star", "heart", "square")


@dataclass
class Report:
    """What was seen."""

    sent: Counter[str] = field(default_factory=Counter)  # kind of job -> how many
    wrong: list[str] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def peak_mb(self) -> float:
        """The most memory that the worker held at any sample."""
        return max(self.memory_mb)

    @property
    def slope_mb(self) -> float:
        """Growth over the watched part, in MB for each thousand jobs."""
        watched = self.memory_mb[int(len(self.memory_mb) * WARM_UP) :]
        jobs = [i * SAMPLE_EVERY / 1000 for i in range(len(watched))]
        return statistics.linear_regression(jobs, watched).slope if len(watched) > 1 else 0.0

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.sent.items()))
        return (
            f"{sum(self.sent.values())} jobs in {self.seconds:.0f} s ({kinds})\n"
            f"memory: peak {self.peak_mb:.0f} MB, slope {self.slope_mb:+.1f} MB per 1,000 jobs\n"
            f"threads {min(self.threads)} to {max(self.threads)}, open files {min(self.files)} to {max(self.files)}\n"
            f"{len(self.wrong)} problems\n" + "\n".join(self.wrong[:20])
        )


def jobs(chance: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kinds of job and jobs, without end: whole bodies of /run."""
    while True:
        kind = chance.choice(list(HOSTILE) if chance.random() < 0.2 else list(GOOD))
        plain = {
            "prompt": _prompt(chance),
            "steps": 2,
            "seed": chance.randrange(2**32),
            "width": 128,
            "height": 128,
        }
        if kind in GOOD:
            yield kind, {"input": {**plain, **GOOD[kind](chance)}}
        else:
            yield kind, HOSTILE[kind](plain)


def _prompt(chance: random.Random) -> str:
    return f"a {chance.choice(COLOURS)} {chance.choice(SHAPES)} on a {chance.choice(COLOURS)} background, {PROMPT}"


def _uri(chance: random.Random, mode: str = "RGB") -> str:
    buffer = io.BytesIO()
    Image.effect_noise((chance.choice((64, 96, 200)), 96), 80).convert(mode).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


GOOD: dict[str, Any] = {
    "plain": lambda chance: {"width": chance.choice((64, 128, 200)), "output_format": chance.choice(("png", "webp"))},
    "several": lambda chance: {"num_images": 3, "scheduler": chance.choice(("Euler", "DPM++ 2M Karras", "PNDM"))},
    "image": lambda chance: {"image": _uri(chance), "strength": 0.6, "width": None, "height": None},
    "mask": lambda chance: {"image": _uri(chance), "mask": _uri(chance, "L"), "width": None, "height": None},
    "weights": lambda chance: {
        "prompt": f"a (red:{chance.uniform(0.5, 1.5):.1f}) star, {PROMPT}, " * chance.choice((1, 9))
    },
    "hires": lambda _: {"hires": {"scale": 1.5}},
    "lora": lambda chance: {"lora": "neon", "lora_scale": chance.uniform(0.2, 1.0)},
    CANCELLED: lambda _: {"steps": 12, "num_images": 4},
    "watched": lambda _: {"preview": True, "clip_skip": 1},
}
HOSTILE: dict[str, Any] = {
    "unknown field": lambda plain: {"input": {**plain, "promt": PROMPT, "secret": "x" * 10_000}},
    "wrong types": lambda plain: {"input": {**plain, "width": [[[]]], "seed": {"a": PROMPT}, "steps": True}},
    "absurd numbers": lambda plain: {
        "input": {**plain, "width": 10**30, "guidance_scale": -1e300, "num_images": 10**9}
    },
    "deep": lambda plain: {"input": {**plain, "prompt": json.loads("[" * 450 + "]" * 450)}},
    "inner address": lambda plain: {
        "input": {**plain, "image": f"http://169.254.169.254/?X-Amz-Signature={SIGNATURE}"}
    },
    "file": lambda plain: {"input": {**plain, "image": "file:///etc/passwd"}},
    "bomb": lambda plain: {"input": {**plain, "image": BOMB}},
    "traversal": lambda plain: {"input": {**plain, "lora": "../../../../etc/passwd"}},
    "no picture": lambda plain: {"input": {**plain, "replay": base64.b64encode(PROMPT.encode() * 50).decode()}},
    "dead bucket": lambda plain: {
        "input": {**plain, "delivery": "s3"},
        "s3Config": {
            "accessId": "id",
            "accessSecret": BUCKET_KEY,
            "bucketName": "bucket",
            "endpointUrl": "http://127.0.0.1:9",
        },
    },
}


def _bomb() -> str:
    buffer = io.BytesIO()
    Image.new("1", (16_000, 16_000)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


BOMB: str = _bomb()


def soak(count: int, env: dict[str, str], seed: int = 0, callers: int = 1) -> Report:
    """Send so many jobs to one real worker and watch it.

    Args:
        env: of the worker, beside the canaries.
        callers: that wait for their jobs at once.
    """
    report = Report()
    started = time.monotonic()
    log = Path(tempfile.mkdtemp()) / "worker.log"
    environment = {"HF_TOKEN": TOKEN, **env}
    with (
        LocalEndpoint(EndpointConfig(hold_s=5.0)) as endpoint,
        LocalWorker(endpoint, ROOT / "handler.py", cwd=ROOT, env=environment, log_path=log) as worker,
        httpx.Client(base_url=endpoint.url, headers={"Authorization": "Bearer local"}, timeout=60) as http,
        ThreadPoolExecutor(callers) as threads,
    ):
        worker.wait_ready(300)
        caller = Caller(endpoint, http, random.Random(seed))
        process = psutil.Process(worker.pid)
        sent = zip(range(count), jobs(random.Random(seed)), strict=False)
        running = {threads.submit(caller.send, *job) for _, job in itertools.islice(sent, callers)}
        finished = 0
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            running |= {threads.submit(caller.send, *job) for _, job in itertools.islice(sent, len(done))}
            for kind, problems in (one.result() for one in done):
                report.sent[kind] += 1
                report.wrong += problems
                if finished % SAMPLE_EVERY == 0:
                    report.memory_mb.append(process.memory_info().rss / 1e6)
                    report.threads.append(process.num_threads())
                    report.files.append(process.num_fds())
                finished += 1
        time.sleep(2)  # for what would come after the last result
        late = endpoint.events.of("late_progress", "late_result", "refused", "worker_gone", "requeued")
        report.wrong += [f"{event.kind}: {event.data}" for event in late if not caller.crossed(event)]
    report.wrong += [f"the log holds {canary}" for canary in _canaries(log.read_text(errors="replace"))]
    report.seconds = time.monotonic() - started
    return report


class Caller:
    """Sends jobs, cancels some, and looks at what comes back."""

    def __init__(self, endpoint: LocalEndpoint, http: httpx.Client, chance: random.Random) -> None:
        """Nothing is sent yet."""
        self._endpoint, self._http, self._chance = endpoint, http, chance
        self._cancelled: set[str] = set()

    def send(self, kind: str, body: dict[str, Any]) -> tuple[str, list[str]]:
        """Send one job and wait for its end; its kind, and what is wrong with it."""
        job_id = self._http.post("/run", json=body).raise_for_status().json()["id"]
        if kind == CANCELLED:
            time.sleep(self._chance.uniform(0.0, 1.5))
            self._cancelled.add(job_id)
            self._http.post(f"/cancel/{job_id}").raise_for_status()
        self._endpoint.events.wait(*FINAL_KINDS, job_id=job_id, timeout=300)
        answer = self._http.get(f"/status/{job_id}").json()
        story = self._endpoint.events.story(job_id)
        return kind, [f"{kind}: {problem}" for problem in _problems(kind, answer, story)]

    def crossed(self, event: Event) -> bool:
        """Whether it was on its way when the worker was told that its job is cancelled."""
        told = self._endpoint.events.of("stop_sent", job_id=event.job_id)
        return event.job_id in self._cancelled and (not told or event.at < told[0].at + CROSSING_S)


def _problems(kind: str, answer: dict[str, Any], story: Sequence[str]) -> Iterator[str]:
    wanted = {"COMPLETED", "CANCELLED"} if kind == CANCELLED else {"COMPLETED"} if kind in GOOD else {"FAILED"}
    if answer["status"] not in wanted:
        yield f"{answer['status']} {str(answer.get('error'))[:200]}"
    if story.count("result") != (answer["status"] != "CANCELLED"):
        yield f"{story.count('result')} results"
    if "progress" in story[story.index("result") :] if "result" in story else False:
        yield "progress after the result"
    told = json.dumps({**answer, "output": {**(answer.get("output") or {}), "images": [], "image_url": ""}})
    for secret in (TOKEN, BUCKET_KEY, SIGNATURE):
        if secret in told:
            yield f"the answer holds {secret}"


def _canaries(log: str) -> list[str]:
    found = [canary for canary in (TOKEN, BUCKET_KEY, PROMPT, SIGNATURE) if canary in log]
    return found + (["a flood of base64"] if re.search(r"[A-Za-z0-9+/]{200}", log) else [])


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of jobs; 1 or more")
    return int(text)


def main() -> None:
    """Run and report; exit 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=_count, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = soak(options.jobs, {"JOBS_AT_ONCE": "4"}, options.seed, callers=6)
    print(report)
    raise SystemExit(bool(report.wrong))


if __name__ == "__main__":
    main()
