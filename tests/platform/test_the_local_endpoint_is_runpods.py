"""The local endpoint keeps the rules that RunPod publishes for callers; each test quotes its rule and the page of
docs.runpod.io, as read in November 2026, or says that it is not published."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import HTTPException

from local_endpoint import EndpointConfig, limits
from local_endpoint.config import RateLimit
from local_endpoint.jobs import Job
from local_endpoint.limits import RateLimiter

DEFAULTS = EndpointConfig()
WEEK_MS = 7 * 24 * 3600 * 1000
# serverless/endpoints/send-requests, "Rate limits".
PUBLISHED_LIMITS = """
| `/runsync`     | POST   | 2000 requests per 10 seconds | 400 concurrent   |
| `/run`         | POST   | 1000 requests per 10 seconds | 200 concurrent   |
| `/status`      | GET    | 2000 requests per 10 seconds | 400 concurrent   |
| `/stream`      | GET    | 2000 requests per 10 seconds | 400 concurrent   |
| `/cancel`      | POST   | 100 requests per 10 seconds  | 20 concurrent    |
| `/purge-queue` | POST   | 2 requests per 10 seconds    | N/A              |
| `/openai/*`    | POST   | 2000 requests per 10 seconds | 400 concurrent   |
| `/requests`    | GET    | 10 requests per 10 seconds   | 2 concurrent     |
"""


@pytest.fixture(scope="module")
def desk(open_platform: Any) -> Iterator[Any]:
    """An endpoint with the numbers that people get."""
    names = ("min_ttl_ms", "min_execution_timeout_ms", "rate_limits")
    with open_platform(**{name: getattr(DEFAULTS, name) for name in names}) as platform:
        yield platform


def take(platform: Any, worker: str = "w") -> dict[str, Any]:
    """The next job, as a worker takes it."""
    taken: dict[str, Any] = platform.http.get(f"/job-take/{worker}?key={platform.config.worker_key}").json()
    return taken


def finish(platform: Any, job_id: str, **result: Any) -> None:
    key = platform.config.worker_key
    platform.http.post(f"/job-done/w/{job_id}?key={key}", json=result).raise_for_status()


def refusal(answer: httpx.Response) -> dict[str, Any]:
    """What a refusal says; its form is not published, but reported by users as status, title and detail."""
    body: dict[str, Any] = answer.json()
    assert list(body) == ["status", "title", "detail"] and body["status"] == answer.status_code
    return body


@pytest.mark.parametrize("written", ["{key}", "Bearer {key}", "bearer {key}"])
def test_a_key_is_taken_with_and_without_bearer(written: str, desk: Any) -> None:
    """'-H "authorization: $RUNPOD_API_KEY"' (operation-reference), 'authorization: Bearer RUNPOD_API_KEY'
    (send-requests)."""
    headers = {"authorization": written.format(key=desk.config.api_key)}

    assert httpx.get(f"{desk.url}/health", headers=headers, trust_env=False).status_code == 200


@pytest.mark.parametrize("written", ["wrong", "Bearer wrong", "Bearer", "Basic local", "local local", ""])
def test_a_wrong_key_is_unauthorized(written: str, desk: Any) -> None:
    """'401, Unauthorized: Verify your API key is correct' (send-requests, error handling)."""
    answer = httpx.get(f"{desk.url}/health", headers={"authorization": written}, trust_env=False)

    assert answer.status_code == 401 and refusal(answer)["title"] == "Unauthorized"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "not JSON"),
        (b"{}", "body.input"),
        (b"[]", "body"),
        (b'{"input": 1, "webhook": 5}', "body.webhook"),
        (b'{"input": 1, "policy": {"ttl": "soon"}}', "body.policy.ttl"),
    ],
)
@pytest.mark.parametrize("path", ["/run", "/runsync"])
def test_a_body_that_is_not_as_it_must_be_is_a_bad_request(path: str, body: bytes, named: str, desk: Any) -> None:
    """'400, Bad Request: Check your request format and parameters' (send-requests, error handling)."""
    answer = desk.http.post(path, content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400 and named in refusal(answer)["detail"]


@pytest.mark.parametrize("wait", ["999", "300001", "soon"])
def test_a_wait_out_of_bounds_is_a_bad_request(wait: str, desk: Any) -> None:
    """'adjustable via ?wait=x parameter, 1000-300000 ms' (operation-reference, /runsync)."""
    answer = desk.http.post(f"/runsync?wait={wait}", json={"input": 1})

    assert answer.status_code == 400 and "query.wait" in refusal(answer)["detail"]


@pytest.mark.parametrize(("path", "most"), [("/run", 10), ("/runsync", 20)])
def test_a_body_that_is_too_long_is_refused_in_runpods_words(path: str, most: int, desk: Any) -> None:
    """'Maximum payload size: 20 MB' for /runsync, '10 MB' for /run (operation-reference); status and words are not
    published, but reported by users of /run."""
    answer = desk.http.post(path, json={"input": "x" * most * 2**20})

    assert refusal(answer) == {
        "status": 400,
        "title": "Bad Request",
        "detail": f"bad request: body: exceeded max body size of {most}MiB",
    }


@pytest.mark.parametrize(("name", "least"), [("executionTimeout", 5000), ("ttl", 10_000)])
def test_times_of_a_policy_have_bounds(name: str, least: int, desk: Any) -> None:
    """'executionTimeout: Min 5 sec, max 7 days', 'ttl: Min 10 sec, max 7 days' (send-requests, execution policies);
    what becomes of other values is not published."""
    for allowed in (least, WEEK_MS):
        desk.submit({}, policy={name: allowed})
    for given in (0, -1, least - 1, WEEK_MS + 1, 10**400):
        answer = desk.http.post("/run", json={"input": {}, "policy": {name: given}})
        assert answer.status_code == 400 and f"policy.{name}" in refusal(answer)["detail"]


def test_a_job_lives_for_a_day_and_runs_for_ten_minutes_unless_its_policy_says_otherwise(desk: Any) -> None:
    """'executionTimeout: 600000 (10 minutes)', 'ttl: 86400000 (24 hours)' (send-requests, execution policies)."""
    job = desk.queue.jobs[desk.submit({})]
    assert (job.execution_timeout_ms, job.ttl_ms) == (600_000, 86_400_000)


@pytest.mark.parametrize("taken", [False, True], ids=["waiting", "running"])
def test_a_job_is_gone_when_its_time_to_live_is_over(taken: bool, platform: Any) -> None:
    """'If TTL expires while a job is running, the job is immediately removed and status checks return 404';
    'deleted regardless of state' (send-requests, TTL vs. execution timeout)."""
    job_id = platform.submit({}, policy={"ttl": 500})
    if taken:
        assert take(platform)["id"] == job_id
    platform.events.wait("timed_out", job_id=job_id, timeout=10)

    answers = [platform.http.get(f"/status/{job_id}"), platform.http.post(f"/cancel/{job_id}")]
    assert all(refusal(answer)["detail"].startswith("job not found") for answer in answers)
    assert {answer.status_code for answer in answers} == {404}
    if taken:
        stops = platform.http.get(f"/job-stop/w?key={platform.config.worker_key}").json()
        assert stops == {"jobsToStop": [job_id]}


def test_who_waits_for_a_job_whose_time_is_over_hears_that(platform: Any) -> None:
    """'TIMED_OUT: The job either expired before it was picked up by a worker ...' (job-states)."""
    answer = platform.call("POST", "/runsync", json={"input": {}, "policy": {"ttl": 500}})

    assert answer["status"] == "TIMED_OUT"


def test_a_status_request_may_change_the_time_to_live(platform: Any) -> None:
    """'appending ?ttl=x to the request URL. For example, ?ttl=6000 sets the TTL to 6 seconds' (operation-reference,
    /status); 'Timer starts when submitted' (send-requests)."""
    job_id = platform.submit({})
    assert platform.call("GET", f"/status/{job_id}?ttl=60000")["status"] == "IN_QUEUE"
    platform.call("GET", f"/status/{job_id}?ttl=1")
    platform.events.wait("timed_out", job_id=job_id, timeout=10)

    assert platform.http.get(f"/status/{job_id}").status_code == 404


def test_a_job_that_runs_for_too_long_fails(platform: Any) -> None:
    """'When exceeded, the job fails and the worker stops' (endpoint-configurations, execution timeout); the words are
    not published, but reported by users."""
    job_id = platform.submit({}, policy={"executionTimeout": 300})
    take(platform)

    answer = platform.wait(job_id)
    assert (answer["status"], answer["error"]) == ("FAILED", "executionTimeout exceeded")
    assert platform.call("GET", "/health")["jobs"]["failed"] == 1


@pytest.mark.parametrize(("path", "kept_s"), [("run", 1800.0), ("runsync", 60.0)])
def test_a_result_is_kept_for_its_time(path: str, kept_s: float, platform: Any) -> None:
    """'/run (async): 30 minutes', '/runsync (sync): 1 minute' (send-requests, result retention)."""
    job_id = platform.call("POST", f"/{path}?wait=1000", json={"input": {}})["id"]
    take(platform)
    finish(platform, job_id, output="done")
    job = platform.queue.jobs[job_id]

    job.finished -= kept_s - 30
    time.sleep(0.5)
    assert platform.call("GET", f"/status/{job_id}")["output"] == "done"
    job.finished -= 30
    _wait_until(lambda: platform.http.get(f"/status/{job_id}").status_code == 404)


def test_a_job_that_is_no_longer_kept_cannot_be_retried(platform: Any) -> None:
    """'Once expired, jobs cannot be retried' (operation-reference, /retry)."""
    job_id = platform.submit({}, policy={"ttl": 300})
    platform.events.wait("timed_out", job_id=job_id, timeout=10)

    assert platform.http.post(f"/retry/{job_id}").status_code == 404


def test_a_retry_keeps_the_id_and_the_input_and_only_failed_jobs_have_one(platform: Any) -> None:
    """'Maintains the same job ID, requeues with original input parameters, and removes previous output. Only works
    for jobs with FAILED or TIMED_OUT status' (operation-reference, /retry); the refusal is not published."""
    job_id = platform.submit({"prompt": "once more"})
    assert refusal(platform.http.post(f"/retry/{job_id}"))["status"] == 400
    take(platform)
    finish(platform, job_id, error="no", output={"message": "no"})

    assert platform.call("POST", f"/retry/{job_id}") == {"id": job_id, "status": "IN_QUEUE"}
    assert "output" not in platform.call("GET", f"/status/{job_id}")
    assert take(platform) == {"id": job_id, "input": {"prompt": "once more"}}


