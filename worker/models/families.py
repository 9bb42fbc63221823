"""The table of families, and which row of it a loaded model is: its configs say so, or at last its name. No torch.

The next family is one more row.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from worker.models.family import Family
from worker.models.transformer_families import TRANSFORMER_FAMILIES
from worker.models.unet_families import UNET_FAMILIES

FAMILIES: tuple[Family, ...] = (*UNET_FAMILIES, *TRANSFORMER_FAMILIES)

MAX_DISTILLED_STEPS = 16  # that a name may say
_STEPS = re.compile(r"(?<![0-9])([0-9]{1,2})[-_ ]?steps?(?![a-z])")


@dataclass(frozen=True)
class Found:
    """The row of a model.

    Attributes:
        reason: what told it, for the log.
    """

    family: Family
    reason: str


def find_family(pipeline: str, trait: Callable[[str], object], name: str = "") -> Found | None:
    """The family of a loaded pipeline: the first row whose config entries it has, that its name tells, or that is left.

    Args:
        pipeline: name of the pipeline's class.
        trait: looks up a "component.key" config entry of the pipeline.
        name: of the model; only what stands behind its last slash is looked at.
    """
    drawn_with = pipeline.replace("InpaintPipeline", "Pipeline")  # a model for inpainting is of its family
    rows = [family for family in FAMILIES if family.pipeline == drawn_with]
    for family in rows:
        if family.traits and all(trait(key) == value for key, value in family.traits.items()):
            return Found(family, " and ".join(_describe(key, value) for key, value in family.traits.items()))
    words = name.rpartition("/")[2].casefold()
    for family in rows:
        if family.named and re.search(family.named, words):
            return Found(_read_steps(family, words), f"the name {name!r} says so; no config does")
    return next((Found(family, f"it is a {pipeline}") for family in rows if _is_general(family)), None)


def _is_general(family: Family) -> bool:
    return not family.traits and not family.named


def _describe(key: str, value: object) -> str:
    component, entry = key.split(".")
    return f"its {component}'s {entry.strip('_')} is {value}"


def _read_steps(family: Family, words: str) -> Family:
    """The row with as many steps as the name says that the model was distilled to."""
    said = _STEPS.search(words)
    steps = int(said[1]) if said else 0
    return replace(family, steps=steps) if 0 < steps <= MAX_DISTILLED_STEPS else family
