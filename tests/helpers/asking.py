"""Models to ask, as a worker would describe them after loading, without loading any; and asking in one line."""

import base64
import io
from dataclasses import replace
from typing import Any

from PIL import Image

from worker.api.endpoint import Endpoint
from worker.api.parse import parse
from worker.errors import InvalidInputError
from worker.images.load import PictureRules
from worker.models import schedulers
from worker.models.capabilities import CONTROLLED, EDIT, IMAGE, MASK, TEXT, Capabilities
from worker.models.control_kinds import OWN_CONTROL, ControlKind
from worker.models.editing import EDITORS, Editing
from worker.models.families import FAMILIES
from worker.output.options import Bucket, OutputOptions, OutputRules
from worker.request import Request
from worker.settings import Settings

# family -> native size in pixels, the scheduler in the published model_index.json
_PUBLISHED = {
    "shapes": (64, "DDIMScheduler"),
    "sd1": (512, "PNDMScheduler"),
    "sd2": (768, "DDIMScheduler"),
    "sdxl": (1024, "EulerDiscreteScheduler"),
    "lcm-sd1": (512, "LCMScheduler"),
    "lcm-sdxl": (1024, "LCMScheduler"),
    "sd-turbo": (512, "EulerDiscreteScheduler"),
    "sdxl-turbo": (512, "EulerAncestralDiscreteScheduler"),
    "hyper-sd1": (512, "PNDMScheduler"),
    "sdxl-lightning": (1024, "EulerDiscreteScheduler"),
    "instruct-pix2pix": (512, "EulerAncestralDiscreteScheduler"),
    "instruct-pix2pix-xl": (768, "EulerDiscreteScheduler"),
    "qwen-image-layered": (640, "FlowMatchEulerDiscreteScheduler"),
    "sana": (1024, "DPMSolverMultistepScheduler"),
    "sana-sprint": (1024, "SCMScheduler"),
    "hidream-i1": (1024, "UniPCMultistepScheduler"),
    "hunyuan-image": (2048, "FlowMatchEulerDiscreteScheduler"),
    "hunyuan-image-distilled": (2048, "FlowMatchEulerDiscreteScheduler"),
    "ideogram-4": (2048, "FlowMatchEulerDiscreteScheduler"),
}
_FLOW_EULER = (1024, "FlowMatchEulerDiscreteScheduler")  # of all others


_DIFFUSION = {"clip_skip": None, "guidance_rescale": 0.0, "ip_adapter_image": None, "negative_prompt": None}
_FLOW = {"ip_adapter_image": None}
_FLUX = {**_FLOW, "true_cfg_scale": 1.0, "max_sequence_length": 512}
# family -> what its pipelines take, as `engine.pipelines.task_classes` finds it; the strengths are diffusers' defaults
_TASKS: dict[str, dict[str, dict[str, object]]] = {
    "sd1": {
        TEXT: _DIFFUSION,
        IMAGE: {"strength": 0.8, "clip_skip": None, "ip_adapter_image": None},
        MASK: {"strength": 1.0, "clip_skip": None, "ip_adapter_image": None},
        TEXT + CONTROLLED: {},
        IMAGE + CONTROLLED: {"strength": 0.8},
        MASK + CONTROLLED: {"strength": 1.0},
    },
    "sdxl": {
        TEXT: {**_DIFFUSION, "denoising_end": None},
        IMAGE: {**_DIFFUSION, "denoising_end": None, "strength": 0.3},
        MASK: {**_DIFFUSION, "denoising_end": None, "strength": 0.9999},
        TEXT + CONTROLLED: {"denoising_end": None},
    },
    "sd3": {TEXT: _FLOW, IMAGE: {**_FLOW, "strength": 0.6}, MASK: {**_FLOW, "strength": 0.6}, TEXT + CONTROLLED: {}},
    "flux-dev": {TEXT: _FLUX, IMAGE: {**_FLUX, "strength": 0.6}, MASK: {**_FLUX, "strength": 0.6}},
}
_TASKS |= dict.fromkeys(("flux-schnell", "flux-krea"), _TASKS["flux-dev"])
_TASKS |= {"sd3-turbo": _TASKS["sd3"], "hyper-sd1": _TASKS["sd1"], "sdxl-lightning": _TASKS["sdxl"]}
_Z_IMAGE: dict[str, dict[str, object]] = {TEXT: {}, IMAGE: {"strength": 0.6}, MASK: {"strength": 1.0}}
_QWEN: dict[str, dict[str, object]] = {TEXT: {}, IMAGE: {"strength": 0.6}, MASK: {"strength": 0.6}}
_KLEIN: dict[str, dict[str, object]] = {TEXT: {}, MASK: {"strength": 0.8}}
_TASKS |= {"z-image": _Z_IMAGE, "z-image-turbo": _Z_IMAGE, "qwen-image": _QWEN, "qwen-image-lightning": _QWEN}
_TASKS |= {"flux2-klein": _KLEIN, "flux2-klein-base": _KLEIN}
_TASKS |= dict.fromkeys(("shapes", "sd2", "lcm-sd1", "sd-turbo"), _TASKS["sd1"])
_TASKS |= dict.fromkeys(("lcm-sdxl", "sdxl-turbo"), _TASKS["sdxl"])


