"""Encoded pictures -> where the caller finds them: in the answer, in a bucket, or in a folder for the local test.

All pictures are delivered, or none: what was stored before a failure is removed again.
"""

import base64
import contextlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from worker.errors import DeliveryError, ResultTooLargeError
from worker.output.bucket import upload
from worker.output.encode import File
from worker.output.options import OutputOptions

log = logging.getLogger("worker")

OUTPUTS = Path("outputs")


@dataclass(frozen=True)
class Delivery:
    """Where a job's pictures go.

    Attributes:
        job_id: names files and objects.
        local: True for the local test, which writes files and answers with their paths.
        max_result_bytes: of the answer as JSON.
        recode: makes the pictures again in a smaller format; None when the caller has chosen one.
    """

    job_id: str
    local: bool
    output: OutputOptions
    max_result_bytes: int
    reencode: Callable[[], Sequence[File]] | None


def deliver(files: Sequence[File], answer: Mapping[str, Any], to: Delivery) -> dict[str, Any]:
    """The answer, with "images" (and "image_url", the first) saying where the pictures are.

    Args:
        files: one for each picture, in order.
        answer: the rest of the answer; its "warnings" are added to.

    Raises:
        ResultTooLargeError: the pictures do not fit into the answer and may not go elsewhere.
        DeliveryError: the bucket or the folder did not take them.
    """
    if to.local:
        return _with_images(answer, _write(files))
    bucket, wanted = to.output.bucket, to.output.delivery
    if bucket is not None and wanted != "base64":
        try:
            return _with_images(answer, upload(files, bucket, to.job_id))
        except DeliveryError as error:
            if wanted == "s3":
                raise
            log.warning("%s; answering with base64 instead", error)
            answer = _add_warning(answer, f"{error}; the pictures are in the answer instead")
    if result := _inline(files, answer, to.max_result_bytes):
        return result
    if bucket is not None and wanted == "base64":
        answer = _add_warning(
            answer, "delivery: base64 would pass the answer's size limit; the pictures are in the bucket"
        )
        return _with_images(answer, upload(files, bucket, to.job_id))
    if to.reencode is not None:
        smaller = to.reencode()
        answer = _add_warning(answer, f"sent as {smaller[0].extension}: {files[0].extension} would pass the size limit")
        if result := _inline(smaller, answer, to.max_result_bytes):
            return result
    raise ResultTooLargeError(
        f"the pictures are {sum(len(file.data) for file in files)} bytes as {files[0].extension}; the answer may be "
        f"{to.max_result_bytes} bytes of JSON; ask for fewer or smaller pictures, for output_format jpeg or webp, or "
        "set a bucket (BUCKET_* or s3Config)"
    )


def _inline(files: Sequence[File], answer: Mapping[str, Any], limit: int) -> dict[str, Any] | None:
    """The pictures as data URIs, at need without the repeated first one; None when they do not fit."""
    result = _with_images(answer, [_data_uri(file) for file in files])
    if _json_bytes(result) <= limit:
        return result
    result = _add_warning(result, "image_url is left out: with it the answer would pass its size limit")
    del result["image_url"]
    return result if _json_bytes(result) <= limit else None


def _with_images(answer: Mapping[str, Any], images: Sequence[str]) -> dict[str, Any]:
    return {"images": list(images), "image_url": images[0], **answer}


def _add_warning(answer: Mapping[str, Any], warning: str) -> dict[str, Any]:
    return {**answer, "warnings": [*answer["warnings"], warning]}


def _data_uri(file: File) -> str:
    return f"data:{file.mime_type};base64,{base64.b64encode(file.data).decode()}"


def _json_bytes(answer: Mapping[str, Any]) -> int:
    """Size of the body that the SDK posts, which is UTF-8 and not escaped to ASCII."""
    return len(json.dumps({"output": answer}, ensure_ascii=False).encode())


def _write(files: Sequence[File]) -> list[str]:
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
    return [str(path) for path in paths]
