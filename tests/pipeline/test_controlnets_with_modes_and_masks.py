"""Union ControlNets follow the mode that a job names, and those for inpainting its mask, as in plain diffusers.

What they need and a job does not say is refused under `controlnet`, and so are kinds that cannot be followed at once.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    ControlNetUnionModel,
    FluxControlNetModel,
    QwenImageControlNetModel,
    SD3ControlNetModel,
)
from PIL import Image

from tests.helpers import drawing, plain_diffusers, tiny_controlnets
from tests.helpers.drawing import assert_same, hole, load_engine, scene, uri
from tests.helpers.plain_diffusers import EULER, plain
from tests.helpers.tiny_controlnets import Places
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.errors import InvalidInputError, SettingsError

LINES, DEPTH, START, HOLE = scene(seed=1), scene(seed=2), scene(seed=3), hole()
FULLY = {"controlnet_conditioning_scale": 1.0}  # some pipelines have another default
MASKED = {"image": uri(START), "mask": uri(HOLE)}


picture = partial(drawing.picture, num_inference_steps=2)
plainly = partial(plain_diffusers.plainly, num_inference_steps=2)


class Engines(dict[str, Engine]):
    """Family -> its engine with all of these ControlNets, loaded when first asked for."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def __missing__(self, family: str) -> Engine:
        self[family] = load_engine(**self._places.settings(family))
        return self[family]


@pytest.fixture(scope="module")
def equipped(places: Places) -> Engines:
    return Engines(places)


def follow(name: str | None, image: Image.Image | None = LINES, **said: Any) -> dict[str, Any]:
    named = {} if name is None else {"name": name}
    return {**named, **({} if image is None else {"image": uri(image)}), **said}


def asked(name: str, **said: Any) -> dict[str, Any]:
    """A job's part that asks one ControlNet."""
    return {"controlnet": follow(name, **said)}


def union_of(places: Places, name: str = "union") -> ControlNetUnionModel:
    return ControlNetUnionModel.from_pretrained(places["sdxl"][name])


@pytest.mark.parametrize(("said", "mode"), [("openpose", 0), ("Anime Lineart", 3), ("6", 6)])
def test_sdxls_union_follows_the_mode(said: Any, mode: int, equipped: Engines, places: Places) -> None:
    theirs = plain(places["sdxl"]["model"], "StableDiffusionXLControlNetUnionPipeline", controlnet=union_of(places))

    ours = picture(equipped["sdxl"], controlnet=follow("union", mode=said), **EULER)

    assert_same(ours, plainly(theirs, control_image=[LINES], control_mode=[mode]))


def test_sdxls_union_follows_several_modes_at_once(equipped: Engines, places: Places) -> None:
    theirs = plain(places["sdxl"]["model"], "StableDiffusionXLControlNetUnionPipeline", controlnet=union_of(places))
    two = [follow("union", mode="canny", scale=0.5), follow("union", DEPTH, mode="depth", end=0.5)]

    ours = picture(equipped["sdxl"], controlnet=two, **EULER)

    scales = {"controlnet_conditioning_scale": [0.5, 1.0]}
    shares = {"control_guidance_start": [0.0, 0.0], "control_guidance_end": [1.0, 0.5]}
    assert_same(ours, plainly(theirs, control_image=[LINES, DEPTH], control_mode=[3, 1], **scales, **shares))


def test_a_union_starts_from_a_picture_and_repaints_a_hole(equipped: Engines, places: Places) -> None:
    kind, folder = "StableDiffusionXLControlNetUnion", places["sdxl"]["model"]
    image_to_image = plain(folder, f"{kind}Img2ImgPipeline", controlnet=union_of(places))
    inpainting = plain(folder, f"{kind}InpaintPipeline", controlnet=union_of(places))
    black = Image.composite(Image.new("RGB", START.size), START, HOLE)

    started = picture(equipped["sdxl"], **asked("union", mode="tile"), image=uri(START), strength=0.5, **EULER)
    repainted = picture(equipped["sdxl"], controlnet=follow("union", None, mode="repaint"), **MASKED, **EULER)

    theirs = plainly(image_to_image, image=START, control_image=[LINES], control_mode=[6], strength=0.5, **FULLY)
    assert_same(started, theirs)
    theirs = plainly(inpainting, image=START, mask_image=HOLE, control_image=[black], control_mode=[7])
    assert_same(repainted, Image.composite(theirs, START, HOLE))


