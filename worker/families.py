"""What each family of models accepts: its defaults and limits. A plain table; it knows no torch.

The next family is one more row. `Model` is one loaded model seen through its row and the owner's limits: all that
the request parser needs to know of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from worker.schedulers import Noise, Scheduler


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
    size_step: int = 8
    max_steps: int = 500
    max_images: int = 16


# The first row that fits is taken: rows with traits stand before the general one of their class.
FAMILIES: tuple[Family, ...] = (
    Family(
        name="shapes",
        title="the embedded model",
        pipeline="StableDiffusionPipeline",
        traits=MappingProxyType({"unet.cross_attention_dim": 192}),
        steps=20,
        guidance_scale=2.5,
        max_pixels=512 * 512,
    ),
    Family(
        name="sd2",
        title="Stable Diffusion 2.x",
        pipeline="StableDiffusionPipeline",
        traits=MappingProxyType({"unet.use_linear_projection": True}),
        steps=50,
        guidance_scale=7.5,
        max_pixels=1024 * 1024,
    ),
    Family(
        name="sd1",
        title="Stable Diffusion 1.x",
        pipeline="StableDiffusionPipeline",
        steps=50,
        guidance_scale=7.5,
        max_pixels=1024 * 1024,
        scheduler="LMS",
    ),
    Family(
        name="sdxl",
        title="Stable Diffusion XL",
        pipeline="StableDiffusionXLPipeline",
        steps=25,
        guidance_scale=7.5,
        max_pixels=2048 * 2048,
    ),
)


def recognise(pipeline: str, trait: Callable[[str], object]) -> Family | None:
    """The family of a loaded pipeline.

    Args:
        pipeline: name of the pipeline's class.
        trait: looks up a "component.key" config entry of the pipeline.
    """
    for family in FAMILIES:
        if family.pipeline == pipeline and all(trait(key) == value for key, value in family.traits.items()):
            return family
    return None


@dataclass(frozen=True)
class Model:
    """One loaded model, as a request sees it.

    Attributes:
        name: as the owner named it.
        width, height: native size in pixels.
        prediction_type: what the network predicts: epsilon, v_prediction, ...
        scheduler: for jobs that name none.
        safety_checker: whether one is loaded.
        max_pixels, max_steps, max_images: the family's limits or the owner's.
    """

    name: str
    family: Family
    width: int
    height: int
    prediction_type: str
    scheduler: Scheduler
    safety_checker: bool
    max_pixels: int
    max_steps: int
    max_images: int
