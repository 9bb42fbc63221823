"""Each family of today: a tiny model of its real classes, loaded through MODEL_NAME, draws as plain diffusers does."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DiffusionPipeline, FluxKontextPipeline
from PIL.Image import Image, Resampling

from tests.helpers import tiny_flows, tiny_glm, tiny_models, tiny_readers, tiny_transformers, tiny_vl_readers
from tests.helpers.asking import ask, model_of
from tests.helpers.drawing import assert_same, hole, scene, uri
from tests.helpers.faults import a_worker, engine_of, run
from tests.helpers.passes_on_a_gpu import ASK_THE_CPU, check_passes
from tests.helpers.plain_diffusers import around, scheduler_of
from worker.engine.load.acceleration import choose_batch_size
from worker.engine.memory import MemoryPlan
from worker.models.families import FAMILIES
from worker.plan import make_plan
from worker.runtime.worker import Worker
from worker.settings import Settings

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
        scheduler: that the row's is for plain diffusers; None for the model's own.
        given: parts that plain diffusers cannot load without torchvision, and gets as they were made.
        read_as: what its index says that such a part is.
    """

    make: Callable[[], DiffusionPipeline]
    asked: dict[str, Any]
    steps: int
    meant: dict[str, Any] | None = None
    usual: dict[str, Any] = field(default_factory=dict)
    name: str = "model"
    scheduler: str | None = None
    given: tuple[str, ...] = ()
    read_as: dict[str, str] = field(default_factory=dict)


def kontext() -> DiffusionPipeline:
    return FluxKontextPipeline(**tiny_transformers.flux().components)


def guided(scale: float) -> dict[str, Any]:
    return {"guidance_scale": scale, "num_inference_steps": 3}


def truly_guided(scale: float) -> dict[str, Any]:
    return {"true_cfg_scale": scale, "num_inference_steps": 3, **STAR}


ONE_STEP = {"num_inference_steps": 1, "guidance_scale": 2.0}  # of pictures that are a megapixel, whatever is asked


def sampled(make: Callable[[], Any], scheduler: str, size: int = 8, **config: Any) -> DiffusionPipeline:
    """A UNet that is published with this scheduler, and for pictures of so many latents each way."""
    pipeline = make()
    pipeline.scheduler = getattr(diffusers, scheduler)(**tiny_models.BETAS, **config)
    pipeline.unet.register_to_config(sample_size=size)
    return pipeline


SPACED: dict[str, Any] = {"timestep_spacing": "trailing"}
LCM = partial(sampled, tiny_models.sd1, "LCMScheduler")
LCM_XL = partial(sampled, tiny_models.sdxl, "LCMScheduler")
TURBO = partial(sampled, tiny_models.UNETS["sd2"], "EulerDiscreteScheduler", **SPACED)
TURBO_XL = partial(sampled, tiny_models.sdxl, "EulerAncestralDiscreteScheduler", 64, **SPACED)
# Distilled to few steps, which their names say.
HYPER = Case(tiny_models.sd1, guided(0.0), 8, name="Hyper-SD15-8steps", scheduler="Euler SGM Uniform")
LIGHTNING = Case(tiny_models.sdxl, guided(0.0), 4, name="SDXL-Lightning", scheduler="Euler SGM Uniform")
EVEN = {"sigmas": np.linspace(1.0, 1 / 2, 2)}
CASES = {
    "lcm-sd1": Case(LCM, guided(1.5), 8),
    "lcm-sdxl": Case(LCM_XL, guided(1.5), 8),
    "sd-turbo": Case(TURBO, guided(0.0), 4),
    "sdxl-turbo": Case(TURBO_XL, guided(0.0), 4),
    "hyper-sd1": HYPER,
    "sdxl-lightning": LIGHTNING,
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
        tiny_vl_readers.qwen_image21,
        {"guidance_scale": 3.0, "num_inference_steps": 2, **STAR},
        3,
        {"true_cfg_scale": 3.0, **STAR, **EVEN},
        given=("processor",),
    ),
    "krea-2": Case(tiny_vl_readers.krea2, guided(3.0) | STAR, 28),
    "krea-2-turbo": Case(partial(tiny_vl_readers.krea2, is_distilled=True), guided(0.0), 8),
    "flux-kontext": Case(kontext, guided(3.0), 28, guided(3.0) | {"max_area": 64 * 96}),
    "flux-krea": Case(tiny_transformers.flux, guided(3.0), 28, name="FLUX.1-Krea-dev"),
    "sd3-turbo": Case(tiny_transformers.sd3, guided(0.0), 4, name="stable-diffusion-3.5-large-turbo"),
    "chroma": Case(tiny_transformers.chroma, guided(3.0) | STAR, 40),
    "chroma-flash": Case(tiny_transformers.chroma, guided(1.0), 8, name="Chroma1-HD-Flash"),
    "sana": Case(tiny_readers.sana, guided(3.0) | STAR, 20),
    "sana-sprint": Case(tiny_readers.sana_sprint, guided(3.0), 2, guided(3.0) | {"intermediate_timesteps": None}),
    "longcat-image": Case(tiny_readers.longcat, guided(3.0) | STAR, 50),
    "hidream-i1": Case(tiny_readers.hidream, ONE_STEP, 50),
    "hidream-i1-dev": Case(tiny_readers.hidream, ONE_STEP | {"guidance_scale": 0.0}, 28, name="HiDream-I1-Dev"),
    "hidream-i1-fast": Case(tiny_readers.hidream, ONE_STEP | {"guidance_scale": 0.0}, 16, name="HiDream-I1-Fast"),
    "hunyuan-image": Case(tiny_readers.hunyuan, {"num_inference_steps": 3, **STAR}, 50),
    "hunyuan-image-distilled": Case(
        partial(tiny_readers.hunyuan, guidance_embeds=True),
        guided(4.0),
        8,
        {"num_inference_steps": 3, "distilled_guidance_scale": 4.0},
    ),
    "ernie-image": Case(tiny_flows.ernie, guided(3.0) | STAR, 50),
    "ernie-image-turbo": Case(tiny_flows.ernie, guided(1.0), 8, name="ERNIE-Image-Turbo"),
    "kandinsky-5": Case(tiny_readers.kandinsky5, ONE_STEP, 50, given=("tokenizer",)),
    "glm-image": Case(tiny_glm.glm, guided(2.0), 30),
    "ideogram-4": Case(
        tiny_vl_readers.ideogram4,
        guided(3.0),
        48,
        guided(3.0) | {"guidance_schedule": None},
        {"guidance_scale": None},
    ),
}


