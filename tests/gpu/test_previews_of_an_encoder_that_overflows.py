"""An encoder that overflows in float16, as Stable Diffusion XL's: previews are fitted in float32, the VAE goes back."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from tests.helpers.card import DEVICE
from tests.helpers.drawing import load_engine
from tests.helpers.faults import overflowing
from tools.parts import CONFIGS
from worker.engine.preview import Previewer


def encoded(vae: Any) -> torch.Tensor:
    with torch.no_grad():
        latents: torch.Tensor = vae.encode(torch.rand(1, 3, 96, 96, device=DEVICE, dtype=vae.dtype)).latent_dist.mode()
    return latents


def test_previews_are_the_same_as_without_the_overflow() -> None:
    """With the embedded model: random weights know no colours that could be compared."""
    pipeline = load_engine(DTYPE="float16").pipeline
    vae = pipeline.vae
    latents = torch.randn(1, 4, 32, 32, device=DEVICE, dtype=torch.float16)
    expected = np.asarray(Previewer(pipeline).make_preview(latents, 256, 256), np.float64)

    with overflowing(vae.encoder.down_blocks[0].resnets[0].conv1):
        assert not encoded(vae).isfinite().all(), "else this proves nothing"
        seen = np.asarray(Previewer(pipeline).make_preview(latents, 256, 256), np.float64)

    assert np.abs(seen - expected).max() < 8
    assert expected.std() > 8
    assert {weight.dtype for weight in vae.parameters()} == {torch.float16}


def test_stable_diffusion_xls_own_vae_in_full_size() -> None:
    config = AutoencoderKL.load_config(CONFIGS / "sdxl" / "vae")
    with DEVICE:
        vae = AutoencoderKL.from_config(config).half().eval()
    previewer = Previewer(SimpleNamespace(vae=vae, _execution_device=DEVICE))

    with overflowing(vae.encoder.down_blocks[0].resnets[0].conv1):
        assert not encoded(vae).isfinite().all(), "else this proves nothing"
        previewer.make_preview(torch.randn(1, 4, 128, 128, device=DEVICE, dtype=torch.float16), 1024, 1024)

    assert previewer._factors is not None and previewer._factors.isfinite().all()
    assert {weight.dtype for weight in vae.parameters()} == {torch.float16}
