"""What a model cannot do is refused by name, with what it can do instead; what has no effect is said."""

from typing import Any

import pytest

from tests.helpers.asking import INSTRUCTED, SD1, SDXL, ask, model_of, picture, refusal
from worker.models.capabilities import CONTROLLED, IMAGE, TEXT, Capabilities
from worker.plan import make_plan

FLUX = model_of("flux-dev")
# A pipeline that draws from a prompt and can do nothing else.
BARE = model_of("sd1", tasks={TEXT: {}}, latent_upscaling=False, clip_layers=0, previews=False)
ABLE: dict[str, Any] = {"loras": ("style", "people/anna"), "controlnets": ("canny",), "ip_adapter": True}
GIFTED = model_of("sd1", **ABLE)
SKETCHED = model_of("sd1", **{**ABLE, "controlnets": ("canny", "depth")})
REFINED = model_of("sdxl", refiner=True)
CANNY = {"name": "canny", "image": picture()}

# What a job may ask for, a model that can do it, and what the one that cannot is called and lacks.
ASKED: dict[str, tuple[Capabilities, dict[str, Any], str]] = {
    "image": (SD1, {"image": picture()}, "cannot start from a picture"),
    "mask": (SD1, {"image": picture(), "mask": picture(colour="white")}, "cannot inpaint"),
    "controlnet": (GIFTED, {"controlnet": CANNY}, "takes no ControlNet"),
    "ip_adapter": (GIFTED, {"ip_adapter": {"image": picture()}}, "no IP-Adapter (IP_ADAPTER)"),
    "loras": (GIFTED, {"loras": ["style"]}, "no LoRA (LORA_DIR, LORA_REPOS)"),
    "clip_skip": (SD1, {"clip_skip": 1}, "no text encoder whose layers can be skipped"),
    "guidance_rescale": (SD1, {"guidance_rescale": 0.7}, "takes no guidance_rescale for text to image"),
    "image_guidance_scale": (
        INSTRUCTED,
        {"image_guidance_scale": 2, "image": picture()},
        "takes no image_guidance_scale for ",
    ),
    "hires": (SD1, {"hires": {"scale": 1.5}}, "cannot start from a picture, which the second pass needs"),
    "preview": (SD1, {"preview": True}, "cannot be watched while it draws"),
}


@pytest.mark.parametrize("field", ASKED)
def test_a_field_is_refused_where_the_model_cannot_do_it_and_only_there(field: str) -> None:
    able, fields, lack = ASKED[field]
    request = ask(able, **fields)
    assert request.warnings == ()
    told = refusal(BARE, **fields)
    assert f"{field}: got " in told and lack in told and told.endswith("leave it out"), told


def test_every_such_field_is_told_in_one_answer() -> None:
    everything = {name: value for _, fields, _ in ASKED.values() for name, value in fields.items()}
    told = refusal(BARE, **everything)
    assert all(f"{field}: got " in told for field in ASKED)
    assert len(told) < 2_000  # pictures are not repeated


@pytest.mark.parametrize("field", ["controlnet", "ip_adapter", "loras"])
def test_a_model_that_could_names_the_setting_that_its_owner_left_out(field: str) -> None:
    setting = {"controlnet": "CONTROLNETS", "ip_adapter": "IP_ADAPTER", "loras": "LORA_DIR"}[field]
    told = refusal(SD1, **ASKED[field][1])
    assert setting in told and told.endswith("leave it out")


@pytest.mark.parametrize(
    ("asked", "model", "told"),
    [
        ({"ip_adapter": {"image": picture()}, "controlnet": CANNY}, GIFTED, "for text to image with ControlNet"),
        ({"guidance_rescale": 0.5, "image": picture()}, GIFTED, "for image to image"),
        ({"image": picture(), "controlnet": CANNY}, model_of("sdxl", **ABLE), "when image to image is asked for"),
        (
            {"image": picture(), "mask": picture(colour="white"), "controlnet": CANNY},
            model_of("sdxl", **ABLE),
            "when inpainting is asked for",
        ),
        ({"clip_skip": 2}, FLUX, "FLUX.1 dev has no text encoder"),
        ({"hires": {"upscaler": "latent", "scale": 1.5}}, FLUX, "use the upscaler lanczos"),
    ],
)
def test_things_that_do_not_go_together_are_refused(asked: dict[str, Any], model: Capabilities, told: str) -> None:
    assert told in refusal(model, **asked)


