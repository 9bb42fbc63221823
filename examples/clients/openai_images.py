"""OpenAI's Python client: a picture is drawn, and then edited."""

import base64
import os
from pathlib import Path

from openai import OpenAI

BASE = os.environ.get("RUNPOD_ENDPOINT_BASE_URL", "https://api.runpod.ai/v2")
client = OpenAI(
    api_key=os.environ["RUNPOD_API_KEY"], base_url=f"{BASE}/{os.environ['RUNPOD_ENDPOINT_ID']}/openai/v1", timeout=600
)

drawn = client.images.generate(
    prompt="a big blue star on a yellow background",
    size="256x256",
    extra_body={"seed": 42},  # any field of the worker's own
)
assert drawn.data
Path("star.png").write_bytes(base64.b64decode(drawn.data[0].b64_json or ""))

# The client sends files as a form. Where that is refused, send JSON: docs/openai.md.
edited = client.images.edit(
    image=Path("star.png"),
    prompt="a big red star on a yellow background",
    extra_body={"strength": 0.9, "seed": 42},
)
assert edited.data
Path("red-star.png").write_bytes(base64.b64decode(edited.data[0].b64_json or ""))
print("star.png, red-star.png")
