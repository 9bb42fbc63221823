"""ControlNets for inpainting with FLUX, which look at a mask beside the picture; diffusers has no class for them.

They are published by alimama-creative: diffusers' ControlNet, whose picture has the mask in four channels more.
"""

from typing import Any

import torch
from diffusers import FluxControlNetModel
from diffusers.configuration_utils import register_to_config
from PIL.Image import Image
from torch import Tensor


class FluxInpaintingControlNetModel(FluxControlNetModel):  # type: ignore[misc]
    """FLUX's ControlNet with more channels; its pipelines hand over the picture, `hide` the mask."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        patch_size: int = 1,
        in_channels: int = 64,
        num_layers: int = 19,
        num_single_layers: int = 38,
        attention_head_dim: int = 128,
        num_attention_heads: int = 24,
        joint_attention_dim: int = 4096,
        pooled_projection_dim: int = 768,
        guidance_embeds: bool = False,
        axes_dims_rope: tuple[int, ...] = (16, 56, 56),
        extra_condition_channels: int = 4,
    ) -> None:
        """As in diffusers, but for `extra_condition_channels`."""
        super().__init__(
            patch_size=patch_size,
            in_channels=in_channels,
            num_layers=num_layers,
            num_single_layers=num_single_layers,
            attention_head_dim=attention_head_dim,
            num_attention_heads=num_attention_heads,
            joint_attention_dim=joint_attention_dim,
            pooled_projection_dim=pooled_projection_dim,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=list(axes_dims_rope),
        )
        self.controlnet_x_embedder = torch.nn.Linear(in_channels + extra_condition_channels, self.inner_dim)
        self._kept: Tensor | None = None

    def hide(self, hole: Image) -> None:
        """Let the next passes know what is masked.

        Args:
            hole: of the size that is drawn; 255 where the picture is hidden. A latent is eight pixels each way.
        """
        rows, columns = hole.height // 16, hole.width // 16
        pixels = torch.frombuffer(bytearray(hole.tobytes()), dtype=torch.uint8).view(1, 1, hole.height, hole.width)
        kept = torch.nn.functional.interpolate((pixels < 128).float(), size=(rows * 2, columns * 2))
        # Two by two latents are one token.
        self._kept = kept.view(rows, 2, columns, 2).permute(0, 2, 1, 3).reshape(1, rows * columns, 4)

    def forward(self, hidden_states: Tensor, controlnet_cond: Tensor, **named: Any) -> Any:
        """As in diffusers; of the picture, the mask is made a part."""
        assert self._kept is not None
        kept = self._kept.to(controlnet_cond).expand(len(controlnet_cond), -1, -1)
        return super().forward(hidden_states, torch.cat([controlnet_cond, kept], dim=-1), **named)
