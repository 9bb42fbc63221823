"""A worker with the real SDK that draws nothing: whatever a job asks for, it is answered one small picture."""

import base64
import io
from typing import Any

import runpod
from PIL import Image


def handler(job: dict[str, Any]) -> dict[str, Any]:
    """An answer of the worker's form."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "blue").save(buffer, "PNG")
    return {"images": [f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"], "asked": job["input"]}


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