@pytest.mark.parametrize("taken", [False, True])
def test_runsync_answers_with_the_state_of_a_job_that_takes_longer(taken: bool, platform: Any) -> None:
    """'The ?wait parameter controls how long the request waits for job completion' (operation-reference, /runsync)."""
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(platform.call, "POST", "/runsync?wait=1000", json={"input": {}})
        if taken:
            take(platform)
        answer = asked.result()

    assert answer["status"] == ("IN_PROGRESS" if taken else "IN_QUEUE")
    assert answer["id"].startswith("sync-")
    assert platform.call("GET", f"/status/{answer['id']}")["status"] == answer["status"]


def test_runsync_waits_for_ninety_seconds_by_default(desk: Any) -> None:
    """'Default wait time: 90 seconds' (operation-reference, /runsync)."""
    operation = httpx.get(f"{desk.base_url}/openapi.json", trust_env=False).json()["paths"]["/v2/{endpoint}/runsync"]
    (wait,) = (one for one in operation["post"]["parameters"] if one["name"] == "wait")

    assert wait["schema"]["default"] == 90_000


def test_each_operation_has_its_published_limits() -> None:
    """'Runpod enforces rate limits per endpoint and operation' (send-requests, rate limits)."""
    published = {}
    for line in PUBLISHED_LIMITS.strip().splitlines():
        operation, _, rate, concurrent = (cell.strip(" `") for cell in line.strip("|").split("|"))
        most = None if concurrent == "N/A" else int(concurrent.split()[0])
        published[operation.strip("/").removesuffix("/*")] = RateLimit(int(rate.split()[0]), most)

    assert dict(DEFAULTS.rate_limits) == published


