"""Request -> Plan: the passes that every picture of a job takes, as data. Knows no torch.

A plan is made once for a job. Whoever asks which passes there are reads it: drawing, counting steps, the metadata of
the pictures, and the warnings about what has no effect.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from worker.models.capabilities import IMAGE
from worker.request import Request


@dataclass(frozen=True)
class Pass:
    """One run of a pipeline over the pictures of a batch.

    Attributes:
        kind: draw, the first; enlarge, over the picture made larger; refine, by SDXL's refiner.
        task: what its pipeline is asked to do, as in `Capabilities.tasks`.
        width, height: in pixels.
        num_inference_steps: length of the whole noise schedule.
        strength: share of the schedule that is run, from a picture on; None where all of it is, from noise.
        start, end: the shares of the schedule between which it runs, where two passes divide one schedule
            (arXiv:2307.01952, section 2.5); None: from its beginning, to its end.
        controlnets: the names of those it follows.
        returns_latents: whether it hands latents on to the next pass, instead of a picture.
        checks_safety: whether the safety checker sees its picture, if there is one.
    """

    kind: Literal["draw", "enlarge", "refine"]
    task: str
    width: int
    height: int
    num_inference_steps: int
    strength: float | None = None
    start: float | None = None
    end: float | None = None
    controlnets: tuple[str, ...] = ()
    returns_latents: bool = False
    checks_safety: bool = False

    @property
    def expected_steps(self) -> int:
        """The steps that it runs, before the scheduler has its say: some step twice for each that was asked for."""
        if self.strength is not None:
            return int(self.num_inference_steps * self.strength)
        return round(self.num_inference_steps * ((self.end or 1.0) - (self.start or 0.0)))


@dataclass(frozen=True)
class Plan:
    """What is drawn, and in which passes.

    Attributes:
        passes: in order; each picture takes all of them.
    """

    request: Request
    passes: tuple[Pass, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the finished pictures, in pixels."""
        return self.request.cut or self.drawn_size

    @property
    def drawn_size(self) -> tuple[int, int]:
        """Width and height that the last pass draws, in pixels."""
        return self.passes[-1].width, self.passes[-1].height

    @property
    def batch_key(self) -> Hashable:
        """Equal for plans whose pictures may share a pass, whatever their prompts, seeds and source pictures."""
        one = self.request
        controls = tuple(
            (control.name, control.scale, control.start, control.end, control.mode) for control in one.controls
        )
        image_prompt = None if one.image_prompt is None else id(one.image_prompt)  # speaks to a whole pass
        references = tuple(map(id, one.references))  # are seen in every picture of a pass
        guidance = one.guidance_scale, one.guidance_rescale, one.true_cfg_scale, one.image_guidance_scale
        reading = one.clip_skip, one.max_sequence_length
        shown = controls, image_prompt, references, one.layers
        return self.passes, one.scheduler.name, guidance, reading, one.loras, shown


def make_plan(request: Request) -> Plan:
    """The passes that this request takes."""
    hires, refinement = request.hires, request.refinement
    shared = refinement.high_noise_frac if refinement else None
    latent = hires is not None and hires.latent
    refined_apart = refinement is not None and shared is None
    size = (hires.width, hires.height) if hires else (request.width, request.height)
    passes = [
        Pass(
            "draw",
            request.task,
            request.width,
            request.height,
            request.num_inference_steps,
            strength=request.init_image.strength if request.init_image else None,
            end=shared,
            controlnets=tuple(one.name for one in request.controls),
            returns_latents=latent or shared is not None,
            checks_safety=hires is None and not refined_apart,
        )
    ]
    if refinement and shared is not None:
        first = request.width, request.height
        passes.append(Pass("refine", IMAGE, *first, refinement.steps, start=shared, returns_latents=latent))
    if hires:
        checked = not refined_apart
        passes.append(Pass("enlarge", IMAGE, *size, hires.steps, hires.strength, checks_safety=checked))
    if refinement and refined_apart:
        passes.append(Pass("refine", IMAGE, *size, refinement.steps, refinement.strength))
    return Plan(request, tuple(passes))
