"""What published models bring with them beyond their family: they are run as they want to be, or refused by name."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusion3Pipeline
from transformers import ByT5Tokenizer

from tests.helpers import tiny_models, tiny_transformers
from tests.helpers.drawing import draw, load_engine, scene, uri
from tests.helpers.faults import a_worker, run
from tests.helpers.tiny_models import BETAS
from worker.engine.engine import Engine
from worker.engine.load.vae import replace_vae
from worker.errors import InvalidInputError, ModelError, SettingsError
from worker.models.checks import check_model
from worker.settings import Settings


def loaded(pipeline: DiffusionPipeline, folder: Path, **environment: str) -> Engine:
    return load_engine(MODEL_NAME=str(tiny_models.save(pipeline, folder)), **environment)


def with_scheduler(family: str, name: str, **config: Any) -> DiffusionPipeline:
    pipeline = tiny_models.UNETS[family]()
    pipeline.scheduler = getattr(diffusers, name)(**config)
    return pipeline


FEW = {"timestep_spacing": "trailing", **BETAS}


@pytest.mark.parametrize(
    ("made", "name", "steps", "guidance", "scheduler"),
    [
        (("sd1", "LCMScheduler"), "lcm-sd1", 8, 1.5, "LCMScheduler"),
        (("sdxl", "LCMScheduler"), "lcm-sdxl", 8, 1.5, "LCMScheduler"),
        (("sd2", "EulerDiscreteScheduler"), "sd-turbo", 4, 0.0, "EulerDiscreteScheduler"),
        (("sdxl-64", "EulerAncestralDiscreteScheduler"), "sdxl-turbo", 4, 0.0, "EulerAncestralDiscreteScheduler"),
        (("sdxl", "EulerAncestralDiscreteScheduler"), "sdxl", 25, 7.5, "EulerAncestralDiscreteScheduler"),
        (("sd2-v", "EulerDiscreteScheduler"), "sd2", 50, 7.5, "EulerDiscreteScheduler"),
    ],
)
def test_distilled_models_get_few_steps(
    made: tuple[str, str], name: str, steps: int, guidance: float, scheduler: str, tmp_path: Path
) -> None:
    family, size = made[0].removesuffix("-64"), 64 if made[0].endswith("-64") else 8
    prediction = {"prediction_type": "v_prediction"} if family == "sd2-v" else {}
    spaced = BETAS if made[1] == "LCMScheduler" else FEW
    pipeline = with_scheduler(family, made[1], **spaced, **prediction)
    pipeline.unet.register_to_config(sample_size=size)

    model = loaded(pipeline, tmp_path).capabilities

    assert (model.family.name, model.family.steps, model.family.guidance_scale) == (name, steps, guidance)
    assert model.scheduler.class_name == scheduler


def test_noise_of_another_kind_takes_no_other_scheduler(tmp_path: Path) -> None:
    engine = loaded(with_scheduler("sdxl", "EDMDPMSolverMultistepScheduler"), tmp_path)

    assert draw(engine)[0].image.getbbox() is not None
    for fields in ({"scheduler": "Euler"}, {"preview": True}):
        with pytest.raises(InvalidInputError, match=next(iter(fields))):
            draw(engine, **fields)


def test_stable_diffusion_3_without_t5(tmp_path: Path) -> None:
    parts = {**tiny_transformers.sd3().components, "text_encoder_3": None, "tokenizer_3": None}

    assert draw(loaded(StableDiffusion3Pipeline(**parts), tmp_path))[0].image.getbbox() is not None


def test_the_refiner_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="REFINER_NAME"):
        loaded(tiny_models.sdxl_refiner(), tmp_path)


@pytest.mark.parametrize("name", ["KandinskyV22Pipeline", "StableCascadeDecoderPipeline", "WuerstchenDecoderPipeline"])
def test_a_model_of_two_repositories_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))

    with pytest.raises(ModelError, match="needs a second model, its prior"):
        load_engine(MODEL_NAME=str(tmp_path))


def test_guidance_away_from_a_negative_prompt_acts_without_one(tmp_path: Path) -> None:
    engine = loaded(tiny_transformers.qwen(), tmp_path)
    plain = DiffusionPipeline.from_pretrained(tmp_path)
    size = {"width": 64, "height": 64, "num_inference_steps": 3}

    theirs = plain(
        "a red square", negative_prompt=" ", true_cfg_scale=9.0, generator=torch.Generator().manual_seed(7), **size
    ).images[0]

    assert draw(engine, **size, guidance_scale=9.0)[0].image.tobytes() == theirs.tobytes()
    assert draw(engine, **size, guidance_scale=2.0)[0].image.tobytes() != theirs.tobytes()


def test_an_area_of_its_own_gives_way_to_the_size_that_is_asked(tmp_path: Path) -> None:
    kontext = diffusers.FluxKontextPipeline(**tiny_transformers.flux().components)

    (drawn,) = draw(loaded(kontext, tmp_path))

    assert drawn.image.size == (64, 64) and drawn.resized_from is None


def pixels() -> DiffusionPipeline:
    """DeepFloyd IF, which has no latents: its UNet works on pixels."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=32,
        in_channels=3,
        out_channels=6,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=4,
    )
    return diffusers.IFPipeline(
        tokenizer=tiny_transformers.t5_tokenizer(),
        text_encoder=tiny_transformers.t5(),
        unet=unet,
        scheduler=diffusers.DDPMScheduler(variance_type="learned_range"),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


def test_a_model_that_draws_pixels_has_their_size(tmp_path: Path) -> None:
    model = loaded(pixels(), tmp_path).capabilities

    assert (model.width, model.height) == (32, 32)
    assert not model.latent_upscaling


def test_a_picture_of_another_size_is_resized_and_the_caller_is_told(tmp_path: Path) -> None:
    """IF's image to image makes any picture as large as its UNet was trained on."""
    with a_worker(MODEL_NAME=str(tiny_models.save(pixels(), tmp_path))) as worker:
        answer = run(worker, image=uri(scene()), width=None, height=None)

    assert (answer["width"], answer["height"]) == (64, 64)
    assert any("this model drew 32x32, which was resized" in warning for warning in answer["warnings"])


def test_a_tokenizer_of_bytes_needs_no_vocabulary(tmp_path: Path) -> None:
    ByT5Tokenizer().save_pretrained(tmp_path / "tokenizer")
    for kind in ("ByT5Tokenizer", "T5Tokenizer"):
        (tmp_path / "model_index.json").write_text(
            json.dumps({"_class_name": "P", "tokenizer": ["transformers", kind]})
        )
        if kind == "ByT5Tokenizer":
            assert check_model(tmp_path) == tmp_path
        else:
            with pytest.raises(ModelError, match="holds no vocabulary"):
                check_model(tmp_path)


def test_a_variant_beside_files_of_other_kinds(folders: dict[str, Path], tmp_path: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folders["sd1"])
    pipeline.save_pretrained(tmp_path, variant="fp16")
    (tmp_path / "unet" / "LICENSE").write_text("none")

    assert load_engine(MODEL_NAME=str(tmp_path), MODEL_VARIANT="fp16").capabilities.family.name == "sd1"


@pytest.mark.parametrize("config", [{}, {"z_dim": 16}, {"latent_channels": 32}])
def test_a_vae_of_another_kind_is_not_replaced(config: dict[str, Any]) -> None:
    pipeline = SimpleNamespace(vae=SimpleNamespace(config=config))

    with pytest.raises(SettingsError, match="VAE_NAME: SimpleNamespace has no VAE that could be replaced"):
        replace_vae(pipeline, Settings(vae_name="org/name"))
