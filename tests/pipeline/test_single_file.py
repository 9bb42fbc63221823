"""A single .safetensors file in the original layout loads without a network, and a wrong one says what it is."""

import json
import logging
import math
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import diffusers
import pytest
import torch
import transformers

from tests.helpers.drawing import load_engine
from tests.helpers.original_layout import (
    LAST_NORM_BIAS,
    LAYOUTS,
    VAE_LAST_BIAS,
    Shapes,
    loaded_marks,
    marks,
    sd1,
    sd2,
    sdxl,
    write,
)
from worker.engine.load.checkpoint import CONFIGS, inspect_checkpoint
from worker.engine.load.single_file import load_refiner_unet, load_single_file, read_renamed, read_unet
from worker.errors import ModelError


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever looks up a name or connects makes the test fail, also where the error is swallowed."""
    attempts: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        attempts.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert attempts == []


@pytest.fixture
def unread_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no weight looked at for bad numbers: gigabytes of zeros would be read, which a sparse file does not hold.

    The checkpoint of the NovelAI line is looked at; what bad numbers do is in test_numbers_that_are_none.py.
    """
    monkeypatch.setattr("worker.engine.weights.find_bad_number", lambda _: None)


# The promises.


@pytest.mark.parametrize(
    ("kind", "part", "parameters"),
    [
        ("sd1", "model.diffusion_model.", 859_520_964),
        ("sd1", "first_stage_model.", 83_653_863),
        ("sd1", "cond_stage_model.transformer.", 123_060_480 + 77),  # with position_ids
        ("sd2", "model.diffusion_model.", 865_910_724),
        ("sd2", "cond_stage_model.model.", 354_032_641),
        ("sdxl", "model.diffusion_model.", 2_567_463_684),
        ("sdxl", "conditioner.embedders.1.model.", 694_659_841),
        ("refiner", "", 3_037_840_364),  # the published file has 6,075,981,930 bytes, 301,202 of them header
    ],
)
def test_the_layouts_here_have_the_published_sizes(kind: str, part: str, parameters: int) -> None:
    assert sum(math.prod(shape) for name, shape in LAYOUTS[kind]().items() if name.startswith(part)) == parameters


# Pairs that conversion can get wrong: the VAE decoder counts its blocks backwards, attention is renamed, and OpenCLIP
# joins q, k and v in one tensor.
EVERY_VAE = {
    "vae.decoder.up_blocks.0.resnets.2.conv1.weight": ("first_stage_model.decoder.up.3.block.2.conv1.weight", 0),
    "vae.decoder.mid_block.attentions.0.to_k.weight": ("first_stage_model.decoder.mid.attn_1.k.weight", 0),
}
UNET = "model.diffusion_model."
PLACES = {
    "sd1": {
        "unet.conv_in.weight": (f"{UNET}input_blocks.0.0.weight", 0),
        "unet.down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k.weight": (
            f"{UNET}input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight",
            0,
        ),
        "unet.up_blocks.0.upsamplers.0.conv.weight": (f"{UNET}output_blocks.2.1.conv.weight", 0),
        "unet.up_blocks.3.resnets.2.conv_shortcut.weight": (f"{UNET}output_blocks.11.0.skip_connection.weight", 0),
        "text_encoder.encoder.layers.11.mlp.fc2.weight": (
            "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc2.weight",
            0,
        ),
    },
    "sd2": {
        "text_encoder.encoder.layers.22.self_attn.v_proj.weight": (
            "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_weight",
            2,
        ),
        "text_encoder.final_layer_norm.weight": ("cond_stage_model.model.ln_final.weight", 0),
    },
    "sdxl": {
        "unet.add_embedding.linear_2.weight": (f"{UNET}label_emb.0.2.weight", 0),
        "unet.mid_block.attentions.0.transformer_blocks.9.ff.net.2.bias": (
            f"{UNET}middle_block.1.transformer_blocks.9.ff.net.2.bias",
            0,
        ),
        "text_encoder.embeddings.position_embedding.weight": (
            "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight",
            0,
        ),
        "text_encoder_2.text_projection.weight": ("conditioner.embedders.1.model.text_projection", 0),
        "text_encoder_2.encoder.layers.31.self_attn.k_proj.bias": (
            "conditioner.embedders.1.model.transformer.resblocks.31.attn.in_proj_bias",
            1,
        ),
    },
}
# What these pipelines have no use for: the schedule, OpenCLIP's scale, and in SD2 the text encoder's last layer.
UNUSED = ("alphas_cumprod", "cond_stage_model.transformer.text_model.embeddings.position_ids")
UNUSED += ("cond_stage_model.model.transformer.resblocks.23.", "cond_stage_model.model.text_projection")
UNUSED += ("cond_stage_model.model.logit_scale", "conditioner.embedders.1.model.logit_scale")


