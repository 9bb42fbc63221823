"""What a row of the table of families says: how such models are sampled, and how far. Knows no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from worker.models.schedulers import Noise


@dataclass(frozen=True)
class Family:
    """One row.

    Attributes:
        name: short and stable, for logs and tables.
        title: for people.
        pipeline: the diffusers text-to-image class.
        traits: config entries, "component.key" -> value, that tell this family from others of the same class; the
            pipeline's own are of the component "pipeline".
        named: a regular expression for the word in a model's name, in lower case, that tells it where no config does.
        steps: default number of denoising steps.
        guidance_scale: default classifier-free guidance scale.
        scheduler: default scheduler; None for the model's own.
        max_pixels: width times height beyond which pictures fall apart or memory does.
        noise: the kind of schedulers that fit.
        guidance: the pipeline's argument for the guidance scale; None where guidance is built into the weights.
        schedule: the argument whose default is a schedule for as many steps as the row's, and that is None for others.
        guidance_follows: whether that schedule holds the guidance scale, which then is no argument beside it.
        negative_prompt: whether one has an effect.
        size_step: width and height are multiples of it, in pixels.
        alone: whether its pipeline draws several pictures otherwise than each alone, or not at all.
        batch_pixels: of the pictures that are drawn at once, up to which more of them draw faster; docs/performance.md.
    """

    name: str
    title: str
    pipeline: str
    steps: int
    guidance_scale: float
    max_pixels: int
    traits: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    named: str | None = None
    scheduler: str | None = None
    noise: Noise = "diffusion"
    guidance: str | None = "guidance_scale"
    schedule: str | None = None
    guidance_follows: bool = False
    negative_prompt: bool = True
    size_step: int = 8
    alone: bool = False
    batch_pixels: int = 0
    max_steps: int = 500
    max_images: int = 16


def general_family(pipeline: str, arguments: Mapping[str, object], vae_scale: int) -> Family:
    """A row for a pipeline that the table does not name, from what the pipeline says of itself.

    Such a pipeline is sampled with its own scheduler only: nothing says which others fit.

    Args:
        pipeline: name of the pipeline's class.
        arguments: the parameters of its call and their defaults.
        vae_scale: pixels per latent, each way.
    """
    # Where there are two, guidance_scale is distilled into the weights and true_cfg_scale needs a second pass.
    guidance = next((name for name in ("guidance_scale", "true_cfg_scale") if _is_number(arguments.get(name))), None)
    steps = arguments.get("num_inference_steps")
    return Family(
        name="general",
        title=pipeline.removesuffix("Pipeline"),
        pipeline=pipeline,
        steps=steps if isinstance(steps, int) else 50,
        guidance_scale=float(str(arguments[guidance])) if guidance else 0.0,
        max_pixels=2048 * 2048,
        noise="own",
        guidance=guidance,
        negative_prompt="negative_prompt" in arguments and "true_cfg_scale" not in {*arguments} - {guidance},
        size_step=max(16, 2 * vae_scale),  # transformers take patches of two latents; convolutions need no more
        max_steps=200,
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
