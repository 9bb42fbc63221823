"""GLM-Image's editing, where diffusers 0.42 and transformers 5 disagree: features of pictures, joined to one tensor by
the one, are taken picture by picture by the other.
"""

import functools
from typing import Any

from torch import Tensor


def mend_glm_image(pipeline: Any) -> None:
    """Let GLM-Image's language model take features as diffusers has joined them; other pipelines stay as they are.

    To be called before any hook that moves weights is installed. Once the two agree, what comes is handed on as it is.
    """
    reader: Any = getattr(pipeline, "vision_language_encoder", None)
    if type(pipeline).__name__ != "GlmImagePipeline" or not hasattr(reader, "get_image_tokens"):
        return
    look, tell = reader.get_image_features, reader.get_image_tokens
    channels = reader.config.vision_config.hidden_size

    @functools.wraps(look)
    def look_on_device(*given: Any, **named: Any) -> Any:
        if (hook := getattr(reader, "_hf_hook", None)) is not None:
            hook.pre_forward(reader)  # weights that wait in main memory would come at the first `forward`, later
        return look(*given, **named)

    @functools.wraps(tell)
    def tell_each(features: Any, *rest: Any, **named: Any) -> Any:
        return tell(_part(features, channels), *rest, **named)

    reader.get_image_features, reader.get_image_tokens = look_on_device, tell_each


def _part(features: Any, channels: int) -> Any:
    """Those of each picture, (channels, rows, columns), of pictures that were joined along the first."""
    is_joined = isinstance(features, Tensor) and features.ndim == 3 and features.shape[0] % channels == 0
    return features.split(channels) if is_joined else features
