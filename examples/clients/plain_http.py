"""Plain HTTP, as workflow tools such as n8n do it: POST /run, GET /status until it is over. Python alone."""

import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

BASE = os.environ.get("RUNPOD_ENDPOINT_BASE_URL", "https://api.runpod.ai/v2")
URL = f"{BASE}/{os.environ['RUNPOD_ENDPOINT_ID']}"
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")


def call(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to the endpoint: a POST if there is a body."""
    headers = {"Authorization": f"Bearer {os.environ['RUNPOD_API_KEY']}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(URL + path, data, headers), timeout=60) as answer:
        return dict(json.load(answer))


job = call("/run", {"input": {"prompt": "a big blue star on a yellow background", "seed": 42}})
while job["status"] not in FINAL:
    time.sleep(1)
    job = call(f"/status/{job['id']}")
if job["status"] != "COMPLETED":
    raise SystemExit(f"{job['status']}: {job.get('error')}")
with urlopen(job["output"]["images"][0]) as picture:
    Path("star.png").write_bytes(picture.read())
print("star.png")
