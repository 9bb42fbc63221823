"""A model hub on localhost with one gated repository: the routes that huggingface_hub calls, with real headers."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

TOKEN, OTHER_TOKEN = "hf_tokenForTheTestsOnly", "hf_anotherForTheTestsOnly"
COMMIT = "133a221b8aa7292a167afc5127cb63fb5005638b"
REPOSITORY = "CompVis/stable-diffusion-v1-4"


class Hub:
    """Serves the files of `folder` as REPOSITORY to whoever has TOKEN or OTHER_TOKEN.

    Attributes:
        url: for HF_ENDPOINT.
        seen: the Authorization header of every call.
    """

    def __init__(self, folder: Path, bytes_per_s: int | None = None) -> None:
        self.seen: list[str | None] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.seen.append(self.headers["Authorization"])
                status, headers, self.body = answer(folder, self.path, self.headers["Authorization"])
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(self.body))}.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_GET(self) -> None:
                self.do_HEAD()
                piece = bytes_per_s // 20 if bytes_per_s else len(self.body) or 1
                for start in range(0, len(self.body), piece):
                    self.wfile.write(self.body[start : start + piece])
                    time.sleep(0.05 if bytes_per_s else 0)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


def answer(folder: Path, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body that the hub gives to a call."""
    path = path.partition("?")[0]
    if REPOSITORY not in path:
        return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""
    if authorization not in (f"Bearer {TOKEN}", f"Bearer {OTHER_TOKEN}"):
        return 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted."}, b""
    if "/tree/" in path:
        return 200, {"Content-Type": "application/json"}, json.dumps(tree(folder)).encode()
    if path.startswith("/api/models/"):
        siblings = [{"rfilename": str(file.relative_to(folder))} for file in folder.rglob("*") if file.is_file()]
        info = {"_id": "1", "id": REPOSITORY, "sha": COMMIT, "siblings": siblings, "tags": [], "gated": "auto"}
        return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()
    _, _, file = path.partition("/resolve/")
    _, _, file = file.partition("/")
    if not (folder / file).is_file():
        return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
    body = (folder / file).read_bytes()
    return 200, {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT}, body


def tree(folder: Path) -> list[dict[str, object]]:
    """What the hub lists of a repository's files."""
    return [
        {
            "type": "file",
            "path": str(file.relative_to(folder)),
            "size": file.stat().st_size,
            "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
        }
        for file in folder.rglob("*")
        if file.is_file()
    ]


@contextmanager
def serve(folder: Path, bytes_per_s: int | None = None) -> Iterator[Hub]:
    """`with serve(folder) as hub:`; it stops with the block.

    Args:
        bytes_per_s: at which each answer is sent; None means at once.
    """
    hub = Hub(folder, bytes_per_s)
    thread = Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


def cache(folder: Path, hub_home: Path) -> None:
    """Lay `folder` out as the hub's own download of REPOSITORY would leave it in HF_HOME."""
    root = hub_home / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    for file in (path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        blob = root / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * (len(link.relative_to(root).parts) - 1), "blobs", blob.name))
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
