"""What was wrong with a job is seen with RunPod's own Python client, which hands on the output and not the error."""

import json
import subprocess
import sys
from typing import Any

SCRIPT = """
import json, runpod, sys
runpod.endpoint_url_base, runpod.api_key = sys.argv[1], "local"
endpoint, bad = runpod.Endpoint("local"), {"input": {"prompt": "a star", "width": 5, "promt": "x"}}
job = endpoint.run(bad)
print(json.dumps([endpoint.run_sync(bad), job.output(timeout=60), job.status()]))
"""


def test_by_run_sync_and_by_run(platform: Any, start_worker: Any, tiny_sd1: str) -> None:
    start_worker(env={"MODEL_NAME": tiny_sd1})

    shown = subprocess.run(
        [sys.executable, "-c", SCRIPT, f"{platform.base_url}/v2"], capture_output=True, text=True, timeout=120
    )

    at_once, later, status = json.loads(shown.stdout.splitlines()[-1])
    assert status == "FAILED"
    for output in (at_once, later):
        assert output["code"] == "INVALID_INPUT"
        assert {one["field"] for one in output["fields"]} == {"width", "promt"}
        assert all(f"{one['field']}: {one['problem']}" in output["message"] for one in output["fields"])
