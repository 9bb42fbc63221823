"""Tiny pipelines of models that edit: pictures are drawn from pictures and an instruction."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxControlPipeline,
    FluxFillPipeline,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    Kandinsky5I2IPipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImageLayeredPipeline,
    QwenImageTransformer2DModel,
)
from diffusers.pipelines.flux import pipeline_flux_kontext, pipeline_flux_kontext_inpaint
from diffusers.pipelines.joyimage import image_processor as joyimage
from diffusers.pipelines.longcat_image import pipeline_longcat_image_edit
from diffusers.pipelines.qwenimage import (
    pipeline_qwenimage_edit,
    pipeline_qwenimage_edit_inpaint,
    pipeline_qwenimage_edit_plus,
    pipeline_qwenimage_layered,
)
from diffusers.pipelines.qwenimage21 import pipeline_qwenimage21
from transformers import (
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.helpers import tiny_transformers
from worker.engine.load.glm_image import mend_glm_image

_WORDS = [f"<|{word}|>" for word in ("endoftext", "im_start", "im_end", "vision_start", "vision_end")]
_WORDS += ["<|image_pad|>", "<|video_pad|>"]
_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def kontext() -> FluxKontextPipeline:
    """FLUX.1 Kontext: FLUX's own parts; the picture to edit lies beside the one that is drawn."""
    return FluxKontextPipeline(**tiny_transformers.flux().components)


def tokenizer() -> Qwen2Tokenizer:
    """One token a letter, and those of Qwen's chats."""
    letters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    vocabulary = {word: number for number, word in enumerate(letters + _WORDS)}
    made = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    made.add_special_tokens({"additional_special_tokens": _WORDS[1:]})
    made.chat_template = _CHAT
    return made


def klein(is_distilled: bool = True) -> Flux2KleinPipeline:
    """FLUX.2 klein: a language model reads the prompt; several pictures may lie beside the one that is drawn."""
    torch.manual_seed(0)
    tokens = tokenizer()
    return Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * 16,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKLFlux2(
            block_out_channels=(4,) * 4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=1,
        ),
        text_encoder=Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(tokens),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=27,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=8,
            )
        ),
        tokenizer=tokens,
        is_distilled=is_distilled,
    )


def without_videos(kind: Any) -> Any:
    """The processor's class without the part that transformers makes with torchvision."""
    names = [name for name in kind.get_attributes() if name != "video_processor"]
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda _: names), "__module__": kind.__module__})


def processor() -> Qwen2VLProcessor:
    """Hands at most four by four patches of a picture to the language model, and the prompt."""
    return without_videos(Qwen2VLProcessor)(Qwen2VLImageProcessor(min_pixels=28**2, max_pixels=56**2), tokenizer())


def vision_tokens(tokens: Qwen2Tokenizer) -> dict[str, int]:
    """Which of them stand for pictures, as encoders' configs call them."""
    words = {f"{name}_token_id": f"<|{name}_pad|>" for name in ("image", "video")}
    words |= {f"vision_{end}_token_id": f"<|vision_{end}|>" for end in ("start", "end")}
    return {name: tokens.convert_tokens_to_ids(word) for name, word in words.items()}


def _qwen_edit(kind: Any) -> Any:
    torch.manual_seed(0)
    made, tokens = tiny_transformers.qwen(), tokenizer()
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": len(tokens)}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    reading = {**text, **heads, "rope_parameters": rope}
    config = Qwen2_5_VLConfig(text_config=reading, vision_config=sight, **vision_tokens(tokens))
    parts = {"text_encoder": Qwen2_5_VLForConditionalGeneration(config), "tokenizer": tokens, "processor": processor()}
    return kind(**{**made.components, **parts})


def qwen_edit() -> QwenImageEditPipeline:
    """Qwen-Image-Edit: its language model sees the picture that the instruction speaks of."""
    return _qwen_edit(QwenImageEditPipeline)


def qwen_edit_plus() -> QwenImageEditPlusPipeline:
    """Qwen-Image-Edit-2509 and later: the same with up to three."""
    return _qwen_edit(QwenImageEditPlusPipeline)


