"""What docs/api.md and docs/requests.md say of requests, answers and errors: what their own classes say."""

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import AliasChoices

from tools.markdown import code
from worker.api.elsewhere import ElsewhereFields
from worker.api.response import Answer, Timings
from worker.api.schema import Fields
from worker.api.values import ANYTHING, Neutral
from worker.errors import WorkerError

Rows = Iterator[tuple[str, ...]]


def request_schema() -> dict[str, Any]:
    """The JSON schema of a request, the fields of our own first."""
    schema = Fields.model_json_schema(by_alias=False)
    own_first = sorted(schema["properties"].items(), key=lambda item: item[0] in ElsewhereFields.model_fields)
    return {**schema, "properties": dict(own_first)}


def allowed(schema: dict[str, Any]) -> str:
    """What a field takes, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(filter(None, (allowed(choice) for choice in schema["anyOf"])))
    if "enum" in schema:
        return ", ".join(code(choice) for choice in schema["enum"])
    low, high = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    start = f"above {above}" if above is not None else "" if low is None else f"{low}"
    span = f"{start} to {high}" if high is not None else f"{low} or more" if low is not None else start
    kind = {"null": "", "array": "list"}.get(schema.get("type", "object"), schema.get("type", "object"))
    return f"{kind} {span}".strip()


def field_rows() -> Rows:
    """The request fields of our own."""
    yield "field", "also written", "takes", "default", "meaning"
    properties = request_schema()["properties"]
    for name, field in Fields.model_fields.items():
        if name in ElsewhereFields.model_fields:
            continue
        optional = "" if field.default is None else code(json.dumps(field.default, default=str))
        default = "required" if field.is_required() else optional
        others = ", ".join(_list_aliases(field.validation_alias))
        yield code(name), others, allowed(properties[name]), default, field.description or ""


def elsewhere_rows() -> Rows:
    """The request fields that other services have."""
    yield "field", "also written", "meaning", "asks for nothing"
    for name, field in ElsewhereFields.model_fields.items():
        rule = next((one for one in field.metadata if isinstance(one, Neutral)), None)
        values = [] if rule is None else [json.dumps(one) for one in rule.values if one is not ANYTHING]
        nothing = "whatever it holds" if rule and ANYTHING in rule.values else ", ".join(map(code, values))
        beside = f"; without {code(rule.beside)}" if rule and rule.beside else ""
        meaning = rule.instead if rule else field.description or ""
        yield code(name), ", ".join(_list_aliases(field.validation_alias)), meaning, nothing + beside


def _list_aliases(alias: object) -> list[str]:
    return [code(choice) for choice in alias.choices[1:]] if isinstance(alias, AliasChoices) else []


def answer_rows() -> Rows:
    """The keys of an answer."""
    yield "key", "meaning"
    for name in Answer.__dataclass_fields__:
        yield code(name), read_attributes(Answer)[name]


def timing_rows() -> Rows:
    """The keys of an answer's timings."""
    yield "key", "seconds"
    for name in Timings.__dataclass_fields__:
        yield code(name), read_attributes(Timings)[name]


def read_attributes(kind: type) -> dict[str, str]:
    """Name -> what the docstring of its class says of it, where several may share a line."""
    _, _, listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    told = re.sub(r"\n {5,}", " ", listed)
    lines = (line.strip().partition(": ") for line in told.splitlines() if line.strip())
    return {name: text.rstrip(".") for names, _, text in lines for name in names.split(", ")}


def error_rows() -> Rows:
    """The codes of failures, in the order of the family."""
    yield "code", "meaning"
    for error in list_errors():
        meaning = " ".join((inspect.getdoc(error) or "").partition("\n\n")[0].split()).rstrip(".")
        yield f"[{code(error.code)}](troubleshooting.md#{error.code.lower()})", meaning


def list_errors() -> list[type[WorkerError]]:
    """One class for each code."""
    first: dict[str, type[WorkerError]] = {}
    for kind in WorkerError.__subclasses__():
        first.setdefault(kind.code, kind)
    return list(first.values())
