"""RunPod's Python client: what comes back when something is wrong, and what of it is worth another try."""

import os
from typing import Any

import requests
import runpod

MENDABLE = ("INVALID_INPUT", "RESULT_TOO_LARGE")  # by another request; any other code may go well the next time


def ask(fields: dict[str, Any]) -> dict[str, Any]:
    """The output of a job.

    Raises:
        ValueError: the request is wrong, and why.
        RuntimeError: it failed for another reason, or the key is wrong.
        requests.RequestException: the endpoint cannot be reached, or there is none.
    """
    output = endpoint.run_sync({"input": fields}, timeout=600)
    if output is None:
        raise RuntimeError("the job was cancelled, or its time was over before it ended")
    if "code" not in output:  # this client hands out the output alone; a failed job's has a code and a message
        return dict(output)
    for problem in output.get("fields", []):
        print(f"  {problem['field']}: {problem['problem']}")
    kind = ValueError if output["code"] in MENDABLE else RuntimeError
    raise kind(f"{output['code']}: {output['message']}")


endpoint = runpod.Endpoint(os.environ["RUNPOD_ENDPOINT_ID"], api_key=os.environ["RUNPOD_API_KEY"])
for fields in ({"prompt": "a star", "width": "wide", "sede": 42}, {"prompt": "a star", "seed": 42}):
    try:
        print(f"drawn with seed {ask(fields)['seed']}")
    except (ValueError, RuntimeError, requests.RequestException) as error:
        print(error)
