"""Whatever a caller sends to the local endpoint, it answers as its OpenAPI says it will, and never with a failure."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.helpers.fuzzing import examples

BODIES = ("/run", "/runsync")
OF_A_JOB = (("GET", "/status"), ("POST", "/cancel"), ("POST", "/retry"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@dataclass
class Fuzzed:
    """An endpoint to be called, what it says of itself, and a job in every state."""

    url: str
    schema: Any
    session: requests.Session
    jobs: list[str]

    def ask(self, method: str, path: str, data: st.DataObject, mode: GenerationMode, **path_parameters: str) -> int:
        """Call this operation with whatever its schema allows, or does not; returns the status, a documented one."""
        operation = self.schema["/v2/{endpoint}" + path][method]
        case = data.draw(operation.as_strategy(mode, path_parameters={"endpoint": "local", **path_parameters}))
        (case.query or {}).pop("ttl", None)  # which would end the jobs that all these tests share
        if isinstance(case.body, dict) and str(case.body.get("webhook")).startswith("http"):
            del case.body["webhook"]  # made-up addresses, which the endpoint would call
        response = case.call(base_url=self.url, session=self.session, timeout=30)
        case.validate_response(response, checks=CHECKS)
        return int(response.status_code)


@pytest.fixture(scope="module")
def fuzzed(open_platform: Any) -> Iterator[Fuzzed]:
    over = threading.Event()
    with open_platform(hold_s=0.5) as platform, requests.Session() as session:
        worker = threading.Thread(target=_answer_at_once, args=(platform.url, platform.config.worker_key, over))
        completed, failed = platform.submit("ok"), platform.submit("fail")
        worker.start()
        timed_out = platform.submit("never", policy={"executionTimeout": 1})
        cancelled, running = platform.submit("never"), platform.submit("never")
        platform.events.wait("taken", job_id=running)
        platform.call("POST", f"/cancel/{cancelled}")
        platform.wait(timed_out)
        session.trust_env = False
        session.headers["Authorization"] = "Bearer local"
        schema = schemathesis.openapi.from_dict(httpx.get(f"{platform.base_url}/openapi.json", trust_env=False).json())
        yield Fuzzed(platform.base_url, schema, session, [completed, failed, timed_out, cancelled, running])
        over.set()
        worker.join()


def _answer_at_once(url: str, key: str, over: threading.Event) -> None:
    """A worker that does not wait a second between two jobs, as the SDK does."""
    with httpx.Client(headers={"Authorization": key}, trust_env=False) as http:
        while not over.is_set():
            taken = http.get(f"{url}/job-take/quick?gpu=TEST")
            if taken.status_code == 200 and (job := taken.json())["input"] != "never":
                result = {"error": "failed"} if job["input"] == "fail" else {"output": job["input"]}
                http.post(f"{url}/job-done/quick/{job['id']}?gpu=TEST", content=json.dumps(result))


@pytest.mark.parametrize("path", BODIES)
@examples(25)
@given(data=st.data())
def test_any_valid_job_is_queued(path: str, data: st.DataObject, fuzzed: Fuzzed) -> None:
    assert fuzzed.ask("POST", path, data, GenerationMode.POSITIVE) == 200


@pytest.mark.parametrize("path", BODIES)
@examples(25)
@given(data=st.data())
def test_anything_else_is_answered_as_well(path: str, data: st.DataObject, fuzzed: Fuzzed) -> None:
    assert fuzzed.ask("POST", path, data, GenerationMode.NEGATIVE) in (200, 400, 401)


@pytest.mark.parametrize(("method", "path"), OF_A_JOB, ids=[path for _, path in OF_A_JOB])
@examples(25)
@given(data=st.data())
def test_any_jobs_id_is_answered(method: str, path: str, data: st.DataObject, fuzzed: Fuzzed) -> None:
    known = data.draw(st.booleans())
    job_id = data.draw(st.sampled_from(fuzzed.jobs) if known else st.text(st.characters(codec="utf-8"), min_size=1))

    status = fuzzed.ask(method, path + "/{job_id}", data, GenerationMode.POSITIVE, job_id=job_id)

    assert status in ((200, 400) if known else (404, 405))


@examples(10)
@given(data=st.data())
def test_health_is_always_told(data: st.DataObject, fuzzed: Fuzzed) -> None:
    assert fuzzed.ask("GET", "/health", data, GenerationMode.POSITIVE) == 200
