"""A batch of pictures through the passes of its plan: drawn, then enlarged or refined, then finished."""

from collections.abc import Sequence
from dataclasses import replace

import PIL.Image
import torch
from PIL.Image import Image, Resampling

from worker.engine.drawing import Item, jobs_of, lap
from worker.engine.engine import Engine
from worker.engine.passes.prepare import prepare
from worker.engine.passes.run import PassResult, run_pass
from worker.engine.prompts.phases import join_phases
from worker.request import GeneratedImage, Request


def draw(engine: Engine, items: Sequence[Item]) -> list[GeneratedImage]:
    """The pictures, in order; the plans of their jobs have one batch key."""
    engine.seed(items[0].picture.seed)  # Stable Diffusion 3's ControlNet pipelines sample without any generator
    # One for all passes of a picture, on the CPU: a seed means the same noise on every device.
    generators = [torch.Generator("cpu").manual_seed(item.picture.seed) for item in items]
    for job in jobs_of(items):
        job.begin_batch(len(items))
    result: PassResult | None = None
    for number, one in enumerate(items[0].job.plan.passes):
        pipeline = engine.pipeline_for(one)
        found = [item.job.prompts.encode(pipeline, item.picture.prompt, number) for item in items]
        phases = join_phases(found, pipeline)
        lap(items, "text")
        requests = [item.job.plan.request for item in items]
        arguments = prepare(one, requests, result, pipeline)
        result = run_pass(engine, items, number, pipeline, arguments, phases, generators)
        lap(items, "decode")
    assert result is not None
    layers = result.layers or [[image] for image in result.images]
    drawn = zip(items, layers, result.flagged, strict=True)
    return [_finish_all(item, each, flagged, engine.mode) for item, each, flagged in drawn]


def _finish_all(item: Item, layers: Sequence[Image], flagged: bool, acceleration: str | None) -> GeneratedImage:
    """One picture, whole or in layers."""
    finished = [_finish(item, layer, flagged, acceleration) for layer in layers]
    split = tuple(one.image for one in finished) if item.job.plan.request.layers else ()
    return replace(finished[0], layers=split)


def _finish(item: Item, image: Image, flagged: bool, acceleration: str | None) -> GeneratedImage:
    """The picture in the size that was asked for, outside a mask as it came."""
    plan = item.job.plan
    resized_from = None if image.size == plan.drawn_size else image.size
    if resized_from:
        image = image.resize(plan.drawn_size, Resampling.LANCZOS)
    image = image if flagged else _keep_unmasked(image, plan.request)
    image = image if image.size == plan.size else image.crop((0, 0, *plan.size))
    return GeneratedImage(item.picture, image, flagged, resized_from=resized_from, acceleration=acceleration)


def _keep_unmasked(image: Image, request: Request) -> Image:
    init_image = request.init_image
    if init_image is None or init_image.mask is None:
        return image
    return PIL.Image.composite(image, init_image.image, init_image.mask)
