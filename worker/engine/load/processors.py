"""A processor, which hands text and pictures to an encoder that reads both -> one that knows no videos.

transformers makes the part for videos with torchvision, which nothing here needs: a job brings none.
"""

from pathlib import Path
from typing import Any

import transformers
from transformers import ProcessorMixin

from worker.models.index import ModelIndex

_VIDEO = "video_processor"


def read_processors(view: Path, index: ModelIndex) -> dict[str, Any]:
    """Component -> the processor, of those that would know videos, too.

    Args:
        view: what there is to see of the model.
        index: with the components that are wanted; their classes are checked.
    """
    named = {name: getattr(transformers, kind, None) for name, (_, kind) in index.parts.items()}
    return {
        name: _forget_videos(kind).from_pretrained(view / name) for name, kind in named.items() if _sees_videos(kind)
    }


def _sees_videos(kind: Any) -> bool:
    is_processor = isinstance(kind, type) and issubclass(kind, ProcessorMixin)
    return is_processor and _VIDEO in _list_parts(kind)


def _list_parts(kind: Any) -> list[str]:
    return list(kind.get_attributes())


def _forget_videos(kind: Any) -> Any:
    """The class without that part; the libraries see the class itself in it."""
    names = [name for name in _list_parts(kind) if name != _VIDEO]
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda _: names), "__module__": kind.__module__})