def model_of(family_name: str, **changes: Any) -> Capabilities:
    """A model of this family with the family's limits; `changes` are those of `Capabilities`."""
    family = next(row for row in FAMILIES if row.name == family_name)
    size, class_name = _PUBLISHED.get(family_name, _FLOW_EULER)
    own = schedulers.describe_own(class_name, family.noise, {})
    default = schedulers.find_scheduler(family.scheduler or "own", own)
    assert default is not None
    model = Capabilities(
        name=family_name,
        family=family,
        width=size,
        height=size,
        prediction_type="epsilon",
        scheduler=default,
        own_scheduler=own,
        steps=family.steps,
        guidance_scale=family.guidance_scale,
        safety_checker=False,
        max_pixels=family.max_pixels,
        max_steps=family.max_steps,
        max_images=family.max_images,
        tasks=_TASKS.get(family_name, {TEXT: {}}),
        weighted_prompts=family.noise == "diffusion",
        latent_upscaling=family.noise == "diffusion",
        max_sequence_length=512 if family.noise == "flow" else 0,
        clip_layers=12 if family.noise == "diffusion" else 0,
        previews=True,
    )
    return replace(model, **changes)


SD1 = model_of("sd1")
SDXL = model_of("sdxl")
# Models that edit: one that draws from a prompt, too, and inpaints, and one that draws from pictures alone.
_INPAINT = {**_FLOW, "strength": 1.0, "image_reference": None}
FILL = model_of("flux-dev", tasks={MASK: {**_FLOW, "strength": 1.0}})
# A model that follows a picture by its own weights.
CONTROL = model_of(
    "flux-dev",
    tasks={task + CONTROLLED: {**_FLOW, "strength": 0.6} for task in (TEXT, IMAGE, MASK)},
    controlnets=(OWN_CONTROL,),
    control_kinds={OWN_CONTROL: ControlKind(alone=True, built_in=True)},
)
EDITOR = model_of("flux-dev", tasks={TEXT: _FLOW, EDIT: _FLOW, MASK: _INPAINT}, editing=Editing(4))
INSTRUCTED = model_of(
    "instruct-pix2pix",
    tasks={EDIT: {"image_guidance_scale": 1.5, "ip_adapter_image": None}},
    editing=EDITORS["StableDiffusionInstructPix2PixPipeline"],
)
SPLITTER = model_of("qwen-image-layered", tasks={EDIT: {}}, editing=Editing(1, from_prompt=False, splits=True))
EDIT_ONLY = model_of("flux-dev", tasks={EDIT: _FLOW}, editing=Editing(3, from_prompt=False))


def endpoint_of(model: Capabilities, **settings: Any) -> Endpoint:
    """An endpoint with this model and these settings."""
    chosen = Settings(**settings)
    return Endpoint(model, OutputRules.of_endpoint(chosen), chosen, jobs_at_once=1)


def sent(image: Image.Image, format: str = "PNG", **options: Any) -> str:
    """The picture as jobs send it: a data URI. `options` are those of Pillow's writer of this format."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def picture(width: int = 512, height: int = 512, colour: Any = "red", mode: str = "RGB") -> str:
    """A picture of one colour, as jobs send it."""
    return sent(Image.new(mode, (width, height), colour))


def ask(
    model: Capabilities = SD1,
    bucket: Bucket | None = None,
    s3: object = None,
    rules: PictureRules | None = None,
    **fields: Any,
) -> Request:
    """The request that a job with these fields becomes; a prompt is added, `s3` stands beside the input."""
    return ask_all(model, bucket, s3, rules, **fields)[0]


def ask_output(bucket: Bucket | None = None, s3: object = None, **fields: Any) -> OutputOptions:
    """How such a job wants its pictures."""
    return ask_all(SD1, bucket, s3, **fields)[1]


def ask_all(
    model: Capabilities = SD1,
    bucket: Bucket | None = None,
    s3: object = None,
    rules: PictureRules | None = None,
    **fields: Any,
) -> tuple[Request, OutputOptions]:
    """Both."""
    job = {"id": "test", "input": {"prompt": "a red square", **fields}}
    output_rules = OutputRules(bucket, bucket_hosts=("127.0.0.1", "*.example.com"))
    return parse(job if s3 is None else {**job, "s3Config": s3}, model, rules, output_rules)


def refusal(model: Capabilities = SD1, rules: PictureRules | None = None, **fields: Any) -> str:
    """What the caller is told when a job with these fields is refused; fails when it is accepted."""
    try:
        request = ask(model, rules=rules, **fields)
    except InvalidInputError as error:
        return str(error)
    raise AssertionError(f"accepted: {request}")
