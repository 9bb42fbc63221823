"""Families beyond the UNets, and pipelines that the code does not name: drawn as plain diffusers draws them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline

from tests.helpers import tiny_models, tiny_transformers
from tests.helpers.drawing import draw, load_engine, picture
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.errors import InvalidInputError, JobTimeoutError, ModelError
from worker.plan import make_plan

NAMED = {
    "sd3": (tiny_transformers.sd3, {"guidance_scale": 4.0, "negative_prompt": "a star"}),
    "flux-dev": (tiny_transformers.flux, {"guidance_scale": 4.0}),
    "flux-schnell": (partial(tiny_transformers.flux, guidance_embeds=False), {}),
}
UNNAMED = {
    "lcm": (tiny_transformers.lcm, {"guidance_scale": 4.0}),  # guidance distilled into an embedding
    "pixart": (tiny_transformers.pixart, {"guidance_scale": 4.0, "negative_prompt": "a star"}),
    "chroma": (tiny_transformers.chroma, {"guidance_scale": 4.0, "negative_prompt": "a star"}),
}
ALL: dict[str, tuple[Callable[[], DiffusionPipeline], dict[str, Any]]] = NAMED | UNNAMED


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("transformers")
    return {family: tiny_models.save(make(), root / family) for family, (make, _) in ALL.items()}


@pytest.fixture(scope="module")
def loaded(saved: dict[str, Path]) -> dict[str, Engine]:
    return {family: load_engine(MODEL_NAME=str(folder)) for family, folder in saved.items()}


@pytest.mark.parametrize("family", ALL)
def test_our_picture_is_plain_diffusers_picture(family: str, saved: dict[str, Path], loaded: dict[str, Engine]) -> None:
    _, options = ALL[family]
    plain = DiffusionPipeline.from_pretrained(saved[family])
    call = {"prompt": "a red square", "width": 64, "height": 96, "num_inference_steps": 3, **options}

    theirs = plain(**call, generator=torch.Generator().manual_seed(7)).images[0]
    ours = parse({"input": {**call, "seed": 7}}, loaded[family].capabilities)[0]
    (drawn,) = generate(loaded[family], make_plan(ours), lambda *_: None)

    assert drawn.image.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("family", ALL)
def test_every_family_counts_its_steps(family: str, loaded: dict[str, Engine]) -> None:
    engine = loaded[family]
    counted: list[tuple[int, int]] = []
    request = parse({"input": {"prompt": "a star", "width": 64, "height": 64, "steps": 3}}, engine.capabilities)[0]

    list(generate(engine, make_plan(request), lambda *step: counted.append(step[:2])))

    assert counted == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("family", ALL)
def test_every_family_heeds_the_time_limit(family: str, loaded: dict[str, Engine]) -> None:
    with pytest.raises(JobTimeoutError):
        draw(loaded[family], deadline=0.0, guidance_scale=1.0)


@pytest.mark.parametrize("family", ["flux-dev", "flux-schnell", "lcm"])
def test_a_negative_prompt_that_would_have_no_effect_is_refused_by_name(family: str, loaded: dict[str, Engine]) -> None:
    with pytest.raises(InvalidInputError, match="negative_prompt"):
        parse({"input": {"prompt": "a star", "negative_prompt": "a heart"}}, loaded[family].capabilities)


def test_guidance_without_effect_is_a_warning(loaded: dict[str, Engine]) -> None:
    request = parse({"input": {"prompt": "a star", "guidance_scale": 3}}, loaded["flux-schnell"].capabilities)[0]

    assert "guidance_scale" in request.warnings[0]


def test_diffusion_schedulers_are_refused_where_they_do_not_fit(loaded: dict[str, Engine]) -> None:
    for family in ("sd3", "flux-dev", "chroma", "lcm"):
        with pytest.raises(InvalidInputError, match="scheduler"):
            parse({"input": {"prompt": "a star", "scheduler": "DPM++ 2M"}}, loaded[family].capabilities)


def test_the_same_seed_gives_the_same_picture_alone_and_in_a_batch(loaded: dict[str, Engine]) -> None:
    for engine in loaded.values():
        batch = draw(engine, num_images=2, num_inference_steps=2, guidance_scale=2.0)
        assert batch[1].image.tobytes() == picture(engine, seed=8, num_inference_steps=2, guidance_scale=2.0).tobytes()


def test_an_owner_s_limit_below_the_native_size_is_what_jobs_get(saved: dict[str, Path]) -> None:
    model = load_engine(MODEL_NAME=str(saved["sd3"]), MAX_PIXELS=str(64 * 64)).capabilities

    request = parse({"input": {"prompt": "a cat"}}, model)[0]

    assert 0 < request.width * request.height <= 64 * 64


def test_a_model_that_needs_a_picture_too_is_refused(tmp_path: Path) -> None:
    parts = {**tiny_models.sd1().components, "unet": tiny_models._unet(in_channels=8)}
    instructed = StableDiffusionPipeline(**parts, requires_safety_checker=False)

    with pytest.raises(ModelError, match="prompt alone"):
        load_engine(MODEL_NAME=str(tiny_models.save(instructed, tmp_path)))
