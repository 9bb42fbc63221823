"""ControlNets act as in plain diffusers, for the job that names them; those that do not fit are named at start."""

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
from diffusers import ControlNetModel, FluxControlNetModel, MultiControlNetModel, SD3ControlNetModel

from tests.helpers import tiny_addons
from tests.helpers.drawing import SMALL, assert_same, draw, load_engine, picture
from tests.helpers.plain_diffusers import EULER, plain, plainly
from tests.helpers.tiny_addons import FAMILIES, Kits, noise, right_half, uri
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.errors import InvalidInputError, ModelError, SettingsError

UNETS = {"sd1": "StableDiffusion", "sdxl": "StableDiffusionXL"}
PIPELINES = {
    "sd3": ("StableDiffusion3ControlNetPipeline", SD3ControlNetModel),
    "flux": ("FluxControlNetPipeline", FluxControlNetModel),
}
LINES, DEPTH, START = noise(1), noise(2), noise(3)


@pytest.fixture(scope="module")
def equipped(kits: Kits) -> dict[str, Engine]:
    """Family -> an engine with its kit's two ControlNets."""
    return {family: load_engine(**kits[family].settings("controlnets")) for family in FAMILIES}


@pytest.fixture(scope="module")
def nets(kits: Kits) -> dict[str, dict[str, Any]]:
    """Family -> plain diffusers' ControlNets."""
    kinds = {family: PIPELINES[family][1] if family in PIPELINES else ControlNetModel for family in FAMILIES}
    return {
        family: {name: kind.from_pretrained(place) for name, place in kits[family].controlnets.items()}
        for family, kind in kinds.items()
    }


# What a job says, and what diffusers' call is given.
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plainly": ({}, {}),
    "weakly": ({"scale": 0.3}, {"controlnet_conditioning_scale": 0.3}),
    "from the middle on": ({"start": 0.5}, {"control_guidance_start": 0.5}),
    "up to the middle": ({"end": 0.5}, {"control_guidance_end": 0.5}),
    "in between": (
        {"scale": 2.0, "start": 0.25, "end": 0.75},
        {"controlnet_conditioning_scale": 2.0, "control_guidance_start": 0.25, "control_guidance_end": 0.75},
    ),
}


@pytest.mark.parametrize("family", UNETS)
@pytest.mark.parametrize("way", WAYS)
def test_one_as_in_plain_diffusers(
    family: str, way: str, kits: Kits, equipped: dict[str, Engine], nets: dict[str, dict[str, Any]]
) -> None:
    said, called = WAYS[way]
    pipeline = plain(kits[family].model, f"{UNETS[family]}ControlNetPipeline", controlnet=nets[family]["edges"])

    ours = picture(equipped[family], controlnet={"name": "edges", "image": uri(LINES), **said}, **EULER)

    assert_same(ours, plainly(pipeline, image=LINES, **called))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_says_something_else(family: str, equipped: dict[str, Engine]) -> None:
    """Else the comparisons would hold for a worker that looks at none."""
    engine = equipped[family]
    lines, depth = uri(LINES), uri(DEPTH)
    jobs: list[dict[str, Any]] = [{}]
    jobs += [{"controlnet": {"name": name, "image": image}} for name in ("edges", "depth") for image in (lines, depth)]
    jobs += [{"controlnet": {"name": "edges", "image": lines, **said}} for said, _ in list(WAYS.values())[1:]]
    jobs += [{"controlnet": [{"name": "edges", "image": lines}, {"name": "depth", "image": depth}]}]

    assert len({picture(engine, **job).tobytes() for job in jobs}) == len(jobs)


@pytest.mark.parametrize("family", PIPELINES)
def test_transformers(family: str, kits: Kits, equipped: dict[str, Engine], nets: dict[str, dict[str, Any]]) -> None:
    kind, _ = PIPELINES[family]
    pipeline = plain(kits[family].model, kind, controlnet=nets[family]["depth"])
    shares = {"controlnet_conditioning_scale": 0.7, "control_guidance_start": 0.0, "control_guidance_end": 0.75}

    ours = picture(equipped[family], controlnet={"name": "depth", "image": uri(LINES), "scale": 0.7, "end": 0.75})

    assert_same(ours, plainly(pipeline, control_image=LINES, **shares))


