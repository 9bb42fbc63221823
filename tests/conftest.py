"""For the whole suite: in continuous integration, a test that is skipped for a missing part is a failure."""

import gc
import logging
import os
import socket
from collections.abc import Generator
from itertools import groupby
from operator import itemgetter

import pytest
from hypothesis import settings

from tests.helpers import fuzzing

WAITING = {"browser", "platform"}  # folders

settings.load_profile(fuzzing.PROFILE)

gc.disable()  # until all tests are collected: imports leave no garbage

# The tiny models' arithmetic is too small to share: with more threads they mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests that import diffusers before the worker would be told that torchvision is missing, as it is meant to be.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@pytest.fixture(autouse=True)
def heard_once() -> None:
    """The worker's log is told to pytest by way of the root's, whatever a test before this one has configured."""
    logging.getLogger("worker").propagate = True


@pytest.fixture
def free_port() -> int:
    """A port of this machine that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def tiny_sd1(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny Stable Diffusion 1 with random weights, as MODEL_NAME takes it."""
    from tests.helpers import tiny_models  # only the tests that need it wait for torch

    return str(tiny_models.save(tiny_models.sd1(), tmp_path_factory.mktemp("tiny_sd1")))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --no-skips."""
    parser.addoption("--no-skips", action="store_true", help="fail the run if any test is skipped")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores: who tests the platform mostly waits."""
    return (os.cpu_count() or 1) + 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the files whose tests wait, for processes and pages, among those that compute, so that no core idles."""
    files = [list(tests) for _, tests in groupby(items, lambda item: item.path)]
    waiting = [file for file in files if WAITING & set(file[0].path.parts)]
    computing = [file for file in files if not WAITING & set(file[0].path.parts)]
    places = [(place / len(kind), file) for kind in (waiting, computing) for place, file in enumerate(kind)]
    items[:] = [item for _, file in sorted(places, key=itemgetter(0)) for item in file]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What has been imported once all tests are collected stays: no collection of garbage goes through it again."""
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """What outlives a file of tests stays as well: or collections would go through the models of all files before."""
    try:
        return (yield)
    finally:
        if nextitem is not None and nextitem.path != item.path:
            gc.collect()
            gc.freeze()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn skips into a failed run where they are not allowed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter.stats.get("skipped") and exitstatus == 0:
        reporter.write_line("skipped tests are not allowed here", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
