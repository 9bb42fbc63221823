"""A model that is larger than one GPU is spread over several, each component whole on one of them, if they hold it."""

from typing import Any

import pytest
import torch

from worker.engine import memory
from worker.engine.memory import group_devices, plan_memory
from worker.engine.memory_plan import DECODE_TILED, DENOISE, LOOK, RESERVE
from worker.engine.spread import choose_places
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


CARDS = [torch.device("cuda", number) for number in range(4)]


class Model:
    """As large as its native size says."""

    width = height = 1024
    editing: Editing | None = None


def _group(monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int], free: int, made: int = 0, **settings: Any) -> Any:
    """How many of four cards draw together; of what was made on the first one, that much is there already."""

    def weight_sizes(_: Any, __: Any, device: torch.device | None = None) -> dict[str, int]:
        return sizes if device is None else {"transformer": made if device == CARDS[0] else 0}

    monkeypatch.setattr(memory, "weight_sizes", weight_sizes)
    monkeypatch.setattr(memory, "free_memory", lambda device: free - (made if device == CARDS[0] else 0))
    model: Any = Model()
    groups = group_devices(model, [], [], None, CARDS, **settings)
    assert [one for group in groups for one in group] == CARDS
    return [len(group) for group in groups]


def test_as_few_cards_as_keep_a_model_draw_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _group(monkeypatch, QWEN, 80 * GB) == [1] * 4
    assert _group(monkeypatch, QWEN, L40) == [2] * 2
    assert _group(monkeypatch, FLUX2, L40) == [1] * 4, "all of them together do not keep it"


def test_what_fits_on_one_by_tiles_is_not_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    need = sum(QWEN.values()) + RESERVE + DECODE_TILED * SQUARE
    assert _group(monkeypatch, QWEN, need) == [1] * 4
    assert _group(monkeypatch, QWEN, need - 1) == [2] * 2


def test_a_model_that_edits_has_room_for_a_reference_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    need = sum(QWEN.values()) + RESERVE + DENOISE * SQUARE + LOOK * SEEN_PIXELS
    assert _group(monkeypatch, QWEN, need - 1) == [1] * 4
    monkeypatch.setattr(Model, "editing", Editing(3))
    assert _group(monkeypatch, QWEN, need) == [1] * 4
    assert _group(monkeypatch, QWEN, need - 1) == [2] * 2
    monkeypatch.setattr(memory, "free_memory", lambda _: need)
    assert plan_memory(Model(), [], [], None, CARDS[:1]).fits  # type: ignore[arg-type]
    monkeypatch.setattr(memory, "free_memory", lambda _: need - 1)
    assert plan_memory(Model(), [], [], None, CARDS[:1]).offload != "none"  # type: ignore[arg-type]


def test_a_model_that_splits_pictures_has_room_for_their_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four, one of all of them, and the one that is split."""
    need = sum(QWEN.values()) + RESERVE + (DENOISE + 5 * LOOK) * SQUARE
    monkeypatch.setattr(Model, "editing", Editing(1, splits=True))
    assert _group(monkeypatch, QWEN, need) == [1] * 4
    assert _group(monkeypatch, QWEN, need - 1) == [2] * 2


def test_quantised_weights_that_are_there_take_no_room_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sum(FLUX2_IN_FP8.values())
    assert _group(monkeypatch, FLUX2_IN_FP8, 80 * GB, made=whole, quantize="fp8") == [1] * 4


def test_what_bitsandbytes_packs_is_not_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _group(monkeypatch, QWEN, L40, quantize="4bit") == [1] * 4


def test_what_has_grown_since_is_drawn_on_the_first_as_it_would_be_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = Model()
    monkeypatch.setattr(memory, "weight_sizes", lambda *given: {} if len(given) > 2 else QWEN)
    monkeypatch.setattr(memory, "free_memory", lambda _: 45 * GB)
    assert plan_memory(model, [], [], None, CARDS[:2]).places
    monkeypatch.setattr(memory, "free_memory", lambda _: 42 * GB)
    plan = plan_memory(model, [], [], None, CARDS[:2])
    assert not plan.places and plan.offload != "none"
