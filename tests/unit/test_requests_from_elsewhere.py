"""Requests written for RunPod's public endpoints, Replicate, AUTOMATIC1111 and OpenAI: what asks for nothing is taken,
what means something here is done, and the rest is refused with what to write instead."""

import io
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.asking import INSTRUCTED, SD1, SDXL, SPLITTER, ask, ask_all, ask_output, model_of, picture, refusal
from tests.helpers.fuzzing import examples
from tests.helpers.published_requests import A1111_BOTH, A1111_IMG2IMG, A1111_TXT2IMG, OPENAI, REPLICATE, RUNPOD
from worker.api.elsewhere import ElsewhereFields
from worker.api.parse import parse
from worker.api.schema import Fields, spellings
from worker.api.values import ANYTHING, Neutral
from worker.errors import InvalidInputError
from worker.models.capabilities import Capabilities
from worker.models.families import FAMILIES
from worker.request import Request

FLUX, SCHNELL, SD3 = model_of("flux-dev"), model_of("flux-schnell"), model_of("sd3")
REFINED = model_of("sdxl", refiner=True)
LIGHT = "fofr/flux-black-light"


def _same(one: Request, other: Request, warnings: bool = True) -> bool:
    """Whether they ask for the same picture; whether the same is said of them, too."""
    return one == other if warnings else replace(one, warnings=()) == replace(other, warnings=())


