"""The playground's files are what the browser runs: small, of this repository alone, and under one strict policy."""

import re
from pathlib import Path

import pytest

from local_endpoint import page

FOLDER = Path(page.__file__).with_name("playground")
FILES = sorted(FOLDER.iterdir())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
RUNPOD = "https://api.runpod.ai"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_small_and_asks_for_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    assert set(re.findall(r"https?://[a-z][a-z.]*", text)) <= {RUNPOD}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_reads_text_as_code_or_as_markup(path: Path) -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\([\"'`]|srcdoc"
    )
    assert re.findall(forbidden, path.read_text()) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_says_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith("// ")


def test_every_import_is_a_file_beside_it() -> None:
    imported = {name for path in SCRIPTS for name in re.findall(r'from "([^"]+)"', path.read_text())}
    assert imported <= {f"./{path.name}" for path in SCRIPTS}
    assert {path.name for path in SCRIPTS} - {name.removeprefix("./") for name in imported} == {"main.js"}


def test_the_page_brings_its_policy_where_another_server_sends_it() -> None:
    (carried,) = re.findall(
        r'http-equiv="Content-Security-Policy" content="([^"]+)"', (FOLDER / "index.html").read_text()
    )
    assert set(page.POLICY.split("; ")) - set(carried.split("; ")) == {
        "frame-ancestors 'none'"
    }  # which only a header says
    assert set(carried.split("; ")) <= set(page.POLICY.split("; "))


def test_the_policy_lets_nothing_run_but_the_pages_own_files() -> None:
    rules = dict(rule.split(" ", 1) for rule in page.POLICY.split("; "))
    assert rules["default-src"] == "'none'" and rules["script-src"] == rules["style-src"] == "'self'"
    assert rules["connect-src"] == f"'self' {RUNPOD}"
    assert rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"


def test_the_page_has_no_script_or_style_inside() -> None:
    text = (FOLDER / "index.html").read_text()
    assert re.findall(r"<script(?![^>]* src=)|<style|\son[a-z]+=|\sstyle=", text) == []