@pytest.mark.parametrize(
    ("kind", "pipeline_class", "scheduler", "more", "config"),
    [
        ("sd1", diffusers.StableDiffusionPipeline, diffusers.PNDMScheduler, [], {"prediction_type": "epsilon"}),
        ("sd2", diffusers.StableDiffusionPipeline, diffusers.PNDMScheduler, [], {"prediction_type": "epsilon"}),
        (
            "sdxl",
            diffusers.StableDiffusionXLPipeline,
            diffusers.EulerDiscreteScheduler,
            ["v_pred", "ztsnr"],
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        ),
    ],
    ids=["sd1", "sd2", "sdxl, v-prediction, zero terminal SNR"],
)
@pytest.mark.usefixtures("unread_zeros")
def test_every_weight_arrives_in_its_place(
    tmp_path: Path, kind: str, pipeline_class: type, scheduler: type, more: list[str], config: dict[str, object]
) -> None:
    shapes = LAYOUTS[kind]()
    path = write(tmp_path / f"{kind}.safetensors", shapes | dict.fromkeys(more, (0,)))
    pipeline = load_single_file(path, torch.float16)
    assert type(pipeline) is pipeline_class
    assert type(pipeline.scheduler) is scheduler
    assert config.items() <= dict(pipeline.scheduler.config).items()
    assert getattr(pipeline, "safety_checker", None) is None
    modules = [module for module in pipeline.components.values() if isinstance(module, torch.nn.Module)]
    assert {module.dtype for module in modules} == {torch.float16}
    written, arrived = marks(shapes), loaded_marks(pipeline)
    for place, (name, part) in (EVERY_VAE | PLACES[kind]).items():
        assert arrived[place] == written[name][part][1], place
    used = [bits for name, places in written.items() if not name.startswith(UNUSED) for _, bits in places]
    assert sorted(arrived.values()) == sorted(used)


@pytest.mark.parametrize(
    ("kind", "usual", "other"),
    [
        ("sd1", "cond_stage_model.transformer.text_model.", "cond_stage_model.transformer."),  # the NovelAI line
        ("sd2", "cond_stage_model.model.", "conditioner.embedders.0.model."),  # SD-Turbo
        ("sdxl", "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.0.transformer."),
    ],
)
def test_a_text_encoder_under_other_names_arrives_too(tmp_path: Path, kind: str, usual: str, other: str) -> None:
    """Only the text encoder is loaded: the UNet takes the time."""
    shapes = LAYOUTS[kind]()
    renamed = {other + name.removeprefix(usual) if name.startswith(usual) else name: at for name, at in shapes.items()}
    assert renamed.keys() != shapes.keys()
    checkpoint = inspect_checkpoint(write(tmp_path / "usual.safetensors", shapes))
    path = write(tmp_path / "other.safetensors", renamed)
    found = inspect_checkpoint(path)
    assert (found.architecture, found.prediction_type) == (checkpoint.architecture, checkpoint.prediction_type)

    encoder = read_renamed(path, found, torch.float16)

    written, used = marks(renamed), [name for name in renamed if name.startswith(other)]
    arrived = [weight.detach().flatten()[:1].view(torch.int16).item() for weight in encoder.parameters()]
    unused = tuple(f"{other}{name.removeprefix(usual)}" for name in UNUSED if name.startswith(usual))
    assert sorted(arrived) == sorted(bits for name in used if not name.startswith(unused) for _, bits in written[name])
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float16}


