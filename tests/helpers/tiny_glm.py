"""A tiny GLM-Image: a language model writes what the picture is made of, and a transformer draws it."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, GlmImagePipeline, GlmImageTransformer2DModel
from transformers import (
    ByT5Tokenizer,
    GlmImageConfig,
    GlmImageForConditionalGeneration,
    GlmImageImageProcessorPil,
    GlmImageProcessor,
    Qwen2Tokenizer,
    T5Config,
    T5EncoderModel,
)

from tests.helpers.tiny_flows import SMALL_TEXT
from tests.helpers.tiny_models import _vae

CODES = 32  # that a picture is made of
BEGIN, END = CODES, CODES + 1  # before them, and behind those of a picture that is looked at


def _tokens() -> Qwen2Tokenizer:
    """The codes of pictures first, then one token a letter."""
    words = [f"<|code_{code}|>" for code in (*range(CODES), BEGIN, END)]
    named = {"image_token": "<|image|>", "grid_bos_token": "<|grid|>", "grid_eos_token": "<|/grid|>"}
    letters = [*map(chr, range(33, 127)), "Ġ", "Ċ"]
    vocabulary = {token: i for i, token in enumerate([*words, *letters, "<|endoftext|>", *named.values()])}
    named = {**named, "image_start_token": words[BEGIN], "image_end_token": words[END]}
    tokens = Qwen2Tokenizer(vocab=vocabulary, merges=[], bos_token=words[BEGIN], extra_special_tokens=named)
    part = f'{{{{ part.text if part.type == "text" else "{words[BEGIN]}<|image|>{words[END]}" }}}}'
    tokens.chat_template = f"{{% for m in messages %}}{{% for part in m.content %}}{part}{{% endfor %}}{{% endfor %}}"
    return tokens


def glm() -> GlmImagePipeline:
    """With random weights."""
    torch.manual_seed(0)
    tokens = _tokens()
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
    text = {"vocab_size": len(tokens), "num_hidden_layers": 1, "rope_parameters": rope, "vision_vocab_size": END + 1}
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "image_size": 32}
    reader = GlmImageForConditionalGeneration(
        GlmImageConfig(
            text_config={**text, **SMALL_TEXT, "pad_token_id": 0, "eos_token_id": 0},
            vision_config=sight,
            vq_config={"embed_dim": 8, "num_embeddings": CODES, "latent_channels": 16},
            image_token_id=tokens.convert_tokens_to_ids("<|image|>"),
            image_start_token_id=BEGIN,
            image_end_token_id=END,
        )
    )
    reader.generation_config.eos_token_id = None  # as many as the picture needs
    reader.lm_head.weight.data.mul_(50)  # so that what is written depends on the prompt
    size = {"shortest_edge": 64 * 64, "longest_edge": 2048 * 2048}
    sees = GlmImageImageProcessorPil(patch_size=16, merge_size=1, temporal_patch_size=1, size=size)
    return GlmImagePipeline(
        transformer=GlmImageTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            text_embed_dim=16,
            time_embed_dim=16,
            condition_dim=8,
            prior_vq_quantizer_codebook_size=END + 1,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75),
        vae=_vae(latents_mean=[0.0] * 4, latents_std=[1.0] * 4, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=T5EncoderModel(T5Config(vocab_size=384, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2)),
        tokenizer=ByT5Tokenizer(),
        processor=GlmImageProcessor(image_processor=sees, tokenizer=tokens, chat_template=tokens.chat_template),
        vision_language_encoder=reader,
    )
