"""Civitai on localhost: its API, its downloads, which redirect to a storage on another port, and its page for logins.

The storage is strict as the real one is: it knows presigned addresses only, and refuses whoever shows a token.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from worker import http
from worker.models import civitai, file_download

TOKEN = "civitaiKeyForTheTestsOnly"
SIGNATURE = "presignedForTheTestsOnly"


@dataclass
class Published:
    """A file of a version.

    Attributes:
        about: what the API says of it beside name, size and hash; None among them takes an entry out.
        locked: only for people with an account.
    """

    name: str
    body: bytes
    about: dict[str, Any] = field(default_factory=dict)
    locked: bool = False

    def described(self, number: int) -> dict[str, Any]:
        """As the API describes it."""
        entries = {
            "id": number,
            "name": self.name,
            "type": "Model",
            "sizeKB": len(self.body) / 1024,
            "primary": number == 1,
            "metadata": {"format": "SafeTensor", "size": "pruned", "fp": "fp16"},
            "hashes": {"AutoV2": "0123456789", "SHA256": hashlib.sha256(self.body).hexdigest().upper()},
        }
        return {name: value for name, value in {**entries, **self.about}.items() if value is not None}


@dataclass
class Site:
    """What is published, how it behaves, and what it was asked.

    Attributes:
        versions: number -> its files.
        break_after: how many bytes of each answer the storage sends before it breaks off, one entry an answer.
        piece: bytes that the storage sends at once, twenty times a second; 0 for all.
        ranges: whether the storage honours them.
        storage_status: what the storage answers, one entry an answer, before it answers well.
        login: how people without a token are sent away: by status, by redirect, or with a web page.
        before: called before the storage sends the body.
        asked: (who, path, Authorization, Range) of every request.
    """

    versions: dict[int, list[Published]]
    break_after: list[int] = field(default_factory=list)
    piece: int = 0
    ranges: bool = True
    lengths: bool = True
    storage_status: list[int] = field(default_factory=list)
    api_status: list[int] = field(default_factory=list)
    login: str = "status"
    redirects: int = 1
    knows_file_ids: bool = True
    before: Callable[[], None] = lambda: None
    asked: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    origin: str = ""
    storage: str = ""
    lock: Lock = field(default_factory=Lock)

    def paths(self, who: str) -> list[str]:
        """What one of the two hosts was asked for."""
        return [path for name, path, _, _ in self.asked if name == who]


class _Handler(BaseHTTPRequestHandler):
    site: Site
    who: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with self.site.lock:
            self.site.asked.append((self.who, self.path, self.headers["Authorization"], self.headers["Range"]))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if self.who == "storage":
            self._store(parts.path, query)
        elif found := re.fullmatch(r"/api/v1/model-versions/(\d+)", parts.path):
            self._describe(int(found[1]))
        elif found := re.fullmatch(r"/api/download/models/(\d+)", parts.path):
            self._redirect(int(found[1]), query)
        else:
            self._answer(200, b"<!DOCTYPE html><title>Sign in</title>", Content_Type="text/html; charset=utf-8")

    def _describe(self, version: int) -> None:
        if self.site.api_status:
            self._answer(self.site.api_status.pop(0), b"{}")
        elif version not in self.site.versions:
            self._answer(404, b'{"error": "No model with id"}')
        else:
            files = [file.described(number) for number, file in enumerate(self.site.versions[version], 1)]
            self._answer(200, json.dumps({"id": version, "files": files}).encode(), Content_Type="application/json")

    def _redirect(self, version: int, query: dict[str, str]) -> None:
        files = self.site.versions.get(version, [])
        number = int(query.get("fileId", "1"))
        if not 0 < number <= len(files) or ("fileId" in query and not self.site.knows_file_ids):
            self._answer(404, b'{"error": "Model file not found"}')
        elif files[number - 1].locked and self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._send_away()
        elif int(query.get("hop", "1")) < self.site.redirects:
            hop = int(query.get("hop", "1")) + 1
            self._answer(307, b"", Location=f"/api/download/models/{version}?fileId={number}&hop={hop}")
        else:
            place = f"{self.site.storage}/model/{version}/{number}?X-Amz-Signature={SIGNATURE}"
            self._answer(307, b"", Location=place)

    def _send_away(self) -> None:
        page = "/login?returnUrl=%2Fmodel-versions%2F1&reason=download-auth"
        if self.site.login == "redirect":
            self._answer(307, b"", Location=page)
        elif self.site.login == "page":
            self._answer(200, b"<!DOCTYPE html><title>Sign in</title>", Content_Type="text/html")
        else:
            self._answer(401, b'{"error": "Unauthorized"}', Content_Type="application/json")

    def _store(self, path: str, query: dict[str, str]) -> None:
        if self.headers["Authorization"]:
            self._answer(400, b"InvalidRequest: Missing x-amz-content-sha256")
        elif query.get("X-Amz-Signature") != SIGNATURE:
            self._answer(403, b"AccessDenied")
        elif self.site.storage_status:
            self._answer(self.site.storage_status.pop(0), b"")
        else:
            version, number = (int(part) for part in path.split("/")[2:])
            self.site.before()
            self._send(self.site.versions[version][number - 1])

    def _send(self, file: Published) -> None:
        start = int((self.headers["Range"] or "bytes=0-")[6:-1]) if self.site.ranges else 0
        if start and start >= len(file.body):
            self._answer(416, b"", Content_Range=f"bytes */{len(file.body)}")
            return
        body = file.body[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Disposition", f"attachment; filename*=UTF-8''{quote(file.name)}")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(file.body) - 1}/{len(file.body)}")
        if self.site.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        body = body[: self.site.break_after.pop(0)] if self.site.break_after else body
        for at in range(0, len(body), self.site.piece or len(body)):
            self.wfile.write(body[at : at + (self.site.piece or len(body))])
            time.sleep(0.05 if self.site.piece else 0)
        self.close_connection = True

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def _serve(site: Site, who: str) -> Iterator[str]:
    handler = type("Handler", (_Handler,), {"site": site, "who": who})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving(site: Site, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The worker asks this site inside the `with`, and keeps what it fetches in `folder`."""
    with _serve(site, "site") as origin, _serve(site, "storage") as storage:
        site.origin, site.storage = origin, storage
        patch.setattr(civitai, "SITES", MappingProxyType(dict.fromkeys(("civitai.com", "civitai.red"), origin)))
        patch.setattr(civitai, "FOLDERS", (folder, folder))
        patch.setattr(http, "is_public", lambda ip: True)  # which is tried in tests of its own
        patch.setattr(civitai, "PAUSE_S", 0.0)
        patch.setattr(file_download, "PAUSE_S", 0.0)
        patch.setattr(file_download, "POLL_S", 0.02)
        yield site
