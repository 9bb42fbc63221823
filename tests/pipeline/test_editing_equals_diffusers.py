"""Pictures edited by an instruction, through the handler function, are those of plain diffusers, pixel for pixel."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL.Image import Image, Resampling
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from tests.helpers import tiny_editors, tiny_glm, tiny_models, tiny_viewers
from tests.helpers.drawing import assert_same, scene, uri
from tests.helpers.faults import a_worker, engine_of
from tests.helpers.passes_on_a_gpu import ASK_THE_CPU, check_passes
from tests.helpers.through_handler import ask, drawn, pixels
from worker.api.parse import parse
from worker.engine.generate import generate
from worker.errors import JobTimeoutError
from worker.images.resize import fit_image
from worker.models.editing import EDITORS as FACTS
from worker.models.families import FAMILIES
from worker.plan import make_plan
from worker.runtime.worker import Worker

# Model -> its maker, and the most pictures that it takes.
EDITORS: dict[str, tuple[Callable[[], DiffusionPipeline], int]] = {
    "kontext": (tiny_editors.kontext, 1),
    "klein": (tiny_editors.klein, 4),
    "klein-base": (lambda: tiny_editors.klein(is_distilled=False), 4),
    "qwen-edit": (tiny_editors.qwen_edit, 1),
    "qwen-edit-plus": (tiny_editors.qwen_edit_plus, 3),
    "flux2": (tiny_viewers.flux2, 10),
    "qwen-2.1": (tiny_viewers.qwen_image21, 10),
    "longcat-edit": (tiny_viewers.longcat_edit, 1),
    "z-image-omni": (tiny_viewers.z_image_omni, 10),
    "glm-image": (tiny_glm.glm, 1),
    "pix2pix": (tiny_viewers.pix2pix, 1),
    "pix2pix-xl": (tiny_viewers.pix2pix_xl, 1),
    "kandinsky-5": (tiny_viewers.kandinsky5_edit, 1),
    "joyimage": (tiny_viewers.joyimage_edit, 1),
    "joyimage-plus": (tiny_viewers.joyimage_edit_plus, 5),
}
EDIT_ONLY = ("qwen-edit", "qwen-edit-plus", "longcat-edit", "pix2pix", "pix2pix-xl", "kandinsky-5", "joyimage-plus")
COUNTS = {"qwen-2.1": 3, "z-image-omni": 2, "joyimage-plus": 2}  # where all that it takes would take long
DRAWN_OVER = ("pix2pix", "pix2pix-xl", "kandinsky-5")  # which get the picture in the size that they draw
WITH_NEGATIVE = (*DRAWN_OVER, "joyimage", "joyimage-plus")
SHORT = ("klein", "klein-base", "z-image-omni")  # which read padding up to the longest prompt
SETTINGS = {"z-image-omni": {"DTYPE": "bfloat16"}}  # in which diffusers has its pictures encoded, whatever the model
CALL: dict[str, Any] = {"prompt": "make it red", "width": 96, "height": 64, "num_inference_steps": 2}
JOB: dict[str, Any] = {**CALL, "seed": 7}

pytestmark = pytest.mark.usefixtures("small_references")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("editors")
    return {name: tiny_models.save(make(), root / name) for name, (make, _) in EDITORS.items()}


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path]) -> dict[str, DiffusionPipeline]:
    dtypes = dict.fromkeys(SETTINGS, torch.bfloat16)
    return {name: tiny_editors.load_plain(folder, dtypes.get(name, torch.float32)) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def workers(folders: dict[str, Path]) -> Iterator[dict[str, Worker]]:
    """Each as it is after its own start trials."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(a_worker(MODEL_NAME=str(folder), **SETTINGS.get(name, {})))
            for name, folder in folders.items()
        }


