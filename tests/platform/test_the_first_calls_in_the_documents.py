"""The calls that a newcomer copies from the README and docs/ work as they stand there, against an endpoint."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.helpers.documents import ROOT, Document, list_documents

SITE = "https://api.runpod.ai"
CALLS = [
    (document.name, line.strip())
    for document in list_documents()
    for line in document.command_lines()
    if line.strip().startswith("curl") and SITE in line
]


@pytest.fixture(scope="module")
def pictures(open_platform: Any, open_worker: Any) -> Iterator[Any]:
    """A platform whose worker answers every job with a picture."""
    with open_platform() as platform, open_worker(platform, Path(__file__).with_name("picture_worker.py")):
        yield platform


def whose(platform: Any) -> dict[str, str]:
    """The variables that a reader has set."""
    return {"RUNPOD_ENDPOINT_ID": platform.config.endpoint_id, "RUNPOD_API_KEY": platform.config.api_key}


def test_the_python_of_the_readme_saves_a_picture(pictures: Any, tmp_path: Path) -> None:
    (program,) = Document(ROOT / "README.md").blocks("python")
    own = {**whose(pictures), "RUNPOD_ENDPOINT_BASE_URL": f"{pictures.base_url}/v2"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "star.png").size == (8, 8)


def test_documents_show_calls() -> None:
    assert {"README.md", "docs/api.md", "docs/deploy.md"} <= {name for name, _ in CALLS}


@pytest.mark.parametrize(("name", "line"), CALLS, ids=[name for name, _ in CALLS])
def test_a_call_by_curl_is_answered(name: str, line: str, pictures: Any) -> None:
    own = {f"${name}": value for name, value in whose(pictures).items()} | {SITE: pictures.base_url}
    filled = reduce(lambda text, name: text.replace(name, own[name]), own, line)
    words = shlex.split(filled.partition("|")[0])
    given: dict[str, list[str]] = {"-H": [], "-X": [], "-d": []}
    for option, value in pairwise(words):
        given.get(option, []).append(value)
    (method,), (body,) = given["-X"], given["-d"]
    (url,) = (word for word in words if word.startswith(pictures.base_url))
    headers = dict(header.split(": ", 1) for header in given["-H"])
    answer = httpx.request(method, url, headers=headers, content=body, timeout=60, trust_env=False).json()
    assert answer["status"] == "COMPLETED" and answer["output"]["images"]
