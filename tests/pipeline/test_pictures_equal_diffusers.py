"""For the same seed, our picture is plain diffusers', pixel for pixel: every family, every class of schedulers."""

from typing import Any

import pytest

from tests.helpers.drawing import assert_same, draw, picture
from tests.helpers.plain_diffusers import EXPECTED, plainly, with_scheduler
from tests.helpers.tiny_models import UNETS
from worker.engine.engine import Engine
from worker.models import schedulers

# One name of each class; what its other names mean is compared in test_schedulers_mean_what_they_say.
PLAIN = {kind: name for name, (kind, _) in reversed(EXPECTED.items()) if not name.startswith("Flow")}
# IPNDM knows no prediction type but epsilon.
CASES = [(family, name) for family in UNETS for name in PLAIN.values() if (family, name) != ("sd2-v", "IPNDM")]


def test_every_scheduler_of_the_table_has_its_oracle() -> None:
    assert list(EXPECTED) == [row.name for row in schedulers.SCHEDULERS]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_family_and_scheduler(family: str, name: str, engines: dict[str, Engine], plain: dict[str, Any]) -> None:
    ours = picture(engines[family], scheduler=name)
    assert_same(ours, plainly(with_scheduler(plain[family], name)))


@pytest.mark.parametrize("family", UNETS)
def test_each_seed_prompt_and_scheduler_gives_another_picture(family: str, engines: dict[str, Engine]) -> None:
    """Else the tests here would hold for a worker that ignores the request."""
    engine = engines[family]
    changes: list[dict[str, Any]] = [{}, {"seed": 8}, {"prompt": "a dog"}, {"scheduler": "Euler a"}]
    changes += [{"guidance_scale": 1}, {"negative_prompt": "blue"}, {"num_inference_steps": 5}]
    pictures = {picture(engine, **change).tobytes() for change in changes}
    assert len(pictures) == len(changes)


@pytest.mark.parametrize("family", ["sd2", "sd2-v", "sdxl"])
def test_default_scheduler_is_the_models_own(family: str, engines: dict[str, Engine], plain: dict[str, Any]) -> None:
    assert_same(picture(engines[family]), plainly(plain[family]))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize(
    "fields",
    [
        {"guidance_scale": 0},
        {"guidance_scale": 1},
        {"guidance_scale": 12.5},
        {"negative_prompt": "blue, blurry"},
        {"negative_prompt": ""},
        {"prompt": ""},
        {"prompt": "x" * 75},
        {"width": 96, "height": 64},
        {"width": 64, "height": 104},
        {"seed": 2**32 - 1},
    ],
    ids=lambda fields: ",".join(f"{name}={str(value)[:12]}" for name, value in fields.items()),
)
def test_fields(family: str, fields: dict[str, Any], engines: dict[str, Engine], plain: dict[str, Any]) -> None:
    ours = picture(engines[family], scheduler="Euler", **fields)
    assert_same(ours, plainly(with_scheduler(plain[family], "Euler"), **fields))


@pytest.mark.parametrize("family", UNETS)
def test_two_prompts_are_two_calls(family: str, engines: dict[str, Engine], plain: dict[str, Any]) -> None:
    ours = draw(engines[family], prompt=["a red square", "a blue dot"], scheduler="Euler", seed=[3, 9])
    pipeline = with_scheduler(plain[family], "Euler")
    assert_same(ours[0].image, plainly(pipeline, prompt="a red square", seed=3))
    assert_same(ours[1].image, plainly(pipeline, prompt="a blue dot", seed=9))
