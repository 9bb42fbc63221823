"""A picture carries the request that made it: sent back as `replay`, it asks for the same picture again."""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.helpers.asking import EDITOR, INSTRUCTED, SD1, SDXL, SPLITTER, ask, model_of, picture, refusal, sent
from tests.helpers.fuzzing import examples
from worker.api.elsewhere import ElsewhereFields
from worker.api.parse import parse
from worker.api.response import write_failure
from worker.api.schema import spellings
from worker.api.values import Neutral
from worker.errors import InvalidInputError
from worker.models import schedulers
from worker.models.capabilities import Capabilities
from worker.models.families import FAMILIES
from worker.output.encode import encode
from worker.output.metadata import format_metadata
from worker.plan import make_plan
from worker.request import Request

STRANGE_NAMES = ("a, Recipe: b", 'say "x"', "back\\slash", "стиль")
ABLE: dict[str, Any] = {
    "loras": ("style", "people/anna", *STRANGE_NAMES),
    "controlnets": ("canny",),
    "ip_adapter": True,
}
GIFTED = model_of("sd1", **ABLE)
DIFFUSION = [row for row in schedulers.SCHEDULERS if row.noise == "diffusion"]
REFINED = model_of("sdxl", refiner=True)
FOREIGN = "replay: the picture carries no request of this worker's, or a changed one"


def _made(request: Request, model: Capabilities, number: int = 0, extension: str = "png") -> str:
    """One picture of this request as it is answered."""
    text = format_metadata(request.pictures[number], make_plan(request), model)
    file = encode(Image.new("RGB", (64, 48), "red"), text, extension, 90)
    return f"data:{file.mime_type};base64,{base64.b64encode(file.data).decode()}"


def _saying(text: str) -> str:
    """A picture with any text where the recipe is looked for."""
    chunks = PngInfo()
    chunks.add_itxt("parameters", text)
    return sent(Image.new("RGB", (8, 8)), pnginfo=chunks)


def _again(made: str, model: Capabilities, **beside: Any) -> Request:
    """The request that a picture and nothing but it asks for."""
    return parse({"input": {"replay": made, **beside}}, model)[0]


def _told(made: str, model: Capabilities = SD1, **beside: Any) -> str:
    with pytest.raises(InvalidInputError) as refused:
        _again(made, model, **beside)
    return str(refused.value)


def _same(again: Request, request: Request, number: int = 0) -> bool:
    """Whether `again` asks for this picture of the request: every attribute, the pictures in it by their pixels."""
    return replace(again, warnings=()) == replace(request, pictures=(request.pictures[number],), warnings=())


