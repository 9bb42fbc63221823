"""What the emulated platform promises its callers: a job's life, its limits, and changing one's mind."""

import json
import time
from pathlib import Path
from typing import Any

from local_endpoint import EndpointConfig, EventLog
from local_endpoint.jobs import Job, State
from local_endpoint.queue import JobQueue

ECHO = Path(__file__).with_name("echo_worker.py")


def test_a_job_is_queued_taken_and_completed(echo: Any) -> None:
    job_id = echo.submit({"output": {"answer": 42, "nothing": None}})

    answer = echo.wait(job_id)

    assert answer["id"] == job_id
    assert answer["status"] == "COMPLETED"
    assert answer["output"] == {"answer": 42, "nothing": None}
    assert answer["delayTime"] >= 0 and answer["executionTime"] >= 0
    assert answer["workerId"] == echo.events.of("taken", job_id=job_id)[0].worker_id
    assert echo.events.story(job_id) == ["queued", "taken", "result", "completed"]


def test_runsync_answers_with_the_result(echo: Any) -> None:
    answer = echo.call("POST", "/runsync", json={"input": {"output": "done"}})

    assert answer["id"].startswith("sync-")
    assert (answer["status"], answer["output"]) == ("COMPLETED", "done")


def test_runsync_answers_with_the_state_when_its_wait_is_over(echo: Any) -> None:
    answer = echo.call("POST", "/runsync?wait=1000", json={"input": {"sleep": 1.5, "output": "late"}})

    assert answer["status"] in ("IN_QUEUE", "IN_PROGRESS")
    assert echo.wait(answer["id"])["output"] == "late"


def test_an_error_fails_the_job_and_says_whether_the_worker_wants_to_stop(echo: Any) -> None:
    job_id = echo.submit({"error": "no such thing"})

    answer = echo.wait(job_id)

    assert (answer["status"], answer["error"]) == ("FAILED", "no such thing")
    assert "output" not in answer
    assert echo.events.of("result", job_id=job_id)[0].data["stopPod"] is True


def test_an_exception_reaches_the_caller_as_the_sdk_words_it(echo: Any) -> None:
    answer = echo.ask({"raise": "oh no"})

    assert answer["status"] == "FAILED"
    assert json.loads(answer["error"])["error_message"] == "oh no"


def test_progress_arrives_in_order_and_is_shown_while_the_job_runs(echo: Any) -> None:
    steps = [{"step": step, "total": 20} for step in range(1, 21)]
    job_id = echo.submit({"progress": steps, "sleep": 0.5, "output": "end"})

    echo.events.wait("progress", job_id=job_id, count=20)
    shown = echo.call("GET", f"/status/{job_id}")
    answer = echo.wait(job_id)

    assert (shown["status"], shown["output"]) == ("IN_PROGRESS", steps[-1])
    assert [event.data["output"] for event in echo.events.of("progress", job_id=job_id)] == steps
    assert echo.events.story(job_id) == ["queued", "taken", *["progress"] * 20, "result", "completed"]
    assert answer["output"] == "end"


def test_progress_after_the_result_is_recorded_and_changes_nothing(echo: Any) -> None:
    job_id = echo.submit({"output": "end", "late_progress": "too late"})

    late = echo.events.wait("late_progress", job_id=job_id)

    assert late.data["output"] == "too late"
    assert echo.call("GET", f"/status/{job_id}")["output"] == "end"


def test_what_stands_beside_the_input_reaches_the_worker(echo: Any) -> None:
    s3 = {"accessId": "id", "accessSecret": "secret", "bucketName": "b", "endpointUrl": "http://s3.test"}

    job = echo.ask({"reveal": True}, s3Config=s3, webhook="http://127.0.0.1:9/none")["output"]

    assert job == {"id": job["id"], "input": {"reveal": True}, "s3Config": s3, "webhook": "http://127.0.0.1:9/none"}


def test_pings_name_the_job_in_progress(echo: Any) -> None:
    job_id = echo.submit({"sleep": 2.5})
    echo.wait(job_id)

    pings = [event.data["jobs"] for event in echo.events.of("ping")]

    assert [job_id] in pings


