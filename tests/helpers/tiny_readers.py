"""Tiny pipelines of transformers that read a prompt with several encoders, or that AutoPipeline does not know."""

import torch
from diffusers import (
    AdaptiveProjectedMixGuidance,
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLHunyuanImage,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    Kandinsky5T2IPipeline,
    Kandinsky5Transformer3DModel,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SCMScheduler,
)
from transformers import (
    ByT5Tokenizer,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from tests.helpers import tiny_editors
from tests.helpers.tiny_flows import SMALL_TEXT, letters
from tests.helpers.tiny_models import _text_config, tokenizer, wake
from tests.helpers.tiny_transformers import _vae16, t5, t5_tokenizer


def _qwen2_5_vl(count: int, layers: int = 2) -> Qwen2_5_VLForConditionalGeneration:
    """For so many tokens; the first that it writes is its last."""
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}
    text = {"vocab_size": count, "num_hidden_layers": layers, "rope_parameters": rope, **SMALL_TEXT}
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    encoder = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=sight))
    encoder.generation_config.eos_token_id = [*range(count)]
    return encoder


def _quick_vae() -> AutoencoderKL:
    """As SD3 and FLUX have it, for pipelines that draw a megapixel whatever is asked."""
    return AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=16,
        scaling_factor=1.5,
        shift_factor=0.06,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def _sana_transformer(guidance_embeds: bool) -> SanaTransformer2DModel:
    return SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=16,
        sample_size=32,
        guidance_embeds=guidance_embeds,
        qk_norm="rms_norm_across_heads" if guidance_embeds else None,
    )


def _vae_dc() -> AutoencoderDC:
    """Thirty-two pixels a latent, in each direction."""
    widths = (4, 4, 8, 8, 8, 8)
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
        encoder_qkv_multiscales=((),) * 6,
        decoder_qkv_multiscales=((),) * 6,
        upsample_block_type="interpolate",
        downsample_block_type="stride_conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )


def _gemma() -> tuple[Gemma2Model, GemmaTokenizer]:
    tokens = GemmaTokenizer(
        vocab={"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "▁": 4}
        | {chr(code): code - 28 for code in range(33, 127)},
        merges=[],
    )
    tokens.padding_side = "right"
    size = {**SMALL_TEXT, "query_pre_attn_scalar": 8, "num_hidden_layers": 1, "vocab_size": len(tokens)}
    return Gemma2Model(Gemma2Config(**size)), tokens


def sana() -> SanaPipeline:
    """Sana: Gemma reads the prompt; pictures are drawn in one of the sizes that it was trained on."""
    torch.manual_seed(0)
    encoder, tokens = _gemma()
    return SanaPipeline(
        transformer=_sana_transformer(guidance_embeds=False),
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
        ),
        vae=_vae_dc(),
        text_encoder=encoder,
        tokenizer=tokens,
    )


def sana_sprint() -> SanaSprintPipeline:
    """Sana Sprint: two steps, with a timestep of their own between them."""
    torch.manual_seed(0)
    encoder, tokens = _gemma()
    return SanaSprintPipeline(
        transformer=_sana_transformer(guidance_embeds=True),
        scheduler=SCMScheduler(),
        vae=_vae_dc(),
        text_encoder=encoder,
        tokenizer=tokens,
    )


def hidream() -> HiDreamImagePipeline:
    """HiDream-I1: four text encoders, and experts of which some act."""
    torch.manual_seed(0)
    tokens = tokenizer()
    llama = PreTrainedTokenizerFast(
        tokenizer_object=letters()._tokenizer, eos_token="<|endoftext|>", bos_token="<|im_start|>", model_max_length=512
    )
    return HiDreamImagePipeline(
        transformer=HiDreamImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            caption_channels=[32, 16],
            text_emb_dim=64,
            num_routed_experts=2,
            num_activated_experts=1,
            axes_dims_rope=(4, 6, 6),
            max_resolution=(128, 128),
            llama_layers=[0, 1],
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_quick_vae(),
        text_encoder=CLIPTextModelWithProjection(_text_config(tokens, max_position_embeddings=218)),
        tokenizer=tokens,
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokens, max_position_embeddings=218)),
        tokenizer_2=tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=t5_tokenizer(),
        text_encoder_4=LlamaForCausalLM(LlamaConfig(vocab_size=len(llama), num_hidden_layers=2, **SMALL_TEXT)),
        tokenizer_4=llama,
    )


def hunyuan(guidance_embeds: bool = False) -> HunyuanImagePipeline:
    """HunyuanImage 2.1: guided by a component of its own; the distilled one has its guidance as an input."""
    torch.manual_seed(0)
    tokens = letters()
    return HunyuanImagePipeline(
        transformer=HunyuanImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            guidance_embeds=guidance_embeds,
            text_embed_dim=16,
            text_embed_2_dim=16,
            rope_axes_dim=(8, 8),
            use_meanflow=guidance_embeds,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        vae=AutoencoderKLHunyuanImage(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(32, 32, 32, 32, 32, 32),
            layers_per_block=1,
            spatial_compression_ratio=32,
            sample_size=64,
            scaling_factor=0.75,
        ),
        text_encoder=_qwen2_5_vl(len(tokens), layers=3),
        tokenizer=tokens,
        text_encoder_2=T5EncoderModel(T5Config(vocab_size=384, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2)),
        tokenizer_2=ByT5Tokenizer(),
        guider=None if guidance_embeds else AdaptiveProjectedMixGuidance(),
    )


def longcat_transformer() -> LongCatImageTransformer2DModel:
    """That of LongCat-Image, of the one that edits, too."""
    return LongCatImageTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=[4, 6, 6],
    )


def longcat() -> LongCatImagePipeline:
    """LongCat-Image: its encoder writes the prompt anew before it reads it. The tokenizer stands for its processor."""
    torch.manual_seed(0)
    tokens = letters(template="{% for m in messages %}{{ m.content[0].text }}<|im_end|>{% endfor %}")
    encoder = _qwen2_5_vl(len(tokens))
    for layer in encoder.model.language_model.layers.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data *= 50  # else it writes the same for every prompt
    return LongCatImagePipeline(
        transformer=longcat_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae16(),
        text_encoder=encoder,
        tokenizer=tokens,
        text_processor=tokens,
    )


def kandinsky5_transformer(visual_cond: bool = False) -> Kandinsky5Transformer3DModel:
    """That of Kandinsky 5; or of the one that edits, which takes the latents of a picture, too."""
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=16,
        out_visual_dim=16,
        in_text_dim=16,
        in_text_dim2=32,
        time_dim=16,
        model_dim=32,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 6, 6),
        visual_cond=visual_cond,
    )
    return wake(transformer)


def kandinsky5() -> Kandinsky5T2IPipeline:
    """Kandinsky 5: pictures of seven sizes. Its tokenizer is part of a processor of pictures."""
    read, clip = tiny_editors.qwen_edit(), tokenizer()
    return Kandinsky5T2IPipeline(
        transformer=kandinsky5_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_quick_vae(),
        text_encoder=read.text_encoder,
        tokenizer=read.processor,
        text_encoder_2=CLIPTextModel(_text_config(clip)),
        tokenizer_2=clip,
    )
