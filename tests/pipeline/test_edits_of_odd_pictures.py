"""Whatever picture a job has edited, it is edited as people see it, or refused under its field."""

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook as AccelerateHook
from accelerate.hooks import add_hook_to_module
from diffusers import DiffusionPipeline
from diffusers.hooks import HookRegistry, ModelHook
from PIL import ExifTags
from PIL import Image as Pillow
from PIL.Image import Image
from transformers.models.glm_image.image_processing_pil_glm_image import smart_resize

from tests.helpers import tiny_editors, tiny_glm, tiny_models, tiny_viewers
from tests.helpers.baked_graphs import BakedDevice, graphs_of
from tests.helpers.drawing import assert_same, hole, scene, uri
from tests.helpers.faults import a_worker, a_worker_each, engine_of
from tests.helpers.through_handler import ask, drawn
from worker.engine import memory
from worker.engine.load.glm_image import mend_glm_image
from worker.images.resize import fit_image
from worker.models.editing import EDITORS, SEEN_PIXELS
from worker.runtime.worker import Worker

MAKERS = {"qwen-edit": tiny_editors.qwen_edit, "qwen-2.1": tiny_viewers.qwen_image21}
CALL: dict[str, Any] = {"prompt": "make it red", "width": 96, "height": 64, "num_inference_steps": 2}
JOB: dict[str, Any] = {**CALL, "seed": 7}


