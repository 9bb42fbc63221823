"""The answer to a job, waited for as long as the job has time; what cannot be interrupted is left behind."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

from worker.runtime.job import Job

Answer = dict[str, Any]
# The answer to a job that does not end though its time is over; None if it has ended, or has time.
Leave = Callable[[Job], Answer | None]


def wait_for_answer(answer: Future[Answer], job: Job, leave: Leave) -> Answer:
    """The answer, where no event loop runs."""
    while not wait([answer], job.seconds_to_leave()).done:
        if (failure := leave(job)) is not None:
            answer.cancel()
            return failure
    return answer.result()


async def await_answer(answer: Future[Answer], job: Job, leave: Leave) -> Answer:
    """The answer; cancelled, it takes the job with it. Nothing of the job is on its way to the platform any more."""
    heard = asyncio.wrap_future(answer)
    try:
        while not (await asyncio.wait({heard}, timeout=job.seconds_to_leave()))[0]:
            if (failure := leave(job)) is not None:
                heard.cancel()
                await asyncio.to_thread(job.progress.finish)
                return failure
        return heard.result()
    except asyncio.CancelledError:
        job.cancellation.cancel()
        heard.cancel()
        await asyncio.to_thread(job.progress.finish)
        raise
