"""SDXL's refiner finishes the base model's latents as plain diffusers' ensemble of experts does."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline
from PIL import Image as Pillow
from PIL.Image import Image

from tests.helpers import tiny_models
from tests.helpers.baked_graphs import BakedDevice, graphs_of
from tests.helpers.drawing import SMALL, assert_same, draw, hole, load_engine, picture, scene, uri
from tests.helpers.original_names import unet_weights
from tests.helpers.plain_diffusers import around, load_plain
from tests.helpers.tiny_addons import Kits, write
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.engine.load import checkpoint, single_file
from worker.engine.self_test import self_test
from worker.errors import SettingsError
from worker.plan import make_plan


@pytest.fixture(scope="module")
def refiner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tiny_models.sdxl_refiner(), tmp_path_factory.mktemp("refiner"))


@pytest.fixture(scope="module")
def engine(folders: dict[str, Path], refiner: Path) -> Engine:
    return load_engine(MODEL_NAME=str(folders["sdxl"]), REFINER_NAME=str(refiner))


NEGATIVE = {"negative_prompt": "a star"}


def plain_pair(folders: dict[str, Path], refiner: Path) -> tuple[Any, Any]:
    """Diffusers' base pipeline and the refiner around its VAE and second text encoder."""
    base = load_plain(folders["sdxl"])
    shared = {name: base.components[name] for name in ("text_encoder_2", "tokenizer_2", "vae")}
    return base, StableDiffusionXLImg2ImgPipeline.from_pretrained(refiner, **shared)


def plainly(folders: dict[str, Path], refiner: Path, share: float, steps: int) -> Image:
    """As diffusers' documentation does it."""
    base, second = plain_pair(folders, refiner)
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


@pytest.mark.parametrize("source", [None, "image"])
def test_a_second_pass_is_two_calls(
    source: str | None, engine: Engine, folders: dict[str, Path], refiner: Path
) -> None:
    base, second = plain_pair(folders, refiner)
    call: dict[str, Any] = {"prompt": "a red square", "guidance_scale": 7.5, **NEGATIVE}
    size, moved = {"width": 64, "height": 64}, {"image": scene(), "strength": 0.5}
    if source:
        base = around(base, "StableDiffusionXLImg2ImgPipeline")
    generator = torch.Generator().manual_seed(7)
    first = base(**call, **(moved if source else size), num_inference_steps=4, generator=generator).images[0]
    theirs = second(**call, image=first, strength=0.4, num_inference_steps=10, generator=generator).images[0]

    job = {"image": uri(scene()), "strength": 0.5} if source else {}
    ours = picture(engine, **NEGATIVE, **job, refiner={"strength": 0.4, "steps": 10})

    assert_same(ours, theirs)
    assert ours.tobytes() != picture(engine, **job, refiner={"strength": 0.4, "steps": 10}).tobytes()


