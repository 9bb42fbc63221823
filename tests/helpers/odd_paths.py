"""What may stand where a file is expected: everything that a name can be on Linux and is no file."""

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType


def _make_pipe(path: Path) -> None:
    os.mkfifo(path)


def _make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)  # the path itself may be longer than a socket's may be
        try:
            server.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)


def _link_to_a_pipe(path: Path) -> None:
    pipe = path.with_name(f"{path.name}.elsewhere")
    if not pipe.exists():
        os.mkfifo(pipe)
    path.symlink_to(pipe)


# What it is -> how it is made, and what is to be said of it.
ODD_PATHS: Mapping[str, tuple[Callable[[Path], object], str]] = MappingProxyType(
    {
        "a pipe": (_make_pipe, "is a pipe, not a file"),
        "a link to a pipe": (_link_to_a_pipe, "is a pipe, not a file"),
        "a socket": (_make_socket, "is a socket, not a file"),
        "an endless device": (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
        "a full device": (lambda path: path.symlink_to("/dev/full"), "is a device, not a file"),
        "a folder": (lambda path: path.mkdir(), "is a folder, not a file"),
        "a link to itself": (lambda path: path.symlink_to(path.name), "is a link that leads back to itself"),
        "a link to nothing": (lambda path: path.symlink_to("/nowhere/at/all"), "is a link to what is not there"),
    }
)


def put(kind: str, path: Path) -> str:
    """Have this kind of thing, and nothing else, at this path; what is to be said of it."""
    remove(path)
    make, words = ODD_PATHS[kind]
    make(path)
    return words


def remove(path: Path) -> None:
    """Have nothing at this path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
