"""What each family of models accepts: its defaults and limits. A plain table; it knows no torch.

The next family is one more row.
"""

from collections.abc import Callable, Mapping
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
        traits: config entries, "component.key" -> value, that tell this family from others of the same class.
        steps: default number of denoising steps.
        guidance_scale: default classifier-free guidance scale.
        scheduler: default scheduler; None for the model's own.
        max_pixels: width times height beyond which pictures fall apart or memory does.
        noise: the kind of schedulers that fit.
        guidance: the pipeline's argument for the guidance scale; None where guidance is built into the weights.
        negative_prompt: whether one has an effect.
        size_step: width and height are multiples of it, in pixels.
        batch_pixels: of the pictures that are drawn at once, up to which more of them draw faster; docs/performance.md.
    """

    name: str
    title: str
    pipeline: str
    steps: int
    guidance_scale: float
    max_pixels: int
    traits: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    scheduler: str | None = None
    noise: Noise = "diffusion"
    guidance: str | None = "guidance_scale"
    negative_prompt: bool = True
    size_step: int = 8
    batch_pixels: int = 0
    max_steps: int = 500
    max_images: int = 16


# Of UNets; beyond, a GPU has no more to gain. Transformers keep it busy with a single picture.
_BATCH = 8 * 512 * 512
_BATCH_XL = 4 * 1024 * 1024

# As the Turbo models are published. Models that predict v are sampled so too, and take as many steps as others.
_TURBO = {"scheduler.timestep_spacing": "trailing", "scheduler.prediction_type": "epsilon"}

# The first row that fits is taken: rows with traits stand before the general one of their class.
FAMILIES: tuple[Family, ...] = (
    Family(
        name="shapes",
        title="the embedded model",
        pipeline="StableDiffusionPipeline",
        traits=MappingProxyType({"unet.cross_attention_dim": 192}),
        steps=20,
        guidance_scale=2.0,
        max_pixels=512 * 512,
        batch_pixels=_BATCH,
    ),
    Family(
        name="lcm-sd1",
        title="Stable Diffusion 1.x, distilled to LCM",
        pipeline="StableDiffusionPipeline",
        traits=MappingProxyType({"scheduler._class_name": "LCMScheduler"}),
        steps=8,
        guidance_scale=1.5,
        max_pixels=1024 * 1024,
        batch_pixels=_BATCH,
    ),
    Family(
        name="sd-turbo",
        title="Stable Diffusion Turbo",
        pipeline="StableDiffusionPipeline",
        traits=MappingProxyType({"unet.use_linear_projection": True, **_TURBO}),
        steps=4,
        guidance_scale=0.0,
        max_pixels=1024 * 1024,
        batch_pixels=_BATCH,
    ),
    Family(
        name="sd2",
        title="Stable Diffusion 2.x",
        pipeline="StableDiffusionPipeline",
        traits=MappingProxyType({"unet.use_linear_projection": True}),
        steps=50,
        guidance_scale=7.5,
        max_pixels=1024 * 1024,
        batch_pixels=_BATCH,
    ),
    Family(
        name="sd1",
        title="Stable Diffusion 1.x",
        pipeline="StableDiffusionPipeline",
        steps=50,
        guidance_scale=7.5,
        max_pixels=1024 * 1024,
        scheduler="LMS",
        batch_pixels=_BATCH,
    ),
    Family(
        name="lcm-sdxl",
        title="Stable Diffusion XL, distilled to LCM",
        pipeline="StableDiffusionXLPipeline",
        traits=MappingProxyType({"scheduler._class_name": "LCMScheduler"}),
        steps=8,
        guidance_scale=1.5,
        max_pixels=2048 * 2048,
        batch_pixels=_BATCH_XL,
    ),
    Family(
        name="sdxl-turbo",
        title="Stable Diffusion XL Turbo",
        pipeline="StableDiffusionXLPipeline",
        traits=MappingProxyType({"unet.sample_size": 64, **_TURBO}),
        steps=4,
        guidance_scale=0.0,
        max_pixels=2048 * 2048,
        batch_pixels=_BATCH_XL,
    ),
    Family(
        name="sdxl",
        title="Stable Diffusion XL",
        pipeline="StableDiffusionXLPipeline",
        steps=25,
        guidance_scale=7.5,
        max_pixels=2048 * 2048,
        batch_pixels=_BATCH_XL,
    ),
    Family(
        name="sd3",
        title="Stable Diffusion 3 and 3.5",
        pipeline="StableDiffusion3Pipeline",
        steps=28,
        guidance_scale=7.0,
        max_pixels=1536 * 1536,
        noise="flow",
        size_step=16,
        max_steps=200,
    ),
    Family(
        name="flux-schnell",
        title="FLUX.1 schnell",
        pipeline="FluxPipeline",
        traits=MappingProxyType({"transformer.guidance_embeds": False}),
        steps=4,
        guidance_scale=0.0,
        max_pixels=2048 * 1536,
        noise="flow",
        guidance=None,
        negative_prompt=False,
        size_step=16,
        max_steps=200,
    ),
    Family(
        name="flux-dev",
        title="FLUX.1 dev",
        pipeline="FluxPipeline",
        steps=28,
        guidance_scale=3.5,
        max_pixels=2048 * 1536,
        noise="flow",
        negative_prompt=False,
        size_step=16,
        max_steps=200,
    ),
)


def find_family(pipeline: str, trait: Callable[[str], object]) -> Family | None:
    """The family of a loaded pipeline.

    Args:
        pipeline: name of the pipeline's class.
        trait: looks up a "component.key" config entry of the pipeline.
    """
    for family in FAMILIES:
        if family.pipeline == pipeline and all(trait(key) == value for key, value in family.traits.items()):
            return family
    return None


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
