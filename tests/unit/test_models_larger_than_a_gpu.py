"""A model that is larger than one GPU is spread over several, each component whole on one of them, if they hold it."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from worker.engine import grouping, memory
from worker.engine.grouping import find_waiting, group_devices, limit_to_main_memory
from worker.engine.memory import plan_memory
from worker.engine.memory_plan import DECODE_TILED, DENOISE, LOOK, RESERVE
from worker.engine.spread import choose_places
from worker.main_memory import find_free_main_memory
from worker.models.editing import SEEN_PIXELS, Editing

GB = 10**9
SQUARE = 1024 * 1024
QWEN = {"transformer": 41 * GB, "text_encoder": 17 * GB, "vae": GB // 4}
FLUX2 = {"transformer": 64 * GB, "text_encoder": 48 * GB, "vae": GB // 4}
FLUX2_IN_FP8 = {"transformer": 33 * GB, "text_encoder": 25 * GB, "vae": GB // 4}
L40 = 47 * GB


@pytest.mark.parametrize("sizes", [QWEN, FLUX2_IN_FP8])
def test_two_of_48_gb_hold_it(sizes: dict[str, int]) -> None:
    assert choose_places(sizes, SQUARE, [L40]) is None
    assert choose_places(sizes, SQUARE, [L40, L40]) == {"transformer": 0, "text_encoder": 1, "vae": 1}


def test_a_denoiser_larger_than_each_is_held_by_none() -> None:
    assert choose_places(FLUX2, SQUARE, [L40] * 4) is None


def test_pictures_are_drawn_on_the_first_whatever_it_has() -> None:
    assert choose_places(QWEN, SQUARE, [44 * GB, 80 * GB, 24 * GB]) == {"transformer": 0, "text_encoder": 1, "vae": 1}
    assert choose_places(QWEN, SQUARE, [24 * GB, 80 * GB, 80 * GB]) is None


def test_what_a_pass_works_with_counts() -> None:
    need = QWEN["transformer"] + RESERVE + DENOISE * SQUARE
    assert choose_places(QWEN, SQUARE, [need, L40]) is not None
    assert choose_places(QWEN, SQUARE, [need - 1, L40]) is None


def test_what_a_pass_looks_at_counts() -> None:
    need = QWEN["transformer"] + RESERVE + (DENOISE + 2 * LOOK) * SQUARE
    assert choose_places(QWEN, SQUARE, [need, L40], 2 * SQUARE) is not None
    assert choose_places(QWEN, SQUARE, [need - 1, L40], 2 * SQUARE) is None


def test_each_of_several_text_encoders_has_a_place() -> None:
    sizes = {"transformer": 34 * GB, "text_encoder": GB // 4, "text_encoder_2": 10 * GB, "text_encoder_4": 16 * GB}
    places = choose_places(sizes, SQUARE, [40 * GB, 18 * GB, 12 * GB])
    assert places is not None
    assert (places["transformer"], places["text_encoder_4"], places["text_encoder_2"]) == (0, 1, 2)


def test_both_denoisers_of_a_model_with_a_refiner_are_on_the_first() -> None:
    places = choose_places(
        {"unet": 5 * GB, "refiner unet": 4 * GB, "text_encoder_2": GB, "vae": GB}, SQUARE, [24 * GB] * 2
    )
    assert places is not None and places["unet"] == places["refiner unet"] == 0


CARDS = [torch.device("cuda", number) for number in range(8)]
ALONE = [[0], [1], [2], [3]]


class Model:
    """As large as its native size says."""

    width = height = 1024
    editing: Editing | None = None


def _group(monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int], *free: int, made: int = 0, **settings: Any) -> Any:
    """The numbers of the cards that draw together, each with so much free; of what was made on the first one, that much
    is there already."""

    def weight_sizes(_: Any, __: Any, device: torch.device | None = None) -> dict[str, int]:
        return sizes if device is None else {"transformer": made if device == CARDS[0] else 0}

    monkeypatch.setattr(memory, "weight_sizes", weight_sizes)
    monkeypatch.setattr(grouping, "weight_sizes", weight_sizes)
    monkeypatch.setattr(memory, "free_memory", lambda device: free[device.index] - (made if not device.index else 0))
    model: Any = Model()
    cards = CARDS[: len(free)]
    return [[one.index for one in group] for group in group_devices(model, [], [], None, cards, **settings)]


def test_as_few_cards_as_keep_a_model_draw_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _group(monkeypatch, QWEN, *[80 * GB] * 4) == ALONE
    assert _group(monkeypatch, QWEN, *[L40] * 4) == [[0, 1], [2, 3]]
    assert _group(monkeypatch, FLUX2, *[L40] * 4) == ALONE, "all of them together do not keep it"


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        ([80], [[0]]),
        ([47], [[0]]),
        ([47, 47], [[0, 1]]),
        ([47, 47, 47], [[0, 1]]),
        ([80, 24], [[0]]),
        ([24, 80], [[1]]),
        ([80, 24, 24, 24], [[0]]),
        ([80, 47, 47, 80], [[0], [1, 2], [3]]),
        ([24, 24], [[0], [1]]),
        ([47, 32], [[0, 1]]),
        ([47, 10, 10, 10], [[0], [1], [2], [3]]),
        ([80] * 8, [[number] for number in range(8)]),
        ([47] * 8, [[0, 1], [2, 3], [4, 5], [6, 7]]),
    ],
)
def test_cards_that_would_keep_the_others_waiting_draw_nothing(
    free: list[int], expected: list[list[int]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where some keep the model, those that cannot would have it travel, and a job's pictures are divided evenly."""
    with caplog.at_level(logging.WARNING, "worker"):
        assert _group(monkeypatch, QWEN, *[one * GB for one in free]) == expected
    idle = [number for number in range(len(free)) if not any(number in group for group in expected)]
    assert all(f"cuda:{number}" in caplog.text for number in idle) and bool(idle) == bool(caplog.text)


