"""A picture is encoded while the next is drawn: slow encoding does not hold up the accelerator."""

import time
from typing import Any

import pytest

import worker.engine.generate
import worker.runtime.loaded_model
import worker.runtime.worker


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[float, float]]]:
    """When each picture was drawn and encoded; encoding is made slow enough to be seen."""
    spans: dict[str, list[tuple[float, float]]] = {"drawn": [], "encoded": []}
    real_encode, real_draw = worker.runtime.loaded_model.encode, worker.engine.generate.draw_batch

    def slow_encode(*args: Any) -> Any:
        start = time.monotonic()
        time.sleep(0.5)
        file = real_encode(*args)
        spans["encoded"].append((start, time.monotonic()))
        return file

    def timed_draw(*args: Any) -> Any:
        start = time.monotonic()
        pictures = real_draw(*args)
        spans["drawn"].append((start, time.monotonic()))
        return pictures

    monkeypatch.setattr(worker.runtime.loaded_model, "encode", slow_encode)
    monkeypatch.setattr(worker.engine.generate, "draw_batch", timed_draw)
    return spans


def test_the_next_picture_is_drawn_while_one_is_encoded(
    spans: dict[str, list[tuple[float, float]]], tiny_sd1: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_NAME", tiny_sd1)
    job = {"id": "a-job", "input": {"prompt": "a star", "steps": 30, "num_images": 3}}

    started = worker.runtime.worker.Worker()
    for times in spans.values():
        times.clear()  # what a start draws for itself

    answer = started.handle(job)

    assert len(answer["images"]) == 3
    for encoded, next_drawn in zip(sorted(spans["encoded"]), spans["drawn"][1:], strict=False):
        assert encoded[0] < next_drawn[1]  # encoding began before the next picture was done
        assert next_drawn[0] < encoded[1]  # and drawing did not wait for it
