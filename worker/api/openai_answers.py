"""What a job in OpenAI's words is answered: pictures, models and errors in OpenAI's shapes."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import unquote

from worker.api.endpoint import Endpoint
from worker.api.openai import MODELS, read_route
from worker.api.response import Answer
from worker.api.translate import is_model_name
from worker.api.validation_errors import summarize
from worker.errors import InvalidInputError, ResultTooLargeError, UnusablePictureError, WorkerError
from worker.output.options import OutputOptions

_CALLERS = (
    InvalidInputError,
    UnusablePictureError,
    ResultTooLargeError,
)  # failures that another request would not have
# What OpenAI calls a request for what is not there, by the field that names it.
_NOT_FOUND = {"openai_route": "unknown_url", "model": "model_not_found"}


@dataclass(frozen=True)
class OpenAIError:
    """OpenAI's object of an error.

    Attributes:
        message: for people.
        type: `invalid_request_error` for what the caller can mend, else `server_error`.
        param: the first field that is wrong, if it is about one.
        code: OpenAI's where it has one, else the worker's own.
    """

    message: str
    type: str
    param: str | None
    code: str


def list_models(job: Mapping[str, Any], endpoint: Endpoint) -> dict[str, Any] | None:
    """The answer to a job that asks for the endpoint's models, or one of them; None for any other.

    Raises:
        InvalidInputError: there is no such model, or no such route.
    """
    route = read_route(job)
    if route != MODELS and not route.startswith(f"{MODELS}/"):
        return None
    capabilities = endpoint.model
    model = {"id": capabilities.name, "object": "model", "created": 0, "owned_by": capabilities.family.name}
    if route == MODELS:
        return {"object": "list", "data": [model]}
    name = unquote(route.removeprefix(f"{MODELS}/"))
    if not is_model_name(name, capabilities.name):
        raise InvalidInputError([f"model: got {summarize(name)}; this endpoint draws with {capabilities.name}"])
    return model


def write_openai_answer(answer: Answer, output: OutputOptions) -> dict[str, Any]:
    """The handler's return value for these pictures; beside OpenAI's keys some of our own, which its clients keep."""
    as_url = output.delivery != "base64"
    return {
        "created": int(time.time()),
        "data": [_write_picture(one, as_url) for one in answer.images],
        "background": "opaque",
        "output_format": _find_format(answer.images[0]) or output.format,
        "size": f"{answer.width}x{answer.height}",
        "model": answer.model,
        "seeds": answer.seeds,
        "nsfw": answer.nsfw,
        "timings": asdict(answer.timings),
        **({} if answer.cost is None else {"cost": answer.cost}),
        "warnings": answer.warnings,
    }


def count_openai_bytes(answer: Answer, output: OutputOptions) -> int:
    """Size of the body that the SDK posts, as `count_bytes` counts that of an answer of our own."""
    heads = ["".join(one.partition(",")[:2]) if one.startswith("data:") else one for one in answer.images]
    body = json.dumps({"output": write_openai_answer(replace(answer, images=heads), output)}, ensure_ascii=False)
    return len(body.encode()) + sum(map(len, answer.images)) - sum(map(len, heads))


def _write_picture(image: str, as_url: bool) -> dict[str, str]:
    if as_url or not image.startswith("data:"):
        return {"url": image}
    return {"b64_json": image.partition(",")[2]}


def _find_format(image: str) -> str:
    """The format of a picture in a data URI, which may be another than asked for to save bytes."""
    return image.partition(";")[0].removeprefix("data:image/") if image.startswith("data:") else ""


def write_openai_failure(failure: WorkerError) -> dict[str, Any]:
    """The handler's return value for this failure.

    The SDK takes `error` out of it, which must be a text: it is the body that OpenAI would answer. The same stands
    beside it, so that it is in the job's output, too.
    """
    told = asdict(_describe(failure))
    written = {"error": json.dumps({"error": told}), **told}
    return {**written, "refresh_worker": True} if failure.refresh_worker else written


def _describe(failure: WorkerError) -> OpenAIError:
    if not isinstance(failure, _CALLERS):
        return OpenAIError(str(failure), "server_error", None, failure.code)
    problems = failure.problems if isinstance(failure, InvalidInputError) else ()
    field = problems[0].partition(":")[0].partition(".")[0] if problems else None
    code = _NOT_FOUND.get(field or "", failure.code)
    return OpenAIError(str(failure), "invalid_request_error", None if field == "openai_route" else field, code)