@pytest.fixture
def small_references() -> Iterator[None]:
    with tiny_editors.small_references():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_models.save_all(MAKERS, tmp_path_factory.mktemp("editors"))


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path]) -> dict[str, DiffusionPipeline]:
    return {name: tiny_editors.load_plain(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def workers(folders: dict[str, Path]) -> Iterator[dict[str, Worker]]:
    with ExitStack() as stack:
        with tiny_editors.small_references():
            made = stack.enter_context(a_worker_each(folders))
        yield made


def draw_plainly(pipeline: DiffusionPipeline, image: Image, **call: Any) -> Image:
    """Guided away from nothing in particular, as where a job brings no negative prompt."""
    given = {**CALL, "negative_prompt": " ", "true_cfg_scale": 3.0, **call}
    picture: Image = pipeline(**given, image=image, generator=torch.Generator().manual_seed(7)).images[0]
    return picture


def sent(image: Image, kind: str = "PNG", **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _turned() -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise
    return exif


def _palette() -> Image:
    return scene().convert("P", palette=Pillow.Palette.ADAPTIVE, colors=16)


def _half() -> Image:
    """Its left half is transparent."""
    alpha = Pillow.new("L", (64, 64), 255)
    alpha.paste(0, (0, 0, 32, 64))
    image = scene().convert("RGBA")
    image.putalpha(alpha)
    return image


def _on_white(image: Image) -> Image:
    white = Pillow.new("RGBA", image.size, "white")
    return Pillow.alpha_composite(white, image).convert("RGB")


FRAMES = [scene(seed=seed) for seed in range(3)]
RED = Pillow.new("RGB", (64, 64), "red")
# What is sent, and what people see of it.
PICTURES: dict[str, tuple[str, Callable[[], Image]]] = {
    "one pixel": (sent(Pillow.new("RGB", (1, 1), "red")), lambda: RED),
    "wide": (sent(scene(1024, 64)), lambda: scene(1024, 64)),
    "tall": (sent(scene(64, 1024)), lambda: scene(64, 1024)),
    "opaque alpha": (sent(scene().convert("RGBA")), scene),
    "transparent": (sent(_half()), lambda: _on_white(_half())),
    "grey": (sent(scene().convert("L")), lambda: scene().convert("L").convert("RGB")),
    "black and white": (sent(scene().convert("1")), lambda: scene().convert("1").convert("RGB")),
    "16 bits": (sent(Pillow.new("I;16", (64, 64), 65535)), lambda: Pillow.new("RGB", (64, 64), "white")),
    "CMYK": (sent(scene().convert("CMYK"), "TIFF"), lambda: scene().convert("CMYK").convert("RGB")),
    "palette": (sent(_palette()), lambda: _palette().convert("RGB")),
    "animated": (sent(FRAMES[0], save_all=True, append_images=FRAMES[1:]), lambda: FRAMES[0]),
    "turned": (sent(scene(96, 64), exif=_turned()), lambda: scene(96, 64).rotate(-90, expand=True)),
}


@pytest.mark.usefixtures("small_references")
@pytest.mark.parametrize("form", PICTURES)
@pytest.mark.parametrize("name", MAKERS)
def test_it_is_edited_as_people_see_it(
    name: str, form: str, workers: dict[str, Worker], plain: dict[str, DiffusionPipeline]
) -> None:
    told, seen = PICTURES[form]

    ours = drawn(workers[name], JOB, image=told, guidance_scale=3)

    assert_same(ours, draw_plainly(plain[name], seen()))


def test_the_longest_picture_that_there_can_be_is_edited(workers: dict[str, Worker]) -> None:
    """Processors refuse pictures too far from square; in their own sizes, as only those are as long."""
    job = {**JOB, "guidance_scale": 1, "num_inference_steps": 1}

    ours = drawn(workers["qwen-2.1"], job, image=uri(scene(64, 8192)))

    assert ours.size == (96, 64) and ours.tobytes() != drawn(workers["qwen-2.1"], job).tobytes()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "eleven": ({"images": [uri(scene())] * 11}, "images"),
    "a mask alone": ({"image": None, "mask": uri(hole())}, "mask"),
    "a prompt of 5001 letters": ({"prompt": "x" * 5001}, "prompt"),
    "a negative prompt with a picture's word": ({"negative_prompt": "<|image_pad|>"}, "negative_prompt"),
    "a second pass": ({"hires": {}}, "hires"),
    "a strength": ({"strength": 0.5}, "strength"),
    "a length": ({"max_sequence_length": 64}, "max_sequence_length"),
    "two scales": ({"true_cfg_scale": 2, "guidance_scale": 3}, "true_cfg_scale"),
    "no picture at all": ({"image": sent(scene())[:200]}, "image"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("name", MAKERS)
def test_what_cannot_be_is_refused_under_its_field(name: str, what: str, workers: dict[str, Worker]) -> None:
    fields, field = REFUSED[what]

    answer = ask(workers[name], JOB, {"image": uri(scene())}, fields)

    assert answer["code"] == "INVALID_INPUT", answer
    assert field in [one["field"] for one in answer["fields"]]


@pytest.fixture(scope="module")
def glm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(tiny_glm.glm(), tmp_path_factory.mktemp("glm"))


@pytest.fixture(scope="module")
def glm(glm_folder: Path) -> Iterator[Worker]:
    with a_worker(MODEL_NAME=str(glm_folder)) as worker:
        yield worker


@pytest.fixture(scope="module")
def plain_glm(glm_folder: Path) -> DiffusionPipeline:
    return tiny_editors.load_plain(glm_folder)


# Width and height -> those that GLM-Image sees alike with its language model and its transformer: multiples of 32, of
# which the tiny model takes 64 to 2048.
SEEN_BY_GLM = {(64, 64): (64, 64), (1, 1): (64, 64), (64, 96): (64, 96), (96, 64): (96, 64)}


@pytest.mark.parametrize("form", [form for form in PICTURES if form not in ("wide", "tall")])
def test_glm_image_edits_it_as_people_see_it(form: str, glm: Worker, plain_glm: DiffusionPipeline) -> None:
    told, seen = PICTURES[form]
    size = seen().size
    image = fit_image("image", seen(), SEEN_BY_GLM[size], [])

    ours = drawn(glm, JOB, image=told, guidance_scale=3)

    call = {**CALL, "guidance_scale": 3.0, "generator": torch.Generator().manual_seed(7)}
    assert_same(ours, plain_glm(**call, image=[image]).images[0])


@pytest.mark.parametrize(("size", "fits"), [((256, 64), True), ((260, 64), False), ((64, 1024), False)])
def test_glm_image_refuses_what_its_language_model_does(size: tuple[int, int], fits: bool, glm: Worker) -> None:
    answer = ask(glm, JOB, image=sent(scene(*size)))

    assert ("error" not in answer) == fits
    assert [one["field"] for one in answer.get("fields", [])] == ([] if fits else ["image"])


def test_whatever_size_a_picture_has_glm_image_sees_one(glm: Worker) -> None:
    """Both readers of it: where they saw others, the transformer's call would fail."""
    for size in ((63, 65), (4, 1), (79, 316), (1100, 300), (4200, 1050), (2100, 2100)):
        answer = ask(glm, {**JOB, "num_inference_steps": 1}, image=sent(scene(*size)))
        assert "error" not in answer, (size, answer)
        assert [one.partition(":")[0] for one in answer["warnings"]] == ["image"], "it is told what became of it"


@pytest.mark.parametrize(
    "edges",
    [
        {"shortest_edge": 96**2, "longest_edge": 160**2},
        {"shortest_edge": 256**2, "longest_edge": 64**2},
        {"shortest_edge": 100**2, "longest_edge": 2048**2},
    ],
    ids=str,
)
def test_the_bounds_are_those_of_the_models_own_processor(edges: dict[str, int], tmp_path: Path) -> None:
    """Such that make no sense leave the model as it is, which draws from prompts."""
    pipeline = tiny_glm.glm()
    pipeline.processor.image_processor.size = edges
    with a_worker(MODEL_NAME=str(tiny_models.save(pipeline, tmp_path))) as worker:
        sides = engine_of(worker).capabilities.editing.sides  # type: ignore[union-attr]
        answers = [ask(worker, {**JOB, "image": sent(scene(*size))}) for size in ((64, 64), (300, 200))]
        drawn(worker, JOB)

    assert sides is not None and sides.shortest <= sides.longest
    assert sides.shortest % 32 == sides.longest % 32 == 0 and sides.shortest**2 >= edges["shortest_edge"]
    if edges["shortest_edge"] < edges["longest_edge"]:
        assert all("error" not in answer for answer in answers), answers
    else:
        assert {answer.get("code") for answer in answers} <= {None, "INTERNAL_ERROR", "INVALID_INPUT"}


@pytest.mark.parametrize("token", [tiny_glm.BEGIN, tiny_glm.END])
def test_words_around_pictures_are_refused_in_prompts_of_glm_image(token: int, glm: Worker) -> None:
    answer = ask(glm, JOB, image=uri(scene()), prompt=f"make <|code_{token}|> red")

    assert [one["field"] for one in answer["fields"]] == ["prompt"], answer


def test_no_call_of_glm_image_reads_a_picture_without_the_repair() -> None:
    """Where this fails, there is nothing to mend any more."""
    pipeline = tiny_glm.glm()

    with pytest.raises(RuntimeError, match=r"expected input.*to have 16 channels"):
        pipeline("a boat", image=[scene()], height=64, width=64, num_inference_steps=1)


def test_the_repair_changes_nothing_where_there_is_nothing_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of each picture, a batch of them, or patches of all: whichever form the libraries agree on."""
    pipeline, read = tiny_glm.glm(), list[Any]()
    reader = pipeline.vision_language_encoder
    monkeypatch.setattr(type(reader), "get_image_tokens", lambda _, features, *__: read.append(features))
    mend_glm_image(pipeline)
    channels = reader.config.vision_config.hidden_size
    each = [torch.zeros(channels, 2, 3), torch.ones(channels, 2, 3)]
    agreed = [each, torch.stack(each), torch.zeros(12, channels)]

    for features in agreed:
        reader.get_image_tokens(features, None)
    reader.get_image_tokens(torch.cat(each), None)

    assert all(one is other for one, other in zip(read[:3], agreed, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(read[3], each, strict=True))


def test_pictures_that_glm_image_is_published_for_are_seen_alike_by_all_of_it() -> None:
    """The language model's processor halves them, as its patches are twice as large, and does nothing else."""
    editing, sizes = EDITORS["GlmImagePipeline"], np.random.default_rng(0).integers(1, 5000, (2000, 2))
    assert editing.sides is not None
    for width, height in sizes:
        if max(width, height) <= 4 * min(width, height):
            seen = editing.sides.fit((int(width), int(height)), editing.aspect)
            halved = tuple(side // 2 for side in seen)
            assert smart_resize(*seen, factor=16, min_pixels=512**2, max_pixels=2048**2) == halved, seen
            assert all(side % 32 == 0 for side in seen) and seen[0] * seen[1] <= SEEN_PIXELS
            assert 0.9 < (seen[0] / seen[1]) / (width / height) < 1.12, "in its own aspect, but for a step"


def test_layers_that_come_when_they_are_called_are_read_in_no_other_way(
    glm: Worker, glm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OFFLOAD=group: what waits in main memory is no number here until its layer is called."""
    expected = drawn(glm, JOB, image=uri(scene()))
    with a_worker(MODEL_NAME=str(glm_folder)) as worker:
        pipeline = engine_of(worker).pipeline
        with monkeypatch.context() as patch:
            patch.setattr(memory, "apply_group_offloading", lambda part, *_, **__: _let_come_when_called(part))
            memory._stream([pipeline], torch.device("cpu"))

        assert_same(drawn(worker, JOB, image=uri(scene())), expected)


class _ComesWhenCalled(ModelHook):
    def __init__(self, kept: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self._kept = kept  # by the weight's id, as layers may share one

    def initialize_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        for weight in module.parameters():
            self._kept.setdefault(id(weight), weight.data.clone())
        self.post_forward(module, None)
        return module

    def pre_forward(self, module: torch.nn.Module, *given: Any, **named: Any) -> tuple[Any, Any]:
        for weight in module.parameters():
            weight.data.copy_(self._kept[id(weight)])
        return given, named

    def post_forward(self, module: torch.nn.Module, output: Any) -> Any:
        for weight in module.parameters():
            weight.data.fill_(torch.nan)
        return output

    def deinitalize_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        self.pre_forward(module)
        return module


def _let_come_when_called(part: torch.nn.Module) -> None:
    kept: dict[int, torch.Tensor] = {}
    for layer in part.modules():
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Embedding)):
            HookRegistry.check_if_exists_or_initialize(layer).register_hook(_ComesWhenCalled(kept), "group_offloading")


def test_a_language_model_that_waits_in_main_memory_comes_before_it_looks(glm_folder: Path) -> None:
    """OFFLOAD=model: where diffusers has it look, nothing has called its forward yet."""
    pipeline, came = tiny_editors.load_plain(glm_folder), list[str]()
    reader: Any = pipeline.vision_language_encoder
    add_hook_to_module(reader, _Noting(came))
    reader.model.visual.register_forward_pre_hook(lambda *_: came.append("looks"))

    pipeline(**CALL, image=[scene()])

    assert came[:2] == ["comes", "looks"]


class _Noting(AccelerateHook):
    def __init__(self, came: list[str]) -> None:
        self._came = came

    def pre_forward(self, module: torch.nn.Module, *given: Any, **named: Any) -> tuple[Any, Any]:
        self._came.append("comes")
        return given, named


def test_no_pass_of_glm_image_that_keeps_or_recalls_what_it_saw_is_done_by_a_graph(glm: Worker) -> None:
    """Such a pass has the arguments of one that does not, and computes something else."""
    engine, device = engine_of(glm), BakedDevice()
    job = {**JOB, "num_inference_steps": 8, "image": uri(scene())}
    expected = drawn(glm, job)

    with graphs_of(engine, device):
        engine.runners[1].graphs = None  # the decoder's
        found = drawn(glm, job)

    assert_same(found, expected)
    assert device.captures == device.replays == 0


def test_a_mask_is_refused_where_none_is_taken(workers: dict[str, Worker]) -> None:
    answer = ask(workers["qwen-2.1"], JOB, image=uri(scene()), mask=uri(hole()))

    assert [one["field"] for one in answer["fields"]] == ["mask"]


@pytest.mark.usefixtures("small_references")
def test_no_pictures_are_a_prompt_alone_or_are_missed(
    workers: dict[str, Worker], plain: dict[str, DiffusionPipeline]
) -> None:
    answer = ask(workers["qwen-edit"], JOB, images=[])
    assert [one["field"] for one in answer["fields"]] == ["image"]

    ours = drawn(workers["qwen-2.1"], JOB, images=[], guidance_scale=3)
    assert_same(ours, draw_plainly(plain["qwen-2.1"], None))  # type: ignore[arg-type]


@pytest.mark.usefixtures("small_references")
@pytest.mark.parametrize("scale", ["true_cfg_scale", "guidance_scale"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_negative_prompt_without_guidance_is_said_to_have_no_effect(
    name: str, scale: str, workers: dict[str, Worker], plain: dict[str, DiffusionPipeline]
) -> None:
    given = {"image": uri(scene()), scale: 1}

    ours = ask(workers[name], JOB, given, negative_prompt="blue")

    assert ours["warnings"] == ["negative_prompt: has no effect with a guidance_scale of 1; above 1 it has"]
    without = ask(workers[name], JOB, given)
    assert without["warnings"] == []
    assert_same(
        drawn(workers[name], JOB, given, negative_prompt="blue"), draw_plainly(plain[name], scene(), true_cfg_scale=1.0)
    )
    guided = ask(workers[name], JOB, given, {scale: 3}, negative_prompt="blue")
    assert guided["warnings"] == []
