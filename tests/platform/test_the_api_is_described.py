"""The local endpoint's OpenAPI types what callers send and are answered, as this repository's worker takes and sends
it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def document(open_platform: Any) -> Iterator[dict[str, Any]]:
    with open_platform(endpoint_id="mine") as platform:
        yield httpx.get(f"{platform.base_url}/openapi.json", trust_env=False).json()


def accepts(document: dict[str, Any], name: str, value: Any) -> bool:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def test_the_input_is_the_workers(document: dict[str, Any]) -> None:
    request = json.loads((ROOT / "docs" / "request.schema.json").read_text())

    assert list(document["components"]["schemas"]["Input"]["properties"]) == list(request["properties"])
    assert accepts(document, "JobRequest", {"input": {"prompt": "a star", "loras": [{"name": "neon", "scale": 0.5}]}})
    assert not accepts(document, "JobRequest", {"input": {"prompt": "a star", "loras": [{"scale": 0.5}]}})
    assert not accepts(document, "JobRequest", {"input": {"promt": "a star"}})
    assert not accepts(document, "JobRequest", {"input": {"prompt": "a star"}, "policy": {"ttl": 9999}})
    assert not accepts(document, "JobRequest", {"prompt": "a star"})


def test_every_operation_types_its_answers_and_its_refusals(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert set(operation["responses"]) == {"200", "400", "401", "404", "429"}, path
            for answer in operation["responses"].values():
                assert "$ref" in answer["content"]["application/json"]["schema"], path


def test_all_that_is_referred_to_is_there(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    referred = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}

    assert referred == document["components"]["schemas"].keys()
    assert "#/$defs/" not in text


def test_the_endpoints_id_is_filled_in(document: dict[str, Any]) -> None:
    (parameter,) = document["paths"]["/v2/{endpoint}/run"]["post"]["parameters"]

    assert parameter["schema"] == {"type": "string", "enum": ["mine"], "default": "mine"}
