"""The log holds no secret of the owner's and no text of the job in hand, wherever an exception quotes them."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from worker.api.response import write_failure
from worker.runtime.failures import classify
from worker.runtime.logs import REDACTED, RedactingFormatter, log_to_stderr
from worker.settings import read_settings

OWNERS = {
    "HF_TOKEN": "hf_ownercanary",
    "BUCKET_ENDPOINT_URL": "https://s3.example.com",
    "BUCKET_ACCESS_KEY_ID": "AKIDownercanary",
    "BUCKET_SECRET_ACCESS_KEY": "ownercanary/+=",
    "BUCKET_NAME": "pictures",
}
JOB: dict[str, Any] = {
    "id": "job-1",
    "input": {
        "prompt": [
            "a canary in 'single' and \"double\" quotes",
            "first canary line\nsecond canary line\tend",
            "ein Ölcanary",
        ],
        "image": "https://user:canarypass@example.com/canarypath/x.png?X-Amz-Signature=canarysignature&X-Amz-Expires=9",
        "mask": "iVBORw0canary" + "A" * 5_000,
        "ip_adapter": {"image": "back\\slash canary", "scale": 0.5},
        "loras": [{"name": "canarylora"}],
    },
    "s3Config": {"accessId": "AKIDcanary", "accessSecret": "canarysecret", "endpointUrl": "https://canaryhost:9000"},
}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the worker's log has written so far."""
    log, stream = logging.getLogger("worker"), io.StringIO()
    before = list(log.handlers), log.level, log.propagate
    monkeypatch.setattr("sys.stderr", stream)
    yield stream
    log.handlers, _, log.propagate = before
    log.setLevel(before[1])


@pytest.fixture
def formatter(written: io.StringIO) -> Iterator[RedactingFormatter]:
    """The log's formatter, which knows the job."""
    formatter = log_to_stderr()
    with formatter.in_hand("job-1", JOB):
        yield formatter


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts(one)


QUOTES = {
    "as it is": str,
    "repr": repr,
    "ascii": ascii,
    "json": json.dumps,
    "json of utf-8": lambda text: json.dumps(text, ensure_ascii=False),
    "lines with a margin": lambda text: "\n  | ".join(text.splitlines()),
    "a url's path": lambda text: text.partition("example.com")[2] or text,
    "a url's query": lambda text: text.partition("?")[2] or text,
}


@pytest.mark.parametrize("quote", QUOTES)
@pytest.mark.parametrize("text", [*texts(JOB["input"]), *texts(JOB["s3Config"])])
def test_no_text_of_the_job(text: str, quote: str, formatter: RedactingFormatter, written: io.StringIO) -> None:
    logging.getLogger("worker").error("at the job: %s.", QUOTES[quote](text))
    line = written.getvalue()
    assert "at the job" in line and REDACTED in line
    assert "canary" not in line.lower()
    assert "AAAA" not in line


@pytest.mark.parametrize("text", [*texts(JOB["input"]), *texts(JOB["s3Config"])])
def test_nor_in_an_exception_what_caused_it_and_where_it_came_from(
    text: str, formatter: RedactingFormatter, written: io.StringIO
) -> None:
    try:
        try:
            try:
                raise KeyError(text)
            except KeyError:
                raise ValueError(f"in the handling: {text}")  # noqa: B904
        except ValueError as second:
            error = ExceptionGroup("several", [OSError(2, "no such file", text)])
            error.add_note(f"a note: {text}")
            raise error from second
    except ExceptionGroup as third:
        failure = classify(third)

    said = written.getvalue()
    for part in ("Traceback", "KeyError", "ValueError", "FileNotFoundError", "in the handling", "a note", __file__):
        assert part in said
    assert "canary" not in said.lower()
    assert "canary" not in str(write_failure(failure)).lower()


