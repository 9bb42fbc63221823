"""What a loaded model can do: all that requests are checked against. Knows no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from worker.models.control_kinds import ControlKind
from worker.models.editing import DEFAULT_LAYERS, Editing
from worker.models.family import Family
from worker.models.schedulers import SCHEDULERS, Scheduler, is_usable

# What a pipeline is started from. Those with a ControlNet are classes of their own in diffusers.
TEXT, IMAGE, MASK, EDIT = "text to image", "image to image", "inpainting", "editing"


CONTROLLED = " with ControlNet"


def task_name(image: bool, mask: bool, controlled: bool, references: bool = False) -> str:
    """The task of a request that brings these.

    Args:
        image: to start from.
        references: pictures that its instruction speaks of.
    """
    start = MASK if mask else IMAGE if image else EDIT if references else TEXT
    return start + (CONTROLLED if controlled else "")


@dataclass(frozen=True)
class Capabilities:
    """One loaded model, as a request sees it.

    Attributes:
        name: as the owner named it.
        width, height: in pixels, for jobs that say no size: native, or the owner's.
        prediction_type: what the network predicts: epsilon, v_prediction, ...
        zero_snr: whether it was trained down to no signal at all, which few schedulers start from.
        scheduler, steps, guidance_scale, negative_prompt: for jobs that name none: the family's or the owner's.
        own_scheduler: the model's own, as published.
        safety_checker, refiner: whether one is loaded.
        max_pixels, max_steps, max_images: the family's limits or the owner's.
        tasks: what it can be asked to do -> the arguments of that pipeline's call and their defaults.
        editing: what it does with pictures that an instruction speaks of; None where it edits none.
        max_sequence_length: tokens of a prompt that a job may have read; 0 where it has no say in that.
        picture_tokens: what stands for a picture where it reads prompts.
        weighted_prompts: whether `(word:1.3)` and prompts beyond the text encoder's window are understood.
        plain_prompts: whether the owner wants prompts read as text alone.
        latent_upscaling: whether its latents are plain pictures of their own, which can be enlarged.
        clip_layers: of the text encoder; 0 where none can be skipped.
        previews: whether its latents can be shown while it draws.
        loras, controlnets: the names that jobs may use.
        control_kinds: name -> what that ControlNet takes beside its picture.
        left_out_loras: names of files that are offered to nobody -> why, as the end of a sentence.
        ip_adapter: whether one is loaded.
    """

    name: str
    family: Family
    width: int
    height: int
    prediction_type: str
    scheduler: Scheduler
    own_scheduler: Scheduler
    steps: int
    guidance_scale: float
    safety_checker: bool
    max_pixels: int
    max_steps: int
    max_images: int
    refiner: bool = False
    tasks: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: MappingProxyType({}))
    editing: Editing | None = None
    max_sequence_length: int = 0
    picture_tokens: tuple[str, ...] = ()
    weighted_prompts: bool = False
    plain_prompts: bool = False
    latent_upscaling: bool = False
    clip_layers: int = 0
    previews: bool = False
    loras: tuple[str, ...] = ()
    left_out_loras: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    controlnets: tuple[str, ...] = ()
    control_kinds: Mapping[str, ControlKind] = field(default_factory=lambda: MappingProxyType({}))
    ip_adapter: bool = False
    zero_snr: bool = False
    negative_prompt: str | None = None

    def can_use(self, row: Scheduler) -> bool:
        """Whether it can be drawn, and refined if it always is, with this scheduler."""
        drawn = is_usable(row, self.own_scheduler, self.family.noise, self.prediction_type, self.zero_snr)
        return drawn and (row.starts_from_picture or not self.refiner)

    def list_schedulers(self) -> list[str]:
        """The names of the schedulers that it can be drawn with; its own comes last if the table has none such."""
        return [row.name for row in self.list_scheduler_rows()]

    def list_scheduler_rows(self) -> list[Scheduler]:
        """The same in full."""
        rows = SCHEDULERS if self.own_scheduler in SCHEDULERS else (*SCHEDULERS, self.own_scheduler)
        return [row for row in rows if self.can_use(row)]

    def step_limits(self, row: Scheduler) -> tuple[int, int]:
        """The fewest and the most steps that a job may take with this scheduler."""
        return row.min_steps, min(self.max_steps, row.max_steps or self.max_steps)

    def default_steps(self, row: Scheduler) -> int:
        """The steps of jobs that name none: as many as wanted, within what this scheduler takes."""
        fewest, most = self.step_limits(row)
        return max(fewest, min(self.steps, most))

    def can_start(self, task: str) -> bool:
        """Whether it does this task, with a picture that it follows if it cannot draw without one."""
        always_follows = TEXT not in self.tasks and TEXT + CONTROLLED in self.tasks
        return task in self.tasks or (always_follows and task + CONTROLLED in self.tasks)

    @property
    def splits(self) -> bool:
        """Whether it splits pictures into layers."""
        return self.editing is not None and self.editing.splits

    def choose_layers(self, asked: int | None) -> int | None:
        """Into how many a picture is split; None for a model that leaves it whole."""
        return (asked or DEFAULT_LAYERS) if self.splits else None

    def accepts(self, task: str, argument: str) -> bool:
        """Whether the pipeline for this task takes this argument."""
        return argument in self.tasks.get(task, {})

    def control_kind(self, name: str | None) -> ControlKind:
        """What this ControlNet takes; without a name, the only one."""
        return self.control_kinds.get(name or next(iter(self.controlnets), ""), ControlKind())
