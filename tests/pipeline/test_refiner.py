"""SDXL's refiner finishes the base model's latents as plain diffusers' ensemble of experts does."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from drawing import SMALL, draw, load_engine, picture
from PIL.Image import Image

from worker.engine.generate import generate
from worker.engine.loading import Engine
from worker.errors import SettingsError
from worker.parse import parse


@pytest.fixture(scope="module")
def refiner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tiny_models.sdxl_refiner(), tmp_path_factory.mktemp("refiner"))


@pytest.fixture(scope="module")
def engine(folders: dict[str, Path], refiner: Path) -> Engine:
    return load_engine(MODEL_NAME=str(folders["sdxl"]), REFINER_NAME=str(refiner))


def plainly(folders: dict[str, Path], refiner: Path, share: float, steps: int) -> Image:
    """As diffusers' documentation does it."""
    base = StableDiffusionXLPipeline.from_pretrained(folders["sdxl"])
    second = StableDiffusionXLImg2ImgPipeline.from_pretrained(
        refiner, text_encoder_2=base.text_encoder_2, tokenizer_2=base.tokenizer_2, vae=base.vae
    )
    generator = torch.Generator().manual_seed(7)
    common: dict[str, Any] = {"prompt": "a red square", "negative_prompt": "a star", "guidance_scale": 7.5}
    latents = base(
        **common,
        width=64,
        height=64,
        num_inference_steps=8,
        generator=generator,
        denoising_end=share,
        output_type="latent",
    ).images
    return second(
        **common, image=latents, num_inference_steps=steps, generator=generator, denoising_start=share
    ).images[0]


@pytest.mark.parametrize(("share", "steps"), [(0.8, 8), (0.5, 20)])
def test_the_ensemble_is_diffusers_own(
    share: float, steps: int, engine: Engine, folders: dict[str, Path], refiner: Path
) -> None:
    job = {"negative_prompt": "a star", "num_inference_steps": 8}

    ours = picture(engine, **job, refiner={"high_noise_frac": share, "steps": steps})
    flat = picture(engine, **job, high_noise_frac=share, refiner_inference_steps=steps)

    assert ours.tobytes() == plainly(folders, refiner, share, steps).tobytes()
    assert flat.tobytes() == ours.tobytes()


def test_a_job_that_says_nothing_is_refined_and_one_that_declines_is_not(
    engine: Engine, engines: dict[str, Engine]
) -> None:
    assert picture(engine).tobytes() == picture(engine, high_noise_frac=0.8, refiner_inference_steps=4).tobytes()
    assert picture(engine, high_noise_frac=1.0).tobytes() == picture(engines["sdxl"]).tobytes()


def test_progress_counts_both_passes(engine: Engine) -> None:
    request = parse({"input": {**SMALL, "num_inference_steps": 10, "num_images": 2}}, engine.model)
    counted: list[tuple[int, int]] = []

    list(generate(engine, request, lambda *step: counted.append(step[:2])))

    assert [done for done, _ in counted] == list(range(1, len(counted) + 1))
    assert counted[-1] == (20, 20)


def test_the_two_share_their_modules(engine: Engine) -> None:
    draw(engine)

    assert engine.refiner.vae is engine.pipeline.vae
    assert engine.refiner.text_encoder_2 is engine.pipeline.text_encoder_2


def test_a_refiner_for_another_family_is_refused(folders: dict[str, Path], refiner: Path) -> None:
    with pytest.raises(SettingsError, match="REFINER_NAME"):
        load_engine(MODEL_NAME=str(folders["sd1"]), REFINER_NAME=str(refiner))
