"""Each family of today: a tiny model of its real classes, loaded through MODEL_NAME, draws as plain diffusers does."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DiffusionPipeline, FluxKontextPipeline
from PIL.Image import Image, Resampling

from tests.helpers import tiny_flows, tiny_models, tiny_readers, tiny_transformers
from tests.helpers.drawing import assert_same, hole, scene, uri
from tests.helpers.faults import a_worker, engine_of, run
from tests.helpers.plain_diffusers import around
from worker.runtime.worker import Worker

SIZE = {"width": 64, "height": 96}
STAR = {"negative_prompt": "a star"}


@dataclass(frozen=True)
class Case:
    """A family.

    Attributes:
        make: its tiny model.
        asked: what a job asks for beside prompt, size and seed.
        meant: what that is in the words of the pipeline's call, where it has others.
        steps: what jobs get that ask for none.
        usual: what else plain diffusers is to be told for a job that asks for nothing.
        name: of the model's folder.
        given: parts that plain diffusers cannot load without torchvision, and gets as they were made.
        read_as: what its index says that such a part is.
    """

    make: Callable[[], DiffusionPipeline]
    asked: dict[str, Any]
    steps: int
    meant: dict[str, Any] | None = None
    usual: dict[str, Any] = field(default_factory=dict)
    name: str = "model"
    given: tuple[str, ...] = ()
    read_as: dict[str, str] = field(default_factory=dict)


def kontext() -> DiffusionPipeline:
    return FluxKontextPipeline(**tiny_transformers.flux().components)


def guided(scale: float) -> dict[str, Any]:
    return {"guidance_scale": scale, "num_inference_steps": 3}


def truly_guided(scale: float) -> dict[str, Any]:
    return {"true_cfg_scale": scale, "num_inference_steps": 3, **STAR}


ONE_STEP = {"num_inference_steps": 1, "guidance_scale": 2.0}  # of pictures that are a megapixel, whatever is asked
EVEN = {"sigmas": np.linspace(1.0, 1 / 2, 2)}
CASES = {
    "z-image": Case(tiny_flows.z_image, guided(3.0) | STAR, 50),
    "z-image-turbo": Case(partial(tiny_flows.z_image, shift=3.0), guided(0.0), 8),
    "flux2-klein": Case(tiny_flows.flux2_klein, {"num_inference_steps": 3}, 4),
    "flux2-klein-base": Case(partial(tiny_flows.flux2_klein, is_distilled=False), guided(3.0), 50),
    "flux2-dev": Case(
        tiny_flows.flux2, guided(3.0), 50, given=("tokenizer",), read_as={"tokenizer": "PixtralProcessor"}
    ),
    "qwen-image": Case(tiny_transformers.qwen, guided(3.0) | STAR, 50, truly_guided(3.0)),
    "qwen-image-lightning": Case(
        tiny_transformers.qwen, guided(1.0), 4, truly_guided(1.0), name="Qwen-Image-Lightning-4steps"
    ),
    "qwen-image-2.1": Case(
        tiny_flows.qwen_image21,
        {"guidance_scale": 3.0, "num_inference_steps": 2, **STAR},
        3,
        {"true_cfg_scale": 3.0, **STAR, **EVEN},
        given=("processor",),
    ),
    "krea-2": Case(tiny_flows.krea2, guided(3.0) | STAR, 28),
    "krea-2-turbo": Case(partial(tiny_flows.krea2, is_distilled=True), guided(0.0), 8),
    "flux-kontext": Case(kontext, guided(3.0), 28, guided(3.0) | {"max_area": 64 * 96}),
    "flux-krea": Case(tiny_transformers.flux, guided(3.0), 28, name="FLUX.1-Krea-dev"),
    "sd3-turbo": Case(tiny_transformers.sd3, guided(0.0), 4, name="stable-diffusion-3.5-large-turbo"),
    "chroma": Case(tiny_transformers.chroma, guided(3.0) | STAR, 40),
    "sana": Case(tiny_readers.sana, guided(3.0) | STAR, 20),
    "sana-sprint": Case(tiny_readers.sana_sprint, guided(3.0), 2, guided(3.0) | {"intermediate_timesteps": None}),
    "longcat-image": Case(tiny_readers.longcat, guided(3.0) | STAR, 50),
    "hidream-i1": Case(tiny_readers.hidream, ONE_STEP, 50),
    "hunyuan-image": Case(tiny_readers.hunyuan, {"num_inference_steps": 3, **STAR}, 50),
    "hunyuan-image-distilled": Case(
        partial(tiny_readers.hunyuan, guidance_embeds=True),
        guided(4.0),
        8,
        {"num_inference_steps": 3, "distilled_guidance_scale": 4.0},
    ),
    "ernie-image": Case(tiny_flows.ernie, guided(3.0) | STAR, 50),
    "kandinsky-5": Case(tiny_readers.kandinsky5, ONE_STEP, 50),
    "ideogram-4": Case(
        tiny_flows.ideogram4, guided(3.0), 48, guided(3.0) | {"guidance_schedule": None}, {"guidance_scale": None}
    ),
}

STARTING = {
    "Img2Img": ("z-image", "qwen-image", "chroma", "sana-sprint"),
    "Inpaint": ("z-image", "qwen-image"),
}


@dataclass(frozen=True)
class Model:
    """A tiny model: loaded by a worker, and in plain diffusers' own pipeline."""

    family: str
    case: Case
    worker: Worker
    plain: Any

    def ask(self, **fields: Any) -> dict[str, Any]:
        answer = run(self.worker, **{**SIZE, **fields})
        assert "error" not in answer, answer
        return answer

    def draw(self, **fields: Any) -> Image:
        answer = self.ask(**fields)
        return PIL.Image.open(io.BytesIO(base64.b64decode(answer["images"][0].split(",")[1])))


