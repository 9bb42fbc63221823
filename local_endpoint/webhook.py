"""Tells a caller's webhook how a job ended: three tries, as the platform does."""

import asyncio
import logging

import httpx

from local_endpoint.caller_api import answer
from local_endpoint.config import EndpointConfig
from local_endpoint.events import EventLog
from local_endpoint.jobs import Job

TRIES = 3
log = logging.getLogger(__name__)


async def deliver(job: Job, config: EndpointConfig, events: EventLog) -> None:
    """Posts the job's answer to its webhook until it answers 200."""
    assert job.webhook is not None
    body = answer(job).model_dump(mode="json", exclude_none=True)
    async with httpx.AsyncClient(timeout=30) as client:
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(config.webhook_retry_s)
            try:
                status = (await client.post(job.webhook, json=body)).status_code
            except httpx.HTTPError as error:
                log.warning("webhook of job %s: %s", job.id, type(error).__name__)
                status = 0
            events.record("webhook", job.id, status=status)
            if status == 200:
                return