@dataclass(frozen=True)
class Model:
    """A tiny model: loaded by a worker, and in plain diffusers' own pipeline."""

    family: str
    case: Case
    worker: Worker
    plain: Any

    @property
    def call(self) -> dict[str, Any]:
        """What the case's job means to plain diffusers."""
        return SIZE | (self.case.asked if self.case.meant is None else self.case.meant)

    def sibling(self, task: str) -> Any:
        """The family's pipeline for another task."""
        return around(self.plain, f"{type(self.plain).__name__.removesuffix('Pipeline')}{task}Pipeline")

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
    plain.scheduler = scheduler_of(plain, case.scheduler) if case.scheduler else plain.scheduler
    plain.set_progress_bar_config(disable=True)
    index = folder / case.name / "model_index.json"
    listed = json.loads(index.read_text()) | {part: ["transformers", kind] for part, kind in case.read_as.items()}
    index.write_text(json.dumps(listed))
    with a_worker(MODEL_NAME=str(folder / case.name)) as worker:
        yield Model(family, case, worker, plain)


# What other files compare with plain diffusers; FLUX.1 Depth is Canny with other defaults.
ELSEWHERE = {
    "test_pictures_equal_diffusers": {"sd1", "sd2", "sdxl"},
    "test_any_family": {"sd3", "flux-dev", "flux-schnell"},
    "test_filling_equals_diffusers": {"flux-fill", "flux-canny", "flux-depth"},
    "test_editing_equals_diffusers": {
        "instruct-pix2pix",
        "instruct-pix2pix-xl",
        "joyimage-edit",
        "joyimage-edit-plus",
        "kandinsky-5-i2i",
        "longcat-image-edit",
        "qwen-image-edit",
        "qwen-image-edit-plus",
        "z-image-omni",
    },
    "test_pictures_are_split_into_layers": {"qwen-image-layered"},
    "test_shapes_model": {"shapes"},
}


def test_every_row_of_the_table_is_drawn() -> None:
    drawn = [*CASES, *(name for names in ELSEWHERE.values() for name in names)]

    assert sorted(drawn) == sorted(family.name for family in FAMILIES)
    assert all((Path(__file__).parent / f"{file}.py").is_file() for file in ELSEWHERE)


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
    drawn = model.draw(**case.asked)
    assert_same(drawn, plainly(model.plain, **model.call))
    assert drawn != model.draw(**case.asked, prompt="hills"), "else nothing is shown of how the prompt is read"


def test_on_a_gpu_its_passes_need_nothing_of_the_cpu(model: Model) -> None:
    check_passes(model.worker, lambda: model.draw(**model.case.asked), model.family.startswith(ASK_THE_CPU))


def test_a_job_that_names_neither_steps_nor_guidance_gets_those_that_the_model_is_published_with(model: Model) -> None:
    family = engine_of(model.worker).capabilities.family
    guidance = {family.guidance: family.guidance_scale} if family.guidance else {}
    call = {"num_inference_steps": model.case.steps, **guidance, **model.case.usual}

    assert family.steps == model.case.steps
    if family.steps <= 8 or family.schedule:  # others take long
        assert_same(model.draw(num_inference_steps=None, guidance_scale=None), plainly(model.plain, **SIZE, **call))


@pytest.mark.parametrize("family", ["kandinsky-5", "glm-image", "z-image"])
def test_what_is_not_the_same_in_company_is_drawn_alone(family: str) -> None:
    settings = Settings(max_batch="4")
    plan = MemoryPlan("none", False, "")

    batch_size = choose_batch_size(None, model_of(family), settings, plan)

    expected = 4 if family == "z-image" else 1
    assert batch_size.choose(make_plan(ask(model_of(family)))) == expected


@pytest.mark.parametrize("model", ["z-image", "qwen-image", "chroma", "sana-sprint"], indirect=True)
def test_a_picture_is_started_from_as_plain_diffusers_does(model: Model) -> None:
    theirs = plainly(model.sibling("Img2Img"), image=scene(64, 96), strength=0.7, **model.call)

    assert_same(model.draw(image=uri(scene(64, 96)), strength=0.7, **model.case.asked), theirs)


@pytest.mark.parametrize("model", ["z-image", "qwen-image"], indirect=True)
def test_a_hole_is_filled_as_plain_diffusers_does(model: Model) -> None:
    picture, mask = scene(64, 96), hole(64, 96)
    filled = plainly(model.sibling("Inpaint"), image=picture, mask_image=mask, strength=0.7, **model.call)

    ours = model.draw(image=uri(picture), mask=uri(mask), mask_blur=0, strength=0.7, **model.case.asked)

    assert_same(ours, PIL.Image.composite(filled, picture, mask))
