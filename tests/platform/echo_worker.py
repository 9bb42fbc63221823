"""A worker with the real SDK and nothing else; its job's input says what it does, in this order."""

import asyncio
import os
import threading
import time
from typing import Any

import runpod


def handler(job: dict[str, Any]) -> Any:
    """Sends `progress` one by one, keeps busy for `sleep` seconds, then reveals the job,
    raises, fails, or returns NaN, so many `bytes` or the `output`."""
    order = job["input"]
    for step in order.get("progress", []):
        _send_progress(job, step)
    time.sleep(order.get("sleep", 0))
    if late := order.get("late_progress"):
        threading.Timer(order.get("late_s", 0.5), runpod.serverless.progress_update, (job, late)).start()
    if order.get("reveal"):
        return job
    if "raise" in order:
        raise RuntimeError(order["raise"])
    if "error" in order:
        return {"error": order["error"], "refresh_worker": True}
    if order.get("nan"):
        return float("nan")
    if "bytes" in order:
        return "x" * order["bytes"]
    return order.get("output")


async def async_handler(job: dict[str, Any]) -> Any:
    """Like `handler`, but a stop signal reaches it while it sleeps."""
    for step in job["input"].get("progress", []):
        _send_progress(job, step)
    await asyncio.sleep(job["input"].get("sleep", 0))
    return job["input"].get("output")


def stream_handler(job: dict[str, Any]) -> Any:
    """Yields the numbers below `count`."""
    yield from range(job["input"]["count"])


def _send_progress(job: dict[str, Any], step: Any) -> None:
    # The SDK starts a thread for each update and promises no order; one at a time keeps it.
    before = set(threading.enumerate())
    runpod.serverless.progress_update(job, step)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)


def unfit() -> None:
    """A fitness check that fails when the environment says so."""
    if reason := os.environ.get("ECHO_UNFIT"):
        raise RuntimeError(reason)


if __name__ == "__main__":
    runpod.serverless.register_fitness_check(unfit)
    kind = {"async": async_handler, "stream": stream_handler}.get(os.environ.get("ECHO_HANDLER", ""), handler)
    at_once = int(os.environ.get("ECHO_CONCURRENCY", "1"))
    runpod.serverless.start({"handler": kind, "concurrency_modifier": lambda current: at_once})
