"""The OpenAPI of the caller's side, with this repository's own worker behind it: its inputs and its answers are typed.

The endpoint itself passes on any JSON, of any worker; the types say what the worker takes and sends.
"""

import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

REQUEST_SCHEMA = Path(__file__).parents[1] / "docs" / "request.schema.json"
REFERENCE = "#/components/schemas/"


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    problem: str


class Failure(BaseModel):
    """The output of a job that failed; beside it, `error` is the code and the message."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(examples=["INVALID_INPUT"])
    message: str
    fields: list[FieldProblem] | None = Field(default=None, description="of a wrong request, each problem")


class Progress(BaseModel):
    """The output of a job that is being drawn."""

    model_config = ConfigDict(extra="forbid")

    step: int
    total: int
    percent: float
    seconds_left: float
    preview: str | None = Field(default=None, description="a small picture, as a data URI")


class DescribedApp(FastAPI):
    """An application whose OpenAPI is the one of an endpoint; the id in its paths is the endpoint's own."""

    endpoint_id: str = ""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if not self.openapi_schema:
            document = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            _describe_refusals(document)
            _name_endpoint(document, self.endpoint_id)
            _describe_worker(document["components"]["schemas"])
            self.openapi_schema = document
        return self.openapi_schema


def _describe_refusals(document: dict[str, Any]) -> None:
    """A request that is not as it must be is answered 400, not FastAPI's 422."""
    for operation in _list_operations(document):
        operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _name_endpoint(document: dict[str, Any], endpoint_id: str) -> None:
    for operation in _list_operations(document):
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "endpoint":
                parameter["schema"] = {"type": "string", "enum": [endpoint_id], "default": endpoint_id}


def _list_operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def _describe_worker(schemas: dict[str, Any]) -> None:
    """Types the input and the output of jobs."""
    # Here, because the document is wanted seldom, and the worker's parts take a second to import.
    from worker.api.response import Answer

    outputs = {"Pictures": Answer, "Failure": Failure, "Progress": Progress}
    _add(schemas, "Input", json.loads(REQUEST_SCHEMA.read_text()))
    for name, kind in outputs.items():
        _add(schemas, name, _leave_out_none(TypeAdapter(kind).json_schema()))
    schemas["JobRequest"]["properties"]["input"] = {"$ref": REFERENCE + "Input"}
    schemas["JobRequest"]["examples"] = [{"input": {"prompt": "a red circle on a white background"}}]
    schemas["JobAnswer"]["properties"]["output"] = {
        "description": "pictures, why there are none, or how far they are; whatever another worker sends",
        "anyOf": [*({"$ref": REFERENCE + name} for name in outputs), {}],
    }


def _leave_out_none(schema: dict[str, Any]) -> dict[str, Any]:
    """What is None has no key in an answer."""
    for name, field in schema["properties"].items():
        if {"type": "null"} in field.get("anyOf", ()):
            field["anyOf"].remove({"type": "null"})
            schema["required"] = [one for one in schema["required"] if one != name]
    return schema


def _add(schemas: dict[str, Any], name: str, schema: dict[str, Any]) -> None:
    """Puts a schema of its own among others, with the definitions that it brings."""
    moved = json.loads(json.dumps(schema).replace("#/$defs/", REFERENCE))
    brought = {**moved.pop("$defs", {}), name: moved}
    if both := schemas.keys() & brought.keys():
        raise ValueError(f"two schemas of one name: {', '.join(sorted(both))}")
    schemas.update(brought)
