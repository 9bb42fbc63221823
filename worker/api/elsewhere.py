"""Fields as RunPod's public endpoints, Replicate, AUTOMATIC1111 and OpenAI write them, beside those of our own.

Those that mean something here are told by their type; `translate.py` says what. The others are taken where they ask for
nothing, and refused with what to write instead; the table of fields of our own stands in `schema.py`.
"""

import re
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from worker.api.values import ANYTHING, Neutral, StrictObject, Text, Unasked
from worker.images.resize import MAX_SIDE, MIN_SIDE

_SIZE = re.compile(r"([0-9]{1,5})\s*[x*\u00d7]\s*([0-9]{1,5})", re.IGNORECASE)
_RATIO = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,4})?)\s*[:/x]\s*([0-9]{1,4}(?:\.[0-9]{1,4})?)")
_MEGAPIXELS = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,4})?)\s*(mp)?", re.IGNORECASE)
_SIDES = MappingProxyType({"0.5k": 512, "1k": 1024, "2k": 2048, "4k": 4096})  # of a square


def _read_size(value: object) -> object:
    """Width and height in pixels."""
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    sides = tuple(int(side) for side in found.groups()) if found else ()
    if not sides or not all(MIN_SIDE <= side <= MAX_SIDE for side in sides):
        form = f"should be width and height as in 1024x1024 or 1024*1024, each {MIN_SIDE} to {MAX_SIDE}"
        raise PydanticCustomError("size", "{form}", {"form": form})
    return sides


def _read_ratio(value: object) -> object:
    """Width divided by height."""
    found = _RATIO.fullmatch(value.strip()) if isinstance(value, str) else None
    width, height = (float(part) for part in found.groups()) if found else (0.0, 0.0)
    if not (width and height):
        raise PydanticCustomError("ratio", "should be width to height, as in 16:9")
    return width / height


def _read_megapixels(value: object) -> object:
    """Millions of pixels of 2^20, as in 1024x1024."""
    text = str(value).strip().lower() if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    if text in _SIDES:
        return (_SIDES[text] / 1024) ** 2
    found = _MEGAPIXELS.fullmatch(text)
    if not found or not float(found[1]):
        raise PydanticCustomError("megapixels", "should be millions of pixels, as in 1 or 0.25, or 1k, 2k or 4k")
    return float(found[1])


def _schema(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


Size = Annotated[tuple[int, int], BeforeValidator(_read_size), _schema(r"^\d+[x*]\d+$")]
Ratio = Annotated[float, BeforeValidator(_read_ratio), _schema(r"^[\d.]+:[\d.]+$")]
Megapixels = Annotated[
    float, BeforeValidator(_read_megapixels), WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]})
]

_SAVED = "nothing is kept on this worker; pictures are in the answer or in a bucket"
_OWNER = "the endpoint's owner decides about that"
_ONE_MODEL = "the endpoint's owner chooses the model; leave it out"
_INSIDE = "write the fields in it into `input` itself"
_BESIDE = "write it beside `input`, not into it"
_KEPT = "where a model starts from the image, less `strength` keeps more of it"
_ONE_SCHEDULER = "leave it out; both passes have one scheduler"
_ONE_PROMPT = "leave it out; both passes have one prompt"
_NAMED = "leave it out; `scheduler` says how it is sampled"
_NO_VARIATION = "leave it out; a picture has one `seed`"
_AS_IT_IS = "leave it out; `prompt` is drawn as it is"
_PREVIEW = "write `preview`: true, for small pictures meanwhile"


