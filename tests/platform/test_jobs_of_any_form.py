"""A job of whatever form, under whatever id, leaves the worker hearing and answering; what can be answered is."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local_endpoint.jobs import Job

INPUT = {"prompt": "a star", "steps": 2, "width": 64, "height": 64, "delivery": "base64"}
IDS = [
    7, 0, -3, "a\nb", "a\r\nX-Evil: 1", "x" * 10_000, "jöb-日本", "😀", "a?b=c#d", "a%2e%0a", "a b\tc", "a\0b",
    "\x1b[2J", "a'\"<b>", "$ID", "$RUNPOD_POD_ID", "a,b;c=d&e+f", "\ufeff\u202eabc", "a\\b", "local_test", "None",
    "null", "*", "c80ffee4-f315-4e25-a146-0f3d98cf024b-u1", "sync-7-e1",
]  # fmt: skip
NO_IDS = [None, True, 1.5, "", ".", "..", [], ["a"], {}, {"a": 1}, "y" * 100_000, "a\ud800", 10**3_000]
FORMS: dict[str, dict[str, Any]] = {
    "no input at all": {"input": None},
    "a list": {"input": [1]},
    "a text": {"input": "a star"},
    "a number": {"input": 3},
    "half a letter in a name": {"input": {**INPUT, "\ud800": 1}},
    "half a letter in a prompt": {"input": {**INPUT, "prompt": "\ud800"}},
    "half a letter in a bucket": {"input": INPUT, "s3Config": {"endpointUrl": "https://\ud800", "\ud800": 1}},
    "a bucket that is none": {"input": INPUT, "s3Config": "\x1b[2J"},
}
BESIDE: list[dict[str, Any]] = [
    {"self": 1},
    {"__class__": "x"},
    {"__dict__": {"a": 1}},
    {"__dict__": 5},
    {"webhook": {"a": ["canary"]}},
    {"webhook": "\ud800\n"},
    {"policy": "x", "ttl": [], "executionTimeout": -1},
    {"batchId": "canary\n\x1b[2J\ud800"},
    {"batchId": {"canary": 1}},
]
NO_JOBS = [b"[]", b"[1, null]", b'"text"', b"null", b"5", b"{}", b'{"input": {}}', b'{"id": "x"}']
NO_JSON = [b'{"id": "x"', b"", b"[" * 100_000, b'{"id": "\xff"}']


@pytest.fixture
def scene(
    open_platform: Any, open_worker: Any, tiny_sd1: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A platform that hands out what it is told to, a worker, and the folder that the worker stands in."""
    folder = tmp_path_factory.mktemp("folder")
    root = Path(__file__).parents[2]
    env = {"MODEL_NAME": tiny_sd1, "JOBS_AT_ONCE": "8"}
    with open_platform() as platform, open_worker(platform, root / "handler.py", env=env, cwd=folder) as worker:
        yield SimpleNamespace(platform=platform, worker=worker, folder=folder)


def send(scene: Any, payload: bytes, job_id: str = "") -> Job:
    """Hand this out as a job that the platform itself knows by this id."""
    job = Job(input=None, sync=False, execution_timeout_ms=600_000, ttl_ms=600_000, id=job_id)
    job.payload = payload
    scene.platform._loop.call_soon_threadsafe(scene.platform.queue.submit, job)
    return job


def send_job(scene: Any, job_id: Any, **fields: Any) -> Job:
    return send(scene, json.dumps({"id": job_id, "input": INPUT, **fields}).encode(), str(job_id))


def test_it_hears_and_answers(scene: Any) -> None:
    """All of it one after the other to one worker, because what one job leaves behind is what keeps the next away."""
    for payload in NO_JSON:  # each by itself, for whatever came in one answer with it would be lost with it
        broken = send(scene, payload)
        scene.platform.events.wait("taken", job_id=broken.id)
    answered = [send_job(scene, job_id) for job_id in IDS]
    for job_id in NO_IDS:
        send(scene, json.dumps({"id": job_id, "input": INPUT}).encode())
    refused = [send_job(scene, f"form-{number}", **form) for number, form in enumerate(FORMS.values())]
    for payload in NO_JOBS:
        send(scene, payload)
    answered += [send_job(scene, f"beside-{number}", **beside) for number, beside in enumerate(BESIDE)]
    answered.append(send_job(scene, "the last"))

    for job in [*refused, *answered]:
        scene.platform.events.wait("completed", "failed", job_id=job.id, timeout=120)

    assert [job.id for job in answered if job.error] == []
    assert [str(job.error).partition(":")[0] for job in refused] == ["INVALID_INPUT"] * len(refused)
    assert {image[:22] for job in answered for image in job.output["images"]} == {"data:image/png;base64,"}
    assert list(scene.folder.iterdir()) == []
    written = scene.worker.log()
    assert "left out" in written and "canary" not in written and "\x1b" not in written
    # The SDK's prints may leave their line ends to each other, and with that an empty line.
    assert [line for line in written.splitlines() if line and not line.startswith(("{", "---"))] == []