def test_fields_that_say_no_are_accepted_everywhere() -> None:
    assert ask(BARE, preview=False, negative_prompt="").warnings == ()


def test_layers_that_can_be_skipped_are_told_by_number() -> None:
    assert ask(clip_skip=11).clip_skip == 11
    assert "12 layers, of which 1 to 11" in refusal(clip_skip=12)
    assert refusal(clip_skip=0).startswith("clip_skip: got 0; ")


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    told = refusal(GIFTED, loras=["styl"])
    assert told.startswith("loras: ") and "no LoRA 'styl'" in told and "it has style, people/anna" in told
    told = refusal(SKETCHED, controlnet={**CANNY, "name": "pose"})
    assert "no ControlNet 'pose'" in told and "it has canny, depth" in told


def test_a_folder_of_thousands_is_listed_in_part() -> None:
    full = model_of("sd1", loras=tuple(f"lora{i:04}" for i in range(3_000)))
    told = refusal(full, loras="x")
    assert told.endswith("lora0048, lora0049 and 2950 more") and "lora0050" not in told
    assert ask(full, loras="lora2999").loras[0].name == "lora2999"
    assert refusal(model_of("sd1", loras=full.loras[:50]), loras="x").endswith("lora0048, lora0049")


HOSTILE = [
    "../style",
    "/etc/passwd",
    "/volume/loras/style",
    "people/../style",
    "a/../../b",
    "./style",
    "style/",
    "style\0",
    "style\0.safetensors",
    "people\\anna",
    "STYLE",
    " style",
    "\uff53tyle",
    "st\u202eyle",
    "",
    "org/name",
    "https://example.com/style",
    "style.safetensors.safetensors",
    "x" * 300,
    "x" * 100_000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:20])
def test_only_names_that_are_listed_are_accepted(name: str) -> None:
    """A name is looked up, never made into a path: what is not listed letter by letter is refused."""
    for fields in (
        {"loras": [name]},
        {"lora": name},
        {"loras": {"name": name}},
        {"controlnet": {**CANNY, "name": name}},
    ):
        told = refusal(GIFTED, **fields)
        assert len(told) < 400 and told.isprintable()


def test_a_name_is_taken_with_or_without_the_files_ending() -> None:
    for name in ("people/anna", "people/anna.safetensors"):
        assert [lora.name for lora in ask(GIFTED, loras=name).loras] == ["people/anna"]


def test_a_lora_is_a_name_or_an_object_alone_or_in_a_list_and_brings_its_scale_or_takes_the_jobs() -> None:
    for loras in ("style", ["style"], {"name": "style"}, [{"name": "style"}], [{"name": "style", "scale": None}]):
        (lora,) = ask(GIFTED, loras=loras, lora_scale=0.5).loras
        assert (lora.name, lora.scale) == ("style", 0.5)
    assert ask(GIFTED, lora="style").loras[0].scale == 1.0
    first, second = ask(GIFTED, loras=[{"name": "style", "scale": 0}, "people/anna"], lora_scale=-2).loras
    assert (first.scale, second.scale) == (0.0, -2.0)


def test_a_scale_that_no_lora_takes_is_told_to_have_no_effect() -> None:
    assert ask(GIFTED, lora_scale=0.5).warnings == ("lora_scale: has no effect without a LoRA that brings no scale",)
    brought = ask(GIFTED, loras=[{"name": "style", "scale": 1}], lora_scale=0.5)
    assert brought.warnings == ("lora_scale: has no effect without a LoRA that brings no scale",)
    assert ask(GIFTED, loras="style", lora_scale=0.5).warnings == ()


def test_a_lora_can_be_named_once() -> None:
    for twice in (["style", "style"], ["style", "style.safetensors"]):
        assert "each LoRA can be named once" in refusal(GIFTED, loras=twice)


@pytest.mark.parametrize("loras", [["style"] * 9, 5, True, [[]], [5], {}, {"name": "style", "weight": 1}])
def test_what_is_no_list_of_loras_is_refused(loras: object) -> None:
    assert refusal(GIFTED, loras=loras).startswith("loras")


@pytest.mark.parametrize("scale", [10.1, -10.1, float("nan"), float("inf"), "one", "10.1", True])
def test_a_scale_is_a_number_within_bounds(scale: object) -> None:
    assert refusal(GIFTED, loras=[{"name": "style", "scale": scale}]).startswith("loras")
    assert refusal(GIFTED, loras="style", lora_scale=scale).startswith("lora_scale: ")
    assert refusal(GIFTED, controlnet={**CANNY, "scale": scale}).startswith("controlnet.")
    assert refusal(GIFTED, ip_adapter={"image": picture(), "scale": scale}).startswith("ip_adapter.")


