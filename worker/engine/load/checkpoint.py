"""The header of a single `.safetensors` checkpoint, names and shapes of its tensors -> what the file holds.

Knows how the original code (CompVis, Stability) names its tensors, and the other names that some files have for them.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import SafetensorError, safe_open

from worker.engine.load.denoisers import tell_denoiser
from worker.errors import ModelError
from worker.files import exists, read_file
from worker.models.checks import describe_file
from worker.models.paths import name_unreadable

CONFIGS = Path(__file__).parent / "configs"
MAX_YAML_BYTES = 1_000_000
EPSILON, V_PREDICTION = "epsilon", "v_prediction"

_UNET = "model.diffusion_model."
_CONV_IN = f"{_UNET}input_blocks.0.0.weight"
_CLASS_EMBEDDING = f"{_UNET}label_emb.0.0.weight"
_LAST_NORM_BIAS = f"{_UNET}output_blocks.11.1.transformer_blocks.0.norm1.bias"
_PREDICTIONS = {"epsilon": EPSILON, "eps": EPSILON, "v": V_PREDICTION, "v_prediction": V_PREDICTION}


@dataclass(frozen=True)
class Architecture:
    """What is known of one architecture before its file is read.

    Attributes:
        config: folder of its diffusers configs.
        context: a cross-attention weight of the UNet and the width of the text that it attends to.
        text_encoders: a tensor of each text encoder.
        padding: the token each tokenizer fills up with.
        renamed: how some files begin the names of the first text encoder's tensors, and how they usually begin.
    """

    config: str
    title: str
    pipeline: type[DiffusionPipeline]
    context: tuple[str, int]
    text_encoders: tuple[str, ...]
    padding: Mapping[str, str]
    class_embedding: bool = False
    renamed: tuple[tuple[str, str], ...] = ()


def _without_text_model(prefix: str) -> tuple[tuple[str, str], ...]:
    """The names that CLIP's tensors have where transformers was older, as in the NovelAI line, or newer than usual."""
    return tuple((f"{prefix}{part}", f"{prefix}text_model.{part}") for part in _PARTS)


