"""RunPod's Python client: a progress bar, and what the picture looks like meanwhile in preview.jpg."""

import os
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import runpod

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT")
ENDPOINT_ID = os.environ["RUNPOD_ENDPOINT_ID"]


def save(reference: str, path: str) -> None:
    """Save a picture of the answer."""
    with urlopen(reference) as picture:
        Path(path).write_bytes(picture.read())


def show(update: dict[str, Any]) -> None:
    """Draw the bar anew."""
    bar = "#" * round(update["percent"] / 2.5)
    print(f"\r{bar:<40} {update['percent']:5.1f} %, {update['seconds_left']:.0f} s left", end="", flush=True)
    if "preview" in update:
        save(update["preview"], "preview.jpg")


endpoint = runpod.Endpoint(ENDPOINT_ID, api_key=os.environ["RUNPOD_API_KEY"])
fields = {"prompt": "a big purple ring on a black background", "seed": 3, "num_inference_steps": 40, "preview": True}
job = endpoint.run({"input": fields})
while True:
    state = endpoint.rp_client.get(f"{ENDPOINT_ID}/status/{job.job_id}")
    if state["status"] in FINAL:
        break
    if state["status"] == "IN_PROGRESS" and "percent" in (state.get("output") or {}):  # while it runs: the progress
        show(state["output"])
    time.sleep(0.3)
print(f"\r{state['status']:<70}")
save(state["output"]["images"][0], "ring.png")