# A model, what was asked of it, and which of that has to be sent again.
KINDS: dict[str, tuple[Capabilities, dict[str, Any], list[str]]] = {
    "plain": (SD1, {}, []),
    "every number": (
        SDXL,
        {"width": 832, "height": 1216, "steps": 31, "cfg_scale": 6.123456789, "sampler_name": "DPM++ 2M Karras"},
        [],
    ),
    "negative": (SDXL, {"negative_prompt": "blurry"}, []),
    "an empty negative, which SDXL tells from none": (SDXL, {"negative_prompt": ""}, []),
    "rounded": (SD1, {"width": 515, "height": 519}, []),
    "random": (SD1, {"seed": -1}, []),
    "guidance 0": (SDXL, {"guidance_scale": 0}, []),
    "loras": (GIFTED, {"loras": ["style", {"name": "people/anna", "scale": -0.3}], "lora_scale": 0.7}, []),
    "loras with strange names": (GIFTED, {"loras": list(STRANGE_NAMES)}, []),
    "clip_skip": (SD1, {"clip_skip": 2}, []),
    "guidance_rescale": (SD1, {"guidance_rescale": 0.7}, []),
    "guidance_rescale 0": (SD1, {"guidance_rescale": 0}, []),
    "hires": (SD1, {"hires": {"scale": 1.37, "strength": 0.45, "steps": 17}}, []),
    "hires latent": (SD1, {"hires": {"upscaler": "latent"}, "steps": 12}, []),
    "refiner": (REFINED, {}, []),
    "refiner takes over": (REFINED, {"high_noise_frac": 0.6, "refiner_inference_steps": 40}, []),
    "refiner starts again": (REFINED, {"refiner": {"strength": 0.25, "steps": 33}}, []),
    "refiner left out": (REFINED, {"high_noise_frac": 1.0}, []),
    "refiner and hires": (REFINED, {"hires": {"scale": 1.5}}, []),
    "flux guided twice": (
        model_of("flux-dev"),
        {"guidance_scale": 2.5, "true_cfg_scale": 3.5, "negative_prompt": "x", "max_sequence_length": 300},
        [],
    ),
    "flux": (model_of("flux-dev"), {"guidance_scale": 2.5}, []),
    "schnell": (model_of("flux-schnell"), {}, []),
    "sd3": (model_of("sd3"), {"scheduler": "Flow Euler Karras", "negative_prompt": "x"}, []),
    "image": (SD1, {"image": picture(256, 128), "strength": 0.37}, ["image"]),
    "image cut": (SD1, {"image": picture(300, 128), "width": 64, "height": 64}, ["image"]),
    "image and refiner": (REFINED, {"image": picture(256, 128)}, ["image"]),
    "mask": (SD1, {"image": picture(256, 128), "mask": picture(256, 128, "white")}, ["image", "mask"]),
    "drawn on": (SD1, {"image": picture(250, 128), "outpaint": {"left": 9, "top": 64}}, ["image"]),
    "image edited": (EDITOR, {"image": picture(256, 128)}, ["image"]),
    "guided by its picture": (INSTRUCTED, {"image": picture(64, 64), "image_guidance_scale": 2.25}, ["image"]),
    "split": (SPLITTER, {"image": picture(128, 128), "layers": 3, "steps": 9}, ["image"]),
    "images edited": (EDITOR, {"images": [picture(256, 128), picture(64, 128)], "steps": 9}, ["images"]),
    "size": (SDXL, {"size": "832*1216"}, []),
    "aspect ratio": (SDXL, {"aspect_ratio": "16:9", "megapixels": "0.25"}, []),
    "hires in the words of others": (
        SD1,
        {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "hr_second_pass_steps": 9},
        [],
    ),
    "refine": (REFINED, {"refine": "base_image_refiner"}, []),
    "override_settings": (SD1, {"override_settings": {"CLIP_stop_at_last_layers": 2}}, []),
    "controlnet": (GIFTED, {"controlnet": {"image": picture(128, 64), "scale": 0.4, "end": 0.8}}, ["controlnet"]),
    "ip_adapter": (GIFTED, {"ip_adapter": {"image": picture(96, 60), "scale": 0.6}}, ["ip_adapter"]),
}


# Fields that say nothing of the picture itself, or are set by every one of the kinds.
NOT_REPLAYED = {"prompt", "seed", "num_images", "output_format", "quality", "delivery", "preview", "replay"}
NOT_REPLAYED |= {"capabilities"}
NOT_REPLAYED |= {"safety_checker", "nsfw", "enable_safety_checker", "disable_safety_checker"}
NOT_REPLAYED |= {"mask_blur", "inpainting_mask_invert", "mask_transparency"}  # of the mask, which is given again
NOT_REPLAYED |= {"n_iter", "model", "enable_base64_output"}
NOT_REPLAYED |= {  # which ask for nothing, or are refused
    name
    for name, field in ElsewhereFields.model_fields.items()
    if any(isinstance(one, Neutral) for one in field.metadata)
}


def test_every_field_of_a_picture_is_among_the_kinds() -> None:
    names = spellings()
    tried = {names[name] for _, fields, _ in KINDS.values() for name in fields}
    assert set(names.values()) - NOT_REPLAYED - tried == set()


@pytest.mark.parametrize("extension", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_request_comes_back_equal(kind: str, extension: str) -> None:
    model, fields, pictures = KINDS[kind]
    request = ask(model, **fields)
    again = _again(_made(request, model, 0, extension), model, **{name: fields[name] for name in pictures})
    assert _same(again, request)
    assert not [warning for warning in again.warnings if warning.startswith("replay")]


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**40 + 3, None, [5, None, 3, 2**33]])
def test_each_of_several_pictures_comes_back_alone(seed: object) -> None:
    request = ask(prompt=["a", "b\nc"], num_images=2, seed=seed)
    for number, one in enumerate(request.pictures):
        again = _again(_made(request, SD1, number), SD1)
        assert again.pictures == (one,) and _same(again, request, number)


