"""The evaluation can be believed: on true pictures its judge is right, and it sees what is wrong."""

from random import Random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.cases import handwritten, held_out
from training.judge import judge
from training.render import render
from training.scenes import Scene, Spec, Thing, pack, realise, sample_spec
from training.score import score, shares


def _drawn(scenes: list[Scene]) -> list[NDArray[np.uint8]]:
    pictures = ((render(pack(scenes)) + 1) * 127.5).round().to(torch.uint8)
    return list(pictures.permute(0, 2, 3, 1).numpy())


@pytest.fixture(scope="module")
def true_pictures() -> tuple[list[Scene], list[NDArray[np.uint8]]]:
    random = Random(11)
    scenes = [realise(sample_spec(random), random) for _ in range(120)]
    return scenes, [picture for n in range(0, 120, 12) for picture in _drawn(scenes[n : n + 12])]


def test_on_true_pictures_the_judge_is_right(true_pictures: tuple[list[Scene], list[NDArray[np.uint8]]]) -> None:
    right = asked = 0
    for scene, picture in zip(*true_pictures, strict=True):
        background, seen = judge(picture)
        right += background == scene.background
        found = {(s.shape, s.colour, s.style, round(s.x / 8), round(s.y / 8)) for s in seen}
        near = [(o, s) for o in scene.objects for s in seen if abs(s.x - o.x) < 6 and abs(s.y - o.y) < 6]
        right += sum((o.shape, o.colour, o.style) == (s.shape, s.colour, s.style) for o, s in near)
        asked += 1 + max(len(scene.objects), len(found))
    assert right / asked >= 0.995


def test_a_true_picture_of_every_evaluation_prompt_scores_full_marks() -> None:
    random = Random(5)
    cases = held_out(24) + handwritten()[::4]
    scores = [score(case.spec, *judge(_drawn([realise(case.spec, random)])[0])) for case in cases]
    assert shares(scores)["all"] == 100.0


@pytest.mark.parametrize("layout", ["one over two", "two over one", "two and one", "row", "column", "between"])
def test_a_true_picture_of_three_objects_is_in_order(layout: str) -> None:
    first, last = Thing("circle", "red"), Thing("star", "blue", "small")
    middle = first if layout == "two and one" else Thing("square", "green")
    spec = Spec((first, middle, last), "white", layout)
    for seed in range(4):
        assert shares([score(spec, *judge(_drawn([realise(spec, Random(seed))])[0]))])["all"] == 100.0


@pytest.mark.parametrize(
    ("wrong", "question"),
    [
        (Spec((Thing("circle", "red"), Thing("square", "green")), "black", "left of"), "background"),
        (Spec((Thing("circle", "blue"), Thing("square", "green")), "white", "left of"), "colour"),
        (Spec((Thing("heart", "red"), Thing("square", "green")), "white", "left of"), "shape"),
        (Spec((Thing("circle", "red"), Thing("square", "green")), "white", "right of"), "relation"),
        (Spec((Thing("circle", "red", "small"), Thing("square", "green")), "white", "left of"), "size"),
    ],
)
def test_a_wrong_picture_is_seen_to_be_wrong(wrong: Spec, question: str) -> None:
    asked = Spec((Thing("circle", "red", "large"), Thing("square", "green")), "white", "left of")
    result = shares([score(asked, *judge(_drawn([realise(wrong, Random(2))])[0]))])
    assert result[question] is not None and result[question] < 100
    assert result["all"] == 0
