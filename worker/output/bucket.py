"""Pictures -> objects in an S3-compatible bucket, as presigned URLs.

A bucket that a job names is trusted as little as any host that a job names: botocore signs its requests, but they are
sent from here, where the address is judged when it is dialled, and time and the size of an answer are bounded.
"""

import asyncio
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from worker.errors import DeliveryError
from worker.http import open_session
from worker.output.encode import File
from worker.output.options import Bucket

URL_LIFETIME_S = 7 * 24 * 3600  # the longest that S3's signatures allow
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, TRIES = 5, 30, 3  # of each request
REQUEST_TIMEOUT_S = 60  # for all of one request to a job's bucket
UPLOAD_TIMEOUT_S, REMOVAL_TIMEOUT_S = 180, 30  # for all files together
MAX_ANSWER_BYTES = 65_536  # from a job's bucket


def upload(files: Sequence[File], bucket: Bucket, job_id: str) -> list[str]:
    """Store the files under the job's id.

    Returns:
        one presigned URL for each file, valid for seven days.

    Raises:
        DeliveryError: one could not be stored; those that were are removed again.
    """
    client = _client(bucket, UPLOAD_TIMEOUT_S)
    folder = re.sub(r"[^A-Za-z0-9_-]", "_", job_id)[:128]
    keys = [f"{folder}/{index}.{file.extension}" for index, file in enumerate(files)]
    stored: list[str] = []
    try:
        for key, file in zip(keys, files, strict=True):
            stored.append(key)
            client.put_object(Bucket=bucket.name, Key=key, Body=file.data, ContentType=file.mime_type)
        return [
            client.generate_presigned_url(
                "get_object", Params={"Bucket": bucket.name, "Key": key}, ExpiresIn=URL_LIFETIME_S
            )
            for key in keys
        ]
    except DeliveryError:
        _remove(bucket, stored)
        raise
    except Exception as error:  # a server's answer can make botocore fail in ways of Python's own
        _remove(bucket, stored)
        raise DeliveryError(f"the bucket {bucket.name} did not take the pictures: {_reason(error)}") from None


def _client(bucket: Bucket, timeout_s: float) -> Any:
    """An S3 client whose requests together take about this long at most."""
    # Imported here because most workers never need it, and it would add to every start.
    import boto3
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",
        retries={"mode": "standard", "total_max_attempts": TRIES},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        # Newer boto3 sends checksums by default, which R2 and Google Cloud Storage refuse.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        client = boto3.client(
            "s3",
            endpoint_url=bucket.endpoint_url,
            aws_access_key_id=bucket.access_key_id.get_secret_value(),
            aws_secret_access_key=bucket.secret_access_key.get_secret_value(),
            region_name=_region(bucket.endpoint_url),
            config=config,
        )
    except ValueError as error:
        raise DeliveryError(f"the bucket {bucket.name} has an endpoint URL that cannot be used") from error
    deadline = time.monotonic() + timeout_s
    # What a handler of this event returns is taken for the answer; after None botocore sends the request itself.
    client.meta.events.register("before-send.s3", lambda request, **_: _send(request, bucket, deadline))
    return client


def _region(endpoint_url: str) -> str:
    """Amazon's own servers take signatures for their region only; others do not ask."""
    host = urlsplit(endpoint_url).hostname or ""
    amazon = re.search(r"(?:^|\.)s3(?:[.-](?:dualstack\.)?([a-z]+-[a-z-]+-\d))?\.amazonaws\.com(?:\.cn)?$", host)
    return amazon[1] or "us-east-1" if amazon else "auto"


def _send(request: Any, bucket: Bucket, deadline: float) -> Any:
    """The answer to a request to a job's bucket; None for the owner's.

    Raises:
        BotoCoreError: as botocore's own sending would; it tries again.
        DeliveryError: the time for all requests is over, or this one would go to another host.
    """
    import aiohttp
    from botocore.awsrequest import AWSResponse
    from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
    from urllib3 import HTTPResponse

    left = deadline - time.monotonic()
    if left <= 0:
        raise DeliveryError(f"the bucket {bucket.name} did not take the pictures in time")
    if bucket.anywhere and not bucket.from_job:
        return None
    if _origin(request.url) != _origin(bucket.endpoint_url):
        raise DeliveryError(f"the bucket {bucket.name} is not at the host of s3Config.endpointUrl")
    try:
        # The SDK calls the handler inside its event loop, where no second loop can run: hence the thread.
        with ThreadPoolExecutor(1) as thread:
            exchange = _exchange(request, bucket.anywhere, min(left, REQUEST_TIMEOUT_S))
            status, headers, body = thread.submit(asyncio.run, exchange).result()
    except TimeoutError:
        raise ReadTimeoutError(endpoint_url=bucket.endpoint_url) from None
    except aiohttp.ClientConnectorError:
        raise EndpointConnectionError(endpoint_url=bucket.endpoint_url) from None
    except (aiohttp.ClientError, OSError, ValueError):
        raise ConnectionClosedError(endpoint_url=bucket.endpoint_url) from None
    return AWSResponse(request.url, status, headers, HTTPResponse(BytesIO(body), preload_content=False))


async def _exchange(request: Any, anywhere: bool, timeout_s: float) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to this one request, without following redirects."""
    from yarl import URL

    # Without Expect, or else the request would wait for a server's leave, which not every server gives.
    headers = {name: _text(value) for name, value in request.headers.items() if name.lower() != "expect"}
    url = URL(request.url, encoded=True)  # as it was signed
    async with (
        asyncio.timeout(timeout_s),
        open_session(anywhere) as session,
        session.request(request.method, url, headers=headers, data=request.body, allow_redirects=False) as response,
    ):
        body = bytearray()
        async for chunk in response.content.iter_chunked(MAX_ANSWER_BYTES):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError("the answer is too long")
        return response.status, dict(response.headers), bytes(body)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _origin(url: str) -> tuple[str, str, int | None]:
    from yarl import URL

    read = URL(url, encoded=True)
    return read.scheme, (read.raw_host or "").lower(), read.port


def _remove(bucket: Bucket, keys: Sequence[str]) -> None:
    """Best effort: the failure that led here may stop this too."""
    from botocore.exceptions import BotoCoreError

    client = _client(bucket, REMOVAL_TIMEOUT_S)
    for key in keys:
        try:
            client.delete_object(Bucket=bucket.name, Key=key)
        except (BotoCoreError, DeliveryError):
            return  # the bucket is out of reach, and each further key would wait for it as long
        except Exception:
            continue  # not this one


def _reason(error: Exception) -> str:
    """The kind of failure, in a word; the full text can hold URLs and keys, and a code whatever the server likes."""
    response = getattr(error, "response", None) or {}  # None: botocore, when the connection broke
    code = response.get("Error", {}).get("Code")
    word = re.sub("[^A-Za-z0-9]", "", code)[:60] if isinstance(code, str) else ""
    return word or type(error).__name__
