"""The format, quality and destination of a job's pictures."""

from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from worker.errors import InvalidInputError
from worker.http import host_of, is_listed
from worker.settings import Settings


@dataclass(frozen=True)
class Bucket:
    """An S3-compatible bucket and who may write to it; the keys print as stars.

    Attributes:
        anywhere: whether it may be at an address that is not public, because the owner has named it.
        from_job: whether a job has named it, so that nothing it answers is trusted.
    """

    endpoint_url: str
    name: str
    access_key_id: SecretStr
    secret_access_key: SecretStr
    anywhere: bool = True
    from_job: bool = False

    @classmethod
    def of_endpoint(cls, settings: Settings) -> "Bucket | None":
        """The owner's, or None when the settings name none."""
        url, name = settings.bucket_endpoint_url, settings.bucket_name
        key_id, secret = settings.bucket_access_key_id, settings.bucket_secret_access_key
        return cls(url, name, key_id, secret) if url and name and key_id and secret else None


@dataclass(frozen=True)
class OutputRules:
    """Where the endpoint's owner lets pictures go.

    Attributes:
        bucket: the endpoint's own, for jobs that bring none.
        bucket_hosts: where a job's own bucket may be; empty for any public host.
    """

    bucket: Bucket | None = None
    bucket_hosts: tuple[str, ...] = ()

    @classmethod
    def of_endpoint(cls, settings: Settings) -> "OutputRules":
        """The owner's."""
        return cls(Bucket.of_endpoint(settings), settings.bucket_hosts)

    def admit_bucket(self, endpoint_url: str, name: str, access_key_id: str, secret_access_key: str) -> Bucket:
        """The bucket that a job names.

        Raises:
            InvalidInputError: the owner has listed hosts, and its host is none of them.
        """
        host = host_of(endpoint_url) or ""
        listed = any(is_listed(host, one) for one in self.bucket_hosts)
        if self.bucket_hosts and not listed:
            hosts = ", ".join(self.bucket_hosts)
            raise InvalidInputError([f"s3Config.endpointUrl: this endpoint sends pictures to {hosts} only"])
        keys = SecretStr(access_key_id), SecretStr(secret_access_key)
        return Bucket(endpoint_url, name, *keys, anywhere=listed, from_job=True)


@dataclass(frozen=True)
class OutputOptions:
    """How a job's pictures are handed over; the engine never sees it.

    Attributes:
        format: of the files.
        format_fixed: True when the caller chose the format, so that it may not change to save bytes.
        quality: 1 to 100, of jpeg and webp.
        delivery: in the answer, in the bucket, or in the bucket if there is one.
        bucket: the job's own, from `s3Config`, or the endpoint's.
    """

    format: Literal["png", "jpeg", "webp"] = "png"
    format_fixed: bool = False
    quality: int = 90
    delivery: Literal["auto", "base64", "s3"] = "auto"
    bucket: Bucket | None = None
