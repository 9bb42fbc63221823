"""Nothing that is logged ends a line, moves a cursor, floods the log or takes it down; and no job strikes out the log's
own words, whatever it brings."""

import gc
import io
import json
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.fuzzing import examples
from worker.errors import InvalidInputError
from worker.runtime.logs import MAX_JOB_LINES, MAX_LINE, RedactingFormatter, log_to_stderr
from worker.runtime.record import JobRecord
from worker.text import Own, read_first_line

LOG = logging.getLogger("worker")
SENTENCE = "out of memory: drawing once more, decoding by tiles, %d times, %.1f s"
WORDS = ["ERROR", "INFO   | ", "job-1", "| ", "out of memory", "drawing once more", "3 times", "0.5", "256x256", "1 x "]


@contextmanager
def written(as_json: bool = False) -> Iterator[tuple[io.StringIO, RedactingFormatter]]:
    """What the worker's log writes, and what formats it."""
    stream, before = io.StringIO(), (list(LOG.handlers), LOG.level, LOG.propagate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        try:
            yield stream, log_to_stderr(as_json)
        finally:
            LOG.handlers, _, LOG.propagate = before
            LOG.setLevel(before[1])


def texts_of_the_log() -> st.SearchStrategy[str]:
    """Words of the log's own, and pieces and joins of them."""
    whole = "ERROR  | job-1 | out of memory: drawing once more, decoding by tiles, 3 times, 0.5 s"
    pieces = st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole))).map(lambda ends: whole[slice(*ends)])
    return st.sampled_from(WORDS) | pieces | st.text(max_size=20)


@examples(60)
@given(
    st.dictionaries(
        st.sampled_from(["prompt", "size", "negative_prompt", "x"]), st.lists(texts_of_the_log(), max_size=9)
    )
)
@example({"size": ["256x256"], "prompt": ["ERROR", "job-1", "INVALID_INPUT", "failed: ", "prompt"]})
def test_no_job_strikes_out_levels_ids_codes_or_sentences(given_texts: dict[str, Any]) -> None:
    record = JobRecord(code="OK", task="text to image", width=256, height=256, steps=4, pictures=1, seed=11)
    refused = JobRecord()
    refused.note_failure(InvalidInputError(["prompt: too long"]))

    with written() as (stream, formatter), formatter.in_hand("job-1", {"id": "job-1", "input": given_texts}):
        LOG.error(SENTENCE, 3, 0.5)
        for one in (record, refused):
            LOG.info("%s", Own(one.summary()), extra={"figures": one.figures()})

    line, drawn, failed = stream.getvalue().splitlines()
    assert line == f"ERROR  | job-1 | {SENTENCE % (3, 0.5)}"
    assert drawn.startswith("INFO   | job-1 | text to image: 1 x 256x256, 4 steps, seed 11; ")
    assert failed == "INFO   | job-1 | failed: INVALID_INPUT (prompt)"