def load_both(family: str, folder: Path) -> Iterator[Model]:
    case = CASES[family]
    made = case.make()
    tiny_models.save(made, folder / case.name)
    parts = {name: getattr(made, name) for name in case.given}
    plain = DiffusionPipeline.from_pretrained(folder / case.name, **parts)
    plain.set_progress_bar_config(disable=True)
    index = folder / case.name / "model_index.json"
    listed = json.loads(index.read_text()) | {part: ["transformers", kind] for part, kind in case.read_as.items()}
    index.write_text(json.dumps(listed))
    with a_worker(MODEL_NAME=str(folder / case.name)) as worker:
        yield Model(family, case, worker, plain)


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    yield from load_both(request.param, tmp_path_factory.mktemp("today"))


def plainly(pipeline: Any, **call: Any) -> Image:
    """Of what plain diffusers draws; in the size that was asked, if it draws others only."""
    torch.manual_seed(7)  # for what a pipeline samples without the generator
    result = pipeline(prompt="a red square", generator=torch.Generator().manual_seed(7), **call)
    drawn = (result.images if hasattr(result, "images") else result.image)[0]
    return drawn if drawn.size == (64, 96) else drawn.resize((64, 96), Resampling.LANCZOS)


def test_our_picture_is_plain_diffusers_picture(model: Model) -> None:
    case = model.case

    assert engine_of(model.worker).capabilities.family.name == model.family
    assert_same(
        model.draw(**case.asked), plainly(model.plain, **SIZE, **(case.asked if case.meant is None else case.meant))
    )


def test_a_job_that_names_neither_steps_nor_guidance_gets_those_that_the_model_is_published_with(model: Model) -> None:
    family = engine_of(model.worker).capabilities.family
    guidance = {family.guidance: family.guidance_scale} if family.guidance else {}
    call = {"num_inference_steps": model.case.steps, **guidance, **model.case.usual}

    assert family.steps == model.case.steps
    if family.steps <= 8 or family.schedule:  # others take long
        assert_same(model.draw(num_inference_steps=None, guidance_scale=None), plainly(model.plain, **SIZE, **call))


def test_a_model_draws_from_a_picture_and_in_a_mask_as_plain_diffusers_does(model: Model) -> None:
    """What diffusers has pipelines for, of the families where it has."""
    family = type(model.plain).__name__.removesuffix("Pipeline")
    kinds = {"Img2Img": {"image": scene(64, 96)}, "Inpaint": {"image": scene(64, 96), "mask_image": hole(64, 96)}}
    for name, pictures in kinds.items():
        if model.family not in STARTING.get(name, ()):
            continue
        call = {**SIZE, **(model.case.asked if model.case.meant is None else model.case.meant), **pictures}
        theirs = plainly(around(model.plain, f"{family}{name}Pipeline"), strength=0.7, **call)
        fields = {"image": uri(scene(64, 96)), "strength": 0.7, **model.case.asked}
        if name == "Inpaint":
            fields |= {"mask": uri(hole(64, 96)), "mask_blur": 0}
            theirs = PIL.Image.composite(theirs, scene(64, 96), hole(64, 96))
        assert_same(model.draw(**fields), theirs)