def test_no_secret_of_the_owner_before_during_and_after_a_job(
    formatter: RedactingFormatter, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in OWNERS.items():
        monkeypatch.setenv(name, value)
    formatter.redact_settings(read_settings())
    for job in (JOB, {"id": "next", "input": {}}):
        with formatter.in_hand("job-1", job):
            for name, value in OWNERS.items():
                logging.getLogger("worker").warning("%s is %s or %r in a header", name, value, value)
    said = written.getvalue()
    assert "ownercanary" not in said
    assert said.count("https://s3.example.com") == 4, "an address is no secret"


def test_of_jobs_in_hand_at_once_each_has_its_texts_hidden_until_its_end(
    formatter: RedactingFormatter, written: io.StringIO
) -> None:
    line = "canarylora and nothing special"
    with formatter.in_hand("next", {"id": "next", "input": {"prompt": "nothing special"}}):
        logging.getLogger("worker").info("%s", line)
    logging.getLogger("worker").info("%s", line)

    both, one = written.getvalue().splitlines()
    assert both == f"INFO   | next | {REDACTED} and {REDACTED}"
    assert one == f"INFO   | job-1 | {REDACTED} and nothing special"


def test_a_text_inside_another_does_not_save_its_ends(formatter: RedactingFormatter, written: io.StringIO) -> None:
    with formatter.in_hand("job-1", {"input": {"prompt": "left canary right", "negative_prompt": "canary"}}):
        logging.getLogger("worker").info("%s", "<left canary right>")
        assert written.getvalue() == f"INFO   | job-1 | <{REDACTED}>\n"


def test_short_words_are_hidden_where_they_are_quoted_and_do_not_blot_out_the_line(
    formatter: RedactingFormatter, written: io.StringIO
) -> None:
    with formatter.in_hand(
        "job-1", {"input": {"prompt": "a", "output_format": "png", "negative_prompt": "", "x": None, "y": 5}}
    ):
        logging.getLogger("worker").info("%s", KeyError("a job of 5 png pictures"))
        logging.getLogger("worker").info("%s", KeyError("png"))
        assert written.getvalue() == f"INFO   | job-1 | 'a job of 5 png pictures'\nINFO   | job-1 | {REDACTED}\n"


def test_a_job_nested_however_deep(formatter: RedactingFormatter, written: io.StringIO) -> None:
    deep: Any = "canary at the bottom"
    for level in range(100_000):
        deep = [deep] if level % 2 else {"deeper": deep}
    with formatter.in_hand("job-1", {"input": deep}):
        logging.getLogger("worker").info("%s", "canary at the bottom")
        assert written.getvalue() == f"INFO   | job-1 | {REDACTED}\n"


@pytest.mark.parametrize("job", [{}, {"input": None}, {"input": 5, "s3Config": True}, {"input": "a text, no object"}])
def test_a_job_of_any_shape(job: Any, formatter: RedactingFormatter, written: io.StringIO) -> None:
    with formatter.in_hand("job-1", job):
        logging.getLogger("worker").info("a text, no object")
        assert written.getvalue().startswith("INFO   | ")


def test_large_pictures_cost_no_time(formatter: RedactingFormatter, written: io.StringIO) -> None:
    """Twenty megabytes of base64 for each line of a log would."""
    import time

    with formatter.in_hand("job-1", {"input": {"image": "QUJD" * 5_000_000, "prompt": "a red square"}}):
        started = time.process_time()
        for _ in range(100):
            logging.getLogger("worker").info("%s", "a red square")
        assert time.process_time() - started < 1
        assert "red" not in written.getvalue()


def test_jobs_that_come_and_go_at_once_hide_and_leave_nothing(
    formatter: RedactingFormatter, written: io.StringIO
) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def work(number: int) -> None:
        for turn in range(100):
            text = f"canary-{number}-{turn}"
            with formatter.in_hand("a-job", {"input": {"prompt": text}}):
                logging.getLogger("worker").info("the prompt is %s", text)

    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
    finally:
        sys.setswitchinterval(before)
    assert "canary" not in written.getvalue()
    logging.getLogger("worker").info("canary-3-99 is a word like any other now")
    assert "canary-3-99" in written.getvalue()