def draw_plainly(name: str, pipeline: DiffusionPipeline, **call: Any) -> Image:
    """The same with diffusers alone."""
    size = call["width"], call["height"]
    if name == "kontext":
        call = {"max_area": size[0] * size[1], **call}
    elif name == "longcat-edit":  # which draws in a size of its own
        del call["width"], call["height"]
    elif name == "glm-image" and "image" in call:  # which must be handed sides that all of its parts see alike
        call["image"] = [fit_image("image", call["image"], (64, 128), [])]
    elif name in DRAWN_OVER:
        call["image"] = fit_image("image", call["image"], size, [])
    elif name == "joyimage-plus" and "image" in call:
        given = call.pop("image")
        call["images"] = given if isinstance(given, list) else [given]
    if name == "pix2pix":  # which draws in the size of its picture
        del call["width"], call["height"]
    torch.manual_seed(7)  # for what a pipeline samples without the generator
    result = pipeline(**call, generator=torch.Generator().manual_seed(7))
    picture = (result.images if hasattr(result, "images") else result.image)[0]
    return picture if picture.size == size else picture.resize(size, Resampling.LANCZOS)


def guidance(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a job says of guidance, and the same as diffusers' call has it."""
    if name.startswith("qwen"):
        return {"guidance_scale": 3.0, "negative_prompt": "blue"}, {"true_cfg_scale": 3.0, "negative_prompt": "blue"}
    rest: dict[str, Any] = {"guidance_scale": 3.0, **({"max_sequence_length": 64} if name in SHORT else {})}
    rest |= {"negative_prompt": "blue"} if name in WITH_NEGATIVE else {}
    rest |= {"image_guidance_scale": 2.0} if name.startswith("pix2pix") else {}
    return rest, rest


@pytest.mark.parametrize("name", EDITORS)
def test_one_picture(name: str, workers: dict[str, Worker], plain: dict[str, DiffusionPipeline]) -> None:
    job, call = guidance(name)
    source = scene(80, 112)

    theirs = draw_plainly(name, plain[name], **CALL, **call, image=source)

    ours = drawn(workers[name], JOB, job, image=uri(source))
    assert_same(ours, theirs)
    assert (ours.mode, ours.tobytes()) == (theirs.mode, theirs.tobytes())
    assert drawn(workers[name], JOB, job, images=[uri(source)]).tobytes() == ours.tobytes()
    assert drawn(workers[name], JOB, job, image=uri(scene(80, 112, seed=1))).tobytes() != ours.tobytes()
    assert drawn(workers[name], JOB, job, image=uri(source), prompt="make it blue").tobytes() != ours.tobytes()


@pytest.mark.parametrize("name", [name for name, (_, most) in EDITORS.items() if most > 1])
def test_several_pictures_and_their_order(
    name: str, workers: dict[str, Worker], plain: dict[str, DiffusionPipeline]
) -> None:
    job, call = guidance(name)
    sources = [scene(64 + 16 * i, 64, seed=i) for i in range(COUNTS.get(name, EDITORS[name][1]))]

    theirs = draw_plainly(name, plain[name], **CALL, **call, image=sources)

    ours = drawn(workers[name], JOB, job, images=[uri(one) for one in sources])
    assert_same(ours, theirs)
    assert (ours.mode, ours.tobytes()) == (theirs.mode, theirs.tobytes())
    split = drawn(workers[name], JOB, job, image=uri(sources[0]), images=[uri(one) for one in sources[1:]])
    assert split.tobytes() == ours.tobytes()
    assert drawn(workers[name], JOB, job, images=[uri(one) for one in sources[::-1]]).tobytes() != ours.tobytes()


@pytest.mark.parametrize("name", EDITORS)
def test_on_a_gpu_its_passes_need_nothing_of_the_cpu(name: str, workers: dict[str, Worker]) -> None:
    source = uri(scene(80, 112))
    check_passes(workers[name], lambda: drawn(workers[name], JOB, image=source), name.startswith(ASK_THE_CPU))


@pytest.mark.parametrize("name", EDITORS)
def test_a_picture_more_is_refused_by_name(name: str, workers: dict[str, Worker]) -> None:
    most = EDITORS[name][1]

    answer = ask(workers[name], JOB, images=[uri(scene())] * (most + 1))

    assert [one["field"] for one in answer["fields"]] == ["images"], answer
    assert ("one picture" if most == 1 else str(most)) in answer["message"]


@pytest.mark.parametrize("name", [name for name in EDITORS if name not in (*EDIT_ONLY, "klein-base")])
def test_a_prompt_alone(name: str, workers: dict[str, Worker], plain: dict[str, DiffusionPipeline]) -> None:
    job, call = guidance(name)

    assert_same(drawn(workers[name], JOB, job), draw_plainly(name, plain[name], **CALL, **call))


@pytest.mark.parametrize("name", EDITORS)
def test_how_much_of_a_picture_is_kept_is_offered_where_it_can_be_said(name: str, workers: dict[str, Worker]) -> None:
    told = workers[name].handle({"id": "x", "input": {"capabilities": True}})["capabilities"]["fields"]

    assert ("image_guidance_scale" in {one["name"] for one in told}) == name.startswith("pix2pix")


def test_joyimage_draws_prompts_of_several_lengths_as_each_alone(folders: dict[str, Path]) -> None:
    """Its transformer reads the padding of a shorter one beside a longer."""
    prompts = ["make it red", "a cat on a sofa " * 4]
    with a_worker(MODEL_NAME=str(folders["joyimage"]), MAX_BATCH="2") as worker:
        together = ask(worker, {**JOB, "prompt": prompts})
        for prompt, seed, image in zip(prompts, together["seeds"], together["images"], strict=True):
            assert ask(worker, {**JOB, "prompt": prompt, "seed": seed})["images"] == [image]


@pytest.mark.parametrize("name", EDIT_ONLY)
def test_a_prompt_alone_is_refused_by_name_where_a_picture_is_needed(name: str, workers: dict[str, Worker]) -> None:
    answer = ask(workers[name], JOB)

    assert [one["field"] for one in answer["fields"]] == ["image"], answer


@pytest.mark.parametrize(
    "word", ["<|image_pad|>", "&lt;|image_pad|&gt;", "&amp;lt;|image_pad|>", "<|image<lora:x>_pad|>"]
)
@pytest.mark.parametrize("name", [name for name in EDITORS if name.startswith(("qwen", "kandinsky"))])
def test_a_word_that_stands_for_a_picture_is_refused_by_name(name: str, word: str, workers: dict[str, Worker]) -> None:
    """However it is written: some pipelines read HTML's names of letters, and tags are taken out of prompts."""
    answer = ask(workers[name], {**JOB, "prompt": f"{word} made red"}, image=uri(scene()))

    assert [one["field"] for one in answer["fields"]] == ["prompt"], answer


@pytest.mark.parametrize("name", ["joyimage", "joyimage-plus"])
def test_what_a_pipeline_replaces_by_a_picture_is_refused_by_name(name: str, workers: dict[str, Worker]) -> None:
    answer = ask(workers[name], {**JOB, "prompt": "make <image>\nred"}, image=uri(scene()))

    assert [one["field"] for one in answer["fields"]] == ["prompt"], answer
    drawn(workers[name], {**JOB, "prompt": "make <image> red"}, image=uri(scene()))


@pytest.mark.parametrize(
    ("name", "text", "tokens"),
    [
        ("longcat-edit", "x", 512),
        ("longcat-edit", "'x'", 512),
        ("qwen-edit", "x", 2048),
        ("qwen-edit-plus", "x", 2048),
        ("kandinsky-5", "x", 550),
        ("joyimage", "x", 2048),
        ("joyimage-plus", "x", 2048),
    ],
)
def test_a_prompt_beyond_what_can_be_read_is_refused_by_name(
    name: str, text: str, tokens: int, workers: dict[str, Worker]
) -> None:
    longest = (text * tokens)[:tokens]  # a token a letter

    drawn(workers[name], {**JOB, "prompt": longest, "num_inference_steps": 1}, image=uri(scene()))
    answer = ask(workers[name], {**JOB, "prompt": longest + "x"}, image=uri(scene()))

    assert [one["field"] for one in answer["fields"]] == ["prompt"], answer
    assert f"{tokens + 1} tokens" in answer["message"] and f"{tokens} at most" in answer["message"]


@pytest.mark.parametrize("name", EDITORS)
def test_a_strength_is_refused_by_name(name: str, workers: dict[str, Worker]) -> None:
    answer = ask(workers[name], JOB, image=uri(scene()), strength=0.5)

    assert [one["field"] for one in answer["fields"]] == ["strength"], answer


@pytest.mark.parametrize("name", WITH_NEGATIVE)
@pytest.mark.parametrize("size", [(1, 1), (64, 1024), (4000, 64)], ids=str)
def test_pictures_of_odd_sizes(
    name: str, size: tuple[int, int], workers: dict[str, Worker], plain: dict[str, DiffusionPipeline]
) -> None:
    source = scene(*size)

    ours = drawn(workers[name], JOB, guidance(name)[0], image=uri(source))

    assert_same(ours, draw_plainly(name, plain[name], **CALL, **guidance(name)[1], image=source))


@pytest.mark.parametrize("name", ["kandinsky-5", "joyimage", "joyimage-plus"])
def test_a_length_that_would_cut_the_picture_is_refused_by_name(name: str, workers: dict[str, Worker]) -> None:
    answer = ask(workers[name], JOB, image=uri(scene()), max_sequence_length=64)

    assert [one["field"] for one in answer["fields"]] == ["max_sequence_length"], answer


def test_kandinsky_5_has_room_for_a_prompt_beside_any_picture() -> None:
    """What its pipeline cuts off at the end of both would be the picture."""
    family = next(row for row in FAMILIES if row.name == "kandinsky-5-i2i")
    sides, editing = range(64, 8192, family.size_step), FACTS["Kandinsky5I2IPipeline"]
    largest = [(side, family.max_pixels // side // family.size_step * family.size_step) for side in sides]
    halved = [(height // 2, min(width, 8192) // 2) for height, width in largest if width >= 64]
    seen = [smart_resize(*size, min_pixels=56**2, max_pixels=28**2 * 1280) for size in halved]

    assert max(height * width // 28**2 for height, width in seen) + editing.max_tokens + 3 <= 1024


@pytest.mark.parametrize("name", DRAWN_OVER)
def test_each_step_can_be_seen(name: str, workers: dict[str, Worker]) -> None:
    engine = engine_of(workers[name])
    seen: list[Image | None] = []
    request = parse({"input": {**CALL, "image": uri(scene()), "preview": True}}, engine.capabilities)[0]

    generate(engine, make_plan(request), lambda *step: seen.append(step[2] and step[2]()))

    shown = [one.size for one in seen if one]
    assert len(shown) == 2 and all(width > height for width, height in shown)


@pytest.mark.parametrize(
    "name", ["kontext", "klein", "qwen-edit-plus", "glm-image", "kandinsky-5", "joyimage", "joyimage-plus"]
)
def test_several_pictures_are_those_drawn_alone(name: str, workers: dict[str, Worker]) -> None:
    answer = ask(workers[name], JOB, image=uri(scene()), num_images=2)

    (alone,) = ask(workers[name], JOB, image=uri(scene()), seed=8)["images"]
    assert pixels(answer["images"][1]) == pixels(alone) != pixels(answer["images"][0])


@pytest.mark.parametrize("name", EDITORS)
def test_every_step_is_counted_and_the_time_limit_heeded(name: str, workers: dict[str, Worker]) -> None:
    engine = engine_of(workers[name])
    steps: list[tuple[int, int]] = []
    request = parse({"input": {**CALL, "image": uri(scene())}}, engine.capabilities)[0]

    generate(engine, make_plan(request), lambda *step: steps.append(step[:2]))

    assert steps == [(1, 2), (2, 2)]
    with pytest.raises(JobTimeoutError):
        generate(engine, make_plan(request), lambda *_: None, deadline=0.0)


def test_an_edited_picture_is_drawn_in_the_aspect_of_the_first(workers: dict[str, Worker]) -> None:
    sources = [uri(scene(200, 100)), uri(scene(64, 128))]

    answer = ask(workers["klein"], JOB, images=sources, width=None, height=128)

    assert (answer["width"], answer["height"]) == (256, 128)


def test_what_was_edited_is_made_again_from_its_own_file(workers: dict[str, Worker]) -> None:
    sources = [uri(scene(64, 96)), uri(scene(96, 64, seed=1))]
    first = ask(workers["klein"], JOB, images=sources)["images"][0]
    beside = {"replay": first, "images": sources}

    (again,) = workers["klein"].handle({"id": "again", "input": beside})["images"]  # type: ignore[index]

    assert pixels(again) == pixels(first)
    told = workers["klein"].handle({"id": "less", "input": {"replay": first}})
    assert "give images beside it" in str(told)
