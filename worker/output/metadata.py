"""The text that a picture carries: what other programs show of it, and what `replay` needs to make it again.

The form is that of AUTOMATIC1111's web UI: the prompts, then one line of settings, of which the last is the recipe.
It comes back through the same table of fields as any request, so a picture can ask for nothing that its sender could
not. Of the prompts the recipe holds only how long they are.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from worker.errors import InvalidInputError
from worker.models import schedulers
from worker.models.capabilities import Capabilities
from worker.plan import Plan
from worker.request import Picture, Request

_NEGATIVE = "\nNegative prompt: "
_SETTINGS = "\nSteps: "
_RECIPE = ", Recipe: "
# Fields that are pictures, which a recipe does not carry.
_PICTURES = ("image", "mask", "images", "controlnet", "ip_adapter")


@dataclass(frozen=True)
class PictureMetadata:
    """What a picture says of itself.

    Attributes:
        model: that made it, by name.
        fields: of a request that makes it again.
        needs: the fields whose pictures it does not carry.
    """

    model: str
    fields: Mapping[str, Any]
    needs: tuple[str, ...]


def format_metadata(picture: Picture, plan: Plan, model: Capabilities) -> str:
    """The text for one picture."""
    request, first = plan.request, plan.passes[0]
    settings = {
        "Steps": first.num_inference_steps,
        "Sampler": request.scheduler.name,
        **({"CFG scale": f"{request.guidance_scale:g}"} if model.family.guidance else {}),
        "Seed": picture.seed,
        "Size": f"{plan.size[0]}x{plan.size[1]}",
        "Model": model.name.replace(",", " "),
        **({} if first.strength is None else {"Denoising strength": f"{first.strength:g}"}),
        # Counted from the last layer there, from the last but one in diffusers.
        **({"Clip skip": request.clip_skip + 1} if request.clip_skip else {}),
    }
    prompts = _join(picture.prompt, request.negative_prompt)
    line = ", ".join(f"{name}: {value}" for name, value in settings.items())
    return f"{prompts}\n{line}{_RECIPE}{_quote(_recipe(picture, plan, model))}"


def _join(prompt: str, negative_prompt: str | None = None) -> str:
    return f"{prompt}{_NEGATIVE}{negative_prompt}" if negative_prompt else prompt


def _quote(recipe: Mapping[str, Any]) -> str:
    """JSON in a JSON string, as other programs' parsers want what holds commas; short, for JPEG has little room."""
    text = json.dumps(recipe, ensure_ascii=False)
    # A name in it may say "Recipe" too; the last in the text must be the one that starts it.
    return json.dumps(text.replace("Recipe", r"\u0052ecipe"), ensure_ascii=False)


def _recipe(picture: Picture, plan: Plan, model: Capabilities) -> dict[str, Any]:
    request, negative = plan.request, plan.request.negative_prompt
    return {
        "model": model.name,
        "fields": {**_fields(plan, model), "seed": picture.seed},
        "needs": _needs(request),
        "prompt": len(picture.prompt),
        "negative_prompt": None if negative is None else len(negative),  # an empty one is not the same as none
    }


def _fields(plan: Plan, model: Capabilities) -> dict[str, Any]:
    request, first = plan.request, plan.passes[0]
    size = {"width": first.width, "height": first.height} if request.outpaint is None else {}
    fields: dict[str, Any] = {
        **size,  # which the picture says, where it is drawn on
        "outpaint": request.outpaint and asdict(request.outpaint),
        "num_inference_steps": first.num_inference_steps,
        "scheduler": _scheduler(request, model),
        "clip_skip": request.clip_skip,
        "guidance_rescale": request.guidance_rescale,
        "true_cfg_scale": request.true_cfg_scale,
        "image_guidance_scale": request.image_guidance_scale,
        "max_sequence_length": request.max_sequence_length,
        "layers": request.layers,
    }
    if model.family.guidance:
        fields["guidance_scale"] = request.guidance_scale
    fields["strength"] = first.strength
    if loras := [lora for lora in request.loras if not lora.from_prompt]:
        fields["loras"] = [{"name": lora.name, "scale": lora.scale} for lora in loras]
    if source := request.init_image:
        fields["mask_blur"] = source.mask_blur or None
        fields["inpainting_mask_invert"] = 1 if source.mask_inverted else None
    if hires := request.hires:
        upscaler = "latent" if hires.latent else "lanczos"
        scale = hires.scale
        fields["hires"] = {"scale": scale, "strength": hires.strength, "steps": hires.steps, "upscaler": upscaler}
    if refinement := request.refinement:
        frac, strength = refinement.high_noise_frac, refinement.strength
        fields["refiner"] = {
            "steps": refinement.steps,
            **({"high_noise_frac": frac} if frac else {"strength": strength}),
        }
    elif model.refiner:
        fields["refiner"] = {"high_noise_frac": 1.0}
    return {name: value for name, value in fields.items() if value is not None}


def _scheduler(request: Request, model: Capabilities) -> str:
    """A name that means this scheduler: its own, or its class's where the model's own goes by that."""
    row = request.scheduler
    return row.name if schedulers.find_scheduler(row.name, model.own_scheduler) == row else row.class_name


def _needs(request: Request) -> list[str]:
    source = request.init_image
    masked = source is not None and source.mask is not None and not source.mask_is_transparency
    started, references = source is not None, len(request.references)
    alone = references == 1 and not started  # then either field may hold it
    prompted = request.image_prompt is not None
    given = (started or alone, masked, references > 0 and not alone, bool(request.controls), prompted)
    return [name for name, needed in zip(_PICTURES, given, strict=True) if needed]


def parse_metadata(text: str) -> PictureMetadata:
    """The recipe in a picture's text.

    Raises:
        InvalidInputError: there is none, or it was changed.
    """
    try:
        found = json.loads(json.loads(text.rpartition(_RECIPE)[2]))
        prompts = {"prompt": found["prompt"], "negative_prompt": found["negative_prompt"]}
        fields = {**found["fields"], **_prompts(text, **prompts)}
        model, needs = found["model"], found["needs"]
        if "replay" in fields or not (
            isinstance(model, str) and isinstance(needs, list) and all(name in _PICTURES for name in needs)
        ):
            raise ValueError("another kind of recipe")
        return PictureMetadata(model, fields, tuple(needs))
    except (KeyError, TypeError, ValueError, RecursionError):
        raise InvalidInputError(["replay: the picture carries no request of this worker's, or a changed one"]) from None


def _prompts(text: str, prompt: int, negative_prompt: int | None) -> dict[str, str]:
    """The prompts of these lengths that the text starts with, if they end where the settings begin."""
    found = {"prompt": text[:prompt]}
    if negative_prompt is not None:
        start = prompt + len(_NEGATIVE)
        found["negative_prompt"] = text[start : start + negative_prompt]
    if not text.startswith(_join(**found) + _SETTINGS):
        raise ValueError("the prompts have other lengths")
    return found
