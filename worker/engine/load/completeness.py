"""Have all weights of a loaded model come from its files? The libraries warn of gaps at most, and go on without."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from worker.engine.pipelines import text_tokenizer
from worker.errors import ModelError


def check_complete(components: Mapping[str, Any], what: str) -> None:
    """Raise if any component's weights are not all there.

    Args:
        what: the message up to the gap, such as "/models/x is no complete model".

    Raises:
        ModelError: says how many weights of which component are missing.
    """
    for name, module in components.items():
        if isinstance(module, torch.nn.Module):
            missing = [weight for weight, values in module.named_parameters() if values.is_meta] or _random_weights(
                module
            )
            if missing:
                raise ModelError(f"{what}: missing {len(missing)} weights in {name}, e.g. {missing[0]}")


def check_tokens(components: Mapping[str, Any], what: str) -> None:
    """Raise if a tokenizer has tokens that its text encoder knows nothing of; a prompt with one would break the device.

    Args:
        what: whose components they are.

    Raises:
        ModelError: says which.
    """
    for name, part in components.items():
        is_processor = isinstance(part, ProcessorMixin)  # which has a tokenizer of its own
        tokenizer = text_tokenizer(part)
        encoder = components.get("text_encoder" if is_processor else name.replace("tokenizer", "text_encoder"))
        if not isinstance(tokenizer, PreTrainedTokenizerBase) or not isinstance(encoder, PreTrainedModel):
            continue
        known = getattr(encoder.get_input_embeddings(), "num_embeddings", None)
        token, number = max(tokenizer.get_vocab().items(), key=lambda item: item[1], default=("", 0))
        if known is not None and number >= known:
            raise ModelError(
                f"{what}: {name}: got the token {token[:80]!r} of number {number}; should be below {known}"
            )


def _random_weights(module: torch.nn.Module) -> list[str]:
    """Weights that transformers has drawn at random because the files lack them; it marks those that it has read."""
    if not isinstance(module, PreTrainedModel) or not module.name_or_path:  # then diffusers has built and filled it
        return []
    return [name for name, values in module.named_parameters() if not getattr(values, "_is_hf_initialized", False)]
