"""Paths that the owner has named, and what is below them: each is said by its name if it is not what it should be."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import ModelError
from worker.files import UnreadableError, check_readable, exists, list_folder

_READ = (".json", ".txt", ".model", ".jinja", ".safetensors")  # what libraries read of a component


@contextmanager
def name_unreadable() -> Iterator[None]:
    """Say of a path that cannot be read, inside the `with`, that the model cannot be.

    Raises:
        ModelError: names the path, and what it is.
    """
    try:
        yield
    except UnreadableError as error:
        raise ModelError(str(error)) from error


def check_entries(folder: Path) -> None:
    """Check that what a component's folder holds of what is read is files; nothing if there is no such folder.

    Raises:
        ModelError: names the first that is none, or cannot be opened.
    """
    with name_unreadable():
        for name in list_folder(folder) if exists(folder) else ():
            if name.endswith(_READ) and not name.startswith("."):
                check_readable(folder / name)
