"""What a loaded model can do: all that requests are checked against. Knows no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from worker.models.families import Family
from worker.models.schedulers import Scheduler

# What a pipeline is started from. Those with a ControlNet are classes of their own in diffusers.
TEXT, IMAGE, MASK = "text to image", "image to image", "inpainting"


CONTROLLED = " with ControlNet"


def task_name(image: bool, mask: bool, controlled: bool) -> str:
    """The task of a request that brings these."""
    return (MASK if mask else IMAGE if image else TEXT) + (CONTROLLED if controlled else "")


@dataclass(frozen=True)
class Capabilities:
    """One loaded model, as a request sees it.

    Attributes:
        name: as the owner named it.
        width, height: native size in pixels.
        prediction_type: what the network predicts: epsilon, v_prediction, ...
        scheduler: for jobs that name none.
        safety_checker, refiner: whether one is loaded.
        max_pixels, max_steps, max_images: the family's limits or the owner's.
        tasks: what it can be asked to do -> the arguments of that pipeline's call and their defaults.
        weighted_prompts: whether `(word:1.3)` and prompts beyond the text encoder's window are understood.
        latent_upscaling: whether its latents are plain pictures of their own, which can be enlarged.
        clip_layers: of the text encoder; 0 where none can be skipped.
        previews: whether its latents can be shown while it draws.
        loras, controlnets: the names that jobs may use.
        left_out_loras: names of files that are offered to nobody -> why, as the end of a sentence.
        ip_adapter: whether one is loaded.
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
    refiner: bool = False
    tasks: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: MappingProxyType({}))
    weighted_prompts: bool = False
    latent_upscaling: bool = False
    clip_layers: int = 0
    previews: bool = False
    loras: tuple[str, ...] = ()
    left_out_loras: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    controlnets: tuple[str, ...] = ()
    ip_adapter: bool = False

    def accepts(self, task: str, argument: str) -> bool:
        """Whether the pipeline for this task takes this argument."""
        return argument in self.tasks.get(task, {})
