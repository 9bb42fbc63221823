"""docs/troubleshooting.md has an entry for every code of a failure and every state of a job; docs/api.md shows what is
told of a job while it runs and when it fails."""

import json
import re
from typing import Any

import pytest
import runpod
from PIL import Image
from runpod.endpoint.helpers import FINAL_STATES

from tests.helpers.asking import SD1
from tests.helpers.documents import ROOT, Document
from tools.fields import list_errors
from worker.api.parse import parse
from worker.api.response import write_failure
from worker.errors import InvalidInputError
from worker.runtime.progress import Progress

API, TROUBLE = (Document(ROOT / "docs" / f"{name}.md") for name in ("api", "troubleshooting"))


def _section(document: Document, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", document.text, re.DOTALL | re.MULTILINE)
    assert found, f"{document.name} has no heading {heading}"
    return found[1].strip()


@pytest.mark.parametrize("code", [error.code for error in list_errors()])
def test_every_code_has_an_entry_that_says_something(code: str) -> None:
    assert len(_section(TROUBLE, code)) > 100


def test_every_entry_is_a_code() -> None:
    entries = re.findall(r"^### ([A-Z]+(?:_[A-Z]+)*)$", TROUBLE.text, re.MULTILINE)
    assert entries == [error.code for error in list_errors()]


def test_every_state_of_a_job_is_explained() -> None:
    shown = re.findall(r"^\| `([A-Z_]+)` \|", _section(API, "States of a job"), re.MULTILINE)
    assert {*FINAL_STATES} <= {*shown} and {"IN_QUEUE", "IN_PROGRESS"} <= {*shown}
    for state in ("IN_QUEUE", "FAILED", "TIMED_OUT"):  # which people ask about
        assert re.search(rf"^### It .*{state}$", TROUBLE.text, re.MULTILINE)


def test_the_progress_that_is_shown_is_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(runpod.serverless, "progress_update", lambda job, update: told.append(update))
    Progress({"id": "test"}, silent=False).step(1, 20, lambda: Image.new("RGB", (8, 8)))
    (update,) = told
    first_cells = re.findall(r"^\| (`.*?) \|", _section(API, "Progress"), re.MULTILINE)
    assert [*update] == [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]


def test_the_failure_that_is_shown_is_what_a_caller_is_told() -> None:
    (shown,) = (json.loads(block) for block in API.blocks("json") if "FAILED" in block)
    with pytest.raises(InvalidInputError) as refused:
        parse({"input": {"prompt": "a star", "width": 5}}, SD1)
    answer = write_failure(refused.value)
    assert shown == {"status": "FAILED", "error": answer.pop("error"), "output": answer}
