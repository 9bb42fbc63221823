"""What the libraries see of a model: a folder of links to what was checked of it, and of nothing else.

They look for more than a model needs: code, adapters, pickled weights, files that a config names. What is not in the
folder that they are given cannot be found. Weights of a variant bear the plain names there.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from worker.files import temporary_folder
from worker.models.index import INDEX, ModelIndex
from worker.models.paths import name_unreadable
from worker.models.variants import WeightFiles, is_data, plain_name


@contextmanager
def show_model(folder: Path, index: ModelIndex, weights: Mapping[str, WeightFiles]) -> Iterator[Path]:
    """Inside the `with`, what there is to see of a model in diffusers layout.

    Args:
        index: with the components that are wanted.
        weights: of the components that have some.
    """
    with _make_folder(folder.name) as view:
        entries = {name: list(entry) for name, entry in index.parts.items()}
        (view / INDEX).write_text(json.dumps({"_class_name": index.pipeline, **index.flags, **entries}))
        for part in entries:
            (view / part).mkdir()
            _link(folder / part, view / part, weights.get(part))
        yield view


@contextmanager
def show_component(folder: Path, weights: WeightFiles) -> Iterator[Path]:
    """Inside the `with`, what there is to see of one component."""
    with _make_folder(folder.name) as view:
        _link(folder, view, weights)
        yield view


@contextmanager
def _make_folder(name: str) -> Iterator[Path]:
    with name_unreadable(), temporary_folder() as place:
        view = place / (name or "model")
        view.mkdir()
        yield view


def _link(folder: Path, view: Path, weights: WeightFiles | None) -> None:
    taken = weights.names if weights else ()
    for entry in folder.resolve().iterdir():
        if entry.name in taken:
            (view / plain_name(entry.name)).symlink_to(entry)
        elif is_data(entry.name):
            (view / entry.name).symlink_to(entry)