def test_one_that_is_offered_as_a_mode_needs_none(equipped: Engines) -> None:
    named = picture(equipped["sdxl"], **asked("canny", mode="canny"))
    assert_same(picture(equipped["sdxl"], **asked("canny")), named)
    assert picture(equipped["sdxl"], **asked("canny", mode="depth")).tobytes() != named.tobytes()


@pytest.mark.parametrize(("said", "mode"), [("low quality", 6), (9, 9)])
def test_fluxs_union_follows_the_mode(said: Any, mode: int, equipped: Engines, places: Places) -> None:
    net = FluxControlNetModel.from_pretrained(places["flux"]["union"])
    theirs = plain(places["flux"]["model"], "FluxControlNetPipeline", controlnet=net)

    ours = picture(equipped["flux"], **asked("union", mode=said))

    assert_same(ours, plainly(theirs, control_image=LINES, control_mode=mode))


@pytest.mark.parametrize("started", [False, True])
def test_fluxs_union_beside_another(started: bool, equipped: Engines, places: Places) -> None:
    nets = [FluxControlNetModel.from_pretrained(places["flux"][name]) for name in ("edges", "union")]
    kind = "FluxControlNetImg2ImgPipeline" if started else "FluxControlNetPipeline"
    theirs = plain(places["flux"]["model"], kind, controlnet=nets)
    source = {"image": uri(START), "strength": 0.5} if started else {}

    ours = picture(equipped["flux"], controlnet=[follow("edges"), follow("union", DEPTH, mode="depth")], **source)

    call = {"control_image": [LINES, DEPTH], "control_mode": [-1, 2], "controlnet_conditioning_scale": [1.0, 1.0]}
    assert_same(ours, plainly(theirs, **call, **({"image": START, "strength": 0.5} if started else {})))


def test_sd1s_for_inpainting_does_not_see_what_is_masked(equipped: Engines, places: Places) -> None:
    net = ControlNetModel.from_pretrained(places["sd1"]["inpaint"])
    theirs = plain(places["sd1"]["model"], "StableDiffusionControlNetInpaintPipeline", controlnet=net)
    shown = torch.tensor(np.asarray(START)).permute(2, 0, 1)[None] / 255
    shown[:, :, torch.tensor(np.asarray(HOLE)) == 255] = -1

    ours = picture(equipped["sd1"], controlnet=follow("inpaint", None), **MASKED, **EULER)
    again = picture(equipped["sd1"], **asked("inpaint", image=START), **MASKED, **EULER)

    call = {"image": START, "mask_image": HOLE, "control_image": shown, **FULLY}
    assert_same(ours, Image.composite(plainly(theirs, **call), START, HOLE))
    assert_same(ours, again)


INPAINTING = [
    ("sd3", "inpaint", "StableDiffusion3ControlNetInpaintingPipeline", SD3ControlNetModel),
    ("qwen", "fill", "QwenImageControlNetInpaintPipeline", QwenImageControlNetModel),
]


@pytest.mark.parametrize(("family", "name", "kind", "model"), INPAINTING)
def test_those_with_channels_for_the_mask_get_it(
    family: str, name: str, kind: str, model: Any, equipped: Engines, places: Places
) -> None:
    more = {"extra_conditioning_channels": 1} if family == "sd3" else {}
    theirs = plain(places[family]["model"], kind, controlnet=model.from_pretrained(places[family][name], **more))
    call = {"control_image": START, "control_mask": HOLE}
    if family == "qwen":
        call |= {"true_cfg_scale": 7.5, "guidance_scale": None, "negative_prompt": " "}

    ours = picture(equipped[family], controlnet=follow(name, None), **MASKED)

    assert_same(ours, Image.composite(plainly(theirs, **call), START, HOLE))


def test_fluxs_for_inpainting_gets_the_mask_beside_the_picture(equipped: Engines, places: Places) -> None:
    """diffusers has no class for it: its ControlNet with a wider embedder, shown picture and mask by hand."""
    net = tiny_controlnets.wide_flux(places["flux"]["fill"], HOLE)
    theirs = plain(places["flux"]["model"], "FluxControlNetInpaintPipeline", controlnet=net)
    shown = torch.tensor(np.asarray(START)).permute(2, 0, 1)[None] / 127.5 - 1
    shown[:, :, torch.tensor(np.asarray(HOLE)) == 255] = -1

    ours = picture(equipped["flux"], controlnet=follow("fill", None), strength=0.8, **MASKED)

    call = {"image": START, "mask_image": HOLE, "control_image": shown, "strength": 0.8}
    assert_same(ours, Image.composite(plainly(theirs, **call), START, HOLE))