def ways_to_log(text: str) -> dict[str, Callable[[], None]]:
    """How a text gets into the log."""

    def raised() -> None:
        try:
            raise ValueError(text)
        except ValueError as error:
            error.add_note(text)
            LOG.error("unexpected failure", exc_info=error)

    return {
        "a value": lambda: LOG.warning("leaving out %s", text),
        "quoted": lambda: LOG.warning("leaving out %r", text),
        "an exception": lambda: LOG.warning("leaving it out: %s", OSError(2, text, text)),
        "a traceback": raised,
        "its own words": lambda: LOG.warning("%s", Own(text)),
    }


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("way", ways_to_log(""))
@examples(30)
@given(text=st.text(st.characters(categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Lu")), max_size=40))
@example(text="x\n" + "INFO   | job-2 | text to image: forged")
@example(text="\x1b[2J\x9b31m\r\x00\u2028\u202e\ud800")
def test_one_record_is_one_line_of_letters_that_stay_there(way: str, as_json: bool, text: str) -> None:
    with written(as_json) as (stream, formatter), formatter.in_hand(text, {}):
        ways_to_log(text)[way]()

    lines = stream.getvalue().removesuffix("\n").split("\n")
    message = json.loads(lines[0])["message"].split("\n") if as_json else lines
    assert len(lines) == 1 or (way == "a traceback" and not as_json)
    assert len(message) == 1 or way == "a traceback"
    for line in (*lines, *message):
        line.encode()  # half a letter would raise
        assert not {letter for letter in line if ord(letter) < 32 or 127 <= ord(letter) < 160}
        assert not {"\u2028", "\u2029", "\u202e", "\u2066"} & set(line)
    assert not any(line.startswith("INFO") for line in message), "forged"


class Hostile(Exception):
    """One that does not say what it is."""

    def __init__(self, said: Callable[[], Any]) -> None:
        self.said = said

    def __str__(self) -> str:
        said: str = self.said()
        return said


def raising() -> str:
    raise ValueError("canary")


def chained(count: int) -> Exception:
    error = Exception("canary 0")
    for number in range(count):
        following = Exception(f"number {number}")
        following.__cause__ = error
        error = following
    return error


def endless() -> Exception:
    first, second = Exception("number 1"), Exception("number 2")
    first.__context__, second.__context__ = second, first
    return first


def nested(depth: int) -> Exception:
    error = Exception("number 1")
    for _ in range(depth):
        error = ExceptionGroup("several", [error] * 20)
    return error


HOSTILE: dict[str, Callable[[], Exception]] = {
    "its text raises": lambda: Hostile(raising),
    "its text is none": lambda: Hostile(lambda: 5),
    "its text never ends": lambda: Hostile(lambda: str(Hostile(lambda: str(Hostile(raising))))),
    "a hundred megabytes": lambda: ValueError("x" * 100_000_000),
    "a hundred megabytes of lines": lambda: ValueError("\n" * 100_000_000),
    "bytes": lambda: ValueError(b"\xff" * 1_000_000),
    "ten thousand causes": lambda: chained(10_000),
    "causes in a circle": endless,
    "groups in groups": lambda: nested(50),
    "notes that are none": lambda: _with_notes(5),
    "a hundred thousand notes": lambda: _with_notes(["note"] * 100_000),
}


def _with_notes(notes: Any) -> Exception:
    error = ValueError("number 1")
    error.__notes__ = notes
    return error


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_exception_of_any_kind_is_told_in_bounded_space(kind: str) -> None:
    error = HOSTILE[kind]()
    with written() as (stream, formatter), formatter.in_hand("job-1", {"input": {"prompt": "a canary"}}):
        LOG.error("unexpected failure: %s", error)
        LOG.error("unexpected failure", exc_info=error)
    said = stream.getvalue()
    assert said.count("| unexpected failure") == 2
    assert len(said) < 2 * MAX_LINE + 1_000
    assert "canary" not in said
    assert len(read_first_line(error)) < 10_000


def test_a_recursion_that_went_too_deep() -> None:
    def recurse() -> None:
        recurse()

    with written() as (stream, _):
        with suppress(RecursionError):
            try:
                recurse()
            except RecursionError as error:
                LOG.error("unexpected failure", exc_info=error)
        assert "RecursionError: maximum recursion depth exceeded" in stream.getvalue()
        assert len(stream.getvalue()) < MAX_LINE + 1_000


@pytest.mark.parametrize("call", ["too few", "too many", "no number", "a huge number"])
def test_a_line_that_cannot_be_made_is_missed_and_nothing_of_it_is_quoted(
    call: str, capfd: pytest.CaptureFixture[str]
) -> None:
    values: dict[str, tuple[str, Any]] = {
        "too few": ("%s %s", ("canary",)),
        "too many": ("%s", ("canary", "canary")),
        "no number": ("%d", ("canary",)),
        "a huge number": ("%s %d", ("canary", 10**5_000)),
    }
    message, arguments = values[call]
    with written() as (stream, _):
        LOG.warning(message, *arguments)
        LOG.warning("the next")
    missing, following = stream.getvalue().splitlines()
    assert "could not be written" in missing and following == "WARN   | the next"
    assert "canary" not in stream.getvalue() + "".join(capfd.readouterr())


def test_a_log_that_takes_nothing_ends_no_job(capfd: pytest.CaptureFixture[str]) -> None:
    with written() as (stream, formatter), formatter.in_hand("job-1", {}):
        stream.close()
        LOG.warning("a canary")
    assert "canary" not in "".join(capfd.readouterr())


def test_a_flood_is_cut_off_and_counted_and_others_are_heard() -> None:
    with written() as (stream, formatter):
        with formatter.in_hand("job-1", {}):
            for number in range(10_000):
                LOG.warning("line %d", number)
            LOG.info("%s", Own("failed: OUT_OF_MEMORY"), extra={"figures": {"code": "OUT_OF_MEMORY"}})
        with formatter.in_hand("job-2", {}):
            LOG.warning("the first line of another job")

    lines = stream.getvalue().splitlines()
    assert len(lines) == MAX_JOB_LINES + 3
    assert lines[-3:] == [
        "INFO   | job-1 | failed: OUT_OF_MEMORY",
        "WARN   | job-1 | 9900 more lines of this job were left out",
        "WARN   | job-2 | the first line of another job",
    ]


class Weighed(dict[str, Any]):
    """A job that can be watched."""


def nest(levels: int) -> Any:
    deep: Any = "a"
    for _ in range(levels):
        deep = [deep]
    return deep


LARGE: dict[str, Callable[[], Any]] = {
    "texts": lambda: ["\n".join(f'é"{number:x}' for number in range(start, start + 10_000)) for start in range(90)],
    "a deep one": lambda: nest(100_000),
    "empty lists": lambda: [[]] * 1_500_000,
    "a picture": lambda: "QUJD" * 5_000_000,
    "names": lambda: {f"name {number}": number for number in range(200_000)},
}


@pytest.mark.parametrize("shape", LARGE)
def test_a_large_job_costs_no_more_than_its_size_and_nothing_afterwards(shape: str) -> None:
    given = LARGE[shape]()
    job = Weighed(id="job-1", input=given)
    alive = weakref.ref(job)
    with written() as (stream, formatter):
        with formatter.in_hand("job-1", job):
            started = time.process_time()
            LOG.info("%s", Own("failed: INVALID_INPUT (prompt)"))
            for _ in range(5):
                LOG.warning("%s", ValueError('a library quotes é"1f4'))
            spent = time.process_time() - started
        assert stream.getvalue().startswith("INFO   | job-1 | failed: INVALID_INPUT (prompt)\n")
        assert "1f4" not in stream.getvalue() or shape != "texts"
        assert spent < 3, "which it was for a hundredth of it"
        del job
        gc.collect()
        assert alive() is None
