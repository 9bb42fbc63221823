"""Pieces of Markdown, and where they go in a document."""

import re


def table(*rows: tuple[str, ...]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(text: object) -> str:
    """Inline code, or nothing for nothing."""
    return f"`{text}`" if text != "" else ""


def insert(document: str, name: str, text: str) -> str:
    """The document with this text between the two marks of this name."""
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    document, found = block.subn(lambda match: f"{match[1]}{text}\n{match[2]}", document)
    if not found:
        raise SystemExit(f"a document has no place for the table of {name}")
    return document