def test_who_calls_too_often_is_told_so_and_other_operations_go_on(desk: Any) -> None:
    """'Requests exceeding the effective limit return 429 (Too Many Requests)' (send-requests, rate limits)."""
    answers = [desk.http.post("/purge-queue") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert refusal(answers[-1])["title"] == "Too Many Requests"
    assert desk.call("GET", "/health")


def test_who_has_no_key_takes_nobodys_turn(start_platform: Any) -> None:
    """'Fixed rate limit per user per endpoint' (send-requests, dynamic rate limiting)."""
    platform = start_platform(rate_limits={"requests": RateLimit(1)})
    for _ in range(3):
        assert httpx.get(f"{platform.url}/requests", trust_env=False).status_code == 401

    assert platform.call("GET", "/requests") == {"requests": []}


def test_ten_seconds_are_any_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """'100 requests per 10 seconds' (send-requests, rate limits), wherever these begin."""
    now = 1000.0
    monkeypatch.setattr(limits.time, "monotonic", lambda: now)
    limiter = RateLimiter({"cancel": RateLimit(2)})

    def passes() -> bool:
        try:
            with limiter.admit("cancel"):
                return True
        except HTTPException as refused:
            assert refused.status_code == 429
            return False

    assert passes()
    now = 1009.0
    assert passes() and not passes()
    now = 1010.0
    assert passes() and not passes()
    now = 1018.9
    assert not passes()
    now = 1019.0
    assert passes()


def test_requests_that_are_answered_at_once_are_counted_too(start_platform: Any) -> None:
    """'400 concurrent' for /runsync (send-requests, rate limits)."""
    platform = start_platform(rate_limits={"runsync": RateLimit(100, 2)})
    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(platform.call, "POST", "/runsync", json={"input": {}}) for _ in range(2)]
        platform.events.wait("queued", count=2)
        assert platform.http.post("/runsync", json={"input": {}}).status_code == 429
        platform.call("POST", "/purge-queue")
        assert [one.result()["status"] for one in waiting] == ["CANCELLED"] * 2

    assert platform.http.post("/runsync?wait=1000", json={"input": {}}).status_code == 200