def qwen_layered() -> QwenImageLayeredPipeline:
    """Qwen-Image-Layered: a picture with an alpha channel is split into several."""
    parts = dict(qwen_edit().components)
    config, codes = parts["transformer"].config, parts["vae"].config
    traits = {"use_additional_t_cond": True, "use_layer3d_rope": True, "in_channels": 32, "out_channels": 8}
    parts["transformer"] = QwenImageTransformer2DModel.from_config(config, **traits)
    # What has as many channels as latents have is taken for some.
    latents = {"z_dim": 8, "latents_mean": [0.0] * 8, "latents_std": [1.0] * 8}
    parts["vae"] = AutoencoderKLQwenImage.from_config(codes, input_channels=4, **latents)
    return QwenImageLayeredPipeline(**parts)


def _flux_with(in_channels: int, out_channels: int = 64) -> dict[str, Any]:
    """FLUX's parts, and a transformer that takes more than latents."""
    made = tiny_transformers.flux()
    config, channels = made.transformer.config, {"in_channels": in_channels, "out_channels": out_channels}
    parts = {**made.components, "transformer": FluxTransformer2DModel.from_config(config, **channels)}
    return {name: part for name, part in parts.items() if name not in ("image_encoder", "feature_extractor")}


def fill() -> FluxFillPipeline:
    """FLUX.1 Fill: its transformer sees what is not masked, and the mask."""
    return FluxFillPipeline(**_flux_with(384))


def control() -> FluxControlPipeline:
    """FLUX.1 Canny and Depth: its transformer sees the picture that it follows."""
    return FluxControlPipeline(**_flux_with(128))


def load_plain(folder: Path, dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
    """The model in diffusers' own pipeline; a GLM-Image, which would edit nothing, with this worker's repair."""
    index = json.loads((folder / "model_index.json").read_text())
    named = {name: getattr(transformers, entry[1] or "", None) for name, entry in index.items() if type(entry) is list}
    kinds = {name: kind for name, kind in named.items() if isinstance(kind, type) and issubclass(kind, ProcessorMixin)}
    own = {name: without_videos(kind).from_pretrained(folder / name) for name, kind in kinds.items()}
    plain = DiffusionPipeline.from_pretrained(folder, torch_dtype=dtype, **own)
    plain.set_progress_bar_config(disable=True)
    mend_glm_image(plain)
    return plain


_EDIT_MODULES = (
    pipeline_qwenimage_edit,
    pipeline_qwenimage_edit_plus,
    pipeline_qwenimage_edit_inpaint,
    pipeline_qwenimage_layered,
)


_KANDINSKY = [(128, 128), (80, 176), (176, 80), (96, 160), (160, 96), (112, 144), (144, 112)]


@contextmanager
def small_references() -> Iterator[None]:
    """Inside the `with`, pictures that pipelines scale to a million pixels or so become a sixty-fourth part of that."""
    with pytest.MonkeyPatch.context() as patch:
        sizes = [(width // 8, height // 8) for width, height in pipeline_flux_kontext.PREFERRED_KONTEXT_RESOLUTIONS]
        patch.setattr(pipeline_flux_kontext, "PREFERRED_KONTEXT_RESOLUTIONS", sizes)
        patch.setattr(pipeline_flux_kontext_inpaint, "PREFERRED_KONTEXT_RESOLUTIONS", sizes)
        for module in (*_EDIT_MODULES, pipeline_longcat_image_edit, pipeline_qwenimage21):
            patch.setattr(module, "calculate_dimensions", _shrink(module.calculate_dimensions))
        seven = property(lambda _: _KANDINSKY, lambda *_: None)  # which each sets itself
        patch.setattr(Kandinsky5I2IPipeline, "resolutions", seven, raising=False)
        buckets = [(height // 4, width // 4) for height, width in joyimage.BUCKETS[1024]]  # in whole patches
        patch.setitem(joyimage.BUCKETS, 1024, buckets)
        yield


def _shrink(choose: Callable[[float, float], Any]) -> Callable[[float, float], Any]:
    return lambda area, ratio: choose(area / 64, ratio)
