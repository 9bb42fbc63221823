"""Pictures -> objects in an S3-compatible bucket, as presigned URLs. All are stored, or none.

The owner's bucket is asked by boto3. A bucket that a job names is trusted as little as any host that a job names: boto3
only signs, and what it has signed is sent by `worker.http`, where the address is judged when it is dialled, redirects
are not followed, and time and the size of an answer are bounded.
"""

import io
import random
import re
import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from worker import http
from worker.clock import CLOCK
from worker.errors import DeliveryError, WorkerError
from worker.output.encode import File
from worker.output.options import Bucket
from worker.waiting import LeavableCalls, TooManyLeftError

if TYPE_CHECKING:
    from yarl import URL

URL_LIFETIME_S = 7 * 24 * 3600  # the longest that S3's signatures allow
REQUEST_LIFETIME_S = 900  # of a signed request; as far as clocks may be apart for S3
CONNECT_TIMEOUT_S, READ_TIMEOUT_S, TRIES = 5, 30, 3  # of each request
REQUEST_TIMEOUT_S = 60  # for all of one request to a job's bucket
UPLOAD_TIMEOUT_S, REMOVAL_TIMEOUT_S = 180, 10  # for all files together; removal may hold up the process's end
MAX_RETRY_PAUSE_S = 1.0  # before the second try; doubled before each further one
MAX_ANSWER_BYTES = 65_536  # from a job's bucket
MAX_LEFT_REQUESTS = 8  # to the owner's bucket, that it has not answered in their time; with so many it is asked nothing

_REQUESTS = LeavableCalls("bucket", MAX_LEFT_REQUESTS)
_METHODS = {"put_object": "PUT", "delete_object": "DELETE"}
_PASSING = ("RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestThrottled")
_CODE = re.compile(rb"<Code>([^<]+)</Code>")
_REGION = re.compile(rb"<Region>([^<]+)</Region>")
_REGION_NAME = re.compile(r"[a-z][a-z0-9-]{0,60}[a-z0-9]")


def upload(files: Sequence[File], bucket: Bucket, job_id: str, check: Callable[[], None] = lambda: None) -> list[str]:
    """Store the files under the job's id.

    Args:
        check: called before each request, while it is sent and in pauses; what it raises ends the upload.

    Returns:
        one presigned URL for each file, valid for seven days.

    Raises:
        DeliveryError: one could not be stored; those that were are removed again.
    """
    client = _connect(bucket, UPLOAD_TIMEOUT_S, check)
    folder = re.sub(r"[^A-Za-z0-9_-]", "_", job_id)[:128]
    folder = "/".join(filter(None, (bucket.address.folder, folder)))
    keys = [f"{folder}/{index}.{file.extension}" for index, file in enumerate(files)]
    stored: list[str] = []
    urls: list[str] = []
    try:
        for key, file in zip(keys, files, strict=True):
            check()
            stored.append(key)
            client.put(key, file)
            # At once, because the bucket has just taken what this machine's clock says.
            urls.append(client.presign("get_object", URL_LIFETIME_S, Key=key))
        return urls
    except WorkerError:
        _remove(bucket, stored)
        raise
    except Exception as error:  # a server's answer can make botocore fail in ways of Python's own
        _remove(bucket, stored)
        raise DeliveryError(f"the bucket {bucket.name} did not take the pictures: {_reason(error)}") from None


def _remove(bucket: Bucket, keys: Sequence[str]) -> None:
    """Best effort: the failure that led here may stop this too."""
    from botocore.exceptions import BotoCoreError

    client = _connect(bucket, REMOVAL_TIMEOUT_S, check=lambda: None)  # what is no longer wanted is removed all the more
    for key in keys:
        try:
            client.delete(key)
        except (BotoCoreError, DeliveryError):
            return  # the bucket is out of reach, and each further key would wait for it as long
        except Exception:
            continue  # not this one


def _connect(bucket: Bucket, timeout_s: float, check: Callable[[], None]) -> "_Client":
    trusted = bucket.anywhere and not bucket.from_job
    return (_Client if trusted else _GuardedClient)(bucket, timeout_s, check)


class _Client:
    """Requests to the owner's bucket, none of which is waited for after a deadline, or once `check` raises.

    boto3 has a limit for each read of an answer, and none for all of them; what it is in then is left to itself.
    """

    def __init__(self, bucket: Bucket, timeout_s: float, check: Callable[[], None]) -> None:
        self._bucket, self._check = bucket, check
        try:
            self._sign_for(bucket.address.region)
        except ValueError:
            raise DeliveryError(f"the bucket {bucket.name} has an endpoint URL that cannot be used") from None
        self._deadline = CLOCK.running_time() + timeout_s

    def put(self, key: str, file: File) -> None:
        """Store the file."""
        self._request("put_object", Key=key, Body=file.data, ContentType=file.mime_type)

    def delete(self, key: str) -> None:
        """Remove the file, if it was stored."""
        self._request("delete_object", Key=key)

    def presign(self, operation: str, lifetime_s: int, **parameters: Any) -> str:
        """A URL that does this for whoever has it."""
        named = {"Bucket": self._bucket.name, **parameters}
        return str(self._s3.generate_presigned_url(operation, Params=named, ExpiresIn=lifetime_s))

    def _request(self, operation: str, **parameters: Any) -> None:
        """Send a request until it succeeds, cannot succeed, or has been tried often enough."""
        for number in range(1, TRIES + 1):
            self._check()
            try:
                return self._send(operation, **parameters)
            except Exception as error:
                self._check()  # boto3 hides what it has raised
                if number == TRIES or not _may_pass(error):
                    raise
            self._pause(random.uniform(0, MAX_RETRY_PAUSE_S * 2 ** (number - 1)))

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, http.CHECK_S))
            self._check()

    def _send(self, operation: str, **parameters: Any) -> None:
        self._seconds_left()
        if "Body" in parameters:
            parameters["Body"] = _CheckedBody(parameters["Body"], self._check_time)
        send = partial(getattr(self._s3, operation), Bucket=self._bucket.name, **parameters)
        try:
            _REQUESTS.call(send, self._check_time)
        except TooManyLeftError as error:
            raise DeliveryError(f"the bucket {self._bucket.name} does not answer; {error}") from None
        if self._signed_for not in (None, self._region):  # boto3 has followed the server, but would not for URLs
            self._sign_for(self._signed_for)

    def _check_time(self) -> None:
        self._check()
        self._seconds_left()

    def _sign_for(self, region: str) -> None:
        """Sign for this region from now on."""
        self._region, self._signed_for = region, region
        self._s3 = _open_s3(self._bucket, region)
        self._s3.meta.events.register_last("before-sign.s3", self._note_region)

    def _note_region(self, request: Any, **_: Any) -> None:
        self._signed_for = request.context.get("signing", {}).get("region")

    def _seconds_left(self) -> float:
        left = self._deadline - CLOCK.running_time()
        if left <= 0:
            raise DeliveryError(f"the bucket {self._bucket.name} did not take the pictures in time")
        return left


