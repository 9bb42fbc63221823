"""A download says how far it is, also while nothing comes, and what came in all; where none is, nothing is said."""

import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.models import download_log
from worker.models.download_log import CountingBar, log_download


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A line every fifth of a second."""
    monkeypatch.setattr(download_log, "INTERVAL_S", 0.2)
    caplog.set_level(logging.INFO, "worker")


def test_a_download_at_which_nothing_comes_is_not_silent(caplog: pytest.LogCaptureFixture) -> None:
    with log_download("org/name"):
        time.sleep(0.7)
    assert 1 <= len(caplog.messages) <= 3
    assert all(re.match(r"downloading org/name: nothing has come in \d\.\d s; ", line) for line in caplog.messages)


def test_one_that_stops_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with log_download("org/name"):
        CountingBar(unit="B", total=6_900_000_000).update(2_100_000_000)
        time.sleep(0.7)
    assert re.fullmatch(r"downloading org/name: 2\.1 of 6\.9 GB, [\d.]+ GB/s, \d+(\.\d)? s left", caplog.messages[0]), (
        caplog.messages
    )
    assert caplog.messages[1] == "downloading org/name: 2.1 of 6.9 GB, nothing more has come"


def test_what_many_threads_fetch_is_counted_to_the_byte(caplog: pytest.LogCaptureFixture) -> None:
    with log_download("org/name"), ThreadPoolExecutor(8) as pool:
        bars = [CountingBar(unit="B", total=10_000) for _ in range(8)]
        list(pool.map(lambda bar: [bar.update(1) for _ in range(10_000)], bars))
    assert re.fullmatch(r"downloaded org/name: 80 kB in .* s, .*/s", caplog.messages[-1])
    assert sum("downloaded" in line for line in caplog.messages) == 1


def test_only_bytes_of_files_count_and_once(caplog: pytest.LogCaptureFixture) -> None:
    """huggingface_hub has bars for a number of files, and two for the same bytes where they come packed."""
    with log_download("org/name"):
        CountingBar(total=20, desc="Fetching 20 files").update(20)
        CountingBar(unit="B", total=5_000, name="huggingface_hub.xet_get.transfer").update(4_000)
        CountingBar(unit="B", total=5_000, name="huggingface_hub.xet_get").update(5_000)
    (line,) = caplog.messages
    assert line.startswith("downloaded org/name: 5.0 kB in ")


def test_parts_of_one_download_are_told_as_one(caplog: pytest.LogCaptureFixture) -> None:
    with log_download("org/name"):
        for part in ("one", "two"):
            with log_download(part):
                CountingBar(unit="B", total=1_000).update(1_000)
    (line,) = caplog.messages
    assert line.startswith("downloaded org/name: 2.0 kB in ")


def test_a_download_that_fails_is_not_told_as_done(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OSError), log_download("org/name"):
        CountingBar(unit="B", total=5_000).update(1_000)
        raise OSError
    assert caplog.messages == []


def test_nothing_is_told_where_nothing_is_fetched(caplog: pytest.LogCaptureFixture) -> None:
    with log_download("org/name"):
        CountingBar(unit="B", total=0)
    CountingBar(unit="B", total=10).update(10)  # somebody else's
    assert caplog.messages == []
