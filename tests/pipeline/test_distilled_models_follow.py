"""Models distilled to a guidance of their own (LCM) follow ControlNets as in plain diffusers, negative prompts too.

diffusers' pipelines differ in whether they compare with the negative prompt all the same.
"""

from pathlib import Path
from typing import Any

import pytest
from diffusers import ControlNetModel, UNet2DConditionModel

from tests.helpers import tiny_addons, tiny_models
from tests.helpers.drawing import assert_same, load_engine, picture, uri
from tests.helpers.plain_diffusers import EULER, plain, plainly
from tests.helpers.tiny_addons import noise, right_half
from worker.engine.engine import Engine

LINES, START = noise(1), noise(3)
CONTROL = {"name": "edges", "image": uri(LINES), "scale": 0.8}
NEGATIVE = {"negative_prompt": "a star", "guidance_scale": 1.5}
FAMILIES = {"StableDiffusion": tiny_models.sd1, "StableDiffusionXL": tiny_models.sdxl}


@pytest.fixture(scope="module", params=FAMILIES)
def distilled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """The family, the folder of a tiny model of it that is told its guidance, and that of a ControlNet."""
    root = tmp_path_factory.mktemp("distilled")
    pipeline: Any = FAMILIES[request.param]()
    pipeline.unet = UNet2DConditionModel.from_config({**pipeline.unet.config, "time_cond_proj_dim": 32})
    net = tiny_addons.controlnet(pipeline, root / "edges", seed=1)
    return request.param, tiny_models.save(pipeline, root / "model"), net


@pytest.fixture(scope="module")
def engine(distilled: tuple[str, Path, Path]) -> Engine:
    _, model, net = distilled
    return load_engine(MODEL_NAME=str(model), CONTROLNETS=f"edges={net}")


def _plain(distilled: tuple[str, Path, Path], kind: str) -> Any:
    family, model, net = distilled
    return plain(model, f"{family}{kind}Pipeline", controlnet=ControlNetModel.from_pretrained(net))


def test_from_text(distilled: tuple[str, Path, Path], engine: Engine) -> None:
    theirs = plainly(_plain(distilled, "ControlNet"), image=LINES, controlnet_conditioning_scale=0.8, **NEGATIVE)
    assert_same(picture(engine, controlnet=CONTROL, **NEGATIVE, **EULER), theirs)


def test_from_a_picture(distilled: tuple[str, Path, Path], engine: Engine) -> None:
    theirs = plainly(
        _plain(distilled, "ControlNetImg2Img"),
        image=START,
        control_image=LINES,
        strength=0.5,
        controlnet_conditioning_scale=0.8,
        **NEGATIVE,
    )
    assert_same(picture(engine, image=uri(START), strength=0.5, controlnet=CONTROL, **NEGATIVE, **EULER), theirs)


def test_within_a_mask(distilled: tuple[str, Path, Path], engine: Engine) -> None:
    mask = right_half()
    theirs = plainly(
        _plain(distilled, "ControlNetInpaint"),
        image=START,
        mask_image=mask,
        control_image=LINES,
        strength=0.75,
        controlnet_conditioning_scale=0.8,
        **NEGATIVE,
    )
    theirs.paste(START, mask=mask.point(lambda value: 255 - value))
    job = {"image": uri(START), "mask": uri(mask), "strength": 0.75, "controlnet": CONTROL}
    assert_same(picture(engine, **job, **NEGATIVE, **EULER), theirs)


def test_prompts_beyond_clips_window_too(engine: Engine) -> None:
    job = {"image": uri(START), "strength": 0.5, "controlnet": CONTROL, "guidance_scale": 1.5}
    assert picture(engine, **job, prompt="a red square on a white ground " * 6, **EULER).getbbox() is not None
