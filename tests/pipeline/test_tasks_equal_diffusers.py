"""Image to image, inpainting and second passes draw what plain diffusers draws, pixel for pixel.

Inpainting keeps what is outside the mask exactly, where diffusers returns it after a way through the VAE.
"""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image as Pillow
from PIL import ImageOps
from transformers import CLIPTextModel

from tests.helpers.drawing import assert_same, hole, picture, scene, uri
from tests.helpers.plain_diffusers import around, plainly, run, scheduler_of, with_scheduler
from worker.engine.engine import Engine

CLASSES = {
    "sd1": "StableDiffusion",
    "sd2": "StableDiffusion",
    "sd2-v": "StableDiffusion",
    "sdxl": "StableDiffusionXL",
    "sd3": "StableDiffusion3",
    "flux": "Flux",
    "chroma": "Chroma",
    "lcm": "LatentConsistencyModel",
}
FAMILIES = ["sd1", "sd2-v", "sdxl", "sd3", "flux"]
# Ways of adding noise and of starting in the middle: of Euler's kind, of DDIM's, with steps of two stages or a history.
SCHEDULERS = [("sd1", name) for name in ("Euler", "Euler a", "DDIM", "DPM++ 2M", "PNDM", "Heun")]
SCHEDULERS += [(family, name) for family in ("sd2-v", "sdxl") for name in ("Euler", "DDIM", "DPM++ 2M")]
CALL: dict[str, Any] = {"prompt": "a red square", "num_inference_steps": 5, "guidance_scale": 4.0}


@pytest.fixture(scope="module")
def ours(engines: dict[str, Engine], more_engines: dict[str, Engine]) -> dict[str, Engine]:
    return engines | more_engines


@pytest.fixture(scope="module")
def theirs(plain: dict[str, Any], more_plain: dict[str, Any]) -> dict[str, DiffusionPipeline]:
    return plain | more_plain


def oracle(plain: DiffusionPipeline, family: str, task: str, scheduler: str | None = None) -> DiffusionPipeline:
    """Diffusers' pipeline for the task; with the model's own scheduler if none is named."""
    chosen = plain.scheduler if scheduler is None else scheduler_of(plain, scheduler)
    return around(plain, f"{CLASSES[family]}{task}Pipeline", scheduler=chosen)


def strength(given: float | None) -> dict[str, float]:
    return {} if given is None else {"strength": given}


def assert_painted(ours: Pillow.Image, theirs: Pillow.Image, source: Pillow.Image, mask: Pillow.Image) -> None:
    """Theirs where the mask is white; where it is black the source, which theirs is not."""
    white, got, came, drawn = (np.asarray(one) for one in (mask, ours, source, theirs))
    assert (got[white == 255] == drawn[white == 255]).all()
    assert (got[white == 0] == came[white == 0]).all()
    assert (drawn[white == 0] != came[white == 0]).any() and (drawn[white == 255] != came[white == 255]).any()


@pytest.mark.parametrize(("family", "scheduler"), SCHEDULERS)
def test_every_kind_of_scheduler(family: str, scheduler: str, ours: dict[str, Engine], theirs: dict[str, Any]) -> None:
    image, mask, plain = scene(), hole(), theirs[family]
    job = {**CALL, "image": uri(image), "strength": 0.5, "scheduler": scheduler}
    call = {**CALL, "image": image, "strength": 0.5}

    assert_same(picture(ours[family], **job), run(oracle(plain, family, "Img2Img", scheduler), **call)[0])
    painted = picture(ours[family], **job, mask=uri(mask))

    drawn = run(oracle(plain, family, "Inpaint", scheduler), **call, mask_image=mask, width=64, height=64)[0]
    assert_painted(painted, drawn, image, mask)


@pytest.mark.parametrize("given", [None, 0.3, 1.0])
@pytest.mark.parametrize("family", [*FAMILIES, "chroma", "lcm"])
def test_image_to_image(family: str, given: float | None, ours: dict[str, Engine], theirs: dict[str, Any]) -> None:
    """The strength that a job leaves out is the pipeline's own."""
    image = scene(96, 64)
    job = {**CALL, "scheduler": type(theirs[family].scheduler).__name__, "image": uri(image), **strength(given)}
    call: dict[str, Any] = {**CALL, "image": image, **strength(given)}
    if family in ("sd3", "flux", "chroma"):
        call |= {"width": 96, "height": 64}  # the others go by the image

    drawn = picture(ours[family], **job, width=None, height=None)

    assert_same(drawn, run(oracle(theirs[family], family, "Img2Img"), **call)[0])


