"""A worker as RunPod's documents show one, a plain function that is handed to the SDK; it sleeps as long as told."""

import time
from typing import Any

import runpod


def handler(job: dict[str, Any]) -> dict[str, Any]:
    """Answer `{"prompt": "draw 0.3"}` after 0.3 s."""
    time.sleep(float(job["input"]["prompt"].split()[1]))
    return {"slept": True}


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
