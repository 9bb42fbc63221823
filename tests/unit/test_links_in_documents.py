"""Every link in every document leads somewhere: files and headings are there, and addresses have the form of one."""

import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.helpers.documents import ROOT, Document, list_documents

DOCUMENTS = list_documents()
NAMES = [document.name for document in DOCUMENTS]
HUB_PAGE = ".runpod/README.md"  # shown at another address, where nothing is beside it


def find_dead_links(document: Document) -> list[str]:
    """Those that lead nowhere, as written."""
    return [link for link in document.links() if not _leads_somewhere(document, link)]


def _leads_somewhere(document: Document, link: str) -> bool:
    if "://" in link or link.startswith("mailto:"):
        parts = urlsplit(link)
        return parts.scheme == "https" and bool(re.fullmatch(r"([\w-]+\.)+[a-z]{2,}", parts.hostname or ""))
    path, _, anchor = link.partition("#")
    target = (document.path.parent / unquote(path)).resolve() if path else document.path
    if not (target.exists() and target.is_relative_to(ROOT)):
        return False
    return not anchor or (target.suffix == ".md" and anchor in Document(target).anchors())


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_link_leads_somewhere(document: Document) -> None:
    assert find_dead_links(document) == []


def test_the_page_for_the_hub_links_to_nothing_beside_it() -> None:
    (page,) = (document for document in DOCUMENTS if document.name == HUB_PAGE)
    assert [link for link in page.links() if "://" not in link] == []


def test_every_page_of_the_documentation_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        if (page := waiting.pop()) not in reached:
            reached.add(page)
            paths = (link.partition("#")[0] for link in Document(page).links() if "://" not in link)
            targets = ((page.parent / path).resolve() for path in paths if path.endswith(".md"))
            waiting += [target for target in targets if target.exists()]
    assert {document.path for document in DOCUMENTS if document.path.parent == ROOT / "docs"} <= reached


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("[a](b.md)", ["b.md"]),
        ("[a](page.md#two-words) [b](#and-code)", []),
        ("[a](#two)", ["#two"]),
        ("[a](#two-words-1) [b](#two-words-2)", ["#two-words-2"]),
        (
            "![a](https://example.com/x.png) [b](http://example.com) [c](https://nohost)",
            ["http://example.com", "https://nohost"],
        ),
        ("`[a](b.md)`", []),
        ("```\n[a](b.md)\n```", []),
    ],
)
def test_a_dead_link_is_noticed(text: str, dead: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"# Two words\n\n## And `code`!\n\n# Two words\n\n{text}\n")
    assert find_dead_links(Document(page)) == dead
