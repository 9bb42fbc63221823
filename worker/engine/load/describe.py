"""A loaded pipeline -> the `Capabilities` that requests are checked against. Reads configs and signatures only."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from transformers import ProcessorMixin

from worker.engine.load.defaults import apply_defaults
from worker.engine.pipelines import (
    call_arguments,
    can_preview,
    follows,
    reads_clip,
    starts_from_pictures,
    task_classes,
)
from worker.errors import ModelError
from worker.images.resize import limit_size
from worker.models import schedulers
from worker.models.adapters import AdapterCatalogue
from worker.models.capabilities import Capabilities
from worker.models.control_kinds import OWN_CONTROL, ControlKind
from worker.models.editing import EDITORS, Editing
from worker.models.families import Found, find_family
from worker.models.family import Family, general_family
from worker.models.scheduler_classes import BETA_SCHEDULES, PREDICTIONS
from worker.models.schedulers import Noise
from worker.settings import Settings

log = logging.getLogger("worker")
# Where a pipeline takes more tokens than its call does by default.
_LONGEST = {"StableDiffusion3": 512, "QwenImage": 1024, "Lumina2": 512}
# Whatever max_sequence_length says, or the picture would be cut with the prompt.
_READ_WHOLE = (
    "QwenImageEditPipeline",
    "QwenImageEditPlusPipeline",
    "Kandinsky5I2IPipeline",
    "JoyImageEditPipeline",
    "JoyImageEditPlusPipeline",
)


def describe(pipeline: Any, name: str, settings: Settings, catalogue: AdapterCatalogue) -> Capabilities:
    """What this pipeline can do, within the owner's limits.

    Raises:
        ModelError: it cannot draw from a prompt alone.
        SettingsError: a setting does not fit it.
    """
    _check_draws_from_prompt(pipeline, name)
    kind, arguments = type(pipeline).__name__, call_arguments(type(pipeline))
    family = _choose_family(pipeline, name)
    height, width = _native_size(pipeline, arguments)
    max_pixels = settings.max_pixels or family.max_pixels
    if width * height > max_pixels:
        width, height = limit_size((width, height), max_pixels, family.size_step)
    own = schedulers.describe_own(type(pipeline.scheduler).__name__, family.noise, pipeline.scheduler.config)
    capabilities = Capabilities(
        name=name,
        family=family,
        width=width,
        height=height,
        prediction_type=_read_prediction_type(pipeline),
        zero_snr=bool(pipeline.scheduler.config.get("rescale_betas_zero_snr")),
        scheduler=own,
        own_scheduler=own,
        steps=family.steps,
        guidance_scale=family.guidance_scale,
        safety_checker=getattr(pipeline, "safety_checker", None) is not None,
        max_pixels=max_pixels,
        max_steps=settings.max_steps or family.max_steps,
        max_images=settings.max_images or family.max_images,
        refiner=settings.refiner_name is not None,
        tasks=MappingProxyType({task: call_arguments(one) for task, one in task_classes(type(pipeline)).items()}),
        editing=_find_editing(pipeline),
        max_sequence_length=_longest_prompt(kind, arguments),
        picture_tokens=_list_picture_tokens(pipeline),
        weighted_prompts=reads_clip(type(pipeline)),
        plain_prompts=settings.prompt_syntax == "plain",
        latent_upscaling=_has_plain_latents(pipeline),
        clip_layers=_clip_layers(pipeline, arguments),
        previews=can_preview(pipeline),
        loras=tuple(catalogue.loras),
        left_out_loras=catalogue.left_out_loras,
        controlnets=(OWN_CONTROL,) if follows(type(pipeline)) else tuple(catalogue.controlnets),
        control_kinds=MappingProxyType({OWN_CONTROL: ControlKind(alone=True, built_in=True)}),
        ip_adapter=catalogue.ip_adapter is not None,
    )
    return apply_defaults(capabilities, settings)


def _choose_family(pipeline: Any, name: str) -> Family:
    """The row for this pipeline; the log is told why."""
    kind = type(pipeline)
    found = find_family(kind.__name__, lambda key: read_config_entry(pipeline, key), name)
    if found is None:
        general = general_family(kind.__name__, call_arguments(kind), _vae_scale(pipeline))
        found = Found(general, "the table has no row for its pipeline; its own defaults hold")
    if found.family.traits or found.family.named:  # else it is the row of its class, which is told anyhow
        log.info("family %s: %s", found.family.title, found.reason)
    sigmas = read_config_entry(pipeline, "pipeline.sample_sigmas")
    steps = len(sigmas) if sigmas else found.family.steps
    title = found.family.title if found.family.pipeline == kind.__name__ else f"{found.family.title} for inpainting"
    return replace(found.family, title=title, noise=_tell_noise(pipeline, found.family), steps=steps)


def _find_editing(pipeline: Any) -> Editing | None:
    """What its class does with reference pictures, within the bounds of the processor that this model brings."""
    editing = EDITORS.get(type(pipeline).__name__)
    if editing is None or editing.sides is None:
        return editing
    sides, processor = editing.sides, getattr(pipeline, "processor", None)
    edges = getattr(getattr(processor, "image_processor", None), "size", None) or {}  # pixels of squares
    least, most = edges.get("shortest_edge") or sides.shortest**2, edges.get("longest_edge") or sides.longest**2
    shortest = math.ceil(math.sqrt(least) / sides.step) * sides.step
    longest = max(shortest, math.floor(math.sqrt(most) / sides.step) * sides.step)
    return replace(editing, sides=replace(sides, shortest=shortest, longest=longest))


def read_config_entry(pipeline: Any, key: str) -> Any:
    """The "component.entry" config entry of the pipeline, which is the component "pipeline" itself; or None."""
    component, entry = key.split(".")
    part = pipeline if component == "pipeline" else getattr(pipeline, component, None)
    config = getattr(part, "config", {})
    return config.get(entry) if isinstance(config, Mapping) else getattr(config, entry, None)


def _list_picture_tokens(pipeline: Any) -> tuple[str, ...]:
    processors = [part for part in pipeline.components.values() if isinstance(part, ProcessorMixin)]
    tokens = [getattr(one, name, None) for one in processors for name in ("image_token", "video_token")]
    ends = [read_config_entry(pipeline, f"vision_language_encoder.image_{end}_token_id") for end in ("start", "end")]
    tokens += [editing.placeholder for editing in filter(None, [EDITORS.get(type(pipeline).__name__)])]
    tokens += [one.tokenizer.convert_ids_to_tokens(end) for one in processors for end in ends if end is not None]
    return tuple(token for token in tokens if isinstance(token, str) and token)


def _has_plain_latents(pipeline: Any) -> bool:
    channels = read_config_entry(pipeline, "unet.in_channels"), read_config_entry(pipeline, "vae.latent_channels")
    return None not in channels


def _check_draws_from_prompt(pipeline: Any, name: str) -> None:
    if starts_from_pictures(type(pipeline)):
        return
    latents = read_config_entry(pipeline, "vae.latent_channels")
    inputs = read_config_entry(pipeline, "unet.in_channels") or read_config_entry(pipeline, "transformer.in_channels")
    # A transformer may take patches of two by two latents as one input.
    extra = latents and inputs and inputs not in (latents, 4 * latents)
    controlled = getattr(pipeline, "controlnet", None) is not None
    if extra or controlled or "prompt" not in call_arguments(type(pipeline)):
        raise ModelError(f"{name} ({type(pipeline).__name__}) cannot draw from a prompt alone; it needs a picture too")


def _vae_scale(pipeline: Any) -> int:
    """Pixels per latent, each way; 1 where the denoiser works on the pixels themselves."""
    decoded = {"vae", "movq", "vqgan"} & pipeline.components.keys()
    return int(getattr(pipeline, "vae_scale_factor", 8 if decoded else 1))


def _native_size(pipeline: Any, arguments: Mapping[str, object]) -> tuple[int, int]:
    """Height and width in pixels: what the call defaults to, or what the denoiser was trained on."""
    height, width = arguments.get("height"), arguments.get("width")
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    side = arguments.get("output_resolution", arguments.get("resolution"))  # Qwen-Image 2.1's word, and Layered's
    if isinstance(side, int):
        return side, side
    sizes = (getattr(pipeline, "default_sample_size", None), *_sample_sizes(pipeline))
    size = next((size for size in sizes if size), 128)
    rows, columns = (size, size) if isinstance(size, int) else size
    return rows * _vae_scale(pipeline), columns * _vae_scale(pipeline)


def _sample_sizes(pipeline: Any) -> tuple[Any, Any]:
    return read_config_entry(pipeline, "unet.sample_size"), read_config_entry(pipeline, "transformer.sample_size")


def _read_prediction_type(pipeline: Any) -> str:
    return str(pipeline.scheduler.config.get("prediction_type", "epsilon"))


def _tell_noise(pipeline: Any, family: Family) -> Noise:
    """The family's kind of noise, or "own" where the model's scheduler says what classes beside it cannot read."""
    kind, config = type(pipeline.scheduler).__name__, pipeline.scheduler.config
    if family.noise == "own":
        return "own"
    if family.noise == "flow":
        return "flow" if kind.startswith("FlowMatch") else "own"
    plain = (
        _read_prediction_type(pipeline) in PREDICTIONS
        and (config.get("trained_betas") is not None or config.get("beta_schedule") in BETA_SCHEDULES)
        and config.get("timestep_type", "discrete") == "discrete"
        and config.get("interpolation_type", "linear") == "linear"
    )
    return "diffusion" if plain else "own"


def _longest_prompt(kind: str, arguments: Mapping[str, object]) -> int:
    """Tokens of a prompt that its pipeline can be told to read; 0 where that has no effect."""
    default = arguments.get("max_sequence_length")
    if not isinstance(default, int) or kind in _READ_WHOLE:
        return 0
    return max([default, *(limit for family, limit in _LONGEST.items() if kind.startswith(family))])


def _clip_layers(pipeline: Any, arguments: Mapping[str, object]) -> int:
    """Layers of the shallowest text encoder that `clip_skip` acts on; 0 if it acts on none."""
    if not (reads_clip(type(pipeline)) or "clip_skip" in arguments):
        return 0
    counts = [read_config_entry(pipeline, f"{name}.num_hidden_layers") for name in ("text_encoder", "text_encoder_2")]
    return min((count for count in counts if count), default=0)
