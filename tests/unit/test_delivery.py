"""Pictures reach the caller in the answer or, for the local test, in a folder: all of them, or none with a reason."""

import base64
import json
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.delivering import MODEL, deliver_files
from worker.api.response import write_failure
from worker.errors import DeliveryError, ResultTooLargeError
from worker.output.delivery import Delivery
from worker.output.encode import File
from worker.output.options import OutputOptions

PNGS = [File(bytes(range(256)) * 12, "png"), File(b"second" * 100, "png")]
ANSWER: dict[str, Any] = {"seed": 1, "seeds": [1, 2], "model": MODEL, "warnings": ["a warning — before"]}


def _deliver(
    files: Sequence[File] = PNGS,
    limit: int = 10_000_000,
    local: bool = False,
    smaller: Sequence[File] | None = None,
    job_id: str = "job-1",
) -> dict[str, Any]:
    reencode = None if smaller is None else lambda: smaller
    return deliver_files(files, Delivery(job_id, local, OutputOptions(), limit, reencode), *ANSWER["warnings"])


def _size(answer: dict[str, Any]) -> int:
    """What the SDK posts for this answer."""
    return len(json.dumps({"output": answer}, ensure_ascii=False).encode())


def _shortest(answer: dict[str, Any]) -> int:
    """The least limit under which these pictures fit into an answer."""
    return _size(_deliver(limit=_size(answer) - 1))


def test_pictures_are_data_uris_and_the_first_is_repeated() -> None:
    answer = _deliver()
    heads, bodies = zip(*(image.split(",", 1) for image in answer["images"]), strict=True)
    assert heads == ("data:image/png;base64",) * 2
    assert [base64.b64decode(body, validate=True) for body in bodies] == [file.data for file in PNGS]
    assert answer["image_url"] == answer["images"][0]
    assert {name: answer[name] for name in ANSWER} == ANSWER


def test_an_answer_exactly_at_the_limit_passes_whole() -> None:
    answer = _deliver()
    assert _deliver(limit=_size(answer)) == answer


def test_one_byte_over_the_repeated_picture_is_dropped_with_a_warning() -> None:
    whole = _deliver()
    answer = _deliver(limit=_size(whole) - 1)
    assert "image_url" not in answer and answer["images"] == whole["images"]
    before, dropped = answer["warnings"]
    assert before == ANSWER["warnings"][0] and dropped.startswith("image_url")
    assert _size(answer) < _size(whole)


def test_without_the_repeated_picture_the_limit_holds_to_the_byte() -> None:
    least = _shortest(_deliver())
    assert _size(_deliver(limit=least)) == least
    with pytest.raises(ResultTooLargeError):
        _deliver(limit=least - 1)


def test_one_byte_over_that_the_format_changes_if_the_caller_left_it_open() -> None:
    smaller = [File(b"webp", "webp"), File(b"webp2", "webp")]
    answer = _deliver(limit=_shortest(_deliver()) - 1, smaller=smaller)
    assert answer["images"] == [f"data:image/webp;base64,{base64.b64encode(file.data).decode()}" for file in smaller]
    assert answer["image_url"] == answer["images"][0]
    (warning,) = answer["warnings"][1:]
    assert "webp" in warning and "png" in warning


def test_a_format_that_does_not_help_ends_in_the_same_error() -> None:
    with pytest.raises(ResultTooLargeError):
        _deliver(limit=1_000, smaller=[File(b"x" * 2_000, "webp"), File(b"y", "webp")])


def test_the_error_names_the_limit_and_the_remedies() -> None:
    with pytest.raises(ResultTooLargeError) as caught:
        _deliver(limit=1_000)
    answer = write_failure(caught.value)
    assert answer["code"] == "RESULT_TOO_LARGE" and "refresh_worker" not in answer
    for part in ("1000", "jpeg", "BUCKET_", "s3Config"):
        assert part in answer["error"]


def test_one_delivery_leaves_nothing_for_the_next() -> None:
    before = _deliver()
    _deliver(limit=_size(before) - 1)
    assert _deliver() == before and ANSWER["warnings"] == ["a warning — before"]


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the local test, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


def test_the_local_test_writes_files_and_answers_with_their_paths(outputs: Path) -> None:
    answer = _deliver(local=True, limit=1_000)  # paths are short, however large the pictures
    assert [Path(path).read_bytes() for path in answer["images"]] == [file.data for file in PNGS]
    assert sorted(Path(path).resolve() for path in answer["images"]) == sorted(outputs.iterdir())
    assert all(path.endswith(".png") for path in answer["images"])
    assert answer["image_url"] == answer["images"][0]


def test_runs_within_one_second_keep_their_own_files(outputs: Path) -> None:
    contents = [b"first", b"second", b"third"]
    paths = [_deliver([File(data, "png")], local=True)["images"][0] for data in contents]
    assert len(set(paths)) == 3
    assert [Path(path).read_bytes() for path in paths] == contents


def test_a_folder_that_cannot_be_made_is_named(outputs: Path) -> None:
    outputs.write_text("a file stands in the way")
    with pytest.raises(DeliveryError, match="outputs"):
        _deliver(local=True)
    assert outputs.read_text() == "a file stands in the way"


@contextmanager
def _disk_full_after(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_nothing_half_written_is_left(outputs: Path) -> None:
    outputs.mkdir()
    (outputs / "older.png").write_bytes(b"older")
    with pytest.raises(DeliveryError, match="outputs"), _disk_full_after(1_000):
        _deliver([File(b"small", "png"), File(b"large" * 1_000, "png")], local=True)
    assert [path.name for path in outputs.iterdir()] == ["older.png"]
