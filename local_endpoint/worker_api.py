"""The worker's side: the requests that the RunPod SDK makes, answered as the SDK understands them.

Read in runpod-python 1.12. The SDK posts JSON labelled as a form, and sends progress and results to one address.
The worker's key is its own; no caller has it, and the worker has no caller's.
"""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.requests import ClientDisconnect

from local_endpoint.doors import shows_workers_key
from local_endpoint.hold import hold
from local_endpoint.jobs import Job
from local_endpoint.queue import JobQueue
from local_endpoint.wire import TooLongError, read_body, read_json


def _queue(endpoint: str, worker_id: str, request: Request) -> JobQueue:
    """The endpoint's queue, for a worker that shows its key; its request is a sign of life."""
    queue: JobQueue = request.app.state.queue
    if not shows_workers_key(request, queue.config):
        raise HTTPException(401, "wrong or missing key; a worker sends its RUNPOD_AI_API_KEY in 'Authorization'")
    if endpoint != queue.config.endpoint_id:
        raise HTTPException(404, f"no endpoint {endpoint!r}")
    queue.seen(worker_id)
    return queue


Queue = Annotated[JobQueue, Depends(_queue)]
router = APIRouter(prefix="/v2/{endpoint}", include_in_schema=False)


@router.get("/job-take/{worker_id}")
async def job_take(worker_id: str, queue: Queue, request: Request, job_in_progress: str = "") -> Response:
    """One job, or 204 when none came while the request was held."""
    queue.events.record("poll", worker_id=worker_id, job_in_progress=job_in_progress, batch_size=1)
    jobs = await _hand_out(worker_id, queue, request, 1)
    return _json(jobs[0].payload) if jobs else Response(status_code=204)


@router.get("/job-take-batch/{worker_id}")
async def job_take_batch(
    worker_id: str, queue: Queue, request: Request, batch_size: int, job_in_progress: str = ""
) -> Response:
    """Up to `batch_size` jobs as a list, or 204."""
    queue.events.record("poll", worker_id=worker_id, job_in_progress=job_in_progress, batch_size=batch_size)
    jobs = await _hand_out(worker_id, queue, request, batch_size)
    return _json(b"[" + b",".join(job.payload for job in jobs) + b"]") if jobs else Response(status_code=204)


@router.get("/job-stop/{worker_id}")
async def job_stop(worker_id: str, queue: Queue, request: Request) -> Response:
    """The jobs that this worker must stop, or 204 when none came while the request was held."""
    worker = queue.seen(worker_id)
    told = await hold(
        request, queue.config.hold_s, lambda: queue.pending_stops(worker_id), queue.events, worker.stops.extend
    )
    return _json(json.dumps({"jobsToStop": told}).encode()) if told else Response(status_code=204)


@router.get("/ping/{worker_id}")
async def ping(
    worker_id: str,
    queue: Queue,
    job_id: str = "",
    runpod_version: str = "",
    status: str = "",
    check: str = "",
    reason: str = "",
) -> dict[str, str]:
    """A heartbeat with the jobs in progress, or the report of a failed fitness check."""
    if status == "unhealthy":
        queue.seen(worker_id).unhealthy = True
        queue.events.record("unhealthy", worker_id=worker_id, check=check, reason=reason)
    else:
        jobs = job_id.split(",") if job_id else []
        queue.events.record("ping", worker_id=worker_id, jobs=jobs, runpod_version=runpod_version)
    return {}


@router.post("/job-done/{worker_id}/{job_id:rest}")
async def job_done(worker_id: str, job_id: str, queue: Queue, request: Request) -> Response:
    """A progress update or the result; 400 when it is too large or not JSON, and then it is lost."""
    body, size = await _posted(worker_id, job_id, queue, request)
    if body.get("status") == "IN_PROGRESS":
        queue.progress(worker_id, job_id, body.get("output"), size)
    else:
        queue.result(worker_id, job_id, body, size)
    return Response(status_code=200)


@router.post("/job-stream/{worker_id}/{job_id:rest}")
async def job_stream(worker_id: str, job_id: str, queue: Queue, request: Request) -> Response:
    """One chunk of a generator's output."""
    body, size = await _posted(worker_id, job_id, queue, request)
    if not queue.chunk(worker_id, job_id, body.get("output"), size):
        reason = f"no caller has read the stream, and with {size} bytes more it would pass the limit"
        queue.events.record("refused", job_id, worker_id, reason=reason, bytes=size)
        raise HTTPException(400, reason)
    return Response(status_code=200)


async def _hand_out(worker_id: str, queue: JobQueue, request: Request, count: int) -> list[Job] | None:
    return await hold(
        request,
        queue.config.hold_s,
        lambda: queue.take(worker_id, count),
        queue.events,
        lambda jobs: queue.give_back(jobs, "the worker hung up"),
    )


async def _posted(worker_id: str, job_id: str, queue: JobQueue, request: Request) -> tuple[dict[str, Any], int]:
    """The JSON object in a post and its size. Raises HTTPException 400, recorded as refused."""

    def refuse(reason: str, size: int) -> HTTPException:
        queue.events.record("refused", job_id, worker_id, reason=reason, bytes=size)
        return HTTPException(400, reason)

    try:
        raw = await read_body(request, queue.result_limit(queue.jobs.get(job_id)))
        body = read_json(raw)
    except ClientDisconnect:  # the SDK stops a job by cancelling it, at times in the middle of its post
        raise refuse("the worker hung up", 0) from None
    except TooLongError as error:
        raise refuse(str(error), error.size) from None
    except ValueError as error:
        raise refuse(f"not JSON: {error}", len(raw)) from None
    if not isinstance(body, dict):
        raise refuse("not a JSON object", len(raw))
    return body, len(raw)


def _json(payload: bytes) -> Response:
    return Response(payload, media_type="application/json")