def test_a_controlnet_needs_no_name_where_there_is_one() -> None:
    (control,) = ask(GIFTED, controlnet={"image": picture()}).controls
    assert control.name == "canny"
    told = refusal(SKETCHED, controlnet={"image": picture()})
    assert told.startswith("controlnet: ") and "needs a name; this endpoint has canny, depth" in told


def test_several_controlnets_follow_in_order() -> None:
    given = [{**CANNY, "name": "depth", "scale": 0.5}, {**CANNY, "start": 0.2, "end": 0.8}]
    controls = ask(SKETCHED, controlnet=given).controls
    assert [(one.name, one.scale, one.start, one.end) for one in controls] == [
        ("depth", 0.5, 0.0, 1.0),
        ("canny", 1.0, 0.2, 0.8),
    ]
    assert refusal(SKETCHED, controlnet=[CANNY] * 5).startswith("controlnet: ")


def test_a_controlnet_makes_the_size_where_nothing_else_does() -> None:
    request = ask(GIFTED, controlnet={"image": picture(128, 64)})
    assert (request.width, request.height, request.task) == (128, 64, TEXT + CONTROLLED)
    request = ask(GIFTED, controlnet={"image": picture(128, 64)}, image=picture(256, 256))
    assert (request.width, request.height, request.task) == (256, 256, IMAGE + CONTROLLED)
    assert request.controls[0].image.size == (256, 256)
    assert [warning.partition(":")[0] for warning in request.warnings] == ["controlnet.0.image"]


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.8, 0.2), (1.0, 1.0), (0.0, 0.0), (-0.1, 1.0), (0.0, 1.1)])
def test_a_controlnet_starts_before_it_ends(start: float, end: float) -> None:
    assert refusal(GIFTED, controlnet={**CANNY, "start": start, "end": end}).startswith("controlnet")


@pytest.mark.parametrize("given", [{}, {"name": "canny"}, {**CANNY, "image": 5}, {**CANNY, "strength": 1}, "canny", 5])
def test_what_is_no_controlnet_is_refused(given: object) -> None:
    assert refusal(GIFTED, controlnet=given).startswith("controlnet")


def test_a_picture_that_cannot_be_read_is_told_under_its_place() -> None:
    assert refusal(GIFTED, ip_adapter={"image": "x!"}).startswith("ip_adapter.image: got 'x!'; ")
    told = refusal(SKETCHED, controlnet=[CANNY, {**CANNY, "name": "depth", "image": "x!"}])
    assert told.startswith("controlnet.1.image: got 'x!'; ")


def test_an_ip_adapters_picture_keeps_its_size_and_makes_none() -> None:
    request = ask(GIFTED, ip_adapter={"image": picture(100, 30), "scale": 0.6})
    assert request.image_prompt is not None
    assert (request.image_prompt.image.size, request.image_prompt.scale) == ((100, 30), 0.6)
    assert (request.width, request.height, request.task, request.warnings) == (512, 512, TEXT, ())


def test_hires_enlarges_in_whole_steps_and_leaves_its_steps_to_the_first_pass() -> None:
    request = ask(width=520, height=512, num_inference_steps=30, hires={"scale": 1.5, "strength": 0.4})
    assert request.hires is not None
    assert (request.hires.width, request.hires.height) == make_plan(request).size == (776, 768)
    assert request.warnings == ("hires: the second pass is 776x768, in multiples of 8",)
    assert ask(width=640, height=640, hires={"scale": 1.1}).warnings == ()
    assert (request.hires.strength, request.hires.steps, request.hires.latent) == (0.4, 30, False)
    flux = ask(FLUX, width=528, height=512, hires={"scale": 1.1}).hires
    assert flux is not None and (flux.width, flux.height) == (576, 560)


@pytest.mark.parametrize("beside", [{"image": picture()}, {"controlnet": CANNY}])
def test_hires_goes_with_a_prompt_alone(beside: dict[str, Any]) -> None:
    assert "goes with a prompt alone" in refusal(GIFTED, hires={"scale": 1.5}, **beside)


def test_hires_stays_within_the_limit() -> None:
    assert make_plan(ask(hires={})).size == (1024, 1024)
    told = refusal(hires={"scale": 2.5})
    assert told.startswith("hires: ") and str(SD1.max_pixels) in told and "1280x1280" in told
    assert "1040x1040" in refusal(width=520, height=520, hires={})


