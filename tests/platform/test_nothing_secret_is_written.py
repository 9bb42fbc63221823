"""All that a real worker process writes, the SDK's lines too, while its jobs and their failures hold canaries."""

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from tests.helpers.log_lines import read_messages

FAULTY = Path(__file__).with_name("quoting_worker.py")
OWNERS = {
    "HF_TOKEN": "hf_canarytoken",
    "BUCKET_ENDPOINT_URL": "http://127.0.0.1:9",
    "BUCKET_ACCESS_KEY_ID": "AKIDcanaryowner",
    "BUCKET_SECRET_ACCESS_KEY": "canaryownersecret",
    "BUCKET_NAME": "pictures",
}
S3 = {
    "accessId": "AKIDcanarycaller",
    "accessSecret": "canarycallersecret",
    "bucketName": "theirs",
    "endpointUrl": "http://127.0.0.1:9",
}
URL = "http://127.0.0.1:9/canarypath/x.png?X-Amz-Signature=canarysignature"
PROMPT = "a 'canary' \"in\" quotes\nand a canary in a second line"


def picture() -> str:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_nothing(platform: Any, start_worker: Any, tiny_sd1: str) -> None:
    # With several at once, the SDK does not rest for a second after each.
    settings = {"MODEL_NAME": tiny_sd1, "ALLOWED_BUCKET_HOSTS": "127.0.0.1", "JOBS_AT_ONCE": "4"}
    worker = start_worker(FAULTY, env={**settings, **OWNERS})
    inline = {"prompt": PROMPT, "steps": 2, "delivery": "base64"}
    jobs: list[tuple[dict[str, Any], dict[str, Any], str | None]] = [
        (inline, {}, None),
        ({**inline, "image": picture(), "preview": True}, {}, None),
        ({"prompt": PROMPT, "steps": 2}, {"s3Config": S3}, None),  # no bucket takes it: answered with base64
        ({"prompt": PROMPT, "steps": 2, "delivery": "s3"}, {"s3Config": S3}, "DELIVERY_FAILED"),
        ({"prompt": PROMPT, "steps": 2, "delivery": "s3"}, {}, "DELIVERY_FAILED"),
        ({**inline, "image": URL}, {}, "INVALID_INPUT"),
        ({**inline, "canaryfield": "canary"}, {}, "INVALID_INPUT"),
        ({**inline, "prompt": [PROMPT, "quote me"], "negative_prompt": URL}, {"s3Config": S3}, "INTERNAL_ERROR"),
    ]

    for fields, beside, code in jobs:
        answer = platform.ask(fields, **beside)
        assert (answer.get("error") or "").partition(":")[0] == (code or ""), answer.get("error")
        told = str({**answer, "output": {**(answer.get("output") or {}), "images": [], "image_url": ""}})
        for secret in (*OWNERS.values(), S3["accessSecret"]):
            assert secret in ("http://127.0.0.1:9", "pictures") or secret not in told
    worker.stop()

    written = worker.log()
    looked_at = ("Traceback", "KeyError", "Finished.", "a.library: ", "UserWarning", "a thread has failed")
    assert [said for said in looked_at if said not in written] == [], "else nothing was looked at"
    assert [line for line in written.splitlines() if "canary" in line.lower()] == []
    assert picture()[30:60] not in written
    assert max(map(len, read_messages(written))) < 500