@pytest.mark.parametrize("way", [{"strength": 0.5}, {"high_noise_frac": 0.5}])
def test_the_negative_prompt_reaches_the_refiner(
    way: dict[str, float], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    kind = type(engine.refiner)

    class Seen(kind):  # type: ignore[misc, valid-type]
        @functools.wraps(kind.__call__)
        def __call__(self, **call: Any) -> Any:
            calls.append(call)
            return super().__call__(**call)

    monkeypatch.setattr(engine.refiner, "__class__", Seen)
    picture(engine, **NEGATIVE, refiner=way)

    (call,) = calls
    with torch.no_grad():
        expected = engine.refiner.encode_prompt("", device="cpu", negative_prompt="a star")  # type: ignore[union-attr]
    assert torch.equal(call["negative_prompt_embeds"], expected[1])
    assert torch.equal(call["negative_pooled_prompt_embeds"], expected[3])


def test_graphs_of_both_denoisers_draw_the_same(engine: Engine) -> None:
    jobs: list[dict[str, Any]] = [{}, {"refiner": {"high_noise_frac": 0.5}}, {"refiner": {"strength": 0.5}}] * 2
    expected, device = [picture(engine, **job) for job in jobs], BakedDevice()
    with graphs_of(engine, device) as graphs:
        for job, one in zip(jobs, expected, strict=True):
            assert_same(picture(engine, **job), one)
        captured = {kind.work for kind in graphs._kinds.values() if kind.graph is not None}
    assert captured == {runner.work for runner in engine.runners}


def test_the_second_pass_leaves_what_is_outside_the_mask(engine: Engine) -> None:
    image, mask = scene(), hole()
    inpainting = {"image": uri(image), "mask": uri(mask), "strength": 0.5}

    refined, painted = (
        np.asarray(picture(engine, **inpainting, **more)) for more in ({"refiner": {"strength": 0.5}}, {})
    )

    outside = np.asarray(mask) == 0
    assert (refined[outside] == np.asarray(image)[outside]).all()
    assert (refined[~outside] != painted[~outside]).any()


@pytest.mark.parametrize("upscaler", ["lanczos", "latent"])
def test_an_ensemble_can_be_enlarged(upscaler: str, engine: Engine, folders: dict[str, Path], refiner: Path) -> None:
    base, second = plain_pair(folders, refiner)
    call: dict[str, Any] = {"prompt": "a red square", "guidance_scale": 7.5, **NEGATIVE}
    generator = torch.Generator().manual_seed(7)
    half = {"num_inference_steps": 4, "generator": generator, "output_type": "latent"}
    latents = base(**call, **half, width=64, height=64, denoising_end=0.5).images
    kept = upscaler == "latent"
    whole = second(
        **call, **{**half, "output_type": "latent" if kept else "pil"}, image=latents, denoising_start=0.5
    ).images
    if kept:
        large = torch.nn.functional.interpolate(whole, size=(12, 12), mode="bicubic", antialias=True)
    else:
        large = whole[0].resize((96, 96), Pillow.Resampling.LANCZOS)
    again = around(base, "StableDiffusionXLImg2ImgPipeline")
    theirs = again(**call, image=large, strength=0.5, num_inference_steps=4, generator=generator).images[0]

    ours = picture(engine, **NEGATIVE, high_noise_frac=0.5, hires={"scale": 1.5, "strength": 0.5, "upscaler": upscaler})

    assert_same(ours, theirs)


def test_a_job_that_says_nothing_is_refined_and_one_that_declines_is_not(
    engine: Engine, engines: dict[str, Engine]
) -> None:
    assert picture(engine).tobytes() == picture(engine, high_noise_frac=0.8, refiner_inference_steps=4).tobytes()
    assert picture(engine, high_noise_frac=1.0).tobytes() == picture(engines["sdxl"]).tobytes()


def test_progress_counts_both_passes(engine: Engine) -> None:
    request = parse({"input": {**SMALL, "num_inference_steps": 10, "num_images": 2}}, engine.capabilities)[0]
    counted: list[tuple[int, int]] = []

    list(generate(engine, make_plan(request), lambda *step: counted.append(step[:2])))

    assert [done for done, _ in counted] == list(range(1, len(counted) + 1))
    assert counted[-1] == (20, 20)


def test_the_two_share_their_modules(engine: Engine) -> None:
    draw(engine)

    assert engine.refiner.vae is engine.pipeline.vae
    assert engine.refiner.text_encoder_2 is engine.pipeline.text_encoder_2


def test_a_refiner_in_one_file_is_the_same(
    engine: Engine, folders: dict[str, Path], refiner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no tensor says is in a folder of configs, which is here the tiny one's."""
    small = tiny_models.sdxl_refiner()
    context = "input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight"
    monkeypatch.setattr(checkpoint, "_REFINER_CONTEXT", (f"model.diffusion_model.{context}", 32))
    monkeypatch.setattr(single_file, "CONFIGS", tmp_path)
    (tmp_path / "sdxl-refiner").symlink_to(refiner)
    weights = unet_weights(small.unet, "model.diffusion_model.")
    file = write(weights | {"first_stage_model.decoder.conv_in.bias": torch.zeros(1)}, tmp_path / "one.safetensors")

    single = load_engine(MODEL_NAME=str(folders["sdxl"]), REFINER_NAME=str(file))

    for job in ({"high_noise_frac": 0.5}, {"refiner": {"strength": 0.4}}):
        assert picture(single, **NEGATIVE, **job).tobytes() == picture(engine, **NEGATIVE, **job).tobytes()
    assert single.refiner is not None
    assert single.refiner.config.requires_aesthetics_score and single.refiner.vae is single.pipeline.vae


def test_a_refiner_of_which_only_a_variant_is_there(
    engine: Engine, folders: dict[str, Path], refiner: Path, tmp_path: Path
) -> None:
    """In a folder that has nothing of what the base model shares with it."""
    folder = shutil.copytree(refiner, tmp_path / "refiner", ignore=shutil.ignore_patterns("vae", "*encoder*", "toke*"))
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    index = json.loads((folder / "model_index.json").read_text())
    shared = {part: [None, None] for part in ("vae", "text_encoder_2", "tokenizer_2")}
    (folder / "model_index.json").write_text(json.dumps(index | shared))
    found = load_engine(MODEL_NAME=str(folders["sdxl"]), REFINER_NAME=str(folder))
    job = {"high_noise_frac": 0.5}
    assert picture(found, **NEGATIVE, **job).tobytes() == picture(engine, **NEGATIVE, **job).tobytes()


def test_a_refiner_for_another_family_is_refused(folders: dict[str, Path], refiner: Path) -> None:
    with pytest.raises(SettingsError, match="REFINER_NAME"):
        load_engine(MODEL_NAME=str(folders["sd1"]), REFINER_NAME=str(refiner))


@pytest.mark.parametrize("way", [{"strength": 0.5}, {"high_noise_frac": 0.5}])
def test_a_picture_that_prompts_goes_to_the_base_model_alone(way: dict[str, float], kits: Kits, refiner: Path) -> None:
    engine = load_engine(**kits["sdxl"].settings("ip_adapter"), REFINER_NAME=str(refiner))
    prompts = {"ip_adapter": {"image": uri(scene())}, "refiner": way}
    prompted, plainly_drawn = picture(engine, **prompts), picture(engine, refiner=way)
    assert prompted.tobytes() != plainly_drawn.tobytes()
    assert picture(engine, refiner=way).tobytes() == plainly_drawn.tobytes()


def test_the_self_test_draws_with_both(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    for number, runner in enumerate(engine.runners):

        def note(*inputs: Any, run: Any = runner.run, number: int = number, **named: Any) -> Any:
            ran.append(number)
            return run(*inputs, **named)

        monkeypatch.setattr(runner, "run", note)

    self_test(engine)

    assert {0, 1} <= set(ran)
