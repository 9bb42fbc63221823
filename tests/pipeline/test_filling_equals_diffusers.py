"""Filling a mask, drawing on beyond the edges, and following a picture with a model that is made for it, through the
handler function: what is drawn is what plain diffusers draws, pixel for pixel, and the rest stays as it came."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image as Pillow
from PIL.Image import Image

from tests.helpers import tiny_editors, tiny_models
from tests.helpers.drawing import assert_same, hole, scene, uri
from tests.helpers.faults import a_worker
from tests.helpers.plain_diffusers import around
from tests.helpers.through_handler import ask, drawn, open_picture, pixels
from worker.runtime.worker import Worker

MAKERS: dict[str, Callable[[], DiffusionPipeline]] = {
    "fill": tiny_editors.fill,
    "kontext": tiny_editors.kontext,
    "klein": tiny_editors.klein,
    "qwen-edit": tiny_editors.qwen_edit,
    "control": tiny_editors.control,
}
# Model -> diffusers' pipeline that inpaints with it, its strength where none is given, and what its call takes besides.
INPAINTING: dict[str, tuple[str, float, dict[str, Any], dict[str, Any]]] = {
    "fill": ("FluxFillPipeline", 1.0, {}, {}),
    "kontext": ("FluxKontextInpaintPipeline", 1.0, {}, {"_auto_resize": False}),
    "klein": ("Flux2KleinInpaintPipeline", 0.8, {"is_distilled": True}, {}),
}
CALL: dict[str, Any] = {"prompt": "a red star", "width": 96, "height": 64, "num_inference_steps": 3}
CALL |= {"guidance_scale": 3.0}
JOB = {**CALL, "seed": 7}
SOURCE, MASK = scene(96, 64), hole(96, 64)

pytestmark = pytest.mark.usefixtures("small_references")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_models.save_all(MAKERS, tmp_path_factory.mktemp("fillers"))


@pytest.fixture(scope="module")
def plain(folders: dict[str, Path]) -> dict[str, DiffusionPipeline]:
    return {name: tiny_editors.load_plain(folder) for name, folder in folders.items()}


def inpaint_plainly(name: str, plain: dict[str, DiffusionPipeline], **call: Any) -> Image:
    kind, strength, parts, more = INPAINTING[name]
    pipeline = around(plain[name], kind, scheduler=plain[name].scheduler, **parts)
    size = {"max_area": call["width"] * call["height"]} if name == "kontext" else {}
    call = {"strength": strength, **size, **more, **call}
    return pipeline(**call, generator=torch.Generator().manual_seed(7)).images[0]


def assert_painted(ours: Image, theirs: Image, source: Image, mask: Image) -> None:
    """Theirs where the mask is white, and the source where it is black."""
    white, got, came, drawn = (np.asarray(one) for one in (mask, ours, source, theirs))
    assert (got[white == 255] == drawn[white == 255]).all()
    assert (got[white == 0] == came[white == 0]).all()
    assert (drawn[white == 255] != came[white == 255]).any()


@pytest.mark.parametrize("given", [{}, {"strength": 0.7}], ids=str)
@pytest.mark.parametrize("name", INPAINTING)
def test_a_mask(name: str, given: dict[str, float], workers: dict[str, Worker], plain: dict[str, Any]) -> None:
    theirs = inpaint_plainly(name, plain, **CALL, **given, image=SOURCE, mask_image=MASK)

    ours = drawn(workers[name], JOB, given, image=uri(SOURCE), mask=uri(MASK))

    assert_painted(ours, theirs, SOURCE, MASK)
    assert drawn(workers[name], JOB, given, images=[uri(SOURCE)], mask=uri(MASK)).tobytes() == ours.tobytes()


@pytest.mark.parametrize("name", ["kontext", "klein"])
def test_a_mask_and_a_picture_to_look_at(name: str, workers: dict[str, Worker], plain: dict[str, Any]) -> None:
    other = scene(64, 64, seed=5)
    theirs = inpaint_plainly(name, plain, **CALL, image=SOURCE, mask_image=MASK, image_reference=other)

    ours = drawn(workers[name], JOB, image=uri(SOURCE), mask=uri(MASK), images=[uri(other)])

    assert_painted(ours, theirs, SOURCE, MASK)
    assert ours.tobytes() != drawn(workers[name], JOB, image=uri(SOURCE), mask=uri(MASK)).tobytes()


def test_a_mask_for_a_model_that_draws_in_sizes_of_its_own(workers: dict[str, Worker], plain: dict[str, Any]) -> None:
    """Qwen-Image-Edit scales what it inpaints; here to 160x96, as the aspect and the number of pixels say."""
    plain_one = plain["qwen-edit"]
    pipeline = around(plain_one, "QwenImageEditInpaintPipeline", scheduler=plain_one.scheduler)
    call = {**CALL, "true_cfg_scale": 3.0, "negative_prompt": "blue", "image": SOURCE, "mask_image": MASK}
    del call["guidance_scale"]
    theirs = pipeline(**call, generator=torch.Generator().manual_seed(7)).images[0]

    answer = ask(workers["qwen-edit"], JOB, negative_prompt="blue", image=uri(SOURCE), mask=uri(MASK))

    ours = drawn(workers["qwen-edit"], JOB, negative_prompt="blue", image=uri(SOURCE), mask=uri(MASK))
    assert theirs.size != SOURCE.size
    assert_painted(ours, theirs.resize(SOURCE.size, Pillow.Resampling.LANCZOS), SOURCE, MASK)
    assert f"{theirs.width}x{theirs.height}, which was resized" in str(answer["warnings"])


def test_a_batch_fills_as_each_alone_but_for_rounding(folders: dict[str, Path], workers: dict[str, Worker]) -> None:
    job = {**JOB, "image": uri(SOURCE), "mask": uri(MASK)}
    with a_worker(MODEL_NAME=str(folders["fill"]), MAX_BATCH="2") as worker:
        both = [np.asarray(open_picture(one), np.int16) for one in ask(worker, job, num_images=2)["images"]]
    alone = [np.asarray(drawn(workers["fill"], job, seed=seed), np.int16) for seed in (7, 8)]

    assert max(np.abs(one - other).max() for one, other in zip(both, alone, strict=True)) <= 1
    assert np.abs(alone[0] - alone[1]).max() > 1


# Drawing on beyond the edges


SIDES = [{"left": 32}, {"top": 16, "bottom": 16}, {"left": 7, "top": 5, "right": 3, "bottom": 9}]


@pytest.mark.parametrize("sides", SIDES, ids=str)
@pytest.mark.parametrize("name", INPAINTING)
def test_outpaint(name: str, sides: dict[str, int], workers: dict[str, Worker], plain: dict[str, Any]) -> None:
    """As with a picture and a mask that somebody has made larger by hand; whatever the size, no pixel is scaled."""
    left, top, right, bottom = (sides.get(side, 0) for side in ("left", "top", "right", "bottom"))
    size = 96 + left + right, 64 + top + bottom
    width, height = (-(-side // 16) * 16 for side in size)
    wide, mask = SOURCE.resize((width, height)), Pillow.new("L", (width, height), 255)
    wide.paste(SOURCE, (left, top))
    mask.paste(0, (left, top, left + 96, top + 64))
    call = {**CALL, "width": width, "height": height, "image": wide, "mask_image": mask}
    theirs = inpaint_plainly(name, plain, **call).crop((0, 0, *size))

    ours = drawn(workers[name], JOB, image=uri(SOURCE), outpaint=sides, width=None, height=None)

    assert ours.size == size
    assert_painted(ours, theirs, wide.crop((0, 0, *size)), mask.crop((0, 0, *size)))


def test_outpaint_beside_a_mask_draws_both(workers: dict[str, Worker]) -> None:
    job = {**JOB, "width": None, "height": None, "image": uri(SOURCE), "outpaint": {"right": 32}}

    ours = np.asarray(drawn(workers["fill"], job, mask=uri(MASK)))[:, :96]

    white, came = np.asarray(MASK), np.asarray(SOURCE)
    assert (ours[white == 0] == came[white == 0]).all() and (ours[white == 255] != came[white == 255]).any()


def test_what_was_drawn_on_is_made_again_from_its_own_file(workers: dict[str, Worker]) -> None:
    job = {**JOB, "width": None, "height": None, "image": uri(SOURCE), "outpaint": {"right": 21}, "mask_blur": 2}
    answer = ask(workers["fill"], job)
    assert (answer["width"], answer["height"]) == (117, 64)

    (again,) = ask(workers["fill"], replay=answer["images"][0], image=uri(SOURCE))["images"]

    assert pixels(again) == pixels(answer["images"][0])


# What is made for one thing


@pytest.mark.parametrize(
    ("name", "fields", "field"),
    [
        ("fill", {}, "image"),
        ("fill", {"image": uri(SOURCE)}, "mask"),
        ("fill", {"outpaint": {"left": 8}}, "image"),
        ("fill", {"image": uri(SOURCE), "mask": uri(MASK), "controlnet": {"image": uri(SOURCE)}}, "controlnet"),
        ("control", {}, "controlnet"),
        ("control", {"image": uri(SOURCE)}, "controlnet"),
        ("control", {"controlnet": {"image": uri(SOURCE), "scale": 0.5}}, "controlnet"),
        ("control", {"controlnet": {"image": uri(SOURCE), "name": "canny"}}, "controlnet"),
        ("control", {"controlnet": [{"image": uri(SOURCE)}] * 2}, "controlnet"),
        ("control", {"controlnet": {}}, "controlnet"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused_by_name(
    name: str, fields: dict[str, Any], field: str, workers: dict[str, Worker]
) -> None:
    answer = ask(workers[name], JOB, fields)

    assert field in [one["field"] for one in answer["fields"]], answer


def test_transparent_parts_are_the_mask(workers: dict[str, Worker]) -> None:
    cut = SOURCE.copy()
    cut.putalpha(MASK.point(lambda value: 255 - value))

    ours = drawn(workers["fill"], JOB, image=uri(cut))

    white, came = np.asarray(MASK), np.asarray(SOURCE)
    assert (np.asarray(ours)[white == 0] == came[white == 0]).all()


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("FluxControlPipeline", {}),
        ("FluxControlImg2ImgPipeline", {"image": scene(96, 64, seed=3), "strength": 0.7}),
        ("FluxControlInpaintPipeline", {"image": scene(96, 64, seed=3), "mask_image": MASK, "strength": 0.7}),
    ],
)
def test_a_picture_is_followed(
    kind: str, given: dict[str, Any], workers: dict[str, Worker], plain: dict[str, Any]
) -> None:
    pipeline = around(plain["control"], kind, scheduler=plain["control"].scheduler)
    generator = torch.Generator().manual_seed(7)
    theirs = pipeline(**CALL, **given, control_image=SOURCE, generator=generator).images[0]
    job = {name.removesuffix("_image"): uri(one) if isinstance(one, Image) else one for name, one in given.items()}

    ours = drawn(workers["control"], JOB, job, controlnet={"image": uri(SOURCE)})

    if "mask" in job:
        assert_painted(ours, theirs, given["image"], MASK)
    else:
        assert_same(ours, theirs)
    assert drawn(workers["control"], JOB, job, controlnet={"image": uri(scene(96, 64, 9))}).tobytes() != ours.tobytes()
