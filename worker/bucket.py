"""Pictures -> objects in an S3-compatible bucket, as presigned URLs."""

import re
import socket
from collections.abc import Sequence
from typing import Any

from worker.download import host_of, is_public
from worker.errors import DeliveryFailed
from worker.output import File
from worker.settings import Bucket

URL_LIFETIME_S = 7 * 24 * 3600  # the longest that S3's signatures allow
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, TRIES = 5, 30, 3  # of each request


def upload(files: Sequence[File], bucket: Bucket, job_id: str) -> list[str]:
    """Store the files under the job's id.

    Returns:
        one presigned URL for each file, valid for seven days.

    Raises:
        DeliveryFailed: one could not be stored; those that were are removed again.
    """
    # Imported here because most workers never need it, and it would add to every start.
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    if not bucket.anywhere:
        _insist_on_public(bucket)
    client = _client(bucket)
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
    except (BotoCoreError, Boto3Error, ClientError, ValueError) as error:
        _remove(client, bucket, stored)
        raise DeliveryFailed(f"the bucket {bucket.name} did not take the pictures: {_reason(error)}") from None


def _insist_on_public(bucket: Bucket) -> None:
    """Refuse a job's bucket at an address that only the worker can reach."""
    host = host_of(bucket.endpoint_url) or ""
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        addresses = set()
    if not addresses or not all(map(is_public, addresses)):
        raise DeliveryFailed(f"the bucket {bucket.name} is at no public address (s3Config.endpointUrl)")


def _client(bucket: Bucket) -> Any:
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
        return boto3.client(
            "s3",
            endpoint_url=bucket.endpoint_url,
            aws_access_key_id=bucket.access_key_id.get_secret_value(),
            aws_secret_access_key=bucket.secret_access_key.get_secret_value(),
            region_name="auto",
            config=config,
        )
    except ValueError as error:
        raise DeliveryFailed(f"the bucket {bucket.name} has an endpoint URL that cannot be used") from error


def _remove(client: Any, bucket: Bucket, keys: Sequence[str]) -> None:
    """Best effort: the failure that led here may stop this too."""
    from botocore.exceptions import BotoCoreError, ClientError

    for key in keys:
        try:
            client.delete_object(Bucket=bucket.name, Key=key)
        except ClientError:
            continue  # not this one
        except BotoCoreError:
            return  # the bucket is out of reach, and each further key would wait for it as long


def _reason(error: Exception) -> str:
    """The kind of failure; the full text can hold URLs and keys."""
    response = getattr(error, "response", None) or {}  # None: botocore, when the connection broke
    return str(response.get("Error", {}).get("Code") or type(error).__name__)
