"""`/openai/...`: OpenAI's clients call it as they call OpenAI; RunPod's proxy makes a job of it, and waits for its end.

The job is worker-vllm's: `{"openai_route": ..., "openai_input": {...}}`. RunPod does not publish what its proxy answers
for a failed job, nor whether it takes forms with files in them. Here the status is what OpenAI's would be, and files
become data URIs, so that `images.edit` of the official client works.
"""

import base64
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile

from local_endpoint.caller_api import CallersRoute, Queue
from local_endpoint.hold import hold
from local_endpoint.jobs import Job, State
from local_endpoint.wire import JSONAnswer

MAX_FILES = 50
MAX_FORM_FIELDS = 200
_NOT_FOUND = ("unknown_url", "model_not_found")
_STATUS = {"invalid_request_error": 400, "server_error": 500}

router = APIRouter(prefix="/v2/{endpoint}/openai", route_class=CallersRoute, include_in_schema=False)


@router.get("/{route:path}")
async def get(route: str, queue: Queue, request: Request) -> Response:
    """A job without an input, such as the list of models."""
    return await _ask({"openai_route": f"/{route}"}, queue, request)


@router.post("/{route:path}")
async def post(route: str, queue: Queue, request: Request) -> Response:
    """A job whose input is the body."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await (_read_form(request) if content_type == "multipart/form-data" else request.json())
    return await _ask({"openai_route": f"/{route}", "openai_input": body}, queue, request)


async def _ask(given: dict[str, Any], queue: Queue, request: Request) -> Response:
    """Queue a job and answer with its output, once there is one."""
    config = queue.config
    job = Job(given, sync=True, execution_timeout_ms=config.execution_timeout_ms, ttl_ms=config.ttl_ms)
    queue.submit(job)
    await hold(request, job.ttl_ms / 1000, lambda: job.final, queue.events)
    if job.state is State.COMPLETED:
        return JSONAnswer(job.output)
    error = _describe_error(job)
    status = 404 if error["code"] in _NOT_FOUND else _STATUS.get(str(error["type"]), 500)
    return JSONAnswer({"error": error}, status)


def _describe_error(job: Job) -> dict[str, Any]:
    """OpenAI's object of an error, as the worker's output holds it, or else of what has become of the job."""
    told = job.output if isinstance(job.output, dict) and "message" in job.output else {}
    usual = {"message": job.error or f"the job is {job.state}", "type": "server_error", "param": None, "code": None}
    return {name: told.get(name, value) for name, value in usual.items()}


async def _read_form(request: Request) -> dict[str, Any]:
    """A form's fields; files as data URIs, and what is named more than once, or `name[]`, as a list."""
    await request.body()  # within its bound; the form is read from what has come
    found: dict[str, Any] = {}
    async with request.form(max_files=MAX_FILES, max_fields=MAX_FORM_FIELDS) as form:
        for name, value in form.multi_items():
            read = await _write_data_uri(value) if isinstance(value, UploadFile) else value
            bare = name.removesuffix("[]")
            if bare in found or bare != name:
                before = found.get(bare, [])
                found[bare] = [*(before if isinstance(before, list) else [before]), read]
            else:
                found[bare] = read
    return found


async def _write_data_uri(file: UploadFile) -> str:
    kind = file.content_type or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(await file.read()).decode()}"
