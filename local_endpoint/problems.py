"""Refusals in the form that RunPod's have: `{"status": 404, "title": "Not Found", "detail": "job not found"}`.

Its documents publish no form; this is what users of api.runpod.ai report.
"""

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from local_endpoint.wire import JSONAnswer


def write_problem(status: int, detail: str) -> JSONAnswer:
    """The answer that refuses a request."""
    return JSONAnswer({"status": status, "title": HTTPStatus(status).phrase, "detail": detail}, status)


def answer_with_problems(app: FastAPI) -> None:
    """Every refusal of the application has this form; a request that is not as it must be is a Bad Request."""
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_invalid)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = write_problem(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


async def _refuse_invalid(request: Request, error: Exception) -> Response:
    """What is wrong and where, without what came, which may be anything."""
    assert isinstance(error, RequestValidationError)
    problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
    return write_problem(400, "bad request: " + "; ".join(problems))
