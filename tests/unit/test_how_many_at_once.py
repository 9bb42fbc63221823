"""How many pictures are drawn at once: what the owner says, or as many as memory holds and as draw faster."""

from typing import Any

import pytest

from tests.helpers.asking import EDITOR, SDXL, ask, picture
from worker.engine.batch_size import BatchSize
from worker.errors import SettingsError
from worker.plan import Plan, make_plan
from worker.settings import read_settings

MEGAPIXEL = 1024 * 1024
AMPLE = 100 * 10**9  # bytes


def plan(side: int = 512, **fields: Any) -> Plan:
    return make_plan(ask(SDXL, width=side, height=side, **fields))


@pytest.mark.parametrize(("side", "pictures"), [(512, 8), (640, 5), (1024, 2), (2048, 1)])
def test_as_many_as_draw_faster(side: int, pictures: int) -> None:
    assert BatchSize(None, AMPLE, 2 * MEGAPIXEL).choose(plan(side)) == pictures


def test_no_more_than_there_is_memory_for() -> None:
    ample, less = (BatchSize(None, room, 8 * MEGAPIXEL).choose(plan()) for room in (AMPLE, 2 * 10**9))
    assert 1 < less < ample


def test_the_largest_pass_counts() -> None:
    rule = BatchSize(None, AMPLE, 4 * MEGAPIXEL)
    assert rule.choose(plan(hires={"scale": 2.0, "strength": 0.5})) == rule.choose(plan(1024)) < rule.choose(plan())


def test_a_cpu_draws_one_after_the_other() -> None:
    assert BatchSize(None, 0, 8 * MEGAPIXEL).choose(plan()) == 1


def test_the_owner_decides() -> None:
    assert BatchSize(3, 0, 0).choose(plan(2048)) == 3
    assert BatchSize(1, AMPLE, 8 * MEGAPIXEL).choose(plan()) == 1


@pytest.mark.parametrize("masked", [False, True])
def test_pictures_that_look_at_others_are_drawn_one_by_one(masked: bool) -> None:
    """So the memory that they need is that of one, whose references the memory plan counts."""
    mask = {"image": picture(), "mask": picture(colour="white")} if masked else {}
    looking = make_plan(ask(EDITOR, images=[picture()], num_images=4, **mask))
    assert BatchSize(4, AMPLE, 8 * MEGAPIXEL).choose(looking) == 1
    assert BatchSize(4, AMPLE, 8 * MEGAPIXEL).choose(make_plan(ask(EDITOR, num_images=4))) == 4


def test_memory_that_ran_out_is_remembered() -> None:
    rule = BatchSize(None, AMPLE, 4 * MEGAPIXEL)
    before = rule.choose(plan())
    rule.note_out_of_memory(plan(), before)
    assert rule.choose(plan()) == before // 2
    assert rule.choose(plan(1024)) == rule.choose(plan()) // 4, "of larger pictures, too"
    rule.note_out_of_memory(plan(), 2 * before)
    assert rule.choose(plan()) == before // 2, "what is known already changes nothing"


@pytest.mark.parametrize(("said", "meant"), [("auto", None), ("1", 1), (" 8 ", 8), ("", None)])
def test_the_setting(said: str, meant: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_BATCH", said)
    assert read_settings().pictures_at_once == meant


@pytest.mark.parametrize("said", ["0", "-1", "65", "many", "1.5", "auto,1"])
def test_what_it_does_not_take(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_BATCH", said)
    with pytest.raises(SettingsError, match=r"MAX_BATCH: got .*should be auto, or a number from 1 to 64"):
        read_settings()
