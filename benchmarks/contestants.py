"""Who draws in the scenes with pictures: this worker and its baselines, each from a job to encoded pictures."""

import base64
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import diffusers
import torch

from benchmarks.scenes import Scene
from worker.runtime.worker import Worker

PROMPT = "a big blue star on a yellow background"
SCHEDULERS = {"LMS": diffusers.LMSDiscreteScheduler, "Euler": diffusers.EulerDiscreteScheduler}
PLAIN, FORUM, WORKER_SDXL, OURS = "plain diffusers", "the forum post's code", "worker-sdxl's settings", "this worker"

Draw = Callable[[int], list[str]]  # the first picture's seed -> data URIs


@dataclass(frozen=True)
class Contestant:
    """One way to answer the scene's job.

    Attributes:
        load: until it can draw.
        against: as in `Case`.
    """

    name: str
    load: Callable[[], Draw]
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """A pipeline of diffusers that answers the scene's job as a script would.

    Attributes:
        around: what its call stands in.
    """

    scene: Scene
    pipeline: Any
    around: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __call__(self, seed: int) -> list[str]:
        return [write_data_uri(image) for image in self.draw(seed, self.scene.steps)]

    def draw(self, seed: int, steps: int) -> Sequence[Any]:
        """The pictures, in one batch; noise comes from the CPU, so that a seed is the same picture for everybody."""
        scene = self.scene
        generators = [torch.Generator().manual_seed(seed + number) for number in range(scene.pictures)]
        with self.around():
            images: Sequence[Any] = self.pipeline(
                prompt=PROMPT,
                width=scene.side,
                height=scene.side,
                num_inference_steps=steps,
                guidance_scale=scene.guidance,
                num_images_per_prompt=scene.pictures,
                generator=generators,
            ).images
        return images


@dataclass(frozen=True)
class Ours:
    """This worker, asked through the function that `handler` calls."""

    scene: Scene
    worker: Worker

    def __call__(self, seed: int) -> list[str]:
        answer: Any = self.worker.handle({"id": "benchmark", "input": {**describe_job(self.scene), "seed": seed}})
        if "error" in answer:
            raise RuntimeError(answer["error"])
        images: list[str] = answer["images"]
        return images


def list_contestants(
    scene: Scene, model: Path, device: torch.device, ours: Sequence[Mapping[str, str]]
) -> list[Contestant]:
    """All of this scene, plain diffusers first.

    Args:
        ours: settings of this worker; each is a contestant of its own.
    """
    found = [Contestant(PLAIN, lambda: load_plain(scene, model, device))]
    if scene.pictures == 1 and scene.model == "sd15":
        found.append(Contestant(FORUM, lambda: load_forum_post(scene, model, device), (PLAIN,)))
    if scene.pictures == 1 and scene.model == "sdxl":
        found.append(Contestant(WORKER_SDXL, lambda: load_worker_sdxl(scene, model, device), (PLAIN,)))
    others = tuple(one.name for one in found)
    return found + [
        Contestant(name_ours(settings), lambda settings=settings: load_ours(scene, model, settings), others)  # type: ignore[misc]
        for settings in ours
    ]


def name_ours(settings: Mapping[str, str]) -> str:
    """This worker with these settings, for readers."""
    return ", ".join([OURS, *(f"`{name}={value}`" for name, value in settings.items())])


def load_plain(scene: Scene, model: Path, device: torch.device) -> Pipeline:
    """The pipeline in half precision on a GPU, in single precision elsewhere, and nothing else changed."""
    return Pipeline(scene, _read(scene, model, choose_plain_dtype(scene, device)).to(device))


def load_forum_post(scene: Scene, model: Path, device: torch.device) -> Pipeline:
    """Weights in single precision, and autocast around the call."""
    return Pipeline(scene, _read(scene, model, torch.float32).to(device), lambda: torch.autocast(device.type))


def load_worker_sdxl(scene: Scene, model: Path, device: torch.device) -> Pipeline:
    """Half precision, a VAE without upcast, weights that wait in main memory; xformers and the refiner left out."""
    pipeline = _read(scene, model, choose_plain_dtype(scene, device))
    pipeline.vae.register_to_config(force_upcast=False)
    if device.type == "cuda":
        pipeline.enable_model_cpu_offload()
    return Pipeline(scene, pipeline, torch.inference_mode)


def load_ours(scene: Scene, model: Path, settings: Mapping[str, str]) -> Ours:
    """This worker with these settings."""
    # Several large PNG are more than RunPod takes in one answer.
    with environment({"MODEL_NAME": str(model), "MAX_RESULT_BYTES": "1000000000", **settings}):
        worker = Worker()
    if worker.failure:
        raise worker.failure
    return Ours(scene, worker)


def describe_job(scene: Scene) -> dict[str, Any]:
    """The scene's job as this worker's input; all that has a default is said, but for the seed."""
    chosen = {"scheduler": scene.scheduler} if scene.scheduler else {}
    return {
        "prompt": PROMPT,
        "width": scene.side,
        "height": scene.side,
        "num_inference_steps": scene.steps,
        "guidance_scale": scene.guidance,
        "num_images": scene.pictures,
        "output_format": "png",
        **chosen,
    }


def choose_plain_dtype(scene: Scene, device: torch.device) -> torch.dtype:
    """What the model is published in, on a GPU."""
    if device.type != "cuda":
        return torch.float32
    return torch.float16 if scene.model in ("embedded", "sd15", "sdxl") else torch.bfloat16


def write_data_uri(image: Any) -> str:
    """A PNG as Pillow writes it by itself."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """These variables, inside the `with`."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _read(scene: Scene, model: Path, dtype: torch.dtype) -> Any:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(model, dtype=dtype)
    if scene.scheduler:
        kind = SCHEDULERS[scene.scheduler]  # a job's name decides the sigmas, too, whatever the model's config says
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, use_karras_sigmas=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