PROMPTS = [
    "",
    " \n ",
    "a\r\nb\tc",
    "a square, Recipe: round",
    ', Recipe: "{\\"model\\": 1}"',
    "a\nNegative prompt: b",
    "\nNegative prompt: ",
    "a\nSteps: 3, Sampler: x, Seed: 4",
    "a\nNegative prompt: b\nSteps: 3, Recipe: c",
    "Größe für 5 €",
    "красный 🟥 👩‍🎨",
    "x" * 5_000,
    "🟥" * 5_000,
]


@pytest.mark.parametrize("extension", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: ascii(prompt)[:30])
def test_any_prompt_comes_back_letter_by_letter(prompt: str, extension: str) -> None:
    for fields in ({"prompt": prompt}, {"prompt": "a", "negative_prompt": prompt}, dict.fromkeys(_TEXTS, prompt)):
        request = ask(SDXL, **fields)
        assert _same(_again(_made(request, SDXL, 0, extension), SDXL), request)


_TEXTS = ("prompt", "negative_prompt")
LETTERS = st.text(
    st.sampled_from('ab ,:\n"\\(é€🟥') | st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40
)


@examples(100)
@given(LETTERS, LETTERS | st.none())
def test_all_prompts_come_back_letter_by_letter(prompt: str, negative: str | None) -> None:
    fields = {"prompt": prompt} if negative is None else {"prompt": prompt, "negative_prompt": negative}
    request = ask(SDXL, **fields)
    assert _same(_again(_made(request, SDXL), SDXL), request)


@pytest.mark.parametrize("family", [family.name for family in FAMILIES])
def test_every_scheduler_comes_back_as_it_was(family: str) -> None:
    model = model_of(family)
    names = model.list_schedulers()
    for name in [*names, model.scheduler.class_name]:
        request = ask(model, scheduler=name)
        again = _again(_made(request, model), model)
        assert again.scheduler == request.scheduler, name
        assert again.warnings == request.warnings  # a scheduler's caveat is said again


@pytest.mark.parametrize("row", [*schedulers.SCHEDULERS, None], ids=lambda row: row.name if row else "not in the table")
def test_a_models_own_scheduler_comes_back_as_it_was(row: schedulers.Scheduler | None) -> None:
    """It is built from the model's config alone, which says other than the table's rows of that class."""
    class_name = row.class_name if row else "EDMDPMSolverMultistepScheduler"
    own = schedulers.describe_own(class_name, "diffusion", dict.fromkeys(row.options if row else (), "another"))
    model = model_of("sd1", scheduler=own, own_scheduler=own)
    request = ask(model)
    assert request.scheduler == model.scheduler
    assert _again(_made(request, model), model).scheduler == model.scheduler


@pytest.mark.parametrize("row", DIFFUSION, ids=lambda row: row.name)
def test_the_owners_choice_of_a_scheduler_does_not_change_a_replayed_one(row: schedulers.Scheduler) -> None:
    """DEFAULT_SCHEDULER is one endpoint's; the picture says which scheduler made it."""
    chosen = model_of("sd1", scheduler=row)
    for name in ("DPM++ 2M", "DPM++ 2M Karras", "Euler", "Euler Karras", row.name):
        request = ask(chosen, scheduler=name)
        made = _made(request, chosen)
        assert _again(made, chosen).scheduler == request.scheduler
        assert _again(made, SD1).scheduler == request.scheduler


def test_the_owners_negative_prompt_is_not_added_to_a_replayed_picture() -> None:
    """DEFAULT_NEGATIVE_PROMPT is one endpoint's; the picture was drawn without one."""
    endpoint = model_of("sd1", negative_prompt="blurry")
    request = ask(SD1)
    made = _made(request, SD1)
    assert _same(_again(made, endpoint), request)
    assert _again(made, endpoint).warnings == ()
    assert _again(made, endpoint, negative_prompt="dull").negative_prompt == "dull"
    assert _again(_made(ask(endpoint), endpoint), SD1).negative_prompt == "blurry"


