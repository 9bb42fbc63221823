"""The documents of the API at /docs: Swagger UI, from files of this machine alone, sent with a policy that holds it to
them and to calls of this endpoint."""

import base64
import hashlib
from importlib import resources

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import HTMLResponse

_FILES = resources.files("fastapi_swagger.resources")
_TYPES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png"}
_START = """
  SwaggerUIBundle({
    url: "/openapi.json", dom_id: "#api", deepLinking: true, persistAuthorization: true, tryItOutEnabled: true,
    defaultModelsExpandDepth: 0, validatorUrl: null,
  });
"""
_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API of the local endpoint</title>
<link rel="icon" href="/docs/favicon-32x32.png">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script>{_START}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# Swagger UI shows icons that are written into its style.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src 'self' {_hash(_START)}",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
router = APIRouter(prefix="/docs", include_in_schema=False)


@router.get("")
def show_docs() -> HTMLResponse:
    """The page."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/{name}")
def send_file(name: str) -> Response:
    """A part of the page. Raises HTTPException 404 when it has no such part."""
    if name not in _TYPES:
        raise HTTPException(404, f"no file {name!r} here")
    return Response((_FILES / name).read_bytes(), media_type=_TYPES[name])
