"""The repository's documents, taken apart: their links, headings, commands, and what they hold as JSON."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^ *(```+)(\w*)[^\n]*\n(.*?)^ *\1 *$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)\)|(?:href|src)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
_CURL = re.compile(r"(?:-d|--data|--test_input) '([^']*)'", re.DOTALL)


@dataclass(frozen=True)
class Document:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        """All of it."""
        return _read(self.path)

    @property
    def prose(self) -> str:
        """What is outside blocks of code."""
        return _FENCE.sub("", self.text)

    def links(self) -> list[str]:
        """Where its links and pictures lead, as written."""
        return [one or other for one, other in _LINK.findall(_CODE.sub("", self.prose))]

    def anchors(self) -> set[str]:
        """The names that GitHub gives its headings."""
        names: dict[str, int] = {}
        found = set()
        for heading in _HEADING.findall(self.prose):
            name = _make_anchor(heading)
            found.add(f"{name}-{names[name]}" if name in names else name)
            names[name] = names.get(name, 0) + 1
        return found

    def blocks(self, *languages: str) -> list[str]:
        """What its blocks of code in these languages hold."""
        return [body for _, language, body in _FENCE.findall(self.text) if language in languages]

    def inline(self) -> list[str]:
        """Its code inside sentences."""
        return _CODE.findall(self.prose)

    def command_lines(self) -> list[str]:
        """The lines of its blocks for a shell; one that goes on in the next is one."""
        joined = (block.replace("\\\n", " ") for block in self.blocks("sh", "bash"))
        return [line for block in joined for line in block.splitlines()]

    def values(self) -> Iterator[Any]:
        """What it holds as JSON: whole blocks, one or several values in each, and what its commands send."""
        for block in self.blocks("json"):
            yield from read_values(block)
        for block in (*self.blocks("sh", "bash"), *self.inline()):
            yield from (json.loads(sent) for sent in _CURL.findall(block))
        yield from (json.loads(code) for code in self.inline() if code.startswith(('{"input"', '{"prompt"')))


def read_values(text: str) -> Iterator[Any]:
    """Each of the JSON values in this text.

    Raises:
        json.JSONDecodeError: one is none.
    """
    text = text.strip()
    while text:
        value, end = json.JSONDecoder().raw_decode(text)
        yield value
        text = text[end:].strip()


def _make_anchor(heading: str) -> str:
    """As GitHub makes it: small letters, digits, hyphens and underscores, with hyphens for blanks."""
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")


@cache
def _read(path: Path) -> str:
    return path.read_text("utf-8")


@cache
def list_documents() -> tuple[Document, ...]:
    """Every Markdown file of the repository, whether git knows it yet or not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return tuple(Document(ROOT / name) for name in sorted({*names}) if name and (ROOT / name).exists())
