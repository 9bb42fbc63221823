"""A batch of pictures through the passes of its plan: drawn, then enlarged or refined, then finished."""

from collections.abc import Sequence

import PIL.Image
import torch
from PIL.Image import Image, Resampling

from worker.engine.engine import Engine
from worker.engine.passes.prepare import prepare
from worker.engine.passes.run import PassResult, run_pass
from worker.engine.prompts.encode import PromptEncoder
from worker.engine.steps import StepCounter
from worker.plan import Plan
from worker.request import GeneratedImage, Picture, Request


def draw(
    engine: Engine, plan: Plan, pictures: Sequence[Picture], prompts: PromptEncoder, steps: StepCounter
) -> list[GeneratedImage]:
    """The pictures, in order.

    Args:
        prompts: of the plan's request.
        steps: is told of every step.
    """
    torch.manual_seed(pictures[0].seed)  # Stable Diffusion 3's ControlNet pipelines sample without any generator
    # One for all passes of a picture, on the CPU: a seed means the same noise on every device.
    generators = [torch.Generator("cpu").manual_seed(picture.seed) for picture in pictures]
    result: PassResult | None = None
    for number, one in enumerate(plan.passes):
        pipeline = engine.pipeline_for(one)
        steps.meter.start()
        texts = prompts.arguments(pipeline, [picture.prompt for picture in pictures])
        steps.meter.lap("text")
        arguments = prepare(one, plan.request, result, pipeline) | texts
        result = run_pass(engine, plan, number, pipeline, arguments, generators, steps)
        steps.meter.lap("decode")
    assert result is not None
    found = zip(pictures, result.images, result.flagged, strict=True)
    return [_finish(picture, image, flagged, plan) for picture, image, flagged in found]


def _finish(picture: Picture, image: Image, flagged: bool, plan: Plan) -> GeneratedImage:
    """The picture in the size that was asked for, outside a mask as it came."""
    resized_from = None if image.size == plan.size else image.size
    if resized_from:
        image = image.resize(plan.size, Resampling.LANCZOS)
    return GeneratedImage(
        picture, image if flagged else _keep_unmasked(image, plan.request), flagged, resized_from=resized_from
    )


def _keep_unmasked(image: Image, request: Request) -> Image:
    init_image = request.init_image
    if init_image is None or init_image.mask is None:
        return image
    return PIL.Image.composite(image, init_image.image, init_image.mask)
