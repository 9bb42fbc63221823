"""An IP-Adapter acts as in plain diffusers, for the job that brings a picture; a wrong file is named at start."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from safetensors.torch import load_file
from transformers import CLIPVisionModelWithProjection, SiglipImageProcessor, SiglipVisionModel

from tests.helpers import tiny_addons
from tests.helpers.drawing import SMALL, assert_same, load_engine, picture
from tests.helpers.plain_diffusers import EULER, plain, plainly
from tests.helpers.tiny_addons import FAMILIES, Kit, Kits, noise, uri
from worker.api.parse import parse
from worker.engine.engine import Engine
from worker.engine.generate import generate
from worker.errors import InvalidInputError, ModelError, SettingsError
from worker.plan import make_plan

UNETS = ("sd1", "sdxl")
SHOWN, OTHER, START = noise(11, size=(80, 50)), noise(12), noise(13)


@pytest.fixture(scope="module")
def equipped(kits: Kits) -> dict[str, Engine]:
    """Family -> an engine with its kit's IP-Adapter."""
    return {family: load_engine(**kits[family].settings("ip_adapter")) for family in FAMILIES}


@pytest.fixture(scope="module")
def untouched(kits: Kits) -> dict[str, Engine]:
    """Family -> the same model without one."""
    return {family: load_engine(MODEL_NAME=str(kits[family].model)) for family in FAMILIES}


def plain_with(kit: Kit, kind: str | None = None, **extra: Any) -> Any:
    """Plain diffusers with the kit's IP-Adapter."""
    if "siglip" in (kit.image_encoder / "config.json").read_text():
        encoder: Any = SiglipVisionModel.from_pretrained(kit.image_encoder)
        extra["feature_extractor"] = SiglipImageProcessor.from_pretrained(kit.image_encoder)
    else:
        encoder = CLIPVisionModelWithProjection.from_pretrained(kit.image_encoder)
    pipeline = plain(kit.model, kind, image_encoder=encoder, **extra)
    pipeline.load_ip_adapter(str(kit.ip_adapter.parent), subfolder="", weight_name=kit.ip_adapter.name)
    return pipeline


def asked(family: str) -> dict[str, Any]:
    """The scheduler that both sides draw with."""
    return EULER if family in UNETS else {}


@pytest.mark.parametrize("family", FAMILIES)
def test_as_in_plain_diffusers(family: str, kits: Kits, equipped: dict[str, Engine]) -> None:
    pipeline = plain_with(kits[family])

    for scale in (1.0, 0.4, 0.0):
        pipeline.set_ip_adapter_scale(scale)
        ours = picture(equipped[family], ip_adapter={"image": uri(SHOWN), "scale": scale}, **asked(family))
        assert_same(ours, plainly(pipeline, ip_adapter_image=SHOWN))