def test_a_checkpoint_of_the_novelai_line_loads_whole(tmp_path: Path) -> None:
    usual = "cond_stage_model.transformer.text_model."
    shapes = {name.replace(usual, "cond_stage_model.transformer."): shape for name, shape in sd1().items()}
    pipeline = load_single_file(write(tmp_path / "animefull.safetensors", shapes), torch.float16)
    written, arrived = marks(shapes), loaded_marks(pipeline)
    for place, (name, part) in (EVERY_VAE | PLACES["sd1"]).items():
        assert arrived[place] == written[name.replace(usual, "cond_stage_model.transformer.")][part][1], place


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_a_unet_for_inpainting_arrives_with_all_its_inputs(kind: str, tmp_path: Path) -> None:
    """Whatever the model, the file's other parts are as without; here they are left alone."""
    layouts: dict[str, Callable[..., Shapes]] = {"sd1": sd1, "sd2": sd2, "sdxl": sdxl}
    shapes = layouts[kind](inputs=9)
    path = write(tmp_path / f"{kind}-inpainting.safetensors", shapes)
    found = inspect_checkpoint(path)
    assert (found.architecture.config, found.inpaints) == (kind, True)

    unet = read_unet(path, found, torch.float16)

    assert unet.conv_in.weight.shape == (320, 9, 3, 3)
    written = {name: places for name, places in marks(shapes).items() if name.startswith(UNET)}
    arrived = {name: weight.flatten()[:1].view(torch.int16).item() for name, weight in unet.named_parameters()}
    assert sorted(arrived.values()) == sorted(bits for places in written.values() for _, bits in places)
    for place, (name, part) in PLACES[kind].items():
        if place.startswith("unet."):
            assert arrived[place.removeprefix("unet.")] == written[name][part][1], place


