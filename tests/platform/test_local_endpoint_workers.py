"""What the emulated platform does with workers that leave, fall silent, or work in other ways."""

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

import pytest

from local_endpoint import LocalEndpoint

ECHO = Path(__file__).with_name("echo_worker.py")


def test_a_killed_workers_job_is_done_by_the_next_worker(platform: Any, start_worker: Any) -> None:
    first = start_worker(ECHO)
    job_id = platform.submit({"sleep": 1, "output": "done"})
    platform.events.wait("taken", job_id=job_id)

    first.send(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    second = start_worker(ECHO)

    assert platform.wait(job_id)["workerId"] == second.id
    assert platform.events.story(job_id) == ["queued", "taken", "requeued", "taken", "result", "completed"]


def test_a_silent_workers_job_goes_back_into_the_queue_whatever_others_say(
    start_platform: Any, open_worker: Any
) -> None:
    platform = start_platform(worker_lost_s=3, hold_s=60)
    with open_worker(platform, ECHO) as worker:
        job_id = platform.submit({"sleep": 30})
        platform.events.wait("taken", job_id=job_id)
        os.killpg(worker.pid, signal.SIGSTOP)  # as when the machine is cut off: the heartbeat falls silent too

        deadline = time.monotonic() + 30
        while not platform.events.of("requeued", job_id=job_id):
            assert time.monotonic() < deadline
            platform.http.get(f"/ping/another?key={platform.config.worker_key}")
            time.sleep(0.2)

    assert "no sign of life" in platform.events.of("requeued", job_id=job_id)[0].data["reason"]


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


def _open_poll(platform: LocalEndpoint) -> socket.socket:
    poll = socket.create_connection((platform.config.host, platform.port))
    path = f"/v2/local/job-take/vanished?gpu=TEST&key={platform.config.worker_key}&job_in_progress=0"
    poll.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return poll


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
