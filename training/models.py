"""The four networks and the noise schedule, untrained: their sizes and nothing else.

The layout is Stable Diffusion's own, so that plain diffusers loads the result; only the widths are small.
"""

from diffusers import AutoencoderKL, LMSDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.world import SIDE

WIDTH = 192  # of the text; the worker knows this model by its cross_attention_dim
LATENT_CHANNELS = 4
LATENT_SIDE = SIDE // 8
SCALING_FACTOR = 0.18215  # as in Stable Diffusion; `vae.normalise` makes it true


def build_vae() -> AutoencoderKL:
    """Pictures (B, 3, 256, 256) in -1 to 1 <-> latents (B, 4, 32, 32)."""
    widths = (24, 32, 64, 128)  # most of a decoding's time goes into the first two
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        mid_block_add_attention=False,
        norm_num_groups=8,
        sample_size=SIDE,
        scaling_factor=SCALING_FACTOR,
    )


def build_unet() -> UNet2DConditionModel:
    """Noisy latents, timestep and text (B, 77, 192) -> velocity (B, 4, 32, 32).

    The text is heard at 16x16 on the way down and at 8x8 both ways. The weights are where they cost a CPU little: most
    of them at 8x8, and no attention at 16x16 on the way up, which took a fifth of the time.
    """
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(48, 80, 160),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,  # the number of heads, in spite of its name
        cross_attention_dim=WIDTH,
        norm_num_groups=8,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Token ids (B, 77) -> text (B, 77, 192)."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=5,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_scheduler() -> LMSDiscreteScheduler:
    """Stable Diffusion's schedule. The last four entries are for the schedulers that are built from this config."""
    scheduler = LMSDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        steps_offset=1,
    )
    scheduler.register_to_config(clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True)
    return scheduler
