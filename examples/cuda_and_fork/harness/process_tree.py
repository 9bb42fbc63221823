"""A program's processes, and how each of them came to be. Linux only: it reads /proc."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MAIN = "main"
ENDED = "a process that has ended"
HELPER = "multiprocessing.resource_tracker"  # Python's own, which runs none of the program


@dataclass(frozen=True)
class Node:
    """One process and those it has started."""

    pid: int
    how: str
    children: tuple["Node", ...] = ()

    def walk(self) -> Iterator["Node"]:
        """This process and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def render(self, roles: dict[int, list[str]]) -> str:
        """`main (loads) → forked (fails)`; several children stand in brackets."""
        told = ", ".join(roles.get(self.pid, []))
        own = f"{self.how} ({told})" if told else self.how
        children = sorted(child.render(roles) for child in self.children)
        if not children:
            return own
        return f"{own} → {children[0] if len(children) == 1 else '[' + ', '.join(children) + ']'}"


def read_tree(pid: int) -> Node | None:
    """The tree as it is now, or None when the process has ended."""
    try:
        return _read(psutil.Process(pid), MAIN)
    except (psutil.Error, OSError):
        return None


def name_processes(tree: Node | None, pids: list[int]) -> str:
    """What these processes are in the tree: `main and 2 spawned`."""
    hows = {node.pid: node.how for node in (tree.walk() if tree else ())}
    counted = Counter(hows.get(pid, ENDED) for pid in pids)
    in_order = sorted(counted.items(), key=lambda item: (item[0] != MAIN, item))
    return " and ".join(how if count == 1 else f"{count} {how}" for how, count in in_order)


def _read(process: psutil.Process, how: str) -> Node:
    children = []
    for child in process.children():
        with contextlib.suppress(psutil.Error, OSError):  # ended meanwhile
            if HELPER not in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                children.append(_read(child, _tell_how(child, process)))
    return Node(process.pid, how, tuple(children))


def _tell_how(child: psutil.Process, parent: psutil.Process) -> str:
    """The kernel gives each program that starts an auxiliary vector with random addresses; a fork copies it."""
    if _auxiliary_vector(child) == _auxiliary_vector(parent):
        return "forked"
    command = " ".join(child.cmdline())
    if "multiprocessing.spawn" in command:
        return "spawned"
    return "fork server" if "multiprocessing.forkserver" in command else "started anew"


def _auxiliary_vector(process: psutil.Process) -> bytes:
    return Path(f"/proc/{process.pid}/auxv").read_bytes()
