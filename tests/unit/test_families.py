"""The table of families: every row can be found, and is described to the tests as it is published."""

from itertools import combinations

import pytest

from tests.helpers.asking import model_of
from worker.models.families import FAMILIES, Found, find_family
from worker.models.family import Family


@pytest.mark.parametrize(("above", "below"), list(combinations(FAMILIES, 2)), ids=lambda row: row.name)
def test_no_row_hides_one_below_it(above: Family, below: Family) -> None:
    told = above.traits.items() or {("name", above.named)} - {("name", None)}
    known = {*below.traits.items(), ("name", below.named)}
    assert above.pipeline != below.pipeline or not told <= known, f"{below.name} is never found below {above.name}"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda row: row.name)
def test_every_family_is_known_to_the_tests_as_published(family: Family) -> None:
    assert model_of(family.name).family == family


def found(pipeline: str, name: str = "org/model", **traits: object) -> Found:
    row = find_family(pipeline, {key.replace("__", "."): value for key, value in traits.items()}.get, name)
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("pipeline", "traits", "family", "reason"),
    [
        ("ZImagePipeline", {"scheduler__shift": 3.0}, "z-image-turbo", "its scheduler's shift is 3.0"),
        ("ZImagePipeline", {"scheduler__shift": 6.0}, "z-image", "it is a ZImagePipeline"),
        ("Flux2KleinPipeline", {"pipeline__is_distilled": True}, "flux2-klein", "its pipeline's is_distilled is True"),
        ("Flux2KleinPipeline", {"pipeline__is_distilled": False}, "flux2-klein-base", "it is a Flux2KleinPipeline"),
        ("Krea2Pipeline", {"pipeline__is_distilled": True}, "krea-2-turbo", "its pipeline's is_distilled is True"),
        ("FluxPipeline", {"transformer__guidance_embeds": False}, "flux-schnell", "guidance_embeds is False"),
        (
            "HunyuanImagePipeline",
            {"transformer__guidance_embeds": True},
            "hunyuan-image-distilled",
            "guidance_embeds is True",
        ),
    ],
)
def test_a_config_tells_the_family_and_the_log_which(
    pipeline: str, traits: dict[str, object], family: str, reason: str
) -> None:
    row = found(pipeline, **traits)

    assert row.family.name == family
    assert reason in row.reason


@pytest.mark.parametrize(
    ("pipeline", "name", "family", "steps"),
    [
        ("ZImagePipeline", "someone/Z-Image-Turbo-tuned", "z-image-turbo", 8),
        ("StableDiffusion3Pipeline", "stabilityai/stable-diffusion-3.5-large-turbo", "sd3-turbo", 4),
        ("StableDiffusion3Pipeline", "stabilityai/stable-diffusion-3.5-large", "sd3", 28),
        ("FluxPipeline", "black-forest-labs/FLUX.1-Krea-dev", "flux-krea", 28),
        ("FluxPipeline", "krea/tuned-FLUX.1-dev", "flux-dev", 28),
        ("StableDiffusionXLPipeline", "ByteDance/SDXL-Lightning/sdxl_lightning_4step.safetensors", "sdxl-lightning", 4),
        ("StableDiffusionXLPipeline", "sdxl_lightning_8step_unet", "sdxl-lightning", 8),
        ("StableDiffusionXLPipeline", "Hyper-SDXL-1step", "sdxl-lightning", 1),
        ("StableDiffusionXLPipeline", "someone/a-99-steps-lightning", "sdxl-lightning", 4),
        ("StableDiffusionPipeline", "Hyper-SD15-8steps", "hyper-sd1", 8),
        ("QwenImagePipeline", "Qwen-Image-Lightning-4steps", "qwen-image-lightning", 4),
        ("HiDreamImagePipeline", "HiDream-ai/HiDream-I1-Full", "hidream-i1", 50),
        ("HiDreamImagePipeline", "HiDream-ai/HiDream-I1-Fast", "hidream-i1-fast", 16),
        ("HiDreamImagePipeline", "HiDream-ai/HiDream-I1-Dev", "hidream-i1-dev", 28),
    ],
)
def test_a_name_tells_the_family_where_no_config_does(pipeline: str, name: str, family: str, steps: int) -> None:
    row = found(pipeline, name)

    assert (row.family.name, row.family.steps) == (family, steps)
    assert ("name" in row.reason) == (row.family.named is not None)


def test_a_config_counts_more_than_a_name() -> None:
    assert found("FluxPipeline", "FLUX.1-Krea", transformer__guidance_embeds=False).family.name == "flux-schnell"


def test_few_steps_are_spaced_as_the_distilled_were_trained() -> None:
    for name in ("sdxl-lightning", "hyper-sd1"):
        row = next(family for family in FAMILIES if family.name == name)
        assert (row.scheduler, row.guidance_scale) == ("Euler SGM Uniform", 0.0)
