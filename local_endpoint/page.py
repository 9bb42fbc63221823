"""The playground: a page of files beside this one, sent with a policy under which nothing else runs in it."""

from functools import partial
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

FOLDER = Path(__file__).with_name("playground")
FILES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".js", ".css"))
# Its own scripts and styles and no other; any pictures; calls of this endpoint and of RunPod's.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob: https: http:",
        "connect-src 'self' https://api.runpod.ai",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
# On every answer: no other page may show it in a frame, take it for a part of its own, or guess what it is.
HEADERS = [
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
]
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}

router = APIRouter(include_in_schema=False)


def _send(name: str) -> Response:
    path = FOLDER / name
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return Response(path.read_bytes(), media_type=f"{_TYPES[path.suffix]}; charset=utf-8", headers=headers)


@router.get("/")
def show_playground() -> Response:
    """The page."""
    return _send("index.html")


for _name in FILES:
    router.add_api_route(f"/{_name}", partial(_send, _name), methods=["GET"])
