"""Which of a job's pictures a drawing starts from, and of which its instruction speaks."""

from dataclasses import dataclass

from worker.api.schema import Fields
from worker.models.capabilities import EDIT, IMAGE, MASK, Capabilities, task_name


@dataclass(frozen=True)
class Source:
    """A picture that a field names.

    Attributes:
        field: for messages, such as `image` or `images.1`.
        reference: what the field holds.
    """

    field: str
    reference: str


@dataclass(frozen=True)
class Sources:
    """The pictures of `image` and `images`.

    Attributes:
        image: what the drawing starts from, if from a picture.
        references: those that the instruction speaks of, in its order.
        edits: whether the picture is drawn by an instruction; else one is started from, in whole or in part.
    """

    image: Source | None
    references: tuple[Source, ...]
    edits: bool


def choose_sources(fields: Fields, capabilities: Capabilities) -> Sources:
    """What each picture is for; fields that have failed count as left out.

    A model that edits does so unless a mask or a strength says that a picture is to be started from.
    """
    given = _list_given(fields)
    starts = has_mask(fields) or (capabilities.can_start(IMAGE) and getattr(fields, "strength", None) is not None)
    if EDIT in capabilities.tasks and not starts:
        return Sources(None, given, edits=bool(given))
    return Sources(given[0] if given else None, given[1:], edits=False)


def has_mask(fields: Fields) -> bool:
    """Whether the job says what of its picture is drawn anew, or beyond which of its sides."""
    return any(getattr(fields, name, None) is not None for name in ("mask", "outpaint"))


def choose_start(fields: Fields, capabilities: Capabilities) -> str:
    """The task that the job asks for, but for ControlNets, as far as the model can do it."""
    sources = choose_sources(fields, capabilities)
    masked = sources.image is not None and has_mask(fields) and capabilities.can_start(MASK)
    image = sources.image is not None and (masked or capabilities.can_start(IMAGE))
    return task_name(image, masked, False, sources.edits)


def _list_given(fields: Fields) -> tuple[Source, ...]:
    image, several = getattr(fields, "image", None), getattr(fields, "images", None) or []
    names = ["images"] if len(several) == 1 else [f"images.{i}" for i in range(len(several))]
    first = () if image is None else (Source("image", image),)
    return (*first, *(Source(name, one) for name, one in zip(names, several, strict=True)))
