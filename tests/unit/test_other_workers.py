"""Requests written for other image workers run unmodified, and mean what they meant there."""

from typing import Any

import pytest

from tests.helpers.asking import SD1, SDXL, ask, model_of

# Published with worker-sdxl, as its test_input.json.
WORKER_SDXL = {
    "prompt": "A majestic steampunk dragon soaring through a cloudy sky, intricate clockwork details, golden hour",
    "negative_prompt": "blurry, low quality, deformed, ugly, text, watermark, signature",
    "height": 1024,
    "width": 1024,
    "num_inference_steps": 25,
    "refiner_inference_steps": 50,
    "guidance_scale": 7.5,
    "strength": 0.3,
    "high_noise_frac": 0.8,
    "seed": 42,
    "scheduler": "K_EULER",
    "num_images": 1,
    "image_url": None,
}

WORKER_SDXL_TURBO = {
    "prompt": "A cinematic shot of a baby racoon wearing an intricate italian priest robe",
    "negative_prompt": "blurry",
    "height": 512,
    "width": 512,
    "num_inference_steps": 1,
    "guidance_scale": 0.0,
    "seed": 1337,
    "num_images": 1,
}

WORKER_STABLE_DIFFUSION_V1 = {
    "prompt": "a photo of an astronaut riding a horse on mars",
    "negative_prompt": None,
    "width": 512,
    "height": 512,
    "init_image": None,
    "mask": None,
    "prompt_strength": 0.8,
    "num_outputs": 1,
    "num_inference_steps": 50,
    "guidance_scale": 7.5,
    "scheduler": "K-LMS",
    "seed": None,
    "nsfw": False,
    "lora": None,
    "lora_scale": 1,
}
V1_SCHEDULERS = {
    "DDIM": "DDIMScheduler",
    "DDPM": "DDPMScheduler",
    "DPM-M": "DPMSolverMultistepScheduler",
    "DPM-S": "DPMSolverSinglestepScheduler",
    "EULER-A": "EulerAncestralDiscreteScheduler",
    "EULER-D": "EulerDiscreteScheduler",
    "HEUN": "HeunDiscreteScheduler",
    "IPNDM": "IPNDMScheduler",
    "KDPM2-A": "KDPM2AncestralDiscreteScheduler",
    "KDPM2-D": "KDPM2DiscreteScheduler",
    "PNDM": "PNDMScheduler",
    "K-LMS": "LMSDiscreteScheduler",
    "KLMS": "LMSDiscreteScheduler",
}
V2_SCHEDULERS = {
    "DDIM": "DDIMScheduler",
    "K_EULER": "EulerDiscreteScheduler",
    "DPMSolverMultistep": "DPMSolverMultistepScheduler",
    "K_EULER_ANCESTRAL": "EulerAncestralDiscreteScheduler",
    "PNDM": "PNDMScheduler",
    "K-LMS": "LMSDiscreteScheduler",
}
BANANA = {
    "prompt": "a photo of an astronaut riding a horse on mars",
    "height": 768,
    "width": 512,
    "num_inference_steps": 20,
    "guidance_scale": 7,
    "seed": 3,
}
A1111 = {
    "prompt": "a lighthouse",
    "negative_prompt": "people",
    "steps": 30,
    "cfg_scale": 7,
    "sampler_name": "DPM++ 2M Karras",
    "batch_size": 2,
    "denoising_strength": 0.75,
    "width": 512,
    "height": 768,
    "seed": -1,
}


def _warned_fields(warnings: tuple[str, ...]) -> set[str]:
    return {warning.partition(":")[0] for warning in warnings}


def test_worker_sdxl() -> None:
    request = ask(SDXL, **WORKER_SDXL)
    assert [(picture.prompt, picture.seed) for picture in request.pictures] == [(WORKER_SDXL["prompt"], 42)]
    assert request.negative_prompt == WORKER_SDXL["negative_prompt"]
    assert (request.width, request.height) == (1024, 1024)
    assert (request.num_inference_steps, request.guidance_scale) == (25, 7.5)
    assert request.scheduler.class_name == "EulerDiscreteScheduler"
    # Nothing is dropped in silence: there is no picture to start from, and no refiner here.
    assert _warned_fields(request.warnings) == {"strength", "high_noise_frac", "refiner_inference_steps", "image_url"}


@pytest.mark.parametrize("name", ["PNDM", "KLMS", "DDIM", "K_EULER", "DPMSolverMultistep"])
def test_worker_sdxl_with_each_of_its_schedulers(name: str) -> None:
    assert ask(SDXL, **{**WORKER_SDXL, "scheduler": name}).scheduler.class_name.endswith("Scheduler")


def test_worker_sdxl_turbo() -> None:
    turbo = model_of("sdxl", name="stabilityai/sdxl-turbo", width=512, height=512)
    request = ask(turbo, **WORKER_SDXL_TURBO)
    assert (request.num_inference_steps, request.guidance_scale, request.pictures[0].seed) == (1, 0.0, 1337)
    assert request.warnings == ()


@pytest.mark.parametrize(("name", "class_name"), V1_SCHEDULERS.items())
def test_worker_stable_diffusion_v1(name: str, class_name: str) -> None:
    request = ask(SD1, **{**WORKER_STABLE_DIFFUSION_V1, "scheduler": name})
    assert request.scheduler.class_name == class_name
    assert (request.num_inference_steps, request.guidance_scale, len(request.pictures)) == (50, 7.5, 1)
    ignored = {"negative_prompt", "init_image", "mask", "lora", "prompt_strength", "lora_scale"}
    assert ignored <= _warned_fields(request.warnings) | _spelled_otherwise(request.warnings)


def _spelled_otherwise(warnings: tuple[str, ...]) -> set[str]:
    """A warning may name the field instead of the alias that the caller wrote."""
    return {"prompt_strength"} if "strength" in _warned_fields(warnings) else set()


@pytest.mark.parametrize(("name", "class_name"), V2_SCHEDULERS.items())
def test_worker_stable_diffusion_v2(name: str, class_name: str) -> None:
    fields: dict[str, Any] = {
        "prompt": "an astronaut",
        "width": 768,
        "height": 768,
        "prompt_strength": 0.8,
        "num_outputs": 4,
        "num_inference_steps": 50,
        "guidance_scale": 7.5,
        "scheduler": name,
        "seed": 9,
    }
    request = ask(model_of("sd2", prediction_type="v_prediction"), **fields)
    assert request.scheduler.class_name == class_name
    assert [picture.seed for picture in request.pictures] == [9, 10, 11, 12]


@pytest.mark.parametrize("model", [SD1, SDXL, model_of("sd2"), model_of("sd3"), model_of("flux-dev")])
def test_the_banana_template(model) -> None:
    request = ask(model, **BANANA)
    assert (request.width, request.height, request.guidance_scale) == (512, 768, 7.0)
    assert request.warnings == ()


def test_the_flat_fields_of_a1111() -> None:
    request = ask(SD1, **A1111)
    assert (request.num_inference_steps, request.guidance_scale, len(request.pictures)) == (30, 7.0, 2)
    assert request.scheduler.class_name == "DPMSolverMultistepScheduler"
    assert request.scheduler.options["use_karras_sigmas"] is True
    (warning,) = request.warnings  # the strength of image to image, which there is none of
    assert "strength" in warning