def test_a_result_over_the_limit_is_refused_and_lost(platform: Any, start_worker: Any) -> None:
    worker = start_worker(ECHO)
    job_id = platform.submit({"bytes": 10_000_000}, policy={"executionTimeout": 2000})

    answer = platform.wait(job_id)

    assert (answer["status"], answer["error"]) == ("FAILED", "executionTimeout exceeded")
    assert platform.events.wait("refused", job_id=job_id).data["bytes"] > 10_000_000
    assert "completed" not in platform.events.story(job_id)
    assert "400" in worker.log()


def test_runsync_takes_results_of_twice_the_size(echo: Any) -> None:
    answer = echo.call("POST", "/runsync", json={"input": {"bytes": 10_000_000}})

    assert len(answer["output"]) == 10_000_000


def test_a_result_that_is_not_json_is_refused(echo: Any) -> None:
    job_id = echo.submit({"nan": True}, policy={"executionTimeout": 1000})

    assert echo.wait(job_id)["error"] == "executionTimeout exceeded"
    assert "NaN" in echo.events.wait("refused", job_id=job_id).data["reason"]


def test_an_old_result_is_forgotten(start_platform: Any) -> None:
    platform = start_platform(keep_result_s=0.2)
    job_id = platform.submit({})
    platform.call("POST", f"/cancel/{job_id}")

    deadline = time.monotonic() + 10
    while platform.http.get(f"/status/{job_id}").status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_cancel_stops_a_running_job_and_the_worker_goes_on(platform: Any, start_worker: Any) -> None:
    start_worker(ECHO, env={"ECHO_HANDLER": "async"})
    job_id = platform.submit({"progress": ["running"], "sleep": 60})
    platform.events.wait("progress", job_id=job_id)  # the SDK ignores a stop for a job it has not begun

    assert platform.call("POST", f"/cancel/{job_id}")["status"] == "CANCELLED"
    platform.events.wait("stop_sent", job_id=job_id)

    assert platform.ask({"output": "next"})["output"] == "next"
    assert not platform.events.of("result", "late_result", job_id=job_id)


def test_a_cancelled_job_that_cannot_be_interrupted_changes_nothing_when_it_ends(echo: Any) -> None:
    job_id = echo.submit({"sleep": 1.5, "output": "too late"})
    echo.events.wait("taken", job_id=job_id)
    echo.call("POST", f"/cancel/{job_id}")

    assert echo.ask({"output": "next"})["output"] == "next"
    assert echo.call("GET", f"/status/{job_id}")["status"] == "CANCELLED"


def test_waiting_jobs_can_be_cancelled_retried_and_purged(platform: Any) -> None:
    first, second, third = (platform.submit({"number": number}) for number in range(3))

    assert platform.call("POST", f"/cancel/{first}")["status"] == "CANCELLED"
    assert platform.http.post(f"/retry/{first}").status_code == 400
    assert platform.call("POST", "/purge-queue") == {"removed": 2, "status": "completed"}
    assert [platform.call("GET", f"/status/{job}")["status"] for job in (second, third)] == ["CANCELLED"] * 2


def test_a_failed_job_can_be_tried_again_under_its_id(echo: Any) -> None:
    job_id = echo.submit({"error": "once more"})
    echo.wait(job_id)

    assert echo.call("POST", f"/retry/{job_id}")["status"] == "IN_QUEUE"
    echo.events.wait("failed", job_id=job_id, count=2)


def test_health_counts_jobs_and_workers(platform: Any, start_worker: Any) -> None:
    platform.submit({})
    assert platform.call("GET", "/health")["jobs"]["inQueue"] == 1

    start_worker(ECHO)
    platform.events.wait("completed")

    health = platform.call("GET", "/health")
    assert health["jobs"] == {"completed": 1, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 0}
    assert (health["workers"]["idle"], health["workers"]["running"]) == (1, 0)


def test_a_job_that_is_tried_again_is_not_stopped_for_its_try_before() -> None:
    queue = JobQueue(EndpointConfig(), EventLog())
    queue.seen("one")
    late, other = (Job(input={}, sync=False, execution_timeout_ms=0, ttl_ms=60_000) for _ in range(2))
    for job in (late, other):
        queue.submit(job)
    queue.take("one", 2)
    queue.sweep()
    assert late.state is other.state is State.FAILED
    assert queue.retry(late)
    queue.take("one")
    assert queue.pending_stops("one") == [other.id]
