"""Request -> pictures, one after the other, each from its own seed.

One picture is drawn at a time: it then never depends on its neighbours in the batch, and can be encoded while the
next is drawn. A picture may take several passes: the first draws it, the next enlarge or refine it. Nothing here
knows where pictures go.
"""

import logging
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import PIL.Image
import torch
from PIL.Image import Image, Resampling

from worker.engine.decoder import low_memory
from worker.engine.device_errors import is_out_of_memory
from worker.engine.engine import Engine
from worker.engine.pipelines import call_arguments
from worker.engine.preview import Prediction
from worker.engine.prompts.encode import check_prompt_lengths, text_arguments
from worker.engine.recovery import release_exception_memory
from worker.engine.scheduling import build_scheduler, watch
from worker.engine.steps import MakePreview, OnStep, StepCounter
from worker.models.capabilities import IMAGE
from worker.request import GeneratedImage, Picture, Request

log = logging.getLogger("worker")


def generate(
    engine: Engine, request: Request, on_step: OnStep, deadline: float | None = None
) -> Generator[GeneratedImage, None, None]:
    """Draw the request's pictures, in order.

    Args:
        on_step: called after each denoising step with the number done and the number in all, over all pictures, and,
            if the request wants previews, a function that says what the picture looks like now.
        deadline: on time.monotonic()'s clock; checked at every step.

    Raises:
        JobTimeoutError: the deadline has passed.
        ModelError: a LoRA cannot be loaded or does not fit.
        InvalidInputError: a prompt has more tokens than this model reads in any time.
    """
    check_prompt_lengths(engine, request)
    steps = StepCounter(request, on_step, deadline)
    with ExitStack() as attached:
        attached.callback(engine.release)
        attached.enter_context(engine.loras.active(request.loras))
        if engine.ip_adapter is not None:
            attached.enter_context(engine.ip_adapter.active(request.image_prompt))
        for picture in request.pictures:
            yield _drawn(engine, request, picture, steps)


def _drawn(engine: Engine, request: Request, picture: Picture, steps: "StepCounter") -> GeneratedImage:
    """The picture; when memory runs out, once more in a leaner way."""
    done = steps.done
    try:
        return _Drawing(engine, request, picture, steps).draw()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        release_exception_memory(error)
    log.warning("out of memory: drawing once more, decoding by tiles")
    engine.repair()
    steps.back_to(done)
    with low_memory(getattr(engine.pipeline, "vae", None)):
        return replace(_Drawing(engine, request, picture, steps).draw(), low_memory=True)