@pytest.mark.parametrize(
    ("beside", "changed"),
    [
        ({"seed": 8}, {"seed": 8}),
        ({"prompt": "a heart"}, {"prompt": "a heart"}),
        ({"steps": 12}, {"num_inference_steps": 12}),
        ({"num_inference_steps": 12}, {"num_inference_steps": 12}),
        ({"cfg_scale": 3}, {"guidance_scale": 3}),
        ({"sampler_name": "Euler"}, {"scheduler": "Euler"}),
        ({"lora": "people/anna"}, {"loras": ["people/anna"]}),
        ({"negative_prompt": "dull"}, {"negative_prompt": "dull"}),
        ({"width": 256}, {"width": 256}),
        ({"hires": {"scale": 1.2}}, {"hires": {"scale": 1.2}}),
        ({"clip_skip": 3}, {"clip_skip": 3}),
        ({"output_format": "webp"}, {"output_format": "webp"}),
    ],
    ids=str,
)
def test_what_stands_beside_it_overrides_under_any_spelling(beside: dict[str, Any], changed: dict[str, Any]) -> None:
    fields = {
        **{"prompt": "a star", "negative_prompt": "blurry", "seed": 7, "width": 384, "height": 320, "clip_skip": 1},
        **{"num_inference_steps": 30, "guidance_scale": 6, "scheduler": "DDIM", "loras": ["style"]},
        **{"hires": {"scale": 1.5, "steps": 9}},
    }
    assert _same(_again(_made(ask(GIFTED, **fields), GIFTED), GIFTED, **beside), ask(GIFTED, **{**fields, **changed}))


@pytest.mark.parametrize("beside", [{"scheduler": "Automatic"}, {"loras": []}, {"lora_weights": ""}])
def test_what_asks_for_nothing_beside_it_leaves_it_as_it_was(beside: dict[str, Any]) -> None:
    made = _made(ask(GIFTED, seed=7, scheduler="DDIM", loras=["style"]), GIFTED)
    assert _again(made, GIFTED, **beside) == _again(made, GIFTED)


@pytest.mark.parametrize("name", ["negative_prompt", "loras", "clip_skip", "hires"])
def test_null_beside_it_takes_a_field_out(name: str) -> None:
    fields = {"negative_prompt": "blurry", "seed": 7, "clip_skip": 1, "loras": ["style"], "hires": {"scale": 1.5}}
    without = {key: value for key, value in fields.items() if key != name}
    assert _same(_again(_made(ask(GIFTED, **fields), GIFTED), GIFTED, **{name: None}), ask(GIFTED, **without))


@pytest.mark.parametrize(
    "beside", [{"high_noise_frac": 0.6}, {"refiner": {"high_noise_frac": 0.6, "steps": 40}}], ids=["short", "long"]
)
def test_the_refiner_can_be_overridden_in_either_way(beside: dict[str, Any]) -> None:
    made = _made(ask(REFINED, refiner={"steps": 40}), REFINED)
    refinement = _again(made, REFINED, **beside).refinement
    assert refinement is not None and (refinement.high_noise_frac, refinement.steps) == (0.6, 40)
    again = _again(made, REFINED, refiner_inference_steps=30, high_noise_frac=None)
    assert again.warnings == ("high_noise_frac: null was read as left out",)
    refinement = again.refinement
    assert refinement is not None and (refinement.high_noise_frac, refinement.steps) == (0.8, 30)


def test_more_pictures_may_be_asked_for_which_count_up_from_the_seed() -> None:
    again = _again(_made(ask(seed=7), SD1), SD1, num_images=3)
    assert [one.seed for one in again.pictures] == [7, 8, 9]


def test_a_picture_may_be_started_from_that_was_made_from_a_prompt_alone() -> None:
    again = _again(_made(ask(width=256, height=128), SD1), SD1, image_url=picture(256, 128))
    assert again.task == "image to image" and (again.width, again.height) == (256, 128)


@pytest.mark.parametrize("kind", [kind for kind, (_, _, pictures) in KINDS.items() if pictures])
def test_a_picture_made_from_others_names_what_it_needs_again(kind: str) -> None:
    model, fields, pictures = KINDS[kind]
    made = _made(ask(model, **fields), model)
    told = _told(made, model)
    assert told == f"replay: the picture was made from others; give {', '.join(pictures)} beside it"
    assert pictures[-1] in _told(made, model, **{name: fields[name] for name in pictures[:-1]})


