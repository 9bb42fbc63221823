"""A platform and real workers for tests. Nothing survives a test: worker processes are killed with all they started.

Three fixtures for one test: `platform`, `start_platform(**config)` and `start_worker(script, env={...})`.
Two for a fixture of a wider scope: `open_platform` and `open_worker`, the same as context managers.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from local_endpoint import EndpointConfig, LocalEndpoint, LocalWorker
from local_endpoint.events import FINAL_KINDS
from tests.helpers.python_path import python_path

ROOT = Path(__file__).parents[2]


class Platform(LocalEndpoint):
    """The emulated platform together with a caller who has its key."""

    def start(self) -> "Platform":
        super().start()
        headers = {"Authorization": f"Bearer {self.config.api_key}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False)
        return self

    def stop(self) -> None:
        self.http.close()
        super().stop()

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """One call as the endpoint's owner: `call("GET", "/health")`. Raises on an error status."""
        answer: dict[str, Any] = self.http.request(method, path, **options).raise_for_status().json()
        return answer

    def submit(self, input: Any, **beside: Any) -> str:
        """POST /run; `beside` goes beside the input (policy, webhook, s3Config). Returns the job's id."""
        return str(self.call("POST", "/run", json={"input": input, **beside})["id"])

    def wait(self, job_id: str, timeout: float = 120.0) -> dict[str, Any]:
        """Waits until the job is over and returns its /status."""
        self.events.wait(*FINAL_KINDS, job_id=job_id, timeout=timeout)
        return self.call("GET", f"/status/{job_id}")

    def ask(self, input: Any, timeout: float = 120.0, **beside: Any) -> dict[str, Any]:
        """`submit` and `wait`."""
        return self.wait(self.submit(input, **beside), timeout)


OpenPlatform = Callable[..., AbstractContextManager[Platform]]
OpenWorker = Callable[..., AbstractContextManager[LocalWorker]]


@pytest.fixture(scope="session")
def open_platform() -> OpenPlatform:
    """`with open_platform(hold_s=2) as platform:`; the names are EndpointConfig's. Waits are short, and calls are not
    counted."""
    usual = {"hold_s": 1.0, "worker_lost_s": 10.0, "webhook_retry_s": 0.2, "rate_limits": {}}
    usual |= {"min_execution_timeout_ms": 1, "min_ttl_ms": 1}

    def opened(**config: Any) -> Platform:
        return Platform(EndpointConfig(**{**usual, **config}))

    return opened


@pytest.fixture(scope="session")
def open_worker(tmp_path_factory: pytest.TempPathFactory) -> OpenWorker:
    """`with open_worker(platform, "handler.py", env={...}) as worker:`

    It is ready, that is, has asked for a job, unless `ready=False`. Scripts and `cwd` are relative to the repository.
    """
    numbers = itertools.count()

    def opened(platform: LocalEndpoint, script: str | Path = "handler.py", ready: bool = True, **options: Any) -> Any:
        log_path = tmp_path_factory.getbasetemp() / f"worker-{next(numbers)}.log"
        options = {"cwd": ROOT, "log_path": log_path, "ping_interval_ms": 1000, **options}
        # PYTHONPATH: for scripts that import handler.py.
        options["env"] = {"PYTHONPATH": python_path(ROOT), **options.get("env", {})}
        worker = LocalWorker(platform, ROOT / script, **options)
        try:
            return worker.wait_ready() if ready else worker
        except BaseException:
            worker.kill()
            raise

    return opened


@pytest.fixture
def start_platform(open_platform: OpenPlatform) -> Iterator[Callable[..., Platform]]:
    """`start_platform(worker_lost_s=3)`: a running platform with its own numbers."""
    with ExitStack() as stack:
        yield lambda **config: stack.enter_context(open_platform(**config))


@pytest.fixture
def platform(start_platform: Callable[..., Platform]) -> Platform:
    """A running platform with the tests' usual numbers."""
    return start_platform()


@pytest.fixture
def start_worker(platform: Platform, open_worker: OpenWorker) -> Iterator[Callable[..., LocalWorker]]:
    """`start_worker("handler.py", env={...})`: a worker of `platform`; the arguments are `open_worker`'s."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(open_worker(platform, *args, **options))


@pytest.fixture(scope="module")
def echo(open_platform: OpenPlatform, open_worker: OpenWorker) -> Iterator[Platform]:
    """A platform whose one worker, `echo_worker.py`, serves many tests.

    It may take several jobs: with one, the SDK rests for a second after each.
    """
    script = Path(__file__).with_name("echo_worker.py")
    with open_platform() as platform, open_worker(platform, script, env={"ECHO_CONCURRENCY": "4"}):
        yield platform
