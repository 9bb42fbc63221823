"""Models that draw from pictures by an instruction: how many pictures their pipelines take, and whether they need one.

Facts of diffusers' classes and of what their models were trained on; it knows no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

MAX_REFERENCES = 10  # of any model


@dataclass(frozen=True)
class Editing:
    """What one pipeline's call does with reference pictures.

    Attributes:
        references: it takes so many at most.
        from_prompt: whether it draws from a prompt alone, too.
        aspect: how many times as long as the other one side of a picture may be.
    """

    references: int
    from_prompt: bool = True
    aspect: int = 128


# By text-to-image pipeline, or the model's only one.
EDITORS: Mapping[str, Editing] = MappingProxyType(
    {
        "FluxKontextPipeline": Editing(1),
        "Flux2Pipeline": Editing(MAX_REFERENCES, aspect=8),
        "Flux2KleinPipeline": Editing(4, aspect=8),
        "QwenImage21Pipeline": Editing(MAX_REFERENCES),
        "ZImageOmniPipeline": Editing(MAX_REFERENCES, aspect=8),
        "LongCatImageEditPipeline": Editing(1, from_prompt=False),
        "QwenImageEditPipeline": Editing(1, from_prompt=False),
        "QwenImageEditPlusPipeline": Editing(3, from_prompt=False),
    }
)