_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")
ARCHITECTURES = (
    Architecture(
        config="sd1",
        title="Stable Diffusion 1.x",
        pipeline=StableDiffusionPipeline,
        context=(f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 768),
        text_encoders=("cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",),
        padding={"tokenizer": "<|endoftext|>"},
        renamed=_without_text_model("cond_stage_model.transformer."),
    ),
    Architecture(
        config="sd2",
        title="Stable Diffusion 2.x",
        pipeline=StableDiffusionPipeline,
        context=(f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", 1024),
        text_encoders=("cond_stage_model.model.token_embedding.weight",),
        padding={"tokenizer": "!"},
        renamed=(("conditioner.embedders.0.model.", "cond_stage_model.model."),),  # SD-Turbo
    ),
    Architecture(
        config="sdxl",
        title="Stable Diffusion XL",
        pipeline=StableDiffusionXLPipeline,
        context=(f"{_UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", 2048),
        text_encoders=(
            "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight",
            "conditioner.embedders.1.model.positional_embedding",
        ),
        padding={"tokenizer": "<|endoftext|>", "tokenizer_2": "!"},
        class_embedding=True,
        renamed=_without_text_model("conditioner.embedders.0.transformer."),
    ),
)
_REFINER_CONTEXT = (f"{_UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", 1280)
_REFINER = "the SDXL refiner; name it in REFINER_NAME, beside a base model"

# Part of a tensor's name -> what such a file is. These have the UNet of a known architecture, but another use.
_VARIANTS = {"control_model.": "a ControlNet", "edm_mean": "Playground v2.5", "edm_vpred.": "CosXL"}
# Channels that a UNet takes: latents alone, or these, a mask and the latents of what it leaves; other uses by theirs.
_LATENTS, _INPAINTING = 4, 9
_OTHER_INPUTS = {
    5: "for drawing by depth (depth2img, 5 input channels)",
    7: "for enlarging pictures (an upscaler, 7 input channels)",
    8: "for instructed editing (InstructPix2Pix, 8 input channels)",
}
_BESIDE = "name it in TRANSFORMER_NAME, beside a MODEL_NAME in diffusers layout: such files hold no tokenizers"
_DENOISERS = f"FLUX; {_BESIDE}", f"Stable Diffusion 3; {_BESIDE}", f"a denoiser alone; {_BESIDE}"
# The same for files with another UNet or none; the first that fits names the file, so LoRAs of anything come first.
_OTHERS = {
    "lora_": "a LoRA, which changes a model and is none; LORA_DIR and LORA_REPOS offer such",
    "hada_w1": "a LoRA, which changes a model and is none; LORA_DIR and LORA_REPOS offer such",
    "control_model.": "a ControlNet; name it in CONTROLNETS, beside a model",
    "controlnet_": "a ControlNet; name it in CONTROLNETS, beside a model",
    "conditioner.embedders.0.model.": _REFINER,
    "double_blocks.0.": _DENOISERS[0],
    "joint_blocks.0.": _DENOISERS[1],
    "transformer_blocks.0.attn.": _DENOISERS[2],
    "all_x_embedder.": _DENOISERS[2],
    "down_blocks.0.": "one part of a model in diffusers layout, which loads from the whole folder only",
    "emb_params": "a textual inversion embedding",
    "decoder.conv_in.": "a VAE alone; name it in VAE_NAME, beside a model",
}


@dataclass(frozen=True)
class Checkpoint:
    """What a file says of itself.

    Attributes:
        prediction_type: what the UNet predicts, in diffusers' words.
        reason: why that was concluded.
        inputs: channels that the UNet takes: latents, and for inpainting a mask and what it leaves of the picture too.
        zero_snr: trained with noise up to zero signal (arXiv:2305.08891).
        renamed: tensors of the first text encoder whose names are not the usual ones -> their usual names.
    """

    architecture: Architecture
    prediction_type: str
    reason: str
    inputs: int
    zero_snr: bool
    renamed: Mapping[str, str]

    @property
    def inpaints(self) -> bool:
        """Whether it was trained to draw what a mask covers, and draws nothing without one."""
        return self.inputs == _INPAINTING

    @property
    def config(self) -> Path:
        """The folder of diffusers configs; of the SD2 models, those that predict v are the 768-pixel ones."""
        wide = self.architecture.config == "sd2" and self.prediction_type == V_PREDICTION
        return CONFIGS / ("sd2-v" if wide else self.architecture.config)


def inspect_checkpoint(path: Path, name: str = "") -> Checkpoint:
    """Tell what a file holds from its header.

    Args:
        name: what it is called in the settings; its path, if nothing else is said.

    Raises:
        ModelError: as in `load_single_file`.
    """
    shapes, metadata = _read_header(path)
    architecture = _recognise(path, name or str(path), shapes)
    renamed = _find_renamed(architecture, shapes)
    shapes = {renamed.get(name, name): shape for name, shape in shapes.items()}
    inputs = (*shapes.get(_CONV_IN, ()), 0, 0)[1]
    _check_parts(path, architecture, inputs, shapes)
    prediction_type, reason = _prediction_type(path, architecture, shapes, metadata)
    return Checkpoint(architecture, prediction_type, reason, inputs, "ztsnr" in shapes, renamed)


def inspect_refiner(path: Path) -> None:
    """Check that a file holds the UNet of SDXL's refiner, which may be all that is used of it.

    Raises:
        ModelError: it is damaged, or is something else.
    """
    shapes, _ = _read_header(path)
    if _fits(_REFINER_CONTEXT, shapes):
        return
    known = (architecture.title for architecture in ARCHITECTURES if _fits(architecture.context, shapes))
    found = next(known, None) or _name(_OTHERS, shapes) or "of an architecture this worker does not know"
    raise ModelError(f"{path} is {found}; it is no SDXL refiner")


def name_other(names: Collection[str]) -> str | None:
    """What a file with such tensors is, if it is known and has no denoiser."""
    return _name({part: title for part, title in _OTHERS.items() if title not in _DENOISERS}, names)


def _read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], Mapping[str, str]]:
    """The shapes of a file's tensors by name, and what it says of itself."""
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return shapes, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} {describe_file(path, error)}") from error