def test_the_list_of_requests_tells_jobs_and_their_states(platform: Any) -> None:
    """'/requests, GET' stands in the table of rate limits (send-requests); what it answers is not published. Users
    read `id` and `status` of each in `requests`."""
    first, second = platform.submit({}), platform.submit({})
    take(platform)

    assert platform.call("GET", "/requests") == {
        "requests": [{"id": first, "status": "IN_PROGRESS"}, {"id": second, "status": "IN_QUEUE"}]
    }


def test_a_page_that_is_let_in_may_send_what_any_client_sends(start_platform: Any) -> None:
    """CORS is not in the documents. Here the owner says which pages may call, and these may send any header, for some
    official clients add headers of their own."""
    platform = start_platform(allowed_origins=("http://app.example",))
    wished = "authorization,content-type,x-stainless-lang"
    asking = {"Origin": "http://app.example", "Access-Control-Request-Method": "POST"}
    asking |= {"Access-Control-Request-Headers": wished}
    answer = httpx.options(f"{platform.url}/run", headers=asking, trust_env=False)

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-headers"] == wished
    refused = httpx.post(f"{platform.url}/run", headers={"Origin": "http://app.example"}, trust_env=False)
    assert refused.headers["access-control-allow-origin"] == "http://app.example"  # so that the page can read why


@pytest.mark.parametrize("job_id", ["a/b", "/", "a//b/", "..%2f", "ü/é", "a\n/b\r\n"])
def test_an_id_with_a_slash_works_like_any_other(job_id: str, platform: Any) -> None:
    """The SDK writes an id into its URLs with each slash as %2F."""
    unknown = httpx.URL(platform.url + "/status/").raw_path + httpx.QueryParams({"": job_id}).__str__()[1:].encode()
    url = httpx.URL(platform.base_url).copy_with(raw_path=unknown)
    assert refusal(platform.http.get(url))["detail"].startswith("job not found")

    platform.queue.submit(Job({}, sync=False, execution_timeout_ms=60_000, ttl_ms=60_000, id=job_id))
    assert take(platform)["id"] == job_id
    done = url.copy_with(raw_path=unknown.replace(b"/status/", b"/job-done/w/") + b"?key=" + _key(platform))
    platform.http.post(done, json={"output": "done"}).raise_for_status()
    assert platform.http.get(url).json()["output"] == "done"


def _key(platform: Any) -> bytes:
    return str(platform.config.worker_key).encode()


def _wait_until(reached: Any) -> None:
    deadline = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)
