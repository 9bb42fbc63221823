"""What the emulated platform promises to its callers and to real workers, told with the real SDK."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from local_endpoint import Fault, LocalEndpoint

ECHO = Path(__file__).with_name("echo_worker.py")


@pytest.fixture(scope="module")
def echo(open_platform: Any, open_worker: Any) -> Iterator[Any]:
    """A platform whose one worker serves many tests."""
    with open_platform() as platform, open_worker(platform, ECHO):
        yield platform


# -- a job's life ---------------------------------------------------------------------------------------------


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

    assert answer["status"] == "IN_PROGRESS"
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


# -- limits ---------------------------------------------------------------------------------------------------


def test_a_result_over_the_limit_is_refused_and_lost(platform: Any, start_worker: Any) -> None:
    worker = start_worker(ECHO)
    job_id = platform.submit({"bytes": 10_000_000}, policy={"executionTimeout": 2000})

    answer = platform.wait(job_id)

    assert answer["status"] == "TIMED_OUT"
    assert platform.events.wait("refused", job_id=job_id).data["bytes"] > 10_000_000
    assert "completed" not in platform.events.story(job_id)
    assert "400" in worker.log()


def test_runsync_takes_results_of_twice_the_size(echo: Any) -> None:
    answer = echo.call("POST", "/runsync", json={"input": {"bytes": 10_000_000}})

    assert len(answer["output"]) == 10_000_000


def test_a_result_that_is_not_json_is_refused(echo: Any) -> None:
    job_id = echo.submit({"nan": True}, policy={"executionTimeout": 1000})

    assert echo.wait(job_id)["status"] == "TIMED_OUT"
    assert "NaN" in echo.events.wait("refused", job_id=job_id).data["reason"]


def test_a_job_that_nobody_takes_in_time_is_timed_out(platform: Any) -> None:
    answer = platform.ask({}, policy={"ttl": 300})

    assert answer["status"] == "TIMED_OUT"
    assert "time to live" in answer["error"]


def test_an_old_result_is_forgotten(start_platform: Any) -> None:
    platform = start_platform(keep_result_s=0.2)
    job_id = platform.submit({})
    platform.call("POST", f"/cancel/{job_id}")

    deadline = time.monotonic() + 10
    while platform.http.get(f"/status/{job_id}").status_code != 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# -- cancel, retry, purge, health -------------------------------------------------------------------------------


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
    assert platform.http.post(f"/retry/{first}").status_code == 409
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


# -- workers that leave -----------------------------------------------------------------------------------------


def test_a_killed_workers_job_is_done_by_the_next_worker(platform: Any, start_worker: Any) -> None:
    first = start_worker(ECHO)
    job_id = platform.submit({"sleep": 1, "output": "done"})
    platform.events.wait("taken", job_id=job_id)

    first.send(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    second = start_worker(ECHO)

    assert platform.wait(job_id)["workerId"] == second.id
    assert platform.events.story(job_id) == ["queued", "taken", "requeued", "taken", "result", "completed"]


def test_a_silent_workers_job_goes_back_into_the_queue(start_platform: Any, open_worker: Any) -> None:
    platform = start_platform(worker_lost_s=3)
    with open_worker(platform, ECHO) as worker:
        job_id = platform.submit({"sleep": 30})
        platform.events.wait("taken", job_id=job_id)
        os.killpg(worker.pid, signal.SIGSTOP)  # as when the machine is cut off: the heartbeat falls silent too

        back = platform.events.wait("requeued", job_id=job_id, timeout=30)

    assert "no sign of life" in back.data["reason"]


def test_a_worker_that_pings_keeps_its_job_however_long_it_takes(start_platform: Any, open_worker: Any) -> None:
    platform = start_platform(worker_lost_s=2.5)
    with open_worker(platform, ECHO):
        job_id = platform.submit({"sleep": 5.5, "output": "slow"})

        assert platform.wait(job_id)["output"] == "slow"
    assert not platform.events.of("requeued")


def test_a_poll_whose_client_has_gone_takes_no_job(platform: Any, start_worker: Any) -> None:
    poll = _open_poll(platform)
    platform.events.wait("poll", worker_id="vanished")
    poll.close()

    job_id = platform.submit({"output": "safe"})
    worker = start_worker(ECHO)

    assert platform.wait(job_id)["workerId"] == worker.id


def test_a_job_handed_to_a_client_that_goes_at_that_moment_is_put_back(platform: Any, start_worker: Any) -> None:
    poll = _open_poll(platform)
    platform.events.wait("poll", worker_id="vanished")
    take = platform.queue.take

    def hang_up_and_take(worker_id: str, count: int) -> Any:
        if worker_id == "vanished" and platform.queue.job_counts()["inQueue"]:
            poll.close()
        return take(worker_id, count)

    platform.queue.take = hang_up_and_take
    job_id = platform.submit({"output": "safe"})
    platform.events.wait("requeued", job_id=job_id)
    worker = start_worker(ECHO)

    assert platform.wait(job_id)["workerId"] == worker.id


def test_sigterm_ends_an_idle_worker_without_orphans(platform: Any, start_worker: Any) -> None:
    worker = start_worker(ECHO)
    platform.events.wait("ping")
    assert len(worker.children()) == 1  # the SDK's heartbeat

    worker.send(signal.SIGTERM)

    assert worker.wait() == 0
    assert worker.orphans == []
    assert platform.events.wait("worker_gone", worker_id=worker.id).data["reason"] == "its process ended with code 0"


def test_what_a_dead_worker_leaves_behind_is_named_and_killed(platform: Any, start_worker: Any) -> None:
    worker = start_worker(ECHO)
    platform.events.wait("ping")
    (heartbeat,) = worker.children()

    worker.send(signal.SIGKILL)
    worker.wait()

    assert [line.split()[0] for line in worker.orphans] == [str(heartbeat.pid)]
    assert not heartbeat.is_running() or heartbeat.status() == "zombie"


def test_a_failed_fitness_check_is_recorded(platform: Any, start_worker: Any) -> None:
    worker = start_worker(ECHO, ready=False, env={"ECHO_UNFIT": "no model here"})

    assert worker.wait() == 1
    report = platform.events.of("unhealthy", worker_id=worker.id)[0].data
    assert report == {"check": "unfit", "reason": "RuntimeError: no model here"}
    assert not platform.events.of("poll")


def test_a_worker_that_never_asks_for_a_job_is_reported_with_its_log(start_worker: Any) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)exit code 1.*Worker is unhealthy"):
        start_worker(ECHO, env={"ECHO_UNFIT": "no model here"})


# -- other ways to work ---------------------------------------------------------------------------------------


def test_a_generators_chunks_are_streamed(platform: Any, start_worker: Any) -> None:
    start_worker(ECHO, env={"ECHO_HANDLER": "stream"})
    job_id = platform.submit({"count": 3})
    platform.wait(job_id)

    answer = platform.call("GET", f"/stream/{job_id}")

    assert answer == {"status": "COMPLETED", "stream": [{"output": 0}, {"output": 1}, {"output": 2}]}


def test_a_worker_may_take_several_jobs_at_once(platform: Any, start_worker: Any) -> None:
    jobs = [platform.submit({"output": number}) for number in range(3)]
    start_worker(ECHO, env={"ECHO_CONCURRENCY": "3"})

    assert [platform.wait(job)["output"] for job in jobs] == [0, 1, 2]
    assert platform.events.of("poll")[0].data["batch_size"] == 3


def test_a_webhook_hears_how_the_job_ended_and_is_tried_again(echo: Any) -> None:
    heard: list[dict[str, Any]] = []
    with_one_failure = _serve_webhook(heard, statuses=iter([500, 200]))

    job_id = echo.submit({"output": "for you"}, webhook=with_one_failure)
    echo.events.wait("webhook", job_id=job_id, count=2)

    assert [event.data["status"] for event in echo.events.of("webhook", job_id=job_id)] == [500, 200]
    assert [(body["id"], body["status"], body["output"]) for body in heard] == [(job_id, "COMPLETED", "for you")] * 2


def test_the_sdks_own_client_can_use_the_endpoint(echo: Any) -> None:
    script = (
        "import runpod, sys; runpod.endpoint_url_base, runpod.api_key = sys.argv[1], 'local'\n"
        "endpoint = runpod.Endpoint('local'); print(endpoint.health()['jobs']['inQueue'])\n"
        "print(endpoint.run_sync({'input': {'output': 'hello'}}))\n"
        "job = endpoint.run({'input': {'output': 'again'}}); print(job.output(timeout=60), job.status())"
    )
    command = [sys.executable, "-c", script, f"{echo.base_url}/v2"]

    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert shown.stdout.split() == ["0", "hello", "again", "COMPLETED"], shown.stderr


# -- who may do what ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Authorization": "local"}, {"Authorization": "Bearer wrong"}])
def test_a_caller_without_the_key_is_turned_away(platform: Any, headers: dict[str, str]) -> None:
    answer = httpx.post(f"{platform.url}/run", json={"input": {}}, headers=headers)

    assert answer.status_code == 401
    assert platform.events.of("queued") == []


def test_a_worker_without_a_key_is_turned_away(platform: Any) -> None:
    platform.submit({})

    assert httpx.get(f"{platform.url}/job-take/stranger?gpu=TEST").status_code == 401
    assert platform.events.of("taken") == []


def test_unknown_jobs_endpoints_and_bodies_are_refused(platform: Any) -> None:
    assert platform.http.get("/status/nobody").status_code == 404
    assert platform.http.get(f"{platform.base_url}/v2/other/health").status_code == 404
    assert platform.http.post("/run", json={"prompt": "no input"}).status_code == 422
    assert platform.http.post("/run", content=b"[" * 100_000 + b"]" * 100_000).status_code in (400, 422)


def test_openapi_describes_the_callers_side_only(platform: Any) -> None:
    paths = httpx.get(f"{platform.base_url}/openapi.json").json()["paths"]

    names = {path.split("/")[3] for path in paths}
    assert names == {"run", "runsync", "status", "stream", "cancel", "retry", "purge-queue", "health"}


def test_the_playground_needs_nothing_from_elsewhere(platform: Any) -> None:
    page = httpx.get(platform.base_url).text

    assert "<form" in page
    assert "https://" not in page and "http://" not in page.replace("http://www.w3.org/", "")


# -- faults ---------------------------------------------------------------------------------------------------


def test_a_request_can_be_answered_with_a_status_as_often_as_wished(platform: Any) -> None:
    platform.faults.append(Fault("ping", status=429, times=2))

    assert [_ping(platform).status_code for _ in range(3)] == [429, 429, 200]
    assert [event.data["on"] for event in platform.events.of("fault")] == ["ping", "ping"]


def test_a_request_can_be_dropped(platform: Any) -> None:
    platform.faults.append(Fault("ping", drop=True))

    with pytest.raises(httpx.TransportError):
        _ping(platform)


def test_a_request_can_hang(platform: Any) -> None:
    platform.faults.append(Fault("ping", delay_s=60))

    with pytest.raises(httpx.ReadTimeout):
        _ping(platform, timeout=0.3)


def test_a_worker_gets_over_failing_takes_pings_and_posts(platform: Any, start_worker: Any) -> None:
    platform.faults += [
        Fault("job-take", drop=True, times=2),
        Fault("job-take", status=500, times=2),
        Fault("job-done", status=500, times=1),
        Fault("ping", drop=True, times=1),
    ]
    start_worker(ECHO)

    assert platform.ask({"output": "in the end"})["output"] == "in the end"
    assert all(fault.times == 0 for fault in platform.faults)


def test_a_result_whose_connection_breaks_is_lost_for_the_sdk_posts_it_once(echo: Any) -> None:
    echo.faults.append(Fault("job-done", drop=True, times=1))

    assert echo.ask({"output": "lost"}, policy={"executionTimeout": 2000})["status"] == "TIMED_OUT"
    assert echo.ask({"output": "the next"})["output"] == "the next"


# -- on a desk ------------------------------------------------------------------------------------------------


def test_python_m_local_endpoint_serves_a_worker_until_ctrl_c(free_port: int) -> None:
    command = [sys.executable, "-m", "local_endpoint", str(ECHO), "--port", str(free_port), "--key", "secret"]
    desk = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        shown = _read_until(desk, "Ctrl-C")
        answer = httpx.post(
            f"http://127.0.0.1:{free_port}/v2/local/runsync",
            json={"input": {"output": "from my desk"}},
            headers={"Authorization": "Bearer secret"},
            timeout=60,
        ).json()
        desk.send_signal(signal.SIGINT)
        rest, _ = desk.communicate(timeout=30)
    finally:
        desk.kill()

    assert f"http://127.0.0.1:{free_port}/v2/local" in shown
    assert answer["output"] == "from my desk"
    assert desk.returncode == 0 and "stopped" in rest and "Traceback" not in rest


def test_a_desk_worker_that_cannot_start_ends_the_desk(free_port: int) -> None:
    command = [sys.executable, "-m", "local_endpoint", "no_such_worker.py", "--port", str(free_port)]

    desk = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert desk.returncode == 2  # Python's own, for a script that is not there
    assert "before it asked for a job" in desk.stderr


def _open_poll(platform: LocalEndpoint) -> socket.socket:
    poll = socket.create_connection((platform.config.host, platform.port))
    path = "/v2/local/job-take/vanished?gpu=TEST&job_in_progress=0"
    poll.sendall(f"GET {path} HTTP/1.1\r\nHost: desk\r\nAuthorization: key\r\n\r\n".encode())
    return poll


def _ping(platform: LocalEndpoint, timeout: float = 10) -> httpx.Response:
    return httpx.get(f"{platform.url}/ping/someone?gpu=TEST", headers={"Authorization": "key"}, timeout=timeout)


def _serve_webhook(heard: list[dict[str, Any]], statuses: Iterator[int]) -> str:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(next(statuses))
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/done"


def _read_until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout
    shown = ""
    while word not in shown:
        line = process.stdout.readline()
        assert line, shown
        shown += line
    return shown
