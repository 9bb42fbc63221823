"""A test_input.json that holds no job ends the local test with one line: where, and what is wrong."""

import sys
from pathlib import Path

import pytest

from worker.runtime.local_test import check_local_job

GOOD = '{"input": {"prompt": "a star"}}'
BROKEN = '{\n  "input": {\n    "prompt": "a star"\n    "seed": 1\n  }\n}\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["handler.py"])
    return tmp_path


def refusal() -> str:
    with pytest.raises(SystemExit) as left:
        check_local_job()
    assert isinstance(left.value.code, str), "which Python prints, and leaves with 1"
    assert "\n" not in left.value.code
    return left.value.code


def test_file_line_and_column_are_named(folder: Path) -> None:
    (folder / "test_input.json").write_text(BROKEN)
    assert refusal().startswith("test_input.json, line 4, column 5: Expecting ',' delimiter")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (b"", "test_input.json, line 1, column 1: Expecting value"),
        (b'{"input": "\xff"}', "test_input.json: byte 12 is not UTF-8"),
        (b"[1]", 'test_input.json: got a list; a job is an object, for example {"input": {"prompt": "a red circle"}}'),
        (b"null", "test_input.json: got a NoneType; a job is an object"),
        (b'{"prompt": "a star"}', 'test_input.json: "input" is missing; a job is, for example'),
        (b'{"input": null}', 'test_input.json: "input" is missing; a job is, for example'),
    ],
)
def test_what_is_wrong_is_said(folder: Path, written: bytes, told: str) -> None:
    (folder / "test_input.json").write_bytes(written)
    assert refusal().startswith(told)


def test_the_command_line_is_read_instead_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "test_input.json").write_text(GOOD)
    monkeypatch.setattr(sys, "argv", ["handler.py", "--test_input", "{broken"])
    assert refusal().startswith("--test_input, line 1, column 2: ")


@pytest.mark.parametrize("arguments", [[], ["--test_input", GOOD], [f"--test_input={GOOD}"]])
def test_a_job_is_left_to_the_sdk(folder: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "test_input.json").write_text(BROKEN if arguments else GOOD)
    monkeypatch.setattr(sys, "argv", ["handler.py", *arguments])
    check_local_job()


def test_nothing_is_read_where_nothing_is_drawn_from_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_local_job()  # there is no file: the SDK says so
    (folder / "test_input.json").write_text(BROKEN)
    with monkeypatch.context() as platform:
        platform.setenv("RUNPOD_WEBHOOK_GET_JOB", "http://a-queue")
        check_local_job()
    monkeypatch.setattr(sys, "argv", ["handler.py", "--rp_serve_api"])
    check_local_job()