@pytest.mark.parametrize("family", FAMILIES)
def test_several(family: str, kits: Kits, equipped: dict[str, Engine], nets: dict[str, dict[str, Any]]) -> None:
    both = [nets[family]["depth"], nets[family]["edges"]]
    if family in UNETS:
        pipeline = plain(
            kits[family].model, f"{UNETS[family]}ControlNetPipeline", controlnet=MultiControlNetModel(both)
        )
    else:
        multi = diffusers.FluxMultiControlNetModel if family == "flux" else diffusers.SD3MultiControlNetModel
        pipeline = plain(kits[family].model, PIPELINES[family][0], controlnet=multi(both))
    called = {
        "image" if family in UNETS else "control_image": [DEPTH, LINES],
        "controlnet_conditioning_scale": [0.5, 1.5],
        "control_guidance_start": [0.0, 0.25],
        "control_guidance_end": [0.5, 1.0],
    }
    named = [
        {"name": "depth", "image": uri(DEPTH), "scale": 0.5, "end": 0.5},
        {"name": "edges", "image": uri(LINES), "scale": 1.5, "start": 0.25},
    ]

    ours = picture(equipped[family], controlnet=named, **(EULER if family in UNETS else {}))

    assert_same(ours, plainly(pipeline, **called))


@pytest.mark.parametrize("family", UNETS)
def test_image_to_image(family: str, kits: Kits, equipped: dict[str, Engine], nets: dict[str, Any]) -> None:
    kind = f"{UNETS[family]}ControlNetImg2ImgPipeline"
    pipeline = plain(kits[family].model, kind, controlnet=nets[family]["edges"])
    named = {"name": "edges", "image": uri(LINES), "scale": 0.8}

    ours = picture(equipped[family], image=uri(START), strength=0.5, controlnet=named, **EULER)

    theirs = plainly(pipeline, image=START, control_image=LINES, strength=0.5, controlnet_conditioning_scale=0.8)
    assert_same(ours, theirs)