def test_how_a_mask_is_read_is_given_again_with_it() -> None:
    half = Image.new("L", (256, 128))
    half.paste(255, (0, 0, 128, 128))
    beside = {"image": picture(256, 128), "mask": sent(half), "mask_blur": 4, "inpainting_mask_invert": 1}
    request = ask(**beside)
    assert _same(_again(_made(request, SD1), SD1, **beside), request)


@pytest.mark.parametrize(
    ("beside", "means"),
    [
        ({"size": "640x512"}, {"width": 640, "height": 512}),
        ({"aspect_ratio": "1:1"}, {"width": 512, "height": 512}),
        ({"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Lanczos"}, {"hires": {"scale": 1.5}}),
        ({"override_settings": {"CLIP_stop_at_last_layers": 3}}, {"clip_skip": 2}),
        ({"tiling": False, "size": "auto"}, {}),
    ],
    ids=str,
)
def test_fields_of_other_services_override_as_their_own(beside: dict[str, Any], means: dict[str, Any]) -> None:
    made = _made(ask(width=704, height=384, seed=3), SD1)
    assert _same(_again(made, SD1, **beside), _again(made, SD1, **means))


def test_what_it_needs_may_be_given_under_any_spelling() -> None:
    fields = {"image": picture(256, 128), "mask": picture(256, 128, "white"), "seed": 1}
    request = ask(**fields)
    again = _again(_made(request, SD1), SD1, init_image=fields["image"], mask_url=fields["mask"])
    assert _same(again, request)


@pytest.mark.parametrize("name", ["org/other", "", "model, v2", "x, Recipe: y", "модель", 'a "b"', "x" * 5_000])
def test_another_models_picture_is_drawn_with_a_warning(name: str) -> None:
    other = model_of("sd1", name=name)
    again = _again(_made(ask(other, seed=3), other), SD1)
    (warning,) = again.warnings
    assert warning.startswith("replay: the picture was made by ") and warning.endswith(", this is sd1")
    assert name[:50] in warning.replace("\\", "") and len(warning) < 200
    assert _same(again, ask(seed=3))


def test_what_another_model_could_and_this_one_cannot_is_refused_by_name() -> None:
    assert "this endpoint has no LoRA" in _told(_made(ask(GIFTED, loras=["style"]), GIFTED), SD1)
    assert _told(_made(ask(SDXL, scheduler="DDIM"), SDXL), model_of("flux-dev")).startswith("scheduler: got 'DDIM'; ")
    assert "2048x2048" in _told(_made(ask(SDXL, width=2048, height=2048), SDXL), SD1)


@pytest.mark.parametrize(
    "made",
    [
        picture(),
        sent(Image.new("RGB", (8, 8)), "JPEG"),
        sent(Image.new("RGB", (8, 8)), "WEBP"),
        _saying(""),
        _saying("a red square\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: x"),
        _saying('{"prompt": {"class_type": "KSampler"}}'),
    ],
    ids=["png", "jpeg", "webp", "empty", "web UI", "ComfyUI"],
)
def test_a_picture_of_somebody_elses_is_refused(made: str) -> None:
    assert _told(made) == FOREIGN


@pytest.mark.parametrize("reference", ["", " ", "x!", "volume:none.png", "data:image/png;base64,AAAA", 5, True, [], {}])
def test_what_is_no_picture_is_refused(reference: object) -> None:
    assert refusal(replay=reference).startswith("replay: got ")


def test_a_null_replay_is_left_out() -> None:
    assert ask(replay=None).warnings == ("replay: null was read as left out",)


# A picture's text as anybody could write it: one setting changed from what the worker writes.
HONEST: Mapping[str, Any] = MappingProxyType(
    {"model": "sd1", "fields": {"seed": 3}, "needs": [], "prompt": 5, "negative_prompt": 4}
)


def _forged(recipe: object, quoted: bool = True) -> str:
    inner = recipe if isinstance(recipe, str) else json.dumps(recipe)
    return _saying(f"a hat\nNegative prompt: blur\nSteps: 20, Recipe: {json.dumps(inner) if quoted else inner}")


