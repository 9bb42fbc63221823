"""Encoded pictures -> where the caller finds them: in the answer, in a bucket, or in a folder for the local test.

All pictures are delivered, or none: what was stored before a failure is removed again.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pybase64

from worker.errors import DeliveryError, ResultTooLargeError
from worker.output.bucket import upload
from worker.output.encode import File
from worker.output.options import OutputOptions
from worker.text import Own

log = logging.getLogger("worker")

OUTPUTS = Path("outputs")


@dataclass(frozen=True)
class Delivery:
    """Where a job's pictures go.

    Attributes:
        job_id: names files and objects.
        local: True for the local test, which writes files and answers with their paths.
        max_result_bytes: of the answer as JSON.
        check: called between files; what it raises ends the delivery.
        reencode: makes the pictures again in a smaller format; None when the caller has chosen one.
    """

    job_id: str
    local: bool
    output: OutputOptions
    max_result_bytes: int
    reencode: Callable[[], Sequence[File]] | None
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class DeliveredPictures:
    """Where a job's pictures are.

    Attributes:
        images: data URIs, URLs or paths, one for each picture, in order.
        file_bytes: of all files together, as they are there.
        with_image_url: False where the answer has no room to say once more where the first picture is.
        warnings: what the caller may not have expected.
    """

    images: tuple[str, ...]
    file_bytes: int = 0
    with_image_url: bool = True
    warnings: tuple[str, ...] = ()


def deliver(files: Sequence[File], to: Delivery, count_bytes: Callable[[DeliveredPictures], int]) -> DeliveredPictures:
    """Bring the pictures to where the caller finds them.

    Args:
        files: one for each picture, in order.
        count_bytes: the size of the answer, as JSON, that says where they are.

    Raises:
        ResultTooLargeError: the pictures do not fit into the answer and may not go elsewhere.
        DeliveryError: the bucket or the folder did not take them.
    """
    if to.local:
        return DeliveredPictures(_write(files), _size(files))
    bucket, wanted = to.output.bucket, to.output.delivery
    warnings: tuple[str, ...] = ()
    if bucket is not None and wanted != "base64":
        try:
            return DeliveredPictures(tuple(upload(files, bucket, to.job_id, to.check)), _size(files))
        except DeliveryError as error:
            if wanted == "s3":
                raise
            whose = "the job's bucket did not take the pictures" if bucket.from_job else error
            log.warning("%s; answering with base64 instead", Own(whose))
            warnings = (f"{error}; the pictures are in the answer instead",)
    if inline := _inline(files, warnings, to.max_result_bytes, count_bytes):
        return inline
    if bucket is not None and wanted == "base64":
        urls = tuple(upload(files, bucket, to.job_id, to.check))
        moved = "delivery: base64 would pass the answer's size limit; the pictures are in the bucket"
        return DeliveredPictures(urls, _size(files), warnings=(moved,))
    if to.reencode is not None:
        smaller = to.reencode()
        warnings += (f"sent as {smaller[0].extension}: {files[0].extension} would pass the size limit",)
        if inline := _inline(smaller, warnings, to.max_result_bytes, count_bytes):
            return inline
    raise ResultTooLargeError(
        f"the pictures are {_size(files)} bytes as {files[0].extension}; the answer may be "
        f"{to.max_result_bytes} bytes of JSON; ask for fewer or smaller pictures, for output_format jpeg or webp, or "
        "set a bucket (BUCKET_* or s3Config)"
    )


def _inline(
    files: Sequence[File], warnings: tuple[str, ...], limit: int, count_bytes: Callable[[DeliveredPictures], int]
) -> DeliveredPictures | None:
    """The pictures as data URIs, at need without the repeated first one; None when they do not fit."""
    whole = DeliveredPictures(tuple(_make_data_uri(file) for file in files), _size(files), warnings=warnings)
    left_out = "image_url is left out: with it the answer would pass its size limit"
    shorter = replace(whole, with_image_url=False, warnings=(*warnings, left_out))
    return next((one for one in (whole, shorter) if count_bytes(one) <= limit), None)


def _size(files: Sequence[File]) -> int:
    return sum(len(file.data) for file in files)


def _make_data_uri(file: File) -> str:
    return f"data:{file.mime_type};base64,{pybase64.b64encode_as_string(file.data)}"


def _write(files: Sequence[File]) -> tuple[str, ...]:
    stem = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    paths = [OUTPUTS / f"{stem}-{index}.{file.extension}" for index, file in enumerate(files)]
    try:
        OUTPUTS.mkdir(exist_ok=True)
        for path, file in zip(paths, files, strict=True):
            path.write_bytes(file.data)
    except OSError as error:
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink()
        raise DeliveryError(f"the folder {OUTPUTS} cannot be written: {error.strerror}") from error
    return tuple(str(path) for path in paths)