class _CheckedBody(io.BytesIO):
    """Bytes that can be read for as long as `check` raises nothing."""

    def __init__(self, data: bytes, check: Callable[[], None]) -> None:
        super().__init__(data)
        self._check = check

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        self._check()
        return super().read(size)


class _GuardedClient(_Client):
    """Requests to a job's bucket, which are sent from here and fail as boto3's own do."""

    def _send(self, operation: str, **parameters: Any) -> None:
        response = self._exchange(operation, **parameters)
        if (region := _named_region(response)) not in (None, self._region):
            self._sign_for(region)
            response = self._exchange(operation, **parameters)
        _check_status(response, operation)

    def _exchange(self, operation: str, *, Body: bytes | None = None, **parameters: Any) -> http.Response:
        """The answer to one request, whatever it says."""
        from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

        try:
            response = http.request(
                _METHODS[operation],
                self._check_url(self.presign(operation, REQUEST_LIFETIME_S, **parameters)),
                headers={"Content-Type": parameters["ContentType"]} if Body else {},
                body=Body,
                anywhere=self._bucket.anywhere,
                max_bytes=MAX_ANSWER_BYTES,
                timeout_s=min(self._seconds_left(), REQUEST_TIMEOUT_S),
                check=self._check,
            )
            if not response.complete:
                raise ConnectionError("the answer is too long")
            return response
        except TimeoutError:
            raise ReadTimeoutError(endpoint_url=self._bucket.address.endpoint_url) from None
        except (ssl.SSLError, ConnectionRefusedError):
            raise EndpointConnectionError(endpoint_url=self._bucket.address.endpoint_url) from None
        except OSError:
            raise ConnectionClosedError(endpoint_url=self._bucket.address.endpoint_url) from None

    def _check_url(self, signed: str) -> "URL":
        """The URL, if it is at the endpoint's own host: some names of buckets choose another."""
        from yarl import URL

        url = URL(signed, encoded=True)
        if _origin(url) != _origin(URL(self._bucket.address.origin, encoded=True)):
            raise DeliveryError(f"the bucket {self._bucket.name} is not at the host of s3Config.endpointUrl")
        return url


def _origin(url: "URL") -> tuple[str, str, int | None]:
    return url.scheme, (url.raw_host or "").lower(), url.port


def _open_s3(bucket: Bucket, region: str) -> Any:
    # Imported here because most workers never need it, and it would add to every start.
    import boto3
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",
        retries={"mode": "standard", "total_max_attempts": 1},  # what may pass is tried again here
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        s3={"addressing_style": "virtual" if bucket.address.in_host else "auto"},
        # Newer boto3 sends checksums by default, which R2 and Google Cloud Storage refuse.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.client(
        "s3",
        endpoint_url=bucket.address.endpoint_url,
        aws_access_key_id=bucket.access_key_id.get_secret_value(),
        aws_secret_access_key=bucket.secret_access_key.get_secret_value(),
        region_name=region,
        config=config,
    )


def _named_region(response: http.Response) -> str | None:
    """The region that a server wants a refused request to be signed for, as Amazon's do."""
    if response.status not in (301, 302, 307, 400):
        return None
    found = _REGION.search(response.body)
    name = response.headers.get("x-amz-bucket-region") or (found[1].decode("ascii", "ignore") if found else "")
    return name if _REGION_NAME.fullmatch(name) else None


def _check_status(response: http.Response, operation: str) -> None:
    from botocore.exceptions import ClientError

    if response.status >= 300:
        found = _CODE.search(response.body)
        code = found[1].decode("ascii", "ignore") if found else str(response.status)
        answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": response.status}}
        raise ClientError(answer, operation)


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status in (429, 500, 502, 503, 504) or _code(error) in _PASSING
    return isinstance(error, (ConnectionError, HTTPClientError))


def _code(error: Exception) -> str:
    """What a server calls its reason, in letters and digits; empty if none has answered."""
    response = getattr(error, "response", None) or {}  # None: botocore, when the connection broke
    code = response.get("Error", {}).get("Code")
    return re.sub("[^A-Za-z0-9]", "", code)[:60] if isinstance(code, str) else ""


def _reason(error: Exception) -> str:
    """The kind of failure, in a word; the full text can hold URLs and keys, and a code whatever the server likes."""
    return _code(error) or type(error).__name__