def test_an_honest_forgery_is_accepted() -> None:
    """The recipe is no secret and no proof: it asks for nothing that its sender could not ask for."""
    again = _again(_forged({**HONEST}), SD1)
    assert (again.pictures[0].prompt, again.negative_prompt, again.pictures[0].seed) == ("a hat", "blur", 3)


@pytest.mark.parametrize("recipe", ["", "{", "null", "5", "[]", '""', "{}", "NaN", '{"model": "sd1"}', "\ud7ff", "\0"])
def test_what_is_no_recipe_is_refused(recipe: str) -> None:
    assert _told(_forged(recipe)) == FOREIGN
    assert _told(_forged(recipe, quoted=False)) == FOREIGN


LENGTHS = [-1, 0, 4, 6, 10**9, 10**50, 5.0, True, "5", [], {}]


@pytest.mark.parametrize("length", [None, *LENGTHS], ids=repr)
def test_lengths_that_do_not_end_where_the_settings_begin_are_refused(length: object) -> None:
    assert _told(_forged({**HONEST, "prompt": length})) == FOREIGN
    if length != 4 or isinstance(length, bool):
        assert _told(_forged({**HONEST, "negative_prompt": length})) == FOREIGN


WRONG = [5, 10**4000, 1.5, True, "x", ["x"], [[]], [None] * 10, {"x": 1}, {}, []]
RIGHT = {"model": ["x"], "fields": [{}, {"x": 1}], "needs": [[]], "prompt": [5], "negative_prompt": []}


@pytest.mark.parametrize("name", HONEST)
def test_a_recipe_of_another_kind_is_refused(name: str) -> None:
    for value in (value for value in WRONG if value not in RIGHT[name]):
        assert _told(_forged({**HONEST, name: value})) == FOREIGN
    assert _told(_forged({key: value for key, value in HONEST.items() if key != name})) == FOREIGN


@pytest.mark.parametrize("name", ["model", "fields", "needs", "prompt"])
@pytest.mark.parametrize("depth", [50, 900, 5_000, 40_000])
def test_deep_nesting_is_refused(name: str, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    rest = ", ".join(f"{json.dumps(key)}: {json.dumps(part)}" for key, part in HONEST.items() if key != name)
    assert _told(_forged(f'{{"{name}": {deep}, {rest}}}')) == FOREIGN
    nested = f'{{"{name}": {{"seed": {deep}}}, {rest}}}'
    assert len(_told(_forged(nested))) < 300


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"promt": "x"}, "promt: got 'x'; unknown field"),
        ({"safety_checker": False, "x": 1}, "x: got 1; unknown field"),
        ({"width": 10**9}, "width: got 1000000000; "),
        ({"num_inference_steps": 10**50}, "num_inference_steps: got an integer of more than 40 digits"),
        ({"guidance_scale": float("nan")}, "guidance_scale: got nan"),
        ({"loras": [{"name": "../x", "scale": 1}]}, "this endpoint has no LoRA"),
        ({"image": "volume:../../etc/passwd"}, "image: got "),
        ({"scheduler": "x" * 20_000}, "scheduler: got "),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a_recipe_is_held_to_the_rules_of_any_request(fields: dict[str, Any], told: str) -> None:
    answer = _told(_forged({**HONEST, "fields": fields}))
    assert told in answer and len(answer) < 500


def test_a_recipe_cannot_replay_another_picture() -> None:
    """One job reads one picture's recipe."""
    other = _made(ask(seed=9), SD1)
    assert _told(_forged({**HONEST, "fields": {"replay": other, "seed": 3}})) == FOREIGN


def test_letters_that_could_not_be_answered_are_not_repeated() -> None:
    lone = _forged(json.dumps({**HONEST, "model": "\ud800"}))
    warnings = _again(lone, SD1).warnings
    json.dumps(warnings, ensure_ascii=False).encode()
    for recipe in ({"needs": ["\ud800"]}, {"fields": {"\ud800": 1}}, {"fields": {"seed": "\ud800"}}):
        _told(_forged({**HONEST, **recipe})).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["\ud800", 10**50]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
LIKELY = st.fixed_dictionaries({}, optional=dict.fromkeys(HONEST, JSON)).map(lambda changes: {**HONEST, **changes})
FIELDS = st.dictionaries(st.sampled_from(["seed", "width", "loras", "hires", "refiner", "x"]), JSON, max_size=3)