@pytest.mark.usefixtures("unread_zeros")
def test_a_refiners_weights_arrive_in_their_places(tmp_path: Path) -> None:
    """The text encoder and the VAE are the base model's; half of the weights are left in the file."""
    shapes = LAYOUTS["refiner"]()
    unet = load_refiner_unet(write(tmp_path / "refiner.safetensors", shapes), torch.float16)
    written = {name: at for name, at in marks(shapes).items() if name.startswith(UNET)}
    arrived = {name: weight.flatten()[:1].view(torch.int16).item() for name, weight in unet.named_parameters()}
    assert sorted(arrived.values()) == sorted(bits for places in written.values() for _, bits in places)
    place = f"{UNET}middle_block.1.transformer_blocks.3.ff.net.2.bias"
    assert arrived["mid_block.attentions.0.transformer_blocks.3.ff.net.2.bias"] == written[place][0][1]
    assert unet.config.attention_head_dim == [384 // 64, 768 // 64, 1536 // 64, 1536 // 64]


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd2"])
def test_another_model_is_no_refiner(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is Stable Diffusion .*; it is no SDXL refiner"):
        load_refiner_unet(write(tmp_path / "model.safetensors", LAYOUTS[kind]()), torch.float16)


def test_a_refiner_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    shapes = LAYOUTS["refiner"]()
    del shapes[f"{UNET}middle_block.1.transformer_blocks.3.ff.net.2.bias"]
    with pytest.raises(ModelError, match="is no complete SDXL refiner: "):
        load_refiner_unet(write(tmp_path / "model.safetensors", shapes), torch.float16)


@pytest.mark.usefixtures("unread_zeros")
def test_a_file_that_predicts_v_gets_such_a_scheduler(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "worker")
    spread = {LAST_NORM_BIAS: [0.1, -0.1] * 160}
    pipeline = load_single_file(write(tmp_path / "768.safetensors", sd2(), **spread), torch.float16)
    assert type(pipeline.scheduler) is diffusers.DDIMScheduler
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.unet.config.sample_size * pipeline.vae_scale_factor == 768
    assert "768.safetensors: Stable Diffusion 2.x; v_prediction: the last norm's bias" in caplog.text


@pytest.mark.usefixtures("unread_zeros")
def test_zero_snr_is_kept_where_the_published_scheduler_ignores_it(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", sd1() | dict.fromkeys(["v_pred", "ztsnr"], (0,)))
    config = load_single_file(path, torch.float16).scheduler.config
    assert (config["prediction_type"], config["rescale_betas_zero_snr"]) == ("v_prediction", True)
    assert diffusers.EulerDiscreteScheduler.from_config(config).config.timestep_spacing == "trailing"


@pytest.mark.usefixtures("unread_zeros")
def test_a_picture_is_drawn_in_the_colour_of_the_last_bias(tmp_path: Path) -> None:
    """All else is zero. 8 by 8 pixels, because half precision is slow on a CPU."""
    path = write(tmp_path / "model.safetensors", sd1(), **{VAE_LAST_BIAS: [0.0, -0.25, 0.5]})
    pipeline = load_single_file(path, torch.float16)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a cat", width=8, height=8, num_inference_steps=1, guidance_scale=1.0).images[0]
    assert image.getpixel((0, 0)) == (128, 96, 191)


@pytest.mark.parametrize(
    ("kind", "marked", "metadata", "yaml", "bias", "prediction"),
    [
        ("sd1", [], {}, None, 0.0, "epsilon"),
        ("sd1", [], {}, 'model:\n  params:\n    parameterization: "v"\n', 0.0, "v_prediction"),
        ("sd1", [], {"modelspec.prediction_type": "v"}, None, 0.0, "v_prediction"),
        ("sd2", [], {}, None, 0.08, "epsilon"),
        ("sd2", [], {}, None, 0.1, "v_prediction"),
        ("sd2", [], {"modelspec.prediction_type": "epsilon"}, None, 0.1, "epsilon"),
        ("sd2", [], {}, "target: ldm.models.diffusion.ddpm.LatentDiffusion", 0.1, "epsilon"),
        ("sd2", [], {}, "# parameterization: v\nnotes: none", 0.0, "epsilon"),
        ("sdxl", [], {}, None, 0.0, "epsilon"),
        ("sdxl", ["v_pred"], {"modelspec.prediction_type": "epsilon"}, None, 0.0, "v_prediction"),
        ("sdxl", ["v_pred"], {}, "parameterization: eps", 0.0, "epsilon"),
    ],
)
def test_the_prediction_type_is_what_the_first_to_speak_says(
    tmp_path: Path,
    kind: str,
    marked: list[str],
    metadata: dict[str, str],
    yaml: str | None,
    bias: float,
    prediction: str,
) -> None:
    shapes = LAYOUTS[kind]() | dict.fromkeys(marked, (0,))
    values = {LAST_NORM_BIAS: [bias, -bias] * 160} if kind == "sd2" else {}
    path = write(tmp_path / "model.safetensors", shapes, metadata, **values)
    if yaml is not None:
        path.with_suffix(".yaml").write_text(yaml)
    checkpoint = inspect_checkpoint(path)
    assert (checkpoint.architecture.config, checkpoint.prediction_type) == (kind, prediction)
    assert checkpoint.reason


@pytest.mark.parametrize(
    ("folder", "heads", "activation", "text_heads", "scale"),
    [
        ("sd1", 8, "quick_gelu", 12, 0.18215),
        ("sd2", [320 // 64, 640 // 64, 1280 // 64, 1280 // 64], "gelu", 16, 0.18215),
        ("sd2-v", [320 // 64, 640 // 64, 1280 // 64, 1280 // 64], "gelu", 16, 0.18215),
        ("sdxl", [320 // 64, 640 // 64, 1280 // 64], "quick_gelu", 12, 0.13025),
    ],
)
def test_what_no_shape_shows_is_as_in_the_original_code(
    folder: str, heads: object, activation: str, text_heads: int, scale: float
) -> None:
    """A wrong one of these loads without complaint and draws nonsense."""

    def config(component: str, name: str = "config") -> dict[str, object]:
        return json.loads((CONFIGS / folder / component / f"{name}.json").read_text())

    text, noise = config("text_encoder"), config("scheduler", "scheduler_config")
    assert config("unet")["attention_head_dim"] == heads  # diffusers' name for the number of heads
    assert (text["hidden_act"], text["num_attention_heads"]) == (activation, text_heads)
    assert config("vae")["scaling_factor"] == scale
    assert (noise["beta_start"], noise["beta_end"], noise["beta_schedule"]) == (0.00085, 0.012, "scaled_linear")
    if folder == "sdxl":
        second = config("text_encoder_2")
        assert (second["hidden_act"], second["num_attention_heads"]) == ("gelu", 20)


def test_the_tokenizer_is_clips() -> None:
    folder = CONFIGS / "tokenizer"
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("a cat", padding="max_length").input_ids[3:] == [49407] * 74
    padded = transformers.CLIPTokenizer.from_pretrained(folder, pad_token="!")
    assert padded("a cat", padding="max_length").input_ids[3:] == [49407] + [0] * 73


def without(part: str, shapes: Shapes | None = None) -> Shapes:
    return {name: shape for name, shape in (shapes or sd1()).items() if not name.startswith(part)}


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (sd2(inputs=5), r"for drawing by depth \(depth2img, 5 input channels\), built on Stable Diffusion 2.x"),
        (sd2(inputs=7), r"for enlarging pictures \(an upscaler, 7 input channels\), built on Stable Diffusion 2.x"),
        (sd1(inputs=8), r"for instructed editing \(InstructPix2Pix, 8 input channels\), built on Stable Diffusion 1"),
        (sdxl(inputs=13), "with 13 input channels, built on Stable Diffusion XL"),
        (without("cond_stage_model.", sd1(inputs=9)), "without a text encoder"),
        (sd2(classes=2048), "unCLIP"),
        (sdxl() | {"edm_mean": (4,)}, "Playground v2.5"),
        (without("first_stage_model."), "without a VAE"),
        (without("cond_stage_model."), "without a text encoder"),
        ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": (16, 3072)}, "a LoRA"),
        ({"double_blocks.0.img_attn.norm.key_norm.scale": (128,)}, "is FLUX.1; name it in TRANSFORMER_NAME"),
        ({f"{UNET}single_stream_modulation.lin.weight": (9216, 3072)}, "is FLUX.2; name it in TRANSFORMER_NAME"),
        ({f"{UNET}distilled_guidance_layer.in_proj.bias": (5120,)}, "is Chroma; name it in TRANSFORMER_NAME"),
        ({"layers.0.adaLN_modulation.0.weight": (15360, 256)}, "is Z-Image; name it in TRANSFORMER_NAME"),
        ({"head.modulation": (1, 2, 5120), "patch_embedding.weight": (5120, 16)}, "is Wan, a video model; single"),
        ({f"{UNET}transformer_blocks.0.attn.to_q.weight": (3072, 3072)}, "a denoiser alone; name it in TRANSFORMER_N"),
        (
            {"model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight": (6144, 1536)},
            "is Stable Diffusion 3; name it in TRANSFORMER_NAME",
        ),
        (LAYOUTS["refiner"](), "is the SDXL refiner; name it in REFINER_NAME"),
        ({"control_model.zero_convs.0.0.weight": (1,)}, "is a ControlNet; name it in CONTROLNETS"),
        ({"decoder.conv_in.weight": (512, 4, 3, 3)}, "is a VAE alone; name it in VAE_NAME"),
        ({"something.weight": (1,)}, "an architecture this worker does not know"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_architecture_is_named(tmp_path: Path, shapes: Shapes, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_single_file(write(tmp_path / "model.safetensors", shapes), torch.float16)


MODULATION = f"{UNET}double_blocks.0.img_attn.norm.key_norm.scale"
ENCODERS: Shapes = {
    "text_encoders.clip_l.transformer.text_model.embeddings.position_embedding.weight": (77, 768),
    "text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight": (4096,),
    "vae.decoder.conv_in.weight": (512, 16, 3, 3),
}


@pytest.mark.parametrize(
    ("denoiser", "title", "base"),
    [
        ({MODULATION: (128,), f"{UNET}img_in.weight": (3072, 64)}, "FLUX.1", "black-forest-labs/FLUX.1-schnell"),
        (
            {MODULATION: (128,), f"{UNET}img_in.weight": (3072, 64), f"{UNET}guidance_in.in_layer.bias": (3072,)},
            "FLUX.1",
            "black-forest-labs/FLUX.1-dev",
        ),
        (
            {f"{UNET}joint_blocks.0.context_block.adaLN_modulation.1.bias": (14592,)}
            | {f"{UNET}joint_blocks.37.x_block.mlp.fc1.weight": (9728, 2432)},
            "Stable Diffusion 3",
            "stabilityai/stable-diffusion-3.5-large",
        ),
        ({f"{UNET}layers.0.adaLN_modulation.0.weight": (15360, 256)}, "Z-Image", "Tongyi-MAI/Z-Image-Turbo"),
        ({f"{UNET}distilled_guidance_layer.in_proj.bias": (5120,)}, "Chroma", "lodestones/Chroma1-HD"),
    ],
    ids=["schnell", "dev", "sd3.5", "z-image", "chroma"],
)
def test_a_whole_checkpoint_without_tokenizers_says_the_two_settings(
    denoiser: Shapes, title: str, base: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "all-in-one.safetensors", denoiser | ENCODERS)
    with pytest.raises(ModelError) as refused:
        load_engine(MODEL_NAME=str(file))
    (line,) = str(refused.value).splitlines()
    assert f"is {title}; name it in TRANSFORMER_NAME, beside a MODEL_NAME in diffusers layout" in line
    assert f"MODEL_NAME={base} TRANSFORMER_NAME={file}" in line


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("model.diffusion_model.input_blocks.4.0.in_layers.2.weight", "weights are missing"),
        ("first_stage_model.encoder.mid.attn_1.q.weight", "weights are missing"),
        (
            "cond_stage_model.transformer.text_model.encoder.layers.3.mlp.fc1.weight",
            "missing 1 weights in text_encoder",
        ),
    ],
)
def test_one_weight_too_few_is_noticed(tmp_path: Path, lost: str, words: str) -> None:
    with pytest.raises(ModelError, match=f"no complete Stable Diffusion 1.x checkpoint: .*{words}"):
        load_single_file(write(tmp_path / "model.safetensors", without(lost)), torch.float16)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"PK\x03\x04" + bytes(100), "is a zip or .ckpt file"),
        (bytes(range(100)), "is no safetensors file, or is damaged or incomplete"),
    ],
)
def test_a_file_that_is_no_checkpoint_says_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words):
        load_single_file(path, torch.float16)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", sd1())
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(ModelError, match="damaged or incomplete"):
        load_single_file(path, torch.float16)
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        load_single_file(tmp_path / "absent.safetensors", torch.float16)