def test_what_fits_on_one_by_tiles_is_not_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    need = sum(QWEN.values()) + RESERVE + DECODE_TILED * SQUARE
    assert _group(monkeypatch, QWEN, *[need] * 4) == ALONE
    assert _group(monkeypatch, QWEN, *[need - 1] * 4) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("editing", "pictures"),
    [(Editing(1), 1), (Editing(2), 2), (Editing(10), 2), (Editing(1, share=2), 2), (Editing(4, share=0.5), 1)],
)
def test_a_model_that_edits_has_room_for_an_ordinary_jobs_pictures(
    editing: Editing, pictures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two, if it takes as many, each by its share of what one takes in the largest model."""
    need = sum(QWEN.values()) + RESERVE + DENOISE * SQUARE + pictures * LOOK * SEEN_PIXELS
    assert _group(monkeypatch, QWEN, *[need - 1] * 4) == ALONE
    monkeypatch.setattr(Model, "editing", editing)
    assert _group(monkeypatch, QWEN, *[need] * 4) == ALONE
    assert _group(monkeypatch, QWEN, *[need - 1] * 4) == [[0, 1], [2, 3]]
    monkeypatch.setattr(memory, "free_memory", lambda _: need)
    assert plan_memory(Model(), [], [], None, CARDS[:1]).fits  # type: ignore[arg-type]
    monkeypatch.setattr(memory, "free_memory", lambda _: need - 1)
    assert plan_memory(Model(), [], [], None, CARDS[:1]).offload != "none"  # type: ignore[arg-type]


def test_a_model_that_splits_pictures_has_room_for_their_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four, one of all of them, and the one that is split."""
    need = sum(QWEN.values()) + RESERVE + (DENOISE + 5 * LOOK) * SQUARE
    monkeypatch.setattr(Model, "editing", Editing(1, splits=True))
    assert _group(monkeypatch, QWEN, *[need] * 4) == ALONE
    assert _group(monkeypatch, QWEN, *[need - 1] * 4) == [[0, 1], [2, 3]]


def test_quantised_weights_that_are_there_take_no_room_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sum(FLUX2_IN_FP8.values())
    assert _group(monkeypatch, FLUX2_IN_FP8, *[80 * GB] * 4, made=whole, quantize="fp8") == ALONE


def test_what_bitsandbytes_packs_is_not_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _group(monkeypatch, QWEN, *[L40] * 4, quantize="4bit") == ALONE


def test_what_has_grown_since_is_drawn_on_the_first_as_it_would_be_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = Model()
    monkeypatch.setattr(memory, "weight_sizes", lambda *given: {} if len(given) > 2 else QWEN)
    monkeypatch.setattr(memory, "free_memory", lambda _: 45 * GB)
    assert plan_memory(model, [], [], None, CARDS[:2]).places
    monkeypatch.setattr(memory, "free_memory", lambda _: 42 * GB)
    plan = plan_memory(model, [], [], None, CARDS[:2])
    assert not plan.places and plan.offload != "none"


@pytest.mark.parametrize("free", [L40, 45 * GB])
def test_pictures_that_are_decoded_elsewhere_are_not_decoded_by_tiles(
    free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = Model()
    monkeypatch.setattr(memory, "weight_sizes", lambda *given: {} if len(given) > 2 else QWEN)
    monkeypatch.setattr(memory, "free_memory", lambda _: free)
    plan = plan_memory(model, [], [], None, CARDS[:2])
    assert plan.places["vae"] == 1 and plan.fits and not plan.tiling


def _limit(monkeypatch: pytest.MonkeyPatch, free: int | None, offload: Any, sizes: dict[str, int] = QWEN) -> int:
    """How many of four cards draw, of which none keeps the model whole."""
    monkeypatch.setattr(grouping, "weight_sizes", lambda *_: sizes)
    monkeypatch.setattr(grouping, "find_room", lambda *_: 24 * GB)
    monkeypatch.setattr(grouping, "find_free_main_memory", lambda: free)
    model: Any = Model()
    groups = [[card] for card in CARDS[:4]]
    return len(limit_to_main_memory(groups, find_waiting(model, [], [], offload, groups)))


def test_no_more_cards_draw_than_main_memory_has_room_for_their_weights(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = sum(QWEN.values())
    assert _limit(monkeypatch, 3 * whole, "model") == 4
    assert not caplog.text
    assert _limit(monkeypatch, 3 * whole - 1, "model") == 3
    assert "3 of 4 GPUs draw: what waits in main memory is there once for each" in caplog.text
    assert _limit(monkeypatch, 0, "model") == 1, "whose weights are there already"
    assert _limit(monkeypatch, 3 * whole, "group") == 2, "which keeps them in blocks of powers of two"
    assert _limit(monkeypatch, 0, "none") == 4, "nothing waits"
    assert _limit(monkeypatch, None, "model") == 4, "nobody knows"
    assert _limit(monkeypatch, 0, None) == 1, "chosen for them"
    assert _limit(monkeypatch, 0, None, {"transformer": GB}) == 4, "nothing waits, either"


MACHINE = {"proc/meminfo": "MemTotal:  64000000 kB\nMemFree: 10 kB\nMemAvailable:  40000000 kB\n"}
SECOND = {"memory.max": "20000000000\n", "memory.current": "9000000000\n"}
SECOND_PAGES = {"memory.stat": "anon 5\nfile 999\ninactive_file 1000000000\nactive_file 2000000000\nslab 3\n"}
FIRST = {"memory/memory.limit_in_bytes": "20000000000\n", "memory/memory.usage_in_bytes": "9000000000\n"}
FIRST_PAGES = {"memory/memory.stat": "inactive_file 7\ntotal_inactive_file 3000000000\ntotal_active_file 0\n"}


@pytest.mark.parametrize(
    ("files", "groups", "expected"),
    [
        ({}, {}, None),
        (MACHINE, {}, 40_960_000_000),
        (MACHINE, SECOND | SECOND_PAGES, 14 * GB),
        (MACHINE, SECOND, 11 * GB),
        (MACHINE, FIRST | FIRST_PAGES, 14 * GB),
        (MACHINE, SECOND | {"memory.max": "max\n"}, 40_960_000_000),
        (MACHINE, FIRST | {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 40_960_000_000),
        (MACHINE, SECOND | {"memory.current": "21000000000\n"}, 0),
    ],
)
def test_main_memory_is_what_the_machine_has_and_the_container_may_take(
    files: dict[str, str], groups: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    for name, text in {**files, **{f"sys/fs/cgroup/{name}": text for name, text in groups.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert find_free_main_memory(tmp_path) == expected