@pytest.mark.parametrize("given", [None, 0.5, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_inpainting(family: str, given: float | None, ours: dict[str, Engine], theirs: dict[str, Any]) -> None:
    image, mask = scene(96, 64), hole(96, 64)
    job = {**CALL, "scheduler": type(theirs[family].scheduler).__name__, **strength(given)}
    call: dict[str, Any] = {**CALL, "image": image, "mask_image": mask, "width": 96, "height": 64, **strength(given)}

    painted = picture(ours[family], **job, image=uri(image), mask=uri(mask), width=None, height=None)

    assert_painted(painted, run(oracle(theirs[family], family, "Inpaint"), **call)[0], image, mask)


def test_a_picture_of_another_size_is_fitted_first(ours: dict[str, Engine], theirs: dict[str, Any]) -> None:
    sent, mask = scene(200, 80), hole(200, 80)
    image, fitted_mask = (ImageOps.fit(one, (64, 64), Pillow.Resampling.LANCZOS) for one in (sent, mask))
    call = {**CALL, "image": image, "mask_image": fitted_mask, "width": 64, "height": 64, "strength": 0.5}

    painted = picture(ours["sd1"], **CALL, image=uri(sent), mask=uri(mask), strength=0.5, scheduler="DDIM")

    drawn = run(oracle(theirs["sd1"], "sd1", "Inpaint", "DDIM"), **call)[0]
    assert_painted(painted, drawn, image, fitted_mask)


def test_a_soft_mask_blends_over_its_edge(ours: dict[str, Engine], theirs: dict[str, Any]) -> None:
    image, mask = scene(), Pillow.linear_gradient("L").resize((64, 64))
    call = {**CALL, "image": image, "mask_image": mask, "width": 64, "height": 64, "strength": 1.0}

    painted = picture(ours["sd1"], **CALL, image=uri(image), mask=uri(mask), scheduler="DDIM")

    drawn = np.asarray(run(oracle(theirs["sd1"], "sd1", "Inpaint", "DDIM"), **call)[0], np.float32)
    share = np.asarray(mask, np.float32)[..., None] / 255
    assert np.abs(drawn * share + np.asarray(image) * (1 - share) - np.asarray(painted)).max() <= 1


def test_transparent_parts_are_a_mask(ours: dict[str, Engine]) -> None:
    image, mask = scene(), hole()
    cut = image.copy()
    cut.putalpha(ImageOps.invert(mask))
    white = Pillow.composite(Pillow.new("RGB", image.size, "white"), image, mask)

    ours_cut, ours_masked = (
        picture(ours["sd1"], **job, scheduler="DDIM")
        for job in ({"image": uri(cut)}, {"image": uri(white), "mask": uri(mask)})
    )

    assert_same(ours_cut, ours_masked)


def test_each_seed_strength_image_and_mask_gives_another_picture(ours: dict[str, Engine]) -> None:
    """Else the tests here would hold for a worker and an oracle that both ignore them."""
    job = {**CALL, "image": uri(scene()), "strength": 0.5, "scheduler": "DDIM"}
    changes: list[dict[str, Any]] = [{}, {"seed": 8}, {"strength": 0.7}, {"image": uri(scene(seed=1))}]
    changes += [{"mask": uri(hole())}, {"prompt": "a dog"}, {"negative_prompt": "blue"}]
    assert len({picture(ours["sd1"], **{**job, **change}).tobytes() for change in changes}) == len(changes)


@pytest.mark.parametrize("upscaler", ["lanczos", "latent"])
@pytest.mark.parametrize("family", ["sd1", "sd2-v", "sdxl"])
def test_hires_is_two_calls(family: str, upscaler: str, ours: dict[str, Engine], theirs: dict[str, Any]) -> None:
    hires = {"scale": 1.5, "strength": 0.6, "steps": 5, "upscaler": upscaler}
    first = with_scheduler(theirs[family], "Euler")
    second = oracle(theirs[family], family, "Img2Img", "Euler")
    generator = torch.Generator().manual_seed(7)

    size = {"width": 64, "height": 80}
    if upscaler == "latent":
        latents = first(**CALL, **size, generator=generator, output_type="latent").images
        large = torch.nn.functional.interpolate(latents, size=(15, 12), mode="bicubic", antialias=True)
    else:
        large = first(**CALL, **size, generator=generator).images[0].resize((96, 120), Pillow.Resampling.LANCZOS)
    call = {**CALL, "image": large, "strength": 0.6, "num_inference_steps": 5}

    drawn = picture(ours[family], **CALL, **size, scheduler="Euler", hires=hires)

    assert drawn.size == (96, 120)
    assert_same(drawn, second(**call, generator=generator).images[0])


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_hires_of_transformers(family: str, ours: dict[str, Engine], theirs: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(7)
    first = theirs[family](**CALL, width=64, height=64, generator=generator).images[0]
    call = {**CALL, "image": first.resize((128, 128), Pillow.Resampling.LANCZOS), "strength": 0.5}

    drawn = picture(ours[family], **CALL, hires={"scale": 2.0, "strength": 0.5})

    second = oracle(theirs[family], family, "Img2Img")
    assert_same(drawn, second(**call, width=128, height=128, generator=generator).images[0])


@pytest.mark.parametrize("family", ["sd1", "sd2-v", "sdxl"])
def test_guidance_rescale(family: str, ours: dict[str, Engine], theirs: dict[str, Any]) -> None:
    drawn = picture(ours[family], scheduler="DDIM", guidance_rescale=0.7)

    assert_same(drawn, plainly(with_scheduler(theirs[family], "DDIM"), guidance_rescale=0.7))
    assert drawn.tobytes() != picture(ours[family], scheduler="DDIM").tobytes()


@pytest.fixture
def mended_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5.6 took CLIPTextModel's `text_model` away, where diffusers' clip_skip looks for the last norm."""
    monkeypatch.setattr(CLIPTextModel, "text_model", property(lambda self: self), raising=False)


@pytest.mark.usefixtures("mended_clip")
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_clip_skip(family: str, ours: dict[str, Engine], theirs: dict[str, Any]) -> None:
    image, fields = scene(), {"scheduler": "DDIM", "negative_prompt": "a blue dot"}
    drawn = picture(ours[family], **fields, clip_skip=1)
    moved = picture(ours[family], **CALL, scheduler="DDIM", image=uri(image), strength=0.5, clip_skip=1)

    plain = with_scheduler(theirs[family], "DDIM")
    call = {**CALL, "image": image, "strength": 0.5, "clip_skip": 1}
    assert_same(drawn, plainly(plain, negative_prompt="a blue dot", clip_skip=1))
    assert_same(moved, run(oracle(plain, family, "Img2Img"), **call)[0])
    assert drawn.tobytes() != picture(ours[family], **fields).tobytes()