class _Drawing:
    """One picture on its way through its passes."""

    def __init__(self, engine: Engine, request: Request, picture: Picture, steps: "StepCounter") -> None:
        self._engine = engine
        self._request = request
        self._picture = picture
        self._steps = steps
        self._generator = torch.Generator("cpu").manual_seed(picture.seed)
        torch.manual_seed(picture.seed)  # Stable Diffusion 3's ControlNet pipelines sample without any generator

    def draw(self) -> GeneratedImage:
        request, refinement = self._request, self._request.refinement
        refined_apart = refinement is not None and refinement.high_noise_frac is None
        result = self._first(last=request.hires is None and not refined_apart)
        if request.hires:
            result = self._enlarged(result, last=not refined_apart)
        if refinement is not None and refined_apart:
            again = {"image": result.images[0], "strength": refinement.strength}
            result = self._refine(again)
        flagged = _is_flagged(result)
        image = result.images[0]
        resized_from = None if image.size == request.size else image.size
        if resized_from:
            image = image.resize(request.size, Resampling.LANCZOS)
        source = request.init_image
        if source is not None and source.mask is not None and not flagged:
            image = PIL.Image.composite(image, source.image, source.mask)
        return GeneratedImage(self._picture, image, flagged, resized_from=resized_from)

    def _first(self, last: bool) -> Any:
        """The pass that draws, with its second half by the refiner if they share the schedule."""
        request, refinement = self._request, self._request.refinement
        pipeline = self._engine.pipeline_for(request.task, tuple(one.name for one in request.controls), last)
        arguments = self._task_arguments(pipeline)
        shared = refinement.high_noise_frac if refinement else None
        latent = request.hires is not None and request.hires.latent
        if shared is None:
            return self._run(pipeline, arguments | ({"output_type": "latent"} if latent else {}))
        half = self._run(pipeline, arguments | {"denoising_end": shared, "output_type": "latent"})
        rest = {"image": half.images, "denoising_start": shared}
        return self._refine(rest | ({"output_type": "latent"} if latent else {}))

    def _task_arguments(self, pipeline: Any) -> dict[str, Any]:
        request = self._request
        arguments: dict[str, Any] = {
            "width": request.width,
            "height": request.height,
            "max_area": request.width * request.height,  # FLUX Kontext draws as many pixels, whatever the size
            "num_inference_steps": request.num_inference_steps,
        }
        if request.init_image is not None:
            source = request.init_image
            arguments |= {"image": source.image, "mask_image": source.mask, "strength": source.strength}
        if request.controls:
            several = len(request.controls) > 1
            columns = zip(*((one.image, one.scale, one.start, one.end) for one in request.controls), strict=True)
            images, scales, starts, ends = (list(column) if several else column[0] for column in columns)
            # Where there is no other picture, some pipelines call the one to follow just `image`.
            name = "control_image" if "control_image" in call_arguments(type(pipeline)) else "image"
            arguments |= {name: images, "controlnet_conditioning_scale": scales}
            arguments |= {"control_guidance_start": starts, "control_guidance_end": ends}
        return arguments

    def _enlarged(self, first: Any, last: bool) -> Any:
        """The second pass, over the first one's picture or latents made larger."""
        hires = self._request.hires
        assert hires is not None
        pipeline = self._engine.pipeline_for(IMAGE, (), last)
        if hires.latent:
            scale = self._engine.pipeline.vae_scale_factor
            size = hires.height // scale, hires.width // scale
            latents = first.images.float()  # CPUs enlarge no half precision
            image = torch.nn.functional.interpolate(latents, size=size, mode="bicubic", antialias=True)
            image = image.to(first.images.dtype)
        else:
            image = first.images[0].resize((hires.width, hires.height), Resampling.LANCZOS)
        arguments = {"image": image, "strength": hires.strength, "num_inference_steps": hires.steps}
        return self._run(pipeline, arguments | {"width": hires.width, "height": hires.height})

    def _refine(self, arguments: dict[str, Any]) -> Any:
        assert self._engine.refiner is not None and self._request.refinement is not None
        return self._run(self._engine.refiner, {"num_inference_steps": self._request.refinement.steps, **arguments})

    def _run(self, pipeline: Any, arguments: dict[str, Any]) -> Any:
        """One pass of a pipeline with these arguments and those that every pass has."""
        request, model = self._request, self._engine.capabilities
        pipeline.scheduler = build_scheduler(request.scheduler, self._engine.scheduler_config, self._engine.schedulers)
        arguments = arguments | text_arguments(pipeline, self._engine, self._picture.prompt, request)
        arguments |= {"generator": self._generator, "guidance_rescale": request.guidance_rescale}
        if model.family.guidance:
            arguments[model.family.guidance] = request.guidance_scale
        if request.image_prompt is not None:
            arguments["ip_adapter_image"] = request.image_prompt.image
        arguments |= self._steps.of(pipeline, self._preview_maker(pipeline, arguments))
        accepted = call_arguments(type(pipeline))
        return pipeline(**{name: value for name, value in arguments.items() if name in accepted and value is not None})

    def _preview_maker(self, pipeline: Any, arguments: dict[str, Any]) -> MakePreview | None:
        if not self._request.preview:
            return None
        prediction = Prediction()
        watch(pipeline.scheduler, prediction.observe)
        width = arguments.get("width", self._request.size[0])
        height = arguments.get("height", self._request.size[1])

        def make_preview() -> Image | None:
            latents = prediction.latents()
            return None if latents is None else self._engine.previewer.make_preview(latents, width, height)

        return make_preview


def _is_flagged(result: Any) -> bool:
    """What the safety checker said, under either name that diffusers' pipelines have for it."""
    said = getattr(result, "nsfw_content_detected", None) or getattr(result, "nsfw_detected", None)
    return bool(said and said[0])
