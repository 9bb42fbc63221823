"""The image keeps its build secret and serves jobs as process 1: `make image-test`, as root."""

import signal
import subprocess
import time
from contextlib import ExitStack

import httpx
import psutil
import pytest

from local_endpoint import LocalEndpoint
from local_endpoint.worker_process import worker_environment
from tests.helpers.local_hub import REPOSITORY, TOKEN
from tests.image.building import Container


def test_the_build_secret_is_nowhere_in_the_image(container: Container) -> None:
    assert TOKEN not in container.text, "the token is in the image's settings or history"
    search = ["grep", "--recursive", "--files-with-matches", "--devices=skip", "--exclude-dir=venv", TOKEN]
    assert subprocess.run([*search, container.root]).returncode == 1, "the token is in a file of the image"


def test_the_local_test_draws_test_input_json_with_the_embedded_model(container: Container) -> None:
    assert container.start(MODEL_NAME="", RUNPOD_LOG_LEVEL="WARN").wait(timeout=300) == 0
    assert list((container.root / "app" / "outputs").glob("*.png")), "the local test left no picture"


@pytest.mark.parametrize("user", [0, 1000])
def test_a_worker_of_the_platform_does_its_job_and_leaves(container: Container, user: int) -> None:
    with ExitStack() as stack:
        endpoint = LocalEndpoint().start()
        stack.callback(endpoint.stop)
        started = time.perf_counter()
        process = container.start(user, **worker_environment(endpoint, "in-the-image", ping_interval_ms=1000))
        stack.callback(process.kill)
        endpoint.events.wait("poll", worker_id="in-the-image", timeout=300, unless=lambda: process.poll() is not None)
        print(f"user {user}: {time.perf_counter() - started:.1f} s from start to the first call for a job")
        answer = httpx.post(
            f"{endpoint.url}/runsync",
            headers={"Authorization": f"Bearer {endpoint.config.api_key}"},
            json={"input": {"prompt": "a red circle", "num_inference_steps": 2, "seed": 1}},
            timeout=300,
            trust_env=False,
        ).json()
        assert answer["status"] == "COMPLETED", answer
        assert answer["output"]["images"][0].startswith("data:image/png;base64,"), answer
        assert answer["output"]["model"] == REPOSITORY, answer
        first = psutil.Process(process.pid).children()[0]
        assert first.cmdline()[-1] == "handler.py", first.cmdline()
        first.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, "the idle worker did not leave on SIGTERM"
