"""Whatever a worker or a caller sends, the local endpoint answers by its rules, and goes on."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.fuzzing import examples

TEXT = st.text(st.characters(), max_size=8) | st.sampled_from(["\ud800", "a\udfff", "\x00", "IN_PROGRESS", "</script>"])
NAMES = st.sampled_from(
    ["output", "error", "status", "stopPod", "kind", "job_id", "worker_id", "self", "size", "bytes"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))
BODIES = st.dictionaries(NAMES | TEXT, VALUES, max_size=5)
HEADERS = {"Content-Type": "application/json"}


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def is_json(raw: bytes) -> bool:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    json.loads(raw, parse_constant=refuse)
    return True


@pytest.fixture(scope="module")
def desk(open_platform: Any) -> Iterator[Any]:
    with open_platform(hold_s=0.05, stream_hold_s=0.01) as platform:
        yield platform


class Worker:
    """A worker that has taken a job, and may say anything of it."""

    def __init__(self, desk: Any) -> None:
        self.desk, self.key = desk, {"key": desk.config.worker_key}
        self.job_id = desk.submit({})
        assert desk.http.get("/job-take/any", params=self.key).json()["id"] == self.job_id

    def post(self, kind: str, raw: bytes, job_id: str | None = None) -> int:
        path = f"/{kind}/any/{job_id or self.job_id}"
        return int(self.desk.http.post(path, params=self.key, content=raw).status_code)

    def look(self) -> None:
        """What callers are shown is JSON, and the job can be ended."""
        for path in (f"/status/{self.job_id}", f"/stream/{self.job_id}", "/health"):
            answer = self.desk.http.get(path)
            assert answer.status_code == 200 and is_json(answer.content)
        assert self.desk.http.post(f"/cancel/{self.job_id}").status_code == 200


@examples(60)
@given(body=BODIES, kind=st.sampled_from(["job-done", "job-stream"]), progress=st.booleans())
@example(body={"output": "\ud800"}, kind="job-done", progress=False)
@example(body={"output": {"\udfff": [float("nan")]}}, kind="job-done", progress=True)
@example(body={"error": {"code": 1}}, kind="job-done", progress=False)
@example(body={"error": ["\ud800"], "kind": 1, "job_id": 2, "stopPod": [3]}, kind="job-done", progress=False)
@example(body={"output": 10**4000}, kind="job-stream", progress=False)
def test_any_object_of_a_worker_is_taken_or_refused(body: dict[str, Any], kind: str, progress: bool, desk: Any) -> None:
    worker = Worker(desk)
    raw = json.dumps(body | ({"status": "IN_PROGRESS"} if progress else {})).encode()

    assert worker.post(kind, raw) == (200 if _is_standard(body) else 400)
    assert worker.post(kind, raw, "nobody") == (200 if _is_standard(body) else 400)
    worker.look()


@examples(40)
@given(raw=st.binary(max_size=40) | st.sampled_from([b'{"output":1e999}', b'{"output":-1e999}', b'{"output":"\xff"}']))
@example(raw=b'{"output":' + nested(100_000) + b"}")
@example(raw=b'{"output":' + nested(600) + b"}")
@example(raw=b'{"output":' + b"9" * 5000 + b"}")
@example(raw='{"output":1}'.encode("utf-16"))
@example(raw=b"null")
def test_what_is_no_json_object_is_refused(raw: bytes, desk: Any) -> None:
    worker = Worker(desk)

    assert worker.post("job-done", raw) == worker.post("job-stream", raw) == 400
    assert desk.call("GET", f"/status/{worker.job_id}")["status"] == "IN_PROGRESS"
    worker.look()


@pytest.mark.parametrize("levels", [300, 498])
def test_what_is_deeply_nested_is_shown_as_it_came(levels: int, desk: Any) -> None:
    for kind in ("job-done", "job-stream"):
        worker = Worker(desk)
        assert worker.post(kind, b'{"output":' + nested(levels) + b"}") == 200
        shown = desk.http.get(f"/{'status' if kind == 'job-done' else 'stream'}/{worker.job_id}")
        assert nested(levels) in shown.content
        worker.look()


def test_a_lone_surrogate_is_shown_as_it_came(desk: Any) -> None:
    worker = Worker(desk)
    worker.post("job-done", rb'{"output":"a\ud800b"}')

    assert desk.call("GET", f"/status/{worker.job_id}")["output"] == "a\ud800b"


@pytest.mark.parametrize("error", [{"code": 1}, ["no"], 5, True])
def test_an_error_that_is_no_text_is_one_all_the_same(error: Any, desk: Any) -> None:
    worker = Worker(desk)
    worker.post("job-done", json.dumps({"error": error}).encode())

    shown = desk.call("GET", f"/status/{worker.job_id}")
    assert shown["status"] == "FAILED" and json.loads(shown["error"]) == error


@examples(60)
@given(value=VALUES, webhook=st.none() | TEXT, policy=st.none() | VALUES, s3=st.none() | VALUES)
@example(value=float("inf"), webhook=None, policy=None, s3=None)
@example(value={"\ud800": "\udfff"}, webhook=None, policy=None, s3=None)
@example(value=1, webhook="http://\ud800/", policy=None, s3=None)
@example(value=1, webhook=None, policy={"ttl": "\ud800", "executionTimeout": float("nan")}, s3=None)
@example(value=1, webhook=None, policy={"ttl": 10**400, "executionTimeout": 10**4000}, s3=None)
@example(value=1, webhook=None, policy={"lowPriority": [], "ttl": -1}, s3={"accessId": "\ud800"})
def test_any_request_of_a_caller_is_queued_as_it_came_or_refused(
    value: Any, webhook: Any, policy: Any, s3: Any, desk: Any
) -> None:
    fields = {"input": value, "webhook": webhook, "policy": policy, "s3Config": s3}
    raw = json.dumps({name: given for name, given in fields.items() if given is not None or name == "input"})
    answer = desk.http.post("/run", content=raw, headers=HEADERS)

    assert answer.status_code in (200, 400) and is_json(answer.content)
    assert answer.status_code != 200 or _is_standard(fields)
    if answer.status_code == 200:
        taken = desk.http.get("/job-take/any", params={"key": desk.config.worker_key})
        assert is_json(taken.content) and taken.json()["input"] == value
        desk.call("POST", f"/cancel/{answer.json()['id']}")


@examples(60)
@given(job_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30) | st.sampled_from(["..", "a" * 9000]))
def test_any_id_of_a_job_is_answered(job_id: str, desk: Any) -> None:
    for method, path in (("GET", "/status"), ("GET", "/stream"), ("POST", "/cancel"), ("POST", "/retry")):
        url = desk.http.build_request(method, "/health").url.copy_with(
            raw_path=f"/v2/local{path}/{quote(job_id, safe='')}".encode()
        )
        assert desk.http.request(method, url).status_code in (404, 405)


def _is_standard(value: Any) -> bool:
    """Whether there is no NaN and no Infinity in it."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