@pytest.mark.parametrize(
    ("family", "name"), [("sd1", "inpaint"), ("sdxl", "union"), ("sd3", "inpaint"), ("flux", "fill"), ("qwen", "fill")]
)
def test_what_is_behind_the_mask_says_nothing(family: str, name: str, equipped: Engines) -> None:
    mode = {"mode": "repaint"} if family == "sdxl" else {}
    other = Image.composite(DEPTH, START, HOLE)
    source = MASKED if family == "qwen" else {**MASKED, "strength": 1.0}
    pictures = {
        drawing.picture(equipped[family], controlnet=follow(name, shown, **mode), **source).tobytes()
        for shown in (START, other)
    }
    elsewhere = drawing.picture(equipped[family], controlnet=follow(name, DEPTH, **mode), **source)

    assert len(pictures) == 1
    assert elsewhere.tobytes() not in pictures


@pytest.mark.parametrize(
    ("family", "job", "reason"),
    [
        ("sdxl", asked("union"), "union needs a mode; it takes openpose, .*repaint, .*or 0 to 7"),
        ("sdxl", asked("union", mode="colour"), "union has no mode 'colour'; it takes openpose"),
        ("sdxl", asked("canny", mode="tile"), "canny has no mode 'tile'; .*or 0 to 5"),
        ("sdxl", asked("edges", mode="canny"), "edges follows one kind of picture; leave its mode out"),
        ("sdxl", {"controlnet": [follow("edges"), follow("canny")]}, "edges and canny are of different kinds"),
        ("sdxl", asked("edges", image=None), "edges needs an image"),
        ("sdxl", asked("union", image=None, mode="repaint"), "union needs an image, its own or the job's"),
        ("flux", asked("union"), "union needs a mode; it takes canny, tile, .*or 0 to 9"),
        ("flux", asked("union", mode=10), "union has no mode '10'"),
        ("flux", {"controlnet": [follow("edges"), follow("hints")]}, "edges and hints are of different kinds"),
        ("flux", {"controlnet": [follow("edges"), follow("unguided")]}, "edges and unguided are of different kinds"),
        ("flux", {"controlnet": [follow("fill"), follow("edges")], **MASKED}, "fill and edges are of different kinds"),
        ("flux", asked("fill"), "fill is for inpainting; give an image and a mask beside it"),
        ("flux", {**asked("fill"), "image": uri(START)}, "fill is for inpainting; give a mask beside it"),
        ("sd1", asked("inpaint", image=None), "inpaint is for inpainting"),
        ("sd3", asked("inpaint"), "inpaint is for inpainting"),
        ("sd3", {**asked("edges"), **MASKED}, "takes a mask only with a ControlNet for inpainting, which edges is not"),
        ("qwen", {"controlnet": [follow("fill"), follow("fill")], **MASKED}, "fill cannot be followed beside another"),
    ],
)
def test_what_a_job_does_not_say_or_cannot_have_is_refused_by_field(
    family: str, job: dict[str, Any], reason: str, equipped: Engines
) -> None:
    with pytest.raises(InvalidInputError, match=f"^controlnet: .*{reason}") as refused:
        picture(equipped[family], **job)
    assert len(refused.value.problems) == 1


def test_qwens_union_follows_several_pictures(equipped: Engines) -> None:
    one, other = follow("union"), follow("union", DEPTH)
    pictures = [picture(equipped["qwen"], controlnet=both) for both in (one, other, [one, other])]
    assert len({drawn.tobytes() for drawn in pictures}) == 3


def test_a_strength_is_no_use_where_the_masked_part_comes_from_noise(equipped: Engines) -> None:
    fields = {"prompt": "a", **MASKED, "controlnet": follow("inpaint", None), "strength": 0.5}
    request, _ = parse({"input": fields}, equipped["sd3"].capabilities)

    assert any(warning.startswith("strength: has no effect") for warning in request.warnings)
    assert_same(
        picture(equipped["sd3"], **{name: value for name, value in fields.items() if name != "prompt"}),
        picture(equipped["sd3"], **MASKED, controlnet=follow("inpaint", None)),
    )


def test_a_union_for_another_model_is_named_at_start(places: Places) -> None:
    with pytest.raises(SettingsError, match=r"CONTROLNETS: union: .*no ControlNet for this model"):
        load_engine(MODEL_NAME=str(places["sd1"]["model"]), CONTROLNETS=f"union={places['sdxl']['canny']}")