@pytest.mark.parametrize(
    "hires",
    [
        {"scale": 1},
        {"scale": 4.1},
        {"strength": 0},
        {"strength": 1.1},
        {"steps": 0},
        {"steps": 1},  # LMS needs two
        {"upscaler": "ESRGAN"},
        {"factor": 2},
        [],
        2,
        True,
    ],
    ids=str,
)
def test_what_is_no_second_pass_is_refused(hires: object) -> None:
    assert refusal(hires=hires).startswith("hires")


def test_the_second_pass_takes_a_step_at_least() -> None:
    assert refusal(hires={"strength": 0.1, "steps": 9}).startswith(
        "hires.strength: got 0.1; of 9 steps that rounds to 0 "
    )


def test_the_owners_limit_of_steps_holds_for_every_pass() -> None:
    limited = model_of("sdxl", max_steps=30, refiner=True)
    for fields in ({"hires": {"steps": 31}}, {"refiner": {"steps": 31}}, {"refiner_inference_steps": 31}):
        assert "to 30 steps" in refusal(limited, **fields)
    for fields in ({"hires": {"steps": 30}}, {"refiner": {"steps": 30}}, {"refiner_inference_steps": 30}):
        assert ask(limited, **fields).warnings == ()
    # A client that always sends it is not turned away where there is no refiner.
    assert len(ask(model_of("sdxl", max_steps=30), refiner_inference_steps=50).warnings) == 1


def test_a_refiner_takes_over_by_itself() -> None:
    refinement = ask(REFINED).refinement
    assert refinement is not None and (refinement.high_noise_frac, refinement.steps) == (0.8, 25)
    assert ask(SDXL).refinement is None


@pytest.mark.parametrize("fields", [{"high_noise_frac": 0.6}, {"refiner": {"high_noise_frac": 0.6}}])
def test_where_the_refiner_takes_over_can_be_said_in_two_ways(fields: dict[str, Any]) -> None:
    refinement = ask(REFINED, **fields).refinement
    assert refinement is not None and refinement.high_noise_frac == 0.6


@pytest.mark.parametrize("fields", [{"high_noise_frac": 1}, {"refiner": {"high_noise_frac": 1}}])
def test_a_refiner_can_be_left_out(fields: dict[str, Any]) -> None:
    request = ask(REFINED, **fields)
    assert (request.refinement, request.warnings) == (None, ())


def test_a_refiners_two_ways_exclude_each_other() -> None:
    told = refusal(REFINED, refiner={"high_noise_frac": 0.8, "strength": 0.3})
    assert told.startswith("refiner: ") and "give one of them" in told
    for short in ({"high_noise_frac": 0.8}, {"refiner_inference_steps": 20}):
        assert "stands in refiner already" in refusal(REFINED, refiner={"steps": 30}, **short)


def test_a_second_pass_of_the_refiner_goes_with_any_task() -> None:
    for fields in ({}, {"image": picture()}, {"image": picture(), "mask": picture(colour="white")}):
        request = ask(REFINED, refiner={"strength": 0.3, "steps": 20}, **fields)
        assert request.refinement is not None and request.warnings == ()
        assert (request.refinement.strength, request.refinement.steps) == (0.3, 20)
        assert request.refinement.high_noise_frac is None
    assert refusal(REFINED, refiner={"strength": 0.01, "steps": 20}).startswith("refiner.strength: got 0.01; of 20 ")


@pytest.mark.parametrize(
    "fields",
    [{"high_noise_frac": 0.6}, {"refiner": {"high_noise_frac": 0.6}}, {"refiner_inference_steps": 40}],
)
def test_taking_over_in_the_schedule_has_no_effect_on_what_starts_from_a_picture(fields: dict[str, Any]) -> None:
    request = ask(REFINED, image=picture(), **fields)
    assert request.refinement is None
    assert request.warnings == ("refiner: has no effect here; refiner.strength refines any picture",)
    assert ask(REFINED, image=picture()).warnings == ()


def test_a_rescaling_that_the_second_pass_cannot_do_is_said() -> None:
    hires = {"scale": 1.5}
    assert "guidance_rescale: has no effect on the second pass" in ask(hires=hires, guidance_rescale=0.5).warnings
    assert ask(SDXL, hires=hires, guidance_rescale=0.5).warnings == ()
    assert ask(guidance_rescale=0.5).warnings == ()
