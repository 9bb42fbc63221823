"""The text that a picture carries: what other programs show of it, and what `replay` needs to make it again.

The form is that of AUTOMATIC1111's web UI: the prompts, then one line of settings, of which the last is the recipe.
It comes back through the same table of fields as any request, so a picture can ask for nothing that its sender could
not. Of the prompts the recipe holds only how long they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.errors import InvalidInput
from worker.families import Model
from worker.request import Picture, Request

_NEGATIVE = "\nNegative prompt: "
_RECIPE = ", Recipe: "


@dataclass(frozen=True)
class Recipe:
    """What a picture says of itself.

    Attributes:
        model: that made it, by name.
        fields: of a request that makes it again.
        needs: the fields whose pictures it does not carry.
    """

    model: str
    fields: Mapping[str, Any]
    needs: tuple[str, ...]


def write(picture: Picture, request: Request, model: Model) -> str:
    """The text for one picture."""
    settings = {
        "Steps": request.num_inference_steps,
        "Sampler": request.scheduler.name,
        **({"CFG scale": f"{request.guidance_scale:g}"} if model.family.guidance else {}),
        "Seed": picture.seed,
        "Size": f"{request.size[0]}x{request.size[1]}",
        "Model": model.name.replace(",", " "),
        **({"Denoising strength": f"{request.source.strength:g}"} if request.source else {}),
        # Counted from the last layer there, from the last but one in diffusers.
        **({"Clip skip": request.clip_skip + 1} if request.clip_skip else {}),
    }
    prompts = picture.prompt + (f"{_NEGATIVE}{request.negative_prompt}" if request.negative_prompt else "")
    line = ", ".join(f"{name}: {value}" for name, value in settings.items())
    return f"{prompts}\n{line}{_RECIPE}{json.dumps(_recipe(picture, request, model))}"


def _recipe(picture: Picture, request: Request, model: Model) -> str:
    return json.dumps(
        {
            "model": model.name,
            "fields": {**_fields(request, model), "seed": picture.seed},
            "needs": _needs(request),
            "prompt": len(picture.prompt),
            "negative_prompt": len(request.negative_prompt or ""),
        }
    )


def _fields(request: Request, model: Model) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "width": request.width,
        "height": request.height,
        "num_inference_steps": request.num_inference_steps,
        "scheduler": request.scheduler.name,
        "clip_skip": request.clip_skip,
        "guidance_rescale": request.guidance_rescale,
    }
    if model.family.guidance:
        fields["guidance_scale"] = request.guidance_scale
    if request.source:
        fields["strength"] = request.source.strength
    if request.loras:
        fields["loras"] = [{"name": lora.name, "scale": lora.scale} for lora in request.loras]
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


def _needs(request: Request) -> list[str]:
    source = request.source
    given = {
        "image": source is not None,
        "mask": source is not None and source.mask is not None,
        "controlnet": bool(request.controls),
        "ip_adapter": request.image_prompt is not None,
    }
    return [name for name, needed in given.items() if needed]


def read(text: str) -> Recipe:
    """The recipe in a picture's text.

    Raises:
        InvalidInput: there is none, or it was changed.
    """
    try:
        found = json.loads(json.loads(text.rpartition(_RECIPE)[2]))
        prompt, rest = text[: found["prompt"]], text[found["prompt"] :]
        fields = {**found["fields"], "prompt": prompt}
        if length := found["negative_prompt"]:
            if not rest.startswith(_NEGATIVE):
                raise ValueError("the prompts have another length")
            fields["negative_prompt"] = rest[len(_NEGATIVE) :][:length]
        return Recipe(str(found["model"]), fields, tuple(map(str, found["needs"])))
    except (KeyError, TypeError, ValueError, RecursionError):
        raise InvalidInput(["replay: the picture carries no request of this worker's, or a changed one"]) from None