@pytest.mark.parametrize("family", UNETS)
def test_inpainting(family: str, kits: Kits, equipped: dict[str, Engine], nets: dict[str, Any]) -> None:
    kind = f"{UNETS[family]}ControlNetInpaintPipeline"
    pipeline = plain(kits[family].model, kind, controlnet=nets[family]["edges"])
    mask = right_half()
    named = {"name": "edges", "image": uri(LINES)}

    ours = picture(equipped[family], image=uri(START), mask=uri(mask), strength=0.75, controlnet=named, **EULER)

    theirs = plainly(
        pipeline, image=START, mask_image=mask, control_image=LINES, strength=0.75, controlnet_conditioning_scale=1.0
    )
    theirs.paste(START, mask=mask.point(lambda value: 255 - value))  # what is masked out stays as it was sent
    assert_same(ours, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_job_without_one_draws_as_if_there_were_none(family: str, kits: Kits, equipped: dict[str, Engine]) -> None:
    untouched = picture(load_engine(MODEL_NAME=str(kits[family].model)))

    picture(equipped[family], controlnet={"name": "edges", "image": uri(LINES)})

    assert_same(picture(equipped[family]), untouched)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_picture(family: str, equipped: dict[str, Engine]) -> None:
    """Stable Diffusion 3's pipeline encodes the picture to follow with noise that no generator gives it."""
    control = {"name": "edges", "image": uri(LINES)}
    several = draw(equipped[family], controlnet=control, num_images=2)

    assert_same(picture(equipped[family], controlnet=control, seed=8), several[1].image)


def test_the_picture_is_as_large_as_the_one_it_follows(equipped: dict[str, Engine]) -> None:
    control = {"name": "edges", "image": uri(noise(5, size=(136, 90)))}
    job = {name: value for name, value in SMALL.items() if name not in ("width", "height")}
    engine = equipped["sd1"]

    request, _ = parse({"input": {**job, "controlnet": control}}, engine.capabilities)
    assert (request.width, request.height) == (136, 88)
    assert picture(engine, controlnet=control, width=None, height=None).size == (136, 88)
    assert picture(engine, controlnet=control, width=None, height=64).size == (96, 64)
    assert picture(engine, controlnet=control, width=72, height=80).size == (72, 80)


def test_an_unknown_name_is_refused_with_those_there_are(equipped: dict[str, Engine]) -> None:
    for name in ("scribble", "../edges", "Edges"):
        with pytest.raises(InvalidInputError, match=r"controlnet: .*it has edges, depth"):
            draw(equipped["sd1"], controlnet={"name": name, "image": uri(LINES)})


def test_the_only_one_needs_no_name(kits: Kits, equipped: dict[str, Engine]) -> None:
    place = kits["sd1"].controlnets["edges"]
    engine = load_engine(MODEL_NAME=str(kits["sd1"].model), CONTROLNETS=f"only = {place}")

    named = picture(equipped["sd1"], controlnet={"name": "edges", "image": uri(LINES)})
    assert_same(picture(engine, controlnet={"image": uri(LINES)}), named)
    with pytest.raises(InvalidInputError, match="needs a name"):
        draw(equipped["sd1"], controlnet={"image": uri(LINES)})


@pytest.mark.parametrize(
    ("family", "place", "reason"),
    [
        ("sd1", "sdxl", "text of width 64, this model's is 32"),
        ("sdxl", "sd1", "text of width 32, this model's is 64"),
        ("sd1", "flux", "FluxControlNetModel, no ControlNet for this model"),
        ("flux", "sd1", "ControlNetModel, no ControlNet for this model"),
        ("sd3", "flux", "FluxControlNetModel, no ControlNet for this model"),
    ],
)
def test_one_for_another_model_is_named_at_start(family: str, place: str, reason: str, kits: Kits) -> None:
    folder = kits[place].controlnets["edges"]

    with pytest.raises(SettingsError, match=f"CONTROLNETS: edges: .*{reason}"):
        load_engine(MODEL_NAME=str(kits[family].model), CONTROLNETS=f"edges={folder}")


def test_a_folder_of_something_else_is_named_at_start(kits: Kits) -> None:
    with pytest.raises(SettingsError, match=r"CONTROLNETS: edges: .*AutoencoderKL, no ControlNet"):
        load_engine(MODEL_NAME=str(kits["sd1"].model), CONTROLNETS=f"edges={kits['sd1'].model / 'vae'}")


def test_a_missing_or_broken_folder_is_named_at_start(kits: Kits, tmp_path: Path) -> None:
    whole = kits["sd1"].controlnets["edges"]
    half, no_config, not_json = (tmp_path / name for name in ("half", "no_config", "not_json"))
    for folder in (half, no_config, not_json):
        shutil.copytree(whole, folder)
    weights = half / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (no_config / "config.json").unlink()
    (not_json / "config.json").write_text("{")

    for folder, reason in (
        (tmp_path / "nowhere", "nowhere"),
        (half, "diffusion_pytorch_model.safetensors .*incomplete"),
        (no_config, "config.json"),
        (not_json, "config.json .*JSON"),
    ):
        with pytest.raises(ModelError, match=f"CONTROLNETS: edges: .*{reason}"):
            load_engine(MODEL_NAME=str(kits["sd1"].model), CONTROLNETS=f"edges={folder}")


def test_weights_of_another_shape_are_named_at_start(kits: Kits, tmp_path: Path) -> None:
    folder = shutil.copytree(kits["sd1"].controlnets["edges"], tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "block_out_channels": [8, 16]}))

    with pytest.raises(ModelError, match=r"CONTROLNETS: edges: .*odd cannot be loaded"):
        load_engine(MODEL_NAME=str(kits["sd1"].model), CONTROLNETS=f"edges={folder}")


@pytest.mark.parametrize("beside", [None, "other.safetensors"])
def test_pickled_weights_are_refused_and_never_read(beside: str | None, kits: Kits, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(kits["sd1"].controlnets["edges"] / "config.json", folder)
    marker = tiny_addons.trap(folder / "diffusion_pytorch_model.bin")
    if beside:
        shutil.copy(kits["sd1"].controlnets["edges"] / "diffusion_pytorch_model.safetensors", folder / beside)

    with pytest.raises(ModelError, match=r"CONTROLNETS: edges: .*pickled"):
        load_engine(MODEL_NAME=str(kits["sd1"].model), CONTROLNETS=f"edges={folder}")

    assert not marker.exists()


def test_a_setting_that_cannot_be_read_is_quoted(kits: Kits) -> None:
    for setting in ("edges", "=folder", "edges="):
        with pytest.raises(SettingsError, match=f"CONTROLNETS: got '{setting}'"):
            load_engine(MODEL_NAME=str(kits["sd1"].model), CONTROLNETS=setting)