@pytest.fixture
def the_web_has_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind every URL is a photograph of 640x480."""
    buffer = io.BytesIO()
    Image.effect_noise((640, 480), 50).convert("RGB").save(buffer, "JPEG")
    monkeypatch.setattr("worker.images.load.fetch", lambda *_: buffer.getvalue())


# What each comes to on a model of this kind: the size that is drawn, or a part of the refusal.
RUNPOD_COMES_TO: dict[str, tuple[Capabilities, Any]] = {
    "flux-dev": (
        FLUX,
        "negative_prompt: got 'blurry, low quality'; FLUX.1 dev takes no negative prompt without a true_cfg_scale",
    ),
    "flux-schnell": (SCHNELL, (1024, 1024)),
    "flux-kontext-dev": (FLUX, (1024, 1024)),
    "p-image-t2i": (SDXL, (1368, 768)),
    "p-image-edit": (SDXL, (640, 480)),
    "qwen-image": (SDXL, (1328, 1328)),
    "qwen-image-lora": (SDXL, "loras: got a list of 1; this endpoint has no LoRA (LORA_DIR, LORA_REPOS); leave it out"),
    "qwen-image-edit": (SDXL, (640, 480)),
    "qwen-image-edit-2511": (SDXL, (1024, 1024)),
    "qwen-image-edit-2511-lora": (
        model_of("sdxl", loras=("anime",)),
        "loras: got a list of 1; a job names a LoRA that the endpoint's owner offers, and fetches none; this",
    ),
    "seedream-4-t2i": (SDXL, (2048, 2048)),
    "seedream-4-edit": (
        SDXL,
        "images: got a list of 2; a job starts from one picture; others can speak through ip_adapter",
    ),
    "wan-2-6-t2i": (SDXL, (1024, 1024)),
    "z-image-turbo": (SDXL, (1024, 1024)),
    "nano-banana-edit": (SDXL, "images: got a list of 2; a job starts from one picture"),
    "nano-banana-pro-edit": (SDXL, "images: got a list of 3; a job starts from one picture"),
    "nano-banana-2-edit": (SDXL, "images: got a list of 2; a job starts from one picture"),
}


@pytest.mark.usefixtures("the_web_has_a_picture")
@pytest.mark.parametrize("name", RUNPOD)
def test_every_example_of_runpod_s_public_endpoints_is_drawn_or_refused_with_the_remedy(name: str) -> None:
    model, comes_to = RUNPOD_COMES_TO[name]
    if isinstance(comes_to, str):
        assert refusal(model, **RUNPOD[name]).startswith(comes_to)
        return
    request = ask(model, **RUNPOD[name])
    assert (request.width, request.height) == comes_to
    told = {warning.partition(":")[0] for warning in request.warnings}
    assert told <= {"enable_safety_checker", "image", "guidance", "guidance_scale"}, request.warnings
    assert ("enable_safety_checker" in told) == ("enable_safety_checker" in RUNPOD[name])
    assert ask(replace(model, safety_checker=True), **RUNPOD[name]).warnings == tuple(
        one for one in request.warnings if not one.startswith("enable_safety_checker")
    )


def test_a_lora_by_its_address_is_the_one_that_the_owner_offers() -> None:
    name = "flymy-ai/qwen-image-anime-irl-lora"
    for offered in (name, f"{name}/flymy_anime_irl"):
        (lora,) = ask(model_of("sdxl", loras=("other", offered)), **RUNPOD["qwen-image-lora"]).loras
        assert (lora.name, lora.scale) == (offered, 1)


REPLICATE_COMES_TO: dict[str, tuple[Capabilities, tuple[int, int], set[str]]] = {
    "flux-schnell": (SCHNELL, (1024, 1024), {"go_fast"}),
    "flux-dev": (FLUX, (1024, 1024), {"go_fast", "prompt_strength"}),
    "flux-dev with an image": (FLUX, (640, 480), {"megapixels"}),
    "flux-dev-lora": (model_of("flux-dev", loras=(LIGHT,)), (624, 416), set()),
    "sdxl": (REFINED, (768, 768), {"prompt_strength", "lora_scale"}),
    "sdxl without a refiner": (REFINED, (1024, 1024), {"apply_watermark"}),
    "sdxl refined once more": (REFINED, (1024, 1024), set()),
    "stable-diffusion": (SD1, (768, 768), set()),
    "stable-diffusion-3": (SD3, (1024, 1024), {"prompt_strength"}),
}


@pytest.mark.usefixtures("the_web_has_a_picture")
@pytest.mark.parametrize("name", REPLICATE)
def test_every_example_of_replicate_is_drawn(name: str) -> None:
    model, size, told = REPLICATE_COMES_TO[name]
    request, output = ask_all(model, **REPLICATE[name])
    assert (request.width, request.height) == size
    assert {warning.partition(":")[0] for warning in request.warnings} == told
    given = REPLICATE[name]
    assert len(request.pictures) == given.get("num_outputs", 1)
    assert output.quality == given.get("output_quality", 90)
    assert output.format == {"jpg": "jpeg"}.get(given.get("output_format", "png"), given.get("output_format", "png"))
    if "guidance" in given:
        assert request.guidance_scale == given["guidance"]


def test_replicate_s_ways_to_refine() -> None:
    def refined(name: str) -> Any:
        return ask(REFINED, **REPLICATE[name]).refinement

    assert refined("sdxl").high_noise_frac == 0.8
    assert refined("sdxl without a refiner") is None
    once_more = refined("sdxl refined once more")
    assert (once_more.high_noise_frac, once_more.strength, once_more.steps) == (None, 0.3, 10)
    assert ask(SDXL, **REPLICATE["sdxl"]).refinement is None
    assert any(one.startswith("refine: ") for one in ask(SDXL, **REPLICATE["sdxl"]).warnings)
    assert refusal(REFINED, refine="no_refiner", refiner={"steps": 3}).startswith("refine: got 'no_refiner'; ")


def test_a1111_s_whole_payload_asks_for_what_its_few_fields_ask() -> None:
    meant = {"negative_prompt": "", "seed": 5, "steps": 20, "cfg_scale": 7, "sampler_name": "Euler a"}
    assert _same(ask(SD1, **{**A1111_TXT2IMG, "seed": 5}), ask(SD1, **meant))
    image = picture(512, 512)
    full = ask(SD1, **{**A1111_IMG2IMG, "seed": 5, "init_images": [image]})
    assert _same(full, ask(SD1, **meant, image=image, strength=0.75))


def test_every_field_of_a1111_may_be_null_as_its_answers_have_them() -> None:
    elsewhere = {name: None for name in {*A1111_TXT2IMG, *A1111_IMG2IMG} if name in ElsewhereFields.model_fields}
    assert len(elsewhere) > 40
    assert _same(ask(seed=1, **elsewhere), ask(seed=1))


@pytest.mark.parametrize("name", OPENAI)
def test_openai_s_requests_are_drawn(name: str) -> None:
    request, output = ask_all(SDXL, **OPENAI[name])
    assert len(request.pictures) == OPENAI[name]["n"]
    assert (request.width, request.height) == ((512, 512) if name == "dall-e-2" else (1024, 1024))
    assert output.delivery == ("base64" if name == "dall-e-2" else "auto")
    assert (output.format, output.quality) == (("jpeg", 80) if name == "gpt-image-1" else ("png", 90))
    assert [one.partition(":")[0] for one in request.warnings] == (["style"] if name == "dall-e-3" else [])


# Every field that is only taken where it asks for nothing.
NEUTRAL: dict[str, Neutral] = {
    name: rule
    for name, field in ElsewhereFields.model_fields.items()
    for rule in field.metadata
    if isinstance(rule, Neutral)
}
BESIDE: dict[str, dict[str, Any]] = {
    "enable_hr": {"enable_hr": True},
    "image": {"image": picture(512, 512)},
    "mask": {"image": picture(512, 512), "mask": picture(512, 512, "white")},
    "": {},
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_field_that_asks_for_nothing_changes_nothing(name: str) -> None:
    rule = NEUTRAL[name]
    for value in (*rule.values, None):
        for written in _ways_to_write(5 if value is ANYTHING else value):
            beside = BESIDE[rule.beside]
            assert _same(ask(seed=1, **beside, **{name: written}), ask(seed=1, **beside)), (name, written)


def _ways_to_write(value: object) -> list[object]:
    """The value, and as text or as another kind of number."""
    if isinstance(value, bool):
        return [value, str(value), str(value).lower()]
    if isinstance(value, int):
        return [value, float(value), str(value)]
    return [value, value.upper(), f" {value} "] if isinstance(value, str) else [value]


@pytest.mark.parametrize("name", [name for name, rule in NEUTRAL.items() if ANYTHING not in rule.values])
def test_a_field_that_asks_for_something_else_is_refused_or_told_with_what_to_write(name: str) -> None:
    rule = NEUTRAL[name]
    for value in (True, False, 7.5, "something else", ["x"], {"a": 1}):
        if rule.asks_nothing(value):
            continue
        beside = BESIDE[rule.beside]
        if rule.warns:
            request = ask(seed=1, **beside, **{name: value})
            assert f"{name}: {rule.instead}" in request.warnings
            assert _same(request, ask(seed=1, **beside), warnings=False)
        else:
            told = refusal(**beside, **{name: value})
            assert told.startswith(f"{name}: got ") and told.endswith(f"; {rule.instead}")
        if rule.beside:
            assert _same(ask(seed=1, **{name: value}), ask(seed=1)), "which asks for nothing by itself"


def test_every_remedy_names_a_field_that_there_is_or_says_to_leave_it_out() -> None:
    known = {*spellings(), "input", "batch_size", "name", "image"}
    for name, rule in NEUTRAL.items():
        named = set(rule.instead.split("`")[1::2])
        assert named <= known, name
        assert (
            ANYTHING in rule.values or named or "leave it out" in rule.instead or rule.warns or "write " in rule.instead
        )


NEUTRAL_VALUES = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from([*rule.values, None]) for name, rule in NEUTRAL.items() if rule.values}
)


@examples(60)
@given(NEUTRAL_VALUES, st.sampled_from([model_of(family.name) for family in FAMILIES]))
def test_any_number_of_them_changes_nothing(neutral: dict[str, Any], model: Capabilities) -> None:
    given = {name: 7 if value is ANYTHING else value for name, value in neutral.items()}
    assert _same(ask(model, seed=1, **given), ask(model, seed=1))


# Sizes


@pytest.mark.parametrize("written", ["640x512", "640*512", "640 x 512", "640X512", "640\u00d7512"])
def test_a_size_in_one_field(written: str) -> None:
    assert _same(ask(seed=1, size=written), ask(seed=1, width=640, height=512))
    assert _same(ask(seed=1, size=written, width=640), ask(seed=1, width=640, height=512))


@pytest.mark.parametrize("written", ["63x512", "512x9000", "512", "x", "512x", "-512x512", "large", 512, [512, 512]])
def test_what_is_no_size_is_refused_with_the_form(written: object) -> None:
    told = refusal(size=written)
    assert told.startswith("size: got ") and "width and height as in 1024x1024 or 1024*1024, each 64 to 8192" in told


def test_a_size_beyond_the_limit_is_told_under_the_name_that_came() -> None:
    assert refusal(size="2048x2048").startswith("size: got '2048x2048'; width times height may be at most 1048576 ")
    assert refusal(aspect_ratio="1:1", megapixels=4).startswith("aspect_ratio: got '1:1'; width times height may ")


def test_fields_that_contradict_each_other_are_refused() -> None:
    assert refusal(size="640x512", width=512).startswith("size: got '640x512'; width and height say otherwise")
    assert refusal(aspect_ratio="16:9", width=512, height=512).startswith("aspect_ratio: got '16:9'; width and height")
    assert refusal(aspect_ratio="16:9", size="512x512").startswith("aspect_ratio: got '16:9'; width and height")
    assert refusal(enable_hr=True, hires={}).startswith("enable_hr: got True; stands in hires already")
    assert refusal(enable_base64_output=True, delivery="s3").startswith("enable_base64_output: got True; delivery says")
    told = refusal(clip_skip=2, override_settings={"CLIP_stop_at_last_layers": 2})
    assert told.startswith("override_settings: got an object of 1; clip_skip says otherwise")


SHARES = st.floats(1, 32)


@examples(200)
@given(SHARES, SHARES, st.sampled_from([model_of(family.name) for family in FAMILIES if family.name != "shapes"]))
def test_an_aspect_ratio_is_drawn_at_about_the_native_number_of_pixels(
    wide: float, high: float, model: Capabilities
) -> None:
    wide, high = round(wide, 2), round(high, 2)
    ratio, native, step = wide / high, model.width * model.height, model.family.size_step
    if not 1 / 12 < ratio < 12:
        return
    request = ask(model, aspect_ratio=f"{wide}:{high}", seed=1)
    assert request.width % step == request.height % step == 0 and request.warnings == ()
    assert request.width * request.height <= model.max_pixels
    # Each side is at most half a step away from what it would be exactly.
    assert abs(request.width - (native * ratio) ** 0.5) <= step / 2 + 1e-6
    assert abs(request.height - (native / ratio) ** 0.5) <= step / 2 + 1e-6


def test_an_aspect_ratio_stays_below_the_owner_s_limit() -> None:
    small = model_of("sd1", max_pixels=512 * 512)
    for ratio in ("16:9", "3:2", "21:9", "9:16", "4:5"):
        request = ask(small, aspect_ratio=ratio)
        assert 0.9 * 512 * 512 < request.width * request.height <= 512 * 512


def test_an_aspect_ratio_beside_a_side_an_image_or_a_number_of_pixels() -> None:
    def size(**fields: Any) -> tuple[int, int]:
        request = ask(SDXL, **fields)
        return request.width, request.height

    assert size(aspect_ratio="3:2", width=768) == (768, 512)
    assert size(aspect_ratio="3:2", height=512) == (768, 512)
    assert size(aspect_ratio="3:2", width=768, height=512) == (768, 512)
    assert size(aspect_ratio="1:1", image=picture(640, 480)) == (1024, 1024)
    assert size(aspect_ratio="1:1", megapixels="0.25") == size(megapixels=0.25) == size(resolution="0.5k") == (512, 512)
    assert size(resolution="1 MP", aspect_ratio="custom") == size(resolution="1k") == (1024, 1024)
    assert size(aspect_ratio="match_input_image", image=picture(640, 480)) == (640, 480)


@pytest.mark.parametrize("ratio", ["16", "16:0", "0:9", "wide", 1.5, "1:2:3", "inf:1", "1:100"])
def test_what_is_no_ratio_is_refused(ratio: object) -> None:
    assert refusal(aspect_ratio=ratio).startswith("aspect_ratio: got ")


# Pictures, passes, files


@examples(40)
@given(st.integers(1, 6), st.integers(1, 6))
def test_n_iter_times_batch_size(times: int, size: int) -> None:
    if times * size <= SD1.max_images:
        assert _same(ask(seed=1, n_iter=times, batch_size=size), ask(seed=1, num_images=times * size))
    else:
        assert "a job may ask for 16 pictures at most" in refusal(n_iter=times, batch_size=size)


HIRES = [
    ({}, {"upscaler": "latent"}),
    ({"hr_scale": 1.5, "hr_upscaler": "Lanczos"}, {"scale": 1.5}),
    ({"hr_scale": "1.5", "hr_upscaler": "None", "hr_second_pass_steps": "9"}, {"scale": 1.5, "steps": 9}),
    ({"hr_upscaler": "Latent", "denoising_strength": 0.7}, {"upscaler": "latent", "strength": 0.7}),
    ({"hr_upscaler": None, "denoising_strength": 0.4}, {"upscaler": "latent", "strength": 0.4}),
    ({"hr_prompt": "a red square", "hr_sampler_name": "Euler", "sampler_name": "Euler"}, {"upscaler": "latent"}),
]


@pytest.mark.parametrize(("written", "means"), HIRES, ids=str)
def test_a1111_s_second_pass_is_hires(written: dict[str, Any], means: dict[str, Any]) -> None:
    beside = {name: written[name] for name in ("sampler_name",) if name in written}
    assert _same(ask(seed=1, enable_hr=True, **written), ask(seed=1, hires=means, **beside))


def test_a_second_pass_on_a_model_whose_latents_cannot_be_enlarged() -> None:
    assert _same(ask(FLUX, seed=1, enable_hr=True, hr_scale=1.5), ask(FLUX, seed=1, hires={"scale": 1.5}))
    told = refusal(FLUX, enable_hr=True, hr_scale=1.5, hr_upscaler="Latent")
    assert told.startswith("enable_hr: got True; FLUX.1 dev has no latents that can be enlarged; use the upscaler lan")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"hr_upscaler": "R-ESRGAN 4x+"}, "hr_upscaler: got 'R-ESRGAN 4x+'; write Lanczos or Latent"),
        ({"hr_scale": 8}, "hr_scale: got 8; should be less than or equal to 4"),
        ({"denoising_strength": 0}, "denoising_strength: got 0; should be greater than 0"),
        ({"hr_second_pass_steps": 900}, "hr_second_pass_steps: got 900; should be less than or equal to 500"),
        ({"hr_scale": 4}, "enable_hr: got True; the enlarged picture may have"),
        ({"image": picture()}, "enable_hr: got True; goes with a prompt alone"),
    ],
    ids=str,
)
def test_what_a_second_pass_cannot_be_is_told_under_the_name_that_came(fields: dict[str, Any], why: str) -> None:
    assert why in refusal(enable_hr=True, **fields)


@pytest.mark.parametrize("name", ["images", "init_images", "input_images", "image", "input_image"])
def test_one_picture_may_stand_in_a_list(name: str) -> None:
    image = picture(128, 64)
    assert _same(ask(seed=1, **{name: [image]}), ask(seed=1, image=image))
    assert _same(ask(seed=1, **{name: []}), ask(seed=1))
    assert refusal(**{name: [image, image]}).startswith(f"{name}: got a list of 2; a job starts from one picture")


def test_files_as_others_ask_for_them() -> None:
    for written in ("jpg", "JPG", "jpeg", "JPEG"):
        assert ask_output(output_format=written).format == ask_output(image_format=written).format == "jpeg"
    for name in ("output_quality", "output_compression", "quality"):
        assert ask_output(**{name: "55"}).quality == 55
    assert ask_output(quality="auto", output_compression=55).quality == 55
    assert ask_output(quality="standard").quality == 90
    assert refusal(quality="high").startswith("quality: got 'high'; ")
    assert ask_output(response_format="b64_json").delivery == ask_output(enable_base64_output=True).delivery == "base64"


def test_clip_skip_counts_from_one_more_in_a1111() -> None:
    for layers in range(2, 12):
        settings = {"CLIP_stop_at_last_layers": layers}
        assert _same(ask(seed=1, override_settings=settings), ask(seed=1, clip_skip=layers - 1))
    assert _same(ask(seed=1, override_settings={"CLIP_stop_at_last_layers": 1}), ask(seed=1))


NAMED = model_of("sdxl", name="stabilityai/stable-diffusion-xl-base-1.0")


@pytest.mark.parametrize(
    "name",
    [NAMED.name, "Stable-Diffusion-XL-base-1.0.safetensors [31e35c80fc]", "models\\stable-diffusion-xl-base-1.0.ckpt"],
)
def test_the_model_may_be_named_if_it_is_this_one(name: str) -> None:
    def ask_for(**fields: object) -> Request:
        return parse({"input": {"prompt": "a red square", "seed": 1, **fields}}, NAMED)[0]

    for fields in ({"model": name}, {"override_settings": {"sd_model_checkpoint": name}}):
        assert _same(ask_for(**fields), ask_for())
    for fields in ({"model": "dall-e-3"}, {"override_settings": {"sd_model_checkpoint": "dreamshaper_8"}}):
        with pytest.raises(InvalidInputError, match=f"this endpoint draws with {NAMED.name}; leave"):
            ask_for(**fields)


def test_the_older_name_of_a_sampler_counts_by_itself_only() -> None:
    assert ask(sampler_index="Euler").scheduler.name == ask(sampler_name="Euler", sampler_index="DDIM").scheduler.name
    assert refusal(sampler_index="wizard").startswith("sampler_index: got 'wizard'; ")


def test_nobody_but_the_owner_switches_the_safety_checker() -> None:
    checked = model_of("sd1", safety_checker=True)
    for fields in ({"enable_safety_checker": False}, {"disable_safety_checker": True}):
        (warning,) = ask(checked, **fields).warnings
        assert warning.startswith(f"{next(iter(fields))}: has no effect; the safety checker stays on")
        assert ask(SD1, **fields).warnings == ()
    for fields in ({"enable_safety_checker": True}, {"disable_safety_checker": False}):
        assert ask(checked, **fields).warnings == ()
    (warning,) = ask(SD1, enable_safety_checker=True).warnings
    assert warning.startswith("enable_safety_checker: has no effect; there is no safety checker here")


# Numbers as text


def _numbers() -> dict[str, list[Any]]:
    """Every field that takes a number, and some that it takes."""
    return {
        "width": [64, 512],
        "height": [512, 1024],
        "num_images": [1, 3],
        "num_inference_steps": [2, 30],
        "guidance_scale": [0, 7, 7.5, 1e1],
        "seed": [0, -1 + 2**32, 2**63],
        "clip_skip": [1, 2],
        "guidance_rescale": [0, 0.5],
        "high_noise_frac": [0.5, 1],
        "refiner_inference_steps": [5],
        "quality": [1, 100],
        "n_iter": [1, 2],
        "hr_scale": [1.5],
        "hr_second_pass_steps": [0, 4],
        "mask_blur": [4],
        "inpainting_mask_invert": [0],
        "lora_scale": [-1, 0.5],
        "strength": [0.5, 1],
    }


def test_every_number_is_tried() -> None:
    numbers = {
        name
        for name, field in Fields.model_fields.items()
        if any(kind in str(field.annotation) for kind in ("int", "float"))
    }
    assert numbers - {
        "size",
        "aspect_ratio",
        "megapixels",
        "image",
        "mask",
        "outpaint",
    } <= _numbers().keys() | _FLUX_NUMBERS.keys() | {"layers", "image_guidance_scale"}


_FLUX_NUMBERS: dict[str, Any] = {"true_cfg_scale": 2.5, "max_sequence_length": 300}


def test_a_number_of_layers_may_be_written_as_text() -> None:
    assert ask(SPLITTER, image=picture(), layers="3", seed=1) == ask(SPLITTER, image=picture(), layers=3, seed=1)


def test_how_strongly_a_picture_is_kept_may_be_written_as_text() -> None:
    beside = {"image": picture(), "seed": 1}
    written = ask(INSTRUCTED, **beside, image_guidance_scale="2.5")
    assert written == ask(INSTRUCTED, **beside, image_guidance_scale=2.5) and written.image_guidance_scale == 2.5


def test_numbers_for_some_models_alone_may_be_written_as_text() -> None:
    beside = {"seed": 1, "negative_prompt": "x"}
    texts = {name: str(value) for name, value in _FLUX_NUMBERS.items()}
    assert ask(FLUX, **beside, **texts) == ask(FLUX, **beside, **_FLUX_NUMBERS)


@examples(200)
@given(st.data())
def test_a_number_may_be_written_as_text(data: st.DataObject) -> None:
    numbers = _numbers()
    names = data.draw(st.lists(st.sampled_from(sorted(numbers)), min_size=1, max_size=4, unique=True))
    fields = {name: data.draw(st.sampled_from(numbers[name])) for name in names}
    texts = {
        name: data.draw(st.sampled_from([str(value), f"{value:+}" if value > 0 else str(value)]))
        for name, value in fields.items()
    }
    assert _same(ask(REFINED, **{"seed": 1, **texts}), ask(REFINED, **{"seed": 1, **fields}))


@examples(100)
@given(st.integers(64, 1024).map(lambda side: side // 8 * 8))
def test_a_whole_number_may_have_a_point(side: int) -> None:
    for written in (float(side), f"{side}.0", f"{side}"):
        assert ask(width=written, seed=1) == ask(width=side, seed=1)
    assert refusal(width=side + 0.5).startswith("width: got ")
    assert refusal(width=f"{side}.5").startswith("width: got ")


def test_numbers_inside_objects_and_lists_may_be_text() -> None:
    able = model_of("sd1", loras=("style",), controlnets=("canny",), ip_adapter=True)
    written = {
        "seed": ["1", "2"],
        "num_images": "2",
        "loras": [{"name": "style", "scale": "0.5"}],
        "controlnet": {"image": picture(), "scale": "0.4", "start": "0", "end": "1"},
        "preview": "true",
    }
    plain = {
        "seed": [1, 2],
        "num_images": 2,
        "loras": [{"name": "style", "scale": 0.5}],
        "controlnet": {"image": picture(), "scale": 0.4, "start": 0, "end": 1},
        "preview": True,
    }
    assert _same(ask(able, **written), ask(able, **plain))


def test_a_text_stays_a_text() -> None:
    request = ask(prompt="512", negative_prompt="7", seed=1)
    assert (request.pictures[0].prompt, request.negative_prompt) == ("512", "7")


# The nearest name

NAMES = sorted(name for name in spellings() if len(name) >= 5)
NONSENSE = ("zebra", "wizard", "banana", "table", "kitchen", "umbrella", "xylophone", "quartz", "sunflower", "octopus")


@examples(200)
@given(st.sampled_from(NAMES), st.data())
def test_a_slip_of_one_letter_leads_to_the_field(name: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(name) - 1))
    slip = data.draw(
        st.sampled_from(
            [name[:place] + name[place + 1 :], name[:place] + "q" + name[place:], name.upper(), name.title()]
        )
    )
    if slip not in spellings():
        nearest = refusal(**{slip: 1}).rpartition("; the nearest is ")[2]
        likeness = [SequenceMatcher(None, one, slip.casefold()).ratio() for one in (nearest, name)]
        assert nearest in spellings() and likeness[0] >= likeness[1]


@pytest.mark.parametrize("word", NONSENSE)
def test_nothing_is_suggested_for_what_is_like_none(word: str) -> None:
    able = model_of("sd1", loras=("watercolor", "people/anna"), controlnets=("canny", "depth"))
    for fields in (
        {word: 1},
        {"scheduler": word},
        {"loras": word},
        {"controlnet": {"name": word, "image": picture()}},
    ):
        assert "nearest" not in refusal(able, **fields)


@pytest.mark.parametrize(
    ("fields", "nearest"),
    [
        ({"scheduler": "Eulr a"}, "Euler a"),
        ({"scheduler": "dpm++ 2m karas"}, "DPM++ 2M Karras"),
        ({"scheduler": "UniPCC"}, "UniPC"),
        ({"loras": "watercolour"}, "watercolor"),
        ({"controlnet": {"name": "cany", "image": picture()}}, "canny"),
    ],
    ids=str,
)
def test_choices_have_a_nearest_too(fields: dict[str, Any], nearest: str) -> None:
    able = model_of("sd1", loras=("watercolor", "people/anna"), controlnets=("canny", "depth"))
    assert refusal(able, **fields).endswith(f"; the nearest is {nearest}")


def test_what_wraps_a_request_is_told_to_unwrap_it() -> None:
    wrapped = {"api": {"method": "POST", "endpoint": "/sdapi/v1/txt2img"}, "payload": A1111_BOTH}
    told = refusal(**wrapped)
    assert "payload: got an object of" in told and "write the fields in it into `input` itself" in told


@pytest.mark.parametrize("steps", [1, 2, 3, 30])
def test_a_second_pass_whose_strength_nobody_gave_runs_one_step_at_least(steps: int) -> None:
    hires = ask(enable_hr=True, num_inference_steps=steps, scheduler="Euler").hires
    refined = ask(model_of("sdxl", refiner=True), refine="base_image_refiner", num_inference_steps=steps).refinement
    assert hires is not None and int(hires.strength * hires.steps) >= 1
    assert refined is not None and int(refined.strength * refined.steps) >= 1


def test_too_many_pictures_are_told_in_all() -> None:
    assert "this asks for 150" in refusal(n_iter="50", batch_size="3")
