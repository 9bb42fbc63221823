"""Every request that a document shows is one that a worker takes, and all that is shown as JSON is JSON."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.asking import CONTROL, EDITOR, FILL, SPLITTER, model_of, picture
from tests.helpers.documents import ROOT, Document, list_documents, read_values
from tools.gallery import PICTURES
from worker.api.parse import parse
from worker.api.schema import spellings
from worker.errors import InvalidInputError
from worker.models.control_kinds import ControlKind

DOCUMENTS = list_documents()
KINDS = {name: ControlKind() for name in ("canny", "depth", "pose")}
BESIDE = {"loras": ("neon", "details"), "controlnets": (*KINDS,), "control_kinds": KINDS, "ip_adapter": True}
# Models with all that documents speak of; a request has to be one for at least one of them.
MODELS = (
    model_of("sdxl", refiner=True, **BESIDE),
    model_of("sd1", **BESIDE),
    model_of("shapes", width=256, height=256, loras=("neon",)),
    model_of("flux-schnell", **BESIDE),
    EDITOR,
    CONTROL,
    FILL,
    SPLITTER,
)
_PICTURE = picture(64, 64, "white")  # which is a mask, too
# Keys of jobs that are read otherwise than by their fields, each with tests of its own.
_OTHERWISE = {"capabilities", "openai_route"}
_FIELDS = ("image", "mask", "images")
_NAMES = {*_FIELDS, *(spelled for spelled, own in spellings().items() if own in _FIELDS)}


def list_jobs(document: Document) -> Iterator[dict[str, Any]]:
    """The jobs that it shows: what holds an input, and what would be one."""
    for value in document.values():
        if isinstance(value, dict) and "input" in value:
            if not _OTHERWISE & {*value["input"]}:
                yield value
        elif isinstance(value, dict) and "prompt" in value:
            yield {"input": value}


def fill(value: Any, name: str = "") -> Any:
    """The same, with a picture wherever a document leaves one to its reader, or names one of the gallery."""
    if isinstance(value, dict):
        return {key: fill(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [fill(part, name) for part in value]
    if isinstance(value, str) and (ROOT / PICTURES / value).is_file():
        return base64.b64encode((ROOT / PICTURES / value).read_bytes()).decode()
    return _PICTURE if isinstance(value, str) and name in _NAMES else value


def find_refusals(job: dict[str, Any]) -> list[str]:
    """What each model says of this job; nothing where one takes it."""
    told = []
    for model in MODELS:
        try:
            parse(fill(job), model)
        except InvalidInputError as error:
            told.append(f"{model.name}: {error}")
        else:
            return []
    return told


@pytest.mark.parametrize("document", DOCUMENTS, ids=[document.name for document in DOCUMENTS])
def test_every_request_is_taken(document: Document) -> None:
    for job in list_jobs(document):  # which reads all JSON there is
        assert find_refusals(job) == [], json.dumps(job)


@pytest.mark.parametrize(
    "name", ["README.md", "docs/deploy.md", "docs/migrate.md", "docs/requests.md", ".runpod/README.md"]
)
def test_the_pages_that_show_requests_are_read(name: str) -> None:
    assert [*list_jobs(Document(ROOT / name))]


@pytest.mark.parametrize(
    "job",
    [{"promt": "a star"}, {"prompt": "a star", "width": 5}, {"prompt": "a star", "loras": ["other"]}, {"workflow": {}}],
)
def test_a_request_that_nobody_takes_is_noticed(job: dict[str, Any]) -> None:
    assert len(find_refusals({"input": job})) == len(MODELS)


def test_what_is_no_json_is_noticed() -> None:
    with pytest.raises(json.JSONDecodeError):
        list(read_values('{"a": 1}\n{"b": 2,}'))
