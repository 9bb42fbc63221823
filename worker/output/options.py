"""The format, quality and destination of a job's pictures."""

import logging
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

from worker.errors import InvalidInputError, SettingsError
from worker.http import host_of, is_listed
from worker.output.address import AddressError, BucketAddress, read_address
from worker.settings import Settings

log = logging.getLogger("worker")


@dataclass(frozen=True)
class Bucket:
    """An S3-compatible bucket and who may write to it; the keys print as stars.

    Attributes:
        anywhere: whether it may be at an address that is not public, because the owner has named it.
        from_job: whether a job has named it, so that nothing it answers is trusted.
    """

    address: BucketAddress
    access_key_id: SecretStr
    secret_access_key: SecretStr
    anywhere: bool = True
    from_job: bool = False

    @property
    def name(self) -> str:
        """As messages call it."""
        return self.address.name

    @classmethod
    def of_endpoint(cls, settings: Settings) -> "Bucket | None":
        """The owner's, or None when the settings name none.

        Raises:
            SettingsError: they do not say where it is, or who may write to it.
        """
        if settings.bucket_gap:
            raise SettingsError(settings.bucket_gap)
        url, key_id, secret = (
            settings.bucket_endpoint_url,
            settings.bucket_access_key_id,
            settings.bucket_secret_access_key,
        )
        if not (url and key_id and secret):
            return None
        try:
            return cls(read_address(url, settings.bucket_name, settings.bucket_region), key_id, secret)
        except AddressError as error:
            setting = {"url": "BUCKET_ENDPOINT_URL", "name": "BUCKET_NAME"}[error.part]
            raise SettingsError(f"{setting}: {error}") from None


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
        """The owner's, and a line in the log on its bucket; one that the settings do not make clear is none."""
        try:
            bucket = Bucket.of_endpoint(settings)
        except SettingsError as error:
            log.warning("%s; pictures are sent in the answer instead of a bucket", error)
            bucket = None
        if bucket:
            where = "host" if bucket.address.in_host else "path"
            log.info("bucket %s: named in the %s, signed for region %s", bucket.name, where, bucket.address.region)
        return cls(bucket, settings.bucket_hosts)

    def admit_bucket(self, endpoint_url: str, name: str | None, access_key_id: str, secret_access_key: str) -> Bucket:
        """The bucket that a job names.

        Raises:
            InvalidInputError: where that is cannot be told; or the owner has listed hosts, and it is at none of them.
        """
        try:
            address = read_address(endpoint_url, name)
        except AddressError as error:
            field = {"url": "endpointUrl", "name": "bucketName"}[error.part]
            raise InvalidInputError([f"s3Config.{field}: {error}"]) from None
        host = host_of(address.origin) or ""
        listed = any(is_listed(host, one) for one in self.bucket_hosts)
        if self.bucket_hosts and not listed:
            hosts = ", ".join(self.bucket_hosts)
            raise InvalidInputError([f"s3Config.endpointUrl: this endpoint sends pictures to {hosts} only"])
        keys = SecretStr(access_key_id), SecretStr(secret_access_key)
        return Bucket(address, *keys, anywhere=listed, from_job=True)


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