@examples(100)
@given(JSON | LIKELY | FIELDS.map(lambda fields: {**HONEST, "fields": fields}))
def test_any_recipe_is_a_request_or_a_refusal(recipe: object) -> None:
    try:
        json.dumps(_again(_forged(recipe), GIFTED).warnings, ensure_ascii=False).encode()
    except InvalidInputError as error:
        json.dumps(write_failure(error), ensure_ascii=False).encode()


@examples(200)
@given(st.data())
def test_a_text_changed_anywhere_is_a_request_or_a_refusal(data: st.DataObject) -> None:
    request = ask(GIFTED, loras=["style"], negative_prompt="blurry", hires={"scale": 1.5}, seed=1)
    text = format_metadata(request.pictures[0], make_plan(request), GIFTED)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 9)))
    try:
        _again(_saying(text[:start] + data.draw(st.text('x09"\\{}[],: ', max_size=3)) + text[end:]), GIFTED)
    except InvalidInputError as error:
        assert str(error)


def _pixels(image: Image.Image | None) -> tuple[str, bytes] | None:
    return None if image is None else (image.mode, image.tobytes())


def test_a_picture_whose_image_was_its_mask_needs_no_other() -> None:
    canvas = Image.new("RGBA", (64, 64), "red")
    canvas.paste((0, 0, 0, 0), (0, 0, 32, 64))
    first = ask(GIFTED, image=sent(canvas))
    again = _again(_made(first, GIFTED), GIFTED, image=sent(canvas))
    assert first.init_image is not None and again.init_image is not None
    assert _pixels(again.init_image.mask) == _pixels(first.init_image.mask) is not None


@pytest.mark.parametrize("how", [{"mask_blur": 8}, {"inpainting_mask_invert": 1}, {"mask_blur": 4, "width": 128}])
def test_a_mask_is_read_again_as_it_was(how: dict[str, int]) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 20, 64))
    pictures = {"image": picture(64, 64), "mask": sent(mask)}
    first, plain = ask(GIFTED, **pictures, **how), ask(GIFTED, **pictures)
    again = _again(_made(first, GIFTED), GIFTED, **pictures)
    assert first.init_image is not None and again.init_image is not None and plain.init_image is not None
    assert _pixels(again.init_image.mask) == _pixels(first.init_image.mask) != _pixels(plain.init_image.mask)
    other = _again(_made(first, GIFTED), GIFTED, **pictures, mask_blur=1)
    assert other.init_image is not None and _pixels(other.init_image.mask) != _pixels(first.init_image.mask)


@pytest.mark.parametrize(
    ("beside", "loras"),
    [
        ({}, [("people/anna", 0.5), ("style", 0.8)]),
        ({"prompt": "y <lora:style:0.3>"}, [("people/anna", 0.5), ("style", 0.3)]),
        ({"prompt": "y"}, [("people/anna", 0.5)]),
        ({"loras": [{"name": "style", "scale": 0.2}]}, [("style", 0.2)]),
    ],
)
def test_a_loras_tag_goes_with_its_prompt(beside: dict[str, Any], loras: list[tuple[str, float]]) -> None:
    first = ask(GIFTED, prompt="x <lora:style:0.8>", loras=[{"name": "people/anna", "scale": 0.5}])
    again = _again(_made(first, GIFTED), GIFTED, **beside)
    assert [(one.name, one.scale) for one in again.loras] == loras


def test_what_stands_beside_it_overrides_in_any_spelling() -> None:
    skipping = _made(ask(clip_skip=2), SD1)
    layers = {"CLIP_stop_at_last_layers": 2}
    assert _again(skipping, SD1, override_settings=layers).clip_skip == 1
    assert _again(skipping, SD1, override_settings={"sd_vae": "Automatic"}).clip_skip == 2
    refined = _made(ask(REFINED, refiner={"strength": 0.25, "steps": 33}), REFINED)
    again = _again(refined, REFINED, refine_steps=20).refinement
    assert again is not None and (again.strength, again.steps) == (0.25, 20)
    again = _again(refined, REFINED, high_noise_frac=0.7).refinement
    assert again is not None and (again.high_noise_frac, again.steps) == (0.7, 33)