@pytest.mark.parametrize("family", UNETS)
def test_image_to_image(family: str, kits: Kits, equipped: dict[str, Engine]) -> None:
    xl = "XL" if family == "sdxl" else ""
    pipeline = plain_with(kits[family], f"StableDiffusion{xl}Img2ImgPipeline")
    pipeline.set_ip_adapter_scale(0.7)
    shown = {"image": uri(SHOWN), "scale": 0.7}

    ours = picture(equipped[family], image=uri(START), strength=0.5, ip_adapter=shown, **asked(family))

    theirs = plainly(pipeline, image=START, strength=0.5, ip_adapter_image=SHOWN, width=None, height=None)
    assert_same(ours, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_picture_and_scale_says_something_else(family: str, equipped: dict[str, Engine]) -> None:
    """Else the comparison would hold for a worker that does not look."""
    jobs: list[dict[str, Any]] = [{}]
    jobs += [{"ip_adapter": {"image": uri(one), "scale": scale}} for one in (SHOWN, OTHER) for scale in (1.0, 0.4)]

    assert len({picture(equipped[family], **job).tobytes() for job in jobs}) == len(jobs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_job_without_one_draws_as_if_there_were_none(
    family: str, equipped: dict[str, Engine], untouched: dict[str, Engine]
) -> None:
    expected = picture(untouched[family])

    assert_same(picture(equipped[family]), expected)
    for scale in (1.0, 0.0):
        picture(equipped[family], ip_adapter={"image": uri(SHOWN), "scale": scale})
        assert_same(picture(equipped[family]), expected)
    assert whole(equipped[family]) == whole(untouched[family])


def whole(engine: Engine) -> list[tuple[str, str]]:
    """Every part of the denoiser, and the class of each attention processor: what an IP-Adapter changes."""
    denoiser: Any = tiny_addons.denoiser(engine.pipeline)
    processors = [(name, type(one).__name__) for name, one in denoiser.attn_processors.items()]
    return [(name, type(one).__name__) for name, one in denoiser.named_modules()] + processors


@pytest.mark.parametrize("family", FAMILIES)
def test_a_job_that_fails_in_mid_drawing_leaves_nothing(
    family: str, equipped: dict[str, Engine], untouched: dict[str, Engine]
) -> None:
    engine = equipped[family]
    request = parse({"input": {**SMALL, "ip_adapter": {"image": uri(SHOWN)}}}, engine.capabilities)[0]

    def fail(*_: Any) -> None:
        assert whole(engine) != whole(untouched[family])
        raise RuntimeError("in mid-drawing")

    with pytest.raises(RuntimeError, match="mid-drawing"):
        list(generate(engine, make_plan(request), fail))

    assert whole(engine) == whole(untouched[family])
    assert_same(picture(engine), picture(untouched[family]))


def test_the_next_one_is_not_the_last_one(equipped: dict[str, Engine]) -> None:
    engine = equipped["sd1"]
    one, other = {"image": uri(SHOWN)}, {"image": uri(OTHER), "scale": 0.5}
    first, second = picture(engine, ip_adapter=one), picture(engine, ip_adapter=other)

    assert_same(picture(engine, ip_adapter=one), first)
    assert_same(picture(engine, ip_adapter=other), second)


@pytest.mark.parametrize("family", UNETS)
def test_with_a_lora_and_a_controlnet_at_once(family: str, kits: Kits) -> None:
    kit = kits[family]
    engine = load_engine(**kit.settings("loras", "controlnets", "ip_adapter"))
    before = picture(engine, **EULER)
    xl = "XL" if family == "sdxl" else ""
    net = ControlNetModel.from_pretrained(kit.controlnets["edges"])
    pipeline = plain_with(kit, f"StableDiffusion{xl}ControlNetPipeline", controlnet=net)
    pipeline.load_lora_weights(kit.loras, weight_name="wordy.safetensors", adapter_name="wordy")
    pipeline.set_adapters(["wordy"], [0.8])
    pipeline.set_ip_adapter_scale(0.6)
    control, shown = {"name": "edges", "image": uri(START)}, {"image": uri(SHOWN), "scale": 0.6}
    job = {"lora": "wordy", "lora_scale": 0.8, "controlnet": control, "ip_adapter": shown, **EULER}

    ours = picture(engine, **job)

    theirs = plainly(pipeline, image=START, controlnet_conditioning_scale=1.0, ip_adapter_image=SHOWN)
    assert_same(ours, theirs)
    assert_same(picture(engine, **EULER), before)
    assert_same(picture(engine, **job), ours)


def without(weights: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in weights.items() if part not in name}


@pytest.mark.parametrize("family", UNETS)
def test_a_wrong_file_is_named_at_start(family: str, kits: Kits, tmp_path: Path) -> None:
    whole_file = load_file(kits[family].ip_adapter)
    other = "sdxl" if family == "sd1" else "sd1"
    wrong = {
        "other": load_file(kits[other].ip_adapter),
        "lora": load_file(kits[family].loras / "plain.safetensors"),
        "garbage": {"something": torch.ones(3)},
        "empty": {},
        "no_projection": without(whole_file, "image_proj"),
        "no_layers": without(whole_file, "ip_adapter"),
        "half_a_projection": without(whole_file, "norm.bias"),
        "half_the_layers": without(whole_file, "ip_adapter.1.to_v_ip"),
    }
    for name, weights in wrong.items():
        file = tiny_addons.write(weights, tmp_path / f"{name}.safetensors")
        with pytest.raises(ModelError, match=f"IP_ADAPTER: {name}.safetensors does not fit .+: .") as refusal:
            load_engine(**kits[family].settings("ip_adapter") | {"IP_ADAPTER": str(file)})
        assert "\n" not in str(refusal.value), str(refusal.value)


def test_an_image_encoder_of_another_width_is_named_at_start(kits: Kits, tmp_path: Path) -> None:
    """Its pictures' features would not fit the adapter's projection: else every job with one fails."""
    weights = load_file(kits["sd1"].ip_adapter)
    weights["image_proj.proj.weight"] = torch.ones(4 * 32, 24)
    file = tiny_addons.write(weights, tmp_path / "wide.safetensors")

    with pytest.raises(ModelError, match=r"IP_ADAPTER: wide\.safetensors does not fit"):
        load_engine(**kits["sd1"].settings("ip_adapter") | {"IP_ADAPTER": str(file)})


def test_face_id_is_refused_by_name(kits: Kits, tmp_path: Path) -> None:
    """It needs a face recogniser; its file is known by the LoRA inside."""
    weights = load_file(kits["sd1"].ip_adapter)
    weights["ip_adapter.0.to_q_lora.down.weight"] = torch.ones(2, 32)
    file = tiny_addons.write(weights, tmp_path / "face.safetensors")

    with pytest.raises(ModelError, match=r"face\.safetensors.*FaceID"):
        load_engine(**kits["sd1"].settings("ip_adapter") | {"IP_ADAPTER": str(file)})


def test_pickles_are_refused_and_never_read(kits: Kits, tmp_path: Path) -> None:
    markers = [tiny_addons.trap(tmp_path / name) for name in ("adapter.bin", "adapter.safetensors")]
    encoder = shutil.copytree(kits["sd1"].image_encoder, tmp_path / "encoder")
    (encoder / "model.safetensors").unlink()
    markers.append(tiny_addons.trap(encoder / "pytorch_model.bin"))
    changes = [{"IP_ADAPTER": str(tmp_path / name)} for name in ("adapter.bin", "adapter.safetensors")]

    for change in (*changes, {"IP_ADAPTER_ENCODER": str(encoder)}):
        with pytest.raises(ModelError, match=Path(next(iter(change.values()))).name):
            load_engine(**kits["sd1"].settings("ip_adapter") | change)

    assert not any(marker.exists() for marker in markers)


def test_the_encoder_is_looked_for_beside_the_adapter(kits: Kits, tmp_path: Path, equipped: dict[str, Engine]) -> None:
    kit = kits["sd1"]
    shutil.copy(kit.ip_adapter, tmp_path / "adapter.safetensors")
    alone = {"MODEL_NAME": str(kit.model), "IP_ADAPTER": str(tmp_path / "adapter.safetensors")}
    with pytest.raises(ModelError, match="image_encoder"):
        load_engine(**alone)

    shutil.copytree(kit.image_encoder, tmp_path / "image_encoder")

    job = {"ip_adapter": {"image": uri(SHOWN)}}
    assert_same(picture(load_engine(**alone), **job), picture(equipped["sd1"], **job))


def test_a_folder_is_no_adapter(kits: Kits) -> None:
    for place in (str(kits["sd1"].image_encoder), "org/name"):
        with pytest.raises((SettingsError, ModelError), match="IP_ADAPTER"):
            load_engine(**kits["sd1"].settings("ip_adapter") | {"IP_ADAPTER": place})


def test_a_job_for_an_endpoint_without_one_is_told_so(untouched: dict[str, Engine]) -> None:
    with pytest.raises(InvalidInputError, match="no IP-Adapter"):
        picture(untouched["sd1"], ip_adapter={"image": uri(SHOWN)})
