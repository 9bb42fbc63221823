"""A seed is a picture: made in a batch, alone, after other jobs or in a fresh worker, it is always the same one."""

from pathlib import Path

import pytest
from test_pictures_equal_diffusers import EXPECTED

from tests.helpers.drawing import draw, load_engine, picture
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.request import GeneratedImage


def seeds(pictures: list[GeneratedImage]) -> list[int]:
    return [one.picture.seed for one in pictures]


@pytest.mark.parametrize("scheduler", [name for name in EXPECTED if not name.startswith("Flow")])
def test_a_picture_of_a_batch_can_be_made_again_alone(scheduler: str, sd1: Engine) -> None:
    batch = draw(sd1, scheduler=scheduler, num_images=2, seed=41)
    assert seeds(batch) == [41, 42]
    assert len({one.image.tobytes() for one in batch}) == 2
    assert picture(sd1, scheduler=scheduler, seed=42) == batch[1].image


def test_pictures_come_prompt_by_prompt(sd1: Engine) -> None:
    batch = draw(sd1, prompt=["a cat", "a dog"], num_images=2, seed=5)
    assert [(one.picture.prompt, one.picture.seed) for one in batch] == [
        ("a cat", 5),
        ("a cat", 6),
        ("a dog", 7),
        ("a dog", 8),
    ]
    assert picture(sd1, prompt="a dog", seed=7) == batch[2].image


def test_a_list_gives_each_picture_its_seed(sd1: Engine) -> None:
    batch = draw(sd1, prompt=["a cat", "a dog"], seed=[9, 3])
    assert seeds(batch) == [9, 3]
    assert picture(sd1, prompt="a dog", seed=3) == batch[1].image


def test_the_same_seed_twice_is_the_same_picture_twice(sd1: Engine) -> None:
    first, second = draw(sd1, num_images=2, seed=[4, 4], scheduler="Euler a")
    assert first.image == second.image


def test_seeds_wrap_at_2_to_the_32(sd1: Engine) -> None:
    batch = draw(sd1, num_images=2, seed=2**32 - 1)
    assert seeds(batch) == [2**32 - 1, 0]
    assert picture(sd1, seed=0) == batch[1].image
    assert seeds(draw(sd1, seed=2**32 + 7)) == [7]


@pytest.mark.parametrize("absent", [None, -1, [None], [-1]])
def test_a_random_seed_is_named_so_that_its_picture_can_be_made_again(absent: object, sd1: Engine) -> None:
    (drawn,) = draw(sd1, seed=absent)
    assert picture(sd1, seed=drawn.picture.seed) == drawn.image


def test_random_seeds_are_random_and_count_up(sd1: Engine) -> None:
    requests = [parse({"input": {"prompt": "x", "num_images": 2}}, sd1.capabilities)[0] for _ in range(20)]
    firsts = {request.pictures[0].seed for request in requests}
    assert len(firsts) == 20
    assert all(one.pictures[1].seed == (one.pictures[0].seed + 1) % 2**32 for one in requests)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_job_leaves_nothing_behind(family: str, folders: dict[str, Path]) -> None:
    """What an earlier job asked for, or broke off, does not show in a later one."""
    fresh = load_engine(MODEL_NAME=str(folders[family]))
    expected = {name: picture(fresh, scheduler=name) for name in ("LMS", "PNDM", "DPM++ 2M Karras", "UniPC")}
    used = load_engine(MODEL_NAME=str(folders[family]))
    draw(used, scheduler="Heun", num_images=2, num_inference_steps=6, guidance_scale=0)
    draw(used, scheduler="DPM++ 2M SDE Karras", negative_prompt="x", width=128)
    with pytest.raises(Exception, match="time is over"):
        draw(used, deadline=0.0)
    again = {name: picture(used, scheduler=name) for name in reversed(expected)}
    assert again == expected