class OverrideSettings(StrictObject):
    """AUTOMATIC1111's settings for one request: those that are so anyway, and the one that jobs decide."""

    sd_model_checkpoint: Text | None = None
    CLIP_stop_at_last_layers: int | None = Field(None, ge=1, le=12)
    sd_vae: Annotated[object, Neutral("Automatic", "None", "", instead=_ONE_MODEL)] = None
    eta_noise_seed_delta: Annotated[object, Neutral(0, instead="leave it out; noise comes from the seed alone")] = None
    filter_nsfw: Annotated[object, Neutral(False, instead="leave it out; " + _OWNER)] = None
    samples_save: Annotated[object, Neutral(ANYTHING)] = None
    grid_save: Annotated[object, Neutral(ANYTHING)] = None
    show_progress_every_n_steps: Annotated[object, Neutral(ANYTHING)] = None
    show_progress_type: Annotated[object, Neutral(ANYTHING)] = None


class ElsewhereFields(StrictObject):
    """The fields of `job["input"]` that other services have, as their clients write them."""

    size: Annotated[Size | None, Unasked(("auto", ""))] = Field(None, description="width and height: 1024x1024")
    aspect_ratio: Annotated[Ratio | None, Unasked(("custom", "auto", "match_input_image", "match_input", ""))] = Field(
        None, description="width to height, at about the model's native number of pixels: 16:9"
    )
    megapixels: Annotated[Megapixels | None, Unasked(("match_input_image", "match_input", "auto", "none", ""))] = Field(
        None,
        validation_alias=AliasChoices("megapixels", "resolution"),
        description="number of pixels for `aspect_ratio`, in units of 1024x1024; 2k means 2048x2048",
    )
    n_iter: int = Field(1, ge=1, description="multiplies `batch_size`")
    enable_hr: bool = Field(False, description="`hires`, in the words of the fields below")
    hr_scale: float | None = Field(None, allow_inf_nan=False, description="`hires.scale`; 2 if left out")
    hr_upscaler: Text | None = Field(
        None, description="`hires.upscaler`: Lanczos or Latent, which it is if left out and the model can"
    )
    hr_second_pass_steps: int | None = Field(None, ge=0, description="`hires.steps`; 0 for as many as the first pass")
    enable_safety_checker: bool | None = Field(None, description="the endpoint's owner decides; `warnings` say so")
    disable_safety_checker: bool | None = Field(None, description="the endpoint's owner decides; `warnings` say so")
    refine: Literal["no_refiner", "expert_ensemble_refiner", "base_image_refiner"] | None = Field(
        None, description="`refiner`: left out, taking over with `high_noise_frac`, or as a second pass"
    )
    mask_blur: int = Field(0, ge=0, le=64, description="softens the mask, in pixels (standard deviation)")
    inpainting_mask_invert: int = Field(0, ge=0, le=1, description="1: black is drawn anew")
    mask_transparency: Literal["auto", "redraw"] = Field(
        "auto", description="redraw: what is transparent in the mask is drawn anew, whatever else it shows"
    )
    enable_base64_output: bool = Field(False, description="true: `delivery` base64")
    model: Text | None = Field(
        None,
        validation_alias=AliasChoices("model", "sd_model_checkpoint"),
        description="taken if it is the endpoint's",
    )
    override_settings: OverrideSettings | None = Field(
        None, description="CLIP_stop_at_last_layers, which is `clip_skip` and 1 more, and what is so anyway"
    )

    restore_faces: Annotated[object, Neutral(False, instead="leave it out; faces are not restored here")] = None
    tiling: Annotated[object, Neutral(False, instead="leave it out; pictures cannot be tiled")] = None
    subseed: Annotated[object, Neutral(ANYTHING)] = None
    subseed_strength: Annotated[object, Neutral(0, instead=_NO_VARIATION)] = None
    seed_resize_from_h: Annotated[object, Neutral(-1, 0, instead=_NO_VARIATION)] = None
    seed_resize_from_w: Annotated[object, Neutral(-1, 0, instead=_NO_VARIATION)] = None
    styles: Annotated[object, Neutral([], instead="write a style's words into `prompt`")] = None
    style: Annotated[object, Neutral("", instead="has no effect; write it into `prompt`", warns=True)] = None
    firstphase_width: Annotated[object, Neutral(0, instead="write `width` and `hr_scale`", beside="enable_hr")] = None
    firstphase_height: Annotated[object, Neutral(0, instead="write `height` and `hr_scale`", beside="enable_hr")] = None
    hr_resize_x: Annotated[object, Neutral(0, instead="write `hr_scale`", beside="enable_hr")] = None
    hr_resize_y: Annotated[object, Neutral(0, instead="write `hr_scale`", beside="enable_hr")] = None
    hr_checkpoint_name: Annotated[
        object, Neutral("", "Use same checkpoint", instead=_ONE_MODEL, beside="enable_hr")
    ] = None
    hr_sampler_name: Annotated[object, Neutral("", "Use same sampler", instead=_ONE_SCHEDULER, beside="enable_hr")] = (
        None
    )
    hr_scheduler: Annotated[
        object, Neutral("", "Use same scheduler", "Automatic", instead=_ONE_SCHEDULER, beside="enable_hr")
    ] = None
    hr_prompt: Annotated[object, Neutral("", instead=_ONE_PROMPT, beside="enable_hr")] = None
    hr_negative_prompt: Annotated[object, Neutral("", instead=_ONE_PROMPT, beside="enable_hr")] = None
    override_settings_restore_afterwards: Annotated[object, Neutral(ANYTHING)] = None
    refiner_checkpoint: Annotated[
        object, Neutral("", "None", instead='write `refiner`: {"high_noise_frac": 0.8}; its model is the owner\'s')
    ] = None
    refiner_switch_at: Annotated[object, Neutral(ANYTHING)] = None
    send_images: Annotated[object, Neutral(True, instead="leave it out; pictures are what a job is answered")] = None
    save_images: Annotated[object, Neutral(False, instead=_SAVED, warns=True)] = None
    do_not_save_samples: Annotated[object, Neutral(ANYTHING)] = None
    do_not_save_grid: Annotated[object, Neutral(ANYTHING)] = None
    eta: Annotated[object, Neutral(0, instead=_NAMED)] = None
    s_churn: Annotated[object, Neutral(0, instead=_NAMED)] = None
    s_tmax: Annotated[object, Neutral(0, instead=_NAMED)] = None
    s_tmin: Annotated[object, Neutral(0, instead=_NAMED)] = None
    s_noise: Annotated[object, Neutral(1, instead=_NAMED)] = None
    s_min_uncond: Annotated[object, Neutral(0, instead="leave it out; guidance holds for every step")] = None
    script_name: Annotated[object, Neutral("", instead="leave it out; there are no scripts here")] = None
    script_args: Annotated[object, Neutral([], {}, instead="leave it out; there are no scripts here")] = None
    alwayson_scripts: Annotated[
        object, Neutral({}, instead='leave it out; a ControlNet is written as `controlnet`: {"name", "image"}')
    ] = None
    comments: Annotated[object, Neutral(ANYTHING)] = None
    disable_extra_networks: Annotated[object, Neutral(False, instead="leave it out; LoRAs stand in `loras`")] = None
    force_task_id: Annotated[object, Neutral(ANYTHING)] = None
    infotext: Annotated[object, Neutral("", instead="write its fields, or `replay` with the picture itself")] = None
    resize_mode: Annotated[
        object,
        Neutral(
            0, 1, instead="leave it out; the image is scaled to cover the frame, and its edges cut", beside="image"
        ),
    ] = None
    inpainting_fill: Annotated[
        object, Neutral(1, instead="write 1; drawing starts from what the image holds", beside="mask")
    ] = None
    inpaint_full_res: Annotated[
        object, Neutral(False, 0, instead="write false; the whole image is drawn", beside="mask")
    ] = None
    inpaint_full_res_padding: Annotated[object, Neutral(ANYTHING)] = None
    initial_noise_multiplier: Annotated[
        object, Neutral(1, instead="leave it out; `strength` says how much noise is added", beside="image")
    ] = None
    image_cfg_scale: Annotated[
        object, Neutral(0, 1.5, instead="leave it out; with InstructPix2Pix, write `image_guidance_scale`")
    ] = None
    include_init_images: Annotated[object, Neutral(False, instead="leave it out; only what is drawn is sent")] = None
    latent_mask: Annotated[object, Neutral(instead="write `mask`")] = None
    go_fast: Annotated[object, Neutral(False, instead=f"has no effect; {_OWNER}", warns=True)] = None
    apply_watermark: Annotated[object, Neutral(False, instead="has no effect; there is no watermark", warns=True)] = (
        None
    )
    prompt_upsampling: Annotated[object, Neutral(False, instead=_AS_IT_IS)] = None
    enable_prompt_expansion: Annotated[object, Neutral(False, instead=_AS_IT_IS)] = None
    safety_tolerance: Annotated[object, Neutral(instead=f"has no effect; {_OWNER}", warns=True)] = None
    moderation: Annotated[object, Neutral("auto", instead=f"has no effect; {_OWNER}", warns=True)] = None
    control_image: Annotated[object, Neutral(instead='write `controlnet`: {"image": ...}')] = None
    image_prompt: Annotated[object, Neutral(instead='write `ip_adapter`: {"image": ...}')] = None
    extra_lora: Annotated[object, Neutral("", instead="write `loras`: a list of names, each with its scale")] = None
    extra_lora_scale: Annotated[object, Neutral(ANYTHING)] = None
    background: Annotated[object, Neutral("auto", "opaque", instead="leave it out; pictures are opaque")] = None
    input_fidelity: Annotated[object, Neutral("low", instead=f"has no effect; {_KEPT}", warns=True)] = None
    stream: Annotated[object, Neutral(False, instead=_PREVIEW)] = None
    partial_images: Annotated[object, Neutral(0, instead=_PREVIEW)] = None
    user: Annotated[object, Neutral(ANYTHING)] = None
    enable_sync_mode: Annotated[object, Neutral(ANYTHING)] = None
    api: Annotated[object, Neutral(instead="leave it out; a job is a request by itself")] = None
    payload: Annotated[object, Neutral(instead=_INSIDE)] = None
    input: Annotated[object, Neutral(instead=_INSIDE)] = None
    body: Annotated[object, Neutral(instead=_INSIDE)] = None
    params: Annotated[object, Neutral(instead=_INSIDE)] = None
    webhook: Annotated[object, Neutral(instead=_BESIDE)] = None
    policy: Annotated[object, Neutral(instead=_BESIDE)] = None
    s3Config: Annotated[object, Neutral(instead=_BESIDE)] = None
    openai_route: Annotated[object, Neutral(instead="stands in a job's `input` itself, beside `openai_input`")] = None
    openai_input: Annotated[object, Neutral(instead="stands in a job's `input` itself, beside `openai_route`")] = None
    workflow: Annotated[object, Neutral(instead="is ComfyUI's; this worker takes `prompt` and the like")] = None


# Fields of other services -> those of our own that they stand for.
STANDS_FOR = MappingProxyType(
    {
        "size": ("width", "height"),
        "aspect_ratio": ("width", "height"),
        "megapixels": ("width", "height"),
        "n_iter": ("num_images",),
        "enable_hr": ("hires",),
        "refine": ("refiner", "high_noise_frac"),
        "enable_base64_output": ("delivery",),
        "override_settings": ("clip_skip",),
    }
)


def list_ineffective(given: StrictObject) -> list[str]:
    """A warning for each field whose value is taken and has no effect."""
    told = []
    for name, field in ElsewhereFields.model_fields.items():
        rule = next((one for one in field.metadata if isinstance(one, Neutral) and one.warns), None)
        if rule and not rule.asks_nothing(getattr(given, name)):
            told.append(f"{name}: {rule.instead}")
    return told
