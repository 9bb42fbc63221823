"""Who may do what on the emulated platform, the faults it can play, and the endpoint on a desk."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from local_endpoint import Fault, LocalEndpoint
from local_endpoint import __main__ as desk_program

ECHO = Path(__file__).with_name("echo_worker.py")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "wrong"}, {"Authorization": "Bearer wrong"}])
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
    assert platform.http.post("/run", json={"prompt": "no input"}).status_code == 400
    assert platform.http.post("/run", content=b"[" * 100_000 + b"]" * 100_000).status_code == 400


def test_openapi_describes_the_callers_side_only(platform: Any) -> None:
    paths = httpx.get(f"{platform.base_url}/openapi.json").json()["paths"]

    names = {path.split("/")[3] for path in paths}
    assert names == {"run", "runsync", "status", "stream", "cancel", "retry", "purge-queue", "health", "requests"}


def test_the_playground_needs_nothing_from_elsewhere(platform: Any) -> None:
    page = httpx.get(platform.base_url).text
    parts = re.findall(r'(?:src|href)="([^"#]+\.(?:js|css))"', page)
    scripts = [httpx.get(f"{platform.base_url}/{name}") for name in parts]
    asked = re.findall(r'from "\./([^"]+)"', "".join(script.text for script in scripts))
    modules = [httpx.get(f"{platform.base_url}/{name}") for name in asked]

    assert "<form" in page and {"main.js", "style.css"} <= set(parts)
    assert [one.status_code for one in (*scripts, *modules)] == [200] * (len(parts) + len(asked))
    assert set(re.findall(r"(?:src|href)=\"(?!data:)([a-z]+:)", page)) == set()


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

    assert echo.ask({"output": "lost"}, policy={"executionTimeout": 2000})["status"] == "FAILED"
    assert echo.ask({"output": "the next"})["output"] == "the next"


@pytest.mark.parametrize(
    "ending",
    [(signal.SIGINT, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM)],
    ids=["Ctrl-C, and again", "the terminal closes"],
)
def test_python_m_local_endpoint_serves_a_worker_until_it_is_ended(
    ending: list[signal.Signals], free_port: int
) -> None:
    command = [sys.executable, "-m", "local_endpoint", str(ECHO), "--port", str(free_port), "--key", "secret"]
    # What a shell starts in the background ignores Ctrl-C, and so would the desk, when that is how the tests run.
    desk = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        shown = _read_until(desk, "it asks for jobs")
        answer = httpx.post(
            f"http://127.0.0.1:{free_port}/v2/local/runsync",
            json={"input": {"output": "from my desk"}},
            headers={"Authorization": "Bearer secret"},
            timeout=60,
        ).json()
        started = psutil.Process(desk.pid).children(recursive=True)
        for number in ending:
            desk.send_signal(number)
            time.sleep(0.3)
        rest, _ = desk.communicate(timeout=30)
    finally:
        desk.kill()

    assert f"http://127.0.0.1:{free_port}/v2/local" in shown
    assert len(re.findall(r"the worker is ready: it asks for jobs after \d+\.\d s\n", shown)) == 1
    assert answer["output"] == "from my desk"
    assert desk.returncode == 0 and "stopped" in rest and "Traceback" not in rest
    _wait_until_gone(started)


def test_a_desk_worker_that_cannot_start_ends_the_desk(free_port: int) -> None:
    command = [sys.executable, "-m", "local_endpoint", "no_such_worker.py", "--port", str(free_port)]

    desk = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert desk.returncode == 2  # Python's own, for a script that is not there
    assert "the worker ended with code 2 before it asked for a job" in desk.stderr
    assert "ready: " not in desk.stdout


def test_a_desk_worker_that_ends_is_told_with_its_code_and_replaced_by_one_that_is_told_too(free_port: int) -> None:
    command = [sys.executable, "-m", "local_endpoint", str(ECHO), "--port", str(free_port)]
    desk = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        _read_until(desk, "the worker is ready")
        _worker_of(desk).kill()
        shown = _read_until(desk, "the worker is ready")
        desk.send_signal(signal.SIGTERM)
        desk.communicate(timeout=30)
    finally:
        desk.kill()

    assert f"the worker ended with code {-signal.SIGKILL}; starting another" in shown


def test_a_desk_worker_that_freezes_in_a_job_is_replaced_and_none_outlives_a_desk_that_is_killed(
    free_port: int,
) -> None:
    # The real thing, but for how long a silence has to be.
    sooner = "import sys, functools; from local_endpoint import __main__ as desk; "
    sooner += "desk.EndpointConfig = functools.partial(desk.EndpointConfig, worker_lost_s=2); sys.exit(desk.main())"
    command = [sys.executable, "-c", sooner, str(ECHO), "--port", str(free_port)]
    desk = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    started: list[psutil.Process] = []
    try:
        _read_until(desk, "the worker is ready")
        started += psutil.Process(desk.pid).children(recursive=True)
        job_id = _ask(free_port, "POST", "/run", {"input": {"sleep": 60}})["id"]
        _wait_for_state(free_port, job_id, "IN_PROGRESS")
        os.killpg(_worker_of(desk).pid, signal.SIGSTOP)
        shown = _read_until(desk, "the worker is ready")
        _wait_for_state(free_port, job_id, "IN_PROGRESS")
        started += psutil.Process(desk.pid).children(recursive=True)
    finally:
        desk.kill()
        desk.wait()

    assert "silent for too long with a job in hand" in shown
    _wait_until_gone(started)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--port", "99999"),
        ("--key", "two words"),
        ("--allow-origin", "localhost:3000/x"),
        ("--host", "\udcff"),
        ("--host", ""),
        ("--workers", "0"),
        ("--workers", "many"),
        ("--workers", "33"),
    ],
)
def test_options_that_cannot_be_are_named_in_one_line(
    option: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["local_endpoint", option, value])

    with pytest.raises(SystemExit, match="2"):
        desk_program.main()

    assert f"argument {option}" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 100])
def test_a_host_that_cannot_be_listened_on_is_named_in_one_line(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["local_endpoint", "--host", host])
    monkeypatch.setattr(desk_program, "_note_signals", threading.Event)

    assert desk_program.main() == 1
    assert capsys.readouterr().err.startswith(f"cannot listen on {host}:8080: ")


def _worker_of(desk: "subprocess.Popen[str]") -> psutil.Process:
    (worker,) = (child for child in psutil.Process(desk.pid).children() if str(ECHO) in child.cmdline())
    return worker


def _wait_until_gone(processes: list[psutil.Process]) -> None:
    assert processes
    _, left = psutil.wait_procs(processes, timeout=15)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]


def _ask(port: int, method: str, path: str, body: Any = None) -> dict[str, Any]:
    url, headers = f"http://127.0.0.1:{port}/v2/local{path}", {"Authorization": "Bearer local"}
    answer: dict[str, Any] = httpx.request(method, url, json=body, headers=headers, trust_env=False).json()
    return answer


def _wait_for_state(port: int, job_id: str, state: str) -> None:
    deadline = time.monotonic() + 30
    while _ask(port, "GET", f"/status/{job_id}")["status"] != state:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _ping(platform: LocalEndpoint, timeout: float = 10) -> httpx.Response:
    headers = {"Authorization": platform.config.worker_key}
    return httpx.get(f"{platform.url}/ping/someone?gpu=TEST", headers=headers, timeout=timeout)


def _read_until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout
    shown = ""
    while word not in shown:
        line = process.stdout.readline()
        assert line, shown
        shown += line
    return shown