def _recognise(path: Path, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Architecture:
    for architecture in ARCHITECTURES:
        if _fits(architecture.context, shapes):
            return architecture
    refiner = _REFINER if _fits(_REFINER_CONTEXT, shapes) else None
    found = (
        refiner
        or _name_denoiser(name, shapes)
        or _name(_OTHERS, shapes)
        or "of an architecture this worker does not know"
    )
    raise ModelError(f"{path} is {found}; single files of {_titles()} load")


def _name_denoiser(name: str, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Whose denoiser a file holds, and the settings that take it."""
    found = tell_denoiser(shapes)
    if found is None:
        return None
    if not found.beside_a_base:
        return found.title
    example = f" (MODEL_NAME={found.base} TRANSFORMER_NAME={name}, for example)" if found.base else ""
    return f"{found.title}; {_BESIDE}{example}"


def _fits(context: tuple[str, int], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    name, width = context
    return shapes.get(name, ())[-1:] == (width,)


def _find_renamed(architecture: Architecture, shapes: Mapping[str, object]) -> dict[str, str]:
    return {
        name: usual + name.removeprefix(old)
        for old, usual in architecture.renamed
        for name in shapes
        if name.startswith(old)
    }


def _check_parts(path: Path, architecture: Architecture, inputs: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    variant = _name(_VARIANTS, shapes)
    if inputs not in (_LATENTS, _INPAINTING):
        variant = _OTHER_INPUTS.get(inputs, f"with {inputs} input channels")
    elif not architecture.class_embedding and _CLASS_EMBEDDING in shapes:
        variant = "conditioned on pictures (unCLIP)"
    if variant:
        raise ModelError(f"{path} is {variant}, built on {architecture.title}; it cannot draw from a prompt here")
    missing = [name for name in architecture.text_encoders if name not in shapes]
    if missing:
        raise ModelError(f"{path} is {architecture.title} without a text encoder ({missing[0]} was expected)")
    if not any(name.startswith(("first_stage_model.decoder.", "vae.decoder.")) for name in shapes):
        raise ModelError(f"{path} is {architecture.title} without a VAE; use a version with the VAE baked in")


def _name(table: Mapping[str, str], shapes: Collection[str]) -> str | None:
    return next((title for part, title in table.items() if any(part in name for name in shapes)), None)


def _titles() -> str:
    return ", ".join(architecture.title for architecture in ARCHITECTURES)


def _prediction_type(
    path: Path, architecture: Architecture, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]
) -> tuple[str, str]:
    """What the UNet predicts, and why: the first of these that speaks.

    1. The owner: a `.yaml` of the same name beside the file, as in AUTOMATIC1111.
    2. A tensor named `v_pred`, the mark of SDXL models that predict v (NoobAI and ComfyUI's convention).
    3. The header's `modelspec.prediction_type` (Stability's ModelSpec; trainers write it).
    4. SD2 only: the spread of one bias of the last transformer block, which differs between Stability's two
       lines of SD2 models and their descendants. It is the measure and the limit that ComfyUI uses.
    5. epsilon, as everything else was trained.
    """
    if stated := _yaml_prediction(path.with_suffix(".yaml")):
        return stated, f"{path.stem}.yaml beside the file says so"
    if "v_pred" in shapes:
        return V_PREDICTION, "the file holds the mark v_pred"
    spec = metadata.get("modelspec.prediction_type", "").lower()
    if spec in _PREDICTIONS:
        return _PREDICTIONS[spec], f"the file's modelspec.prediction_type is {spec!r}"
    if architecture.config == "sd2" and _LAST_NORM_BIAS in shapes:
        return _sd2_prediction(path)
    return EPSILON, f"nothing says otherwise, and {architecture.title} was trained so"


def _yaml_prediction(path: Path) -> str | None:
    """The parameterization in a config of the original code, where leaving it out means eps."""
    with name_unreadable():
        if not exists(path):
            return None
        text = read_file(path, MAX_YAML_BYTES).decode("utf-8", "replace")
    stated = re.search(r"^\s*parameterization:\s*[\"']?(\w+)", text, re.MULTILINE)
    if stated:
        return _PREDICTIONS.get(stated[1].lower())
    return EPSILON if "LatentDiffusion" in text else None


def _sd2_prediction(path: Path) -> tuple[str, str]:
    with safe_open(path, framework="pt") as file:
        spread = file.get_tensor(_LAST_NORM_BIAS).float().std(correction=0).item()
    if spread > 0.09:
        return V_PREDICTION, f"the last norm's bias spreads by {spread:.3f}, above 0.09, as in SD2's 768-pixel models"
    return EPSILON, f"the last norm's bias spreads by {spread:.3f}, not above 0.09, as in SD2's 512-pixel models"
