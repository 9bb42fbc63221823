"""RunPod's Python client: one picture, waited for and saved."""

import os
from pathlib import Path
from urllib.request import urlopen

import runpod

endpoint = runpod.Endpoint(os.environ["RUNPOD_ENDPOINT_ID"], api_key=os.environ["RUNPOD_API_KEY"])
output = endpoint.run_sync({"input": {"prompt": "a big blue star on a yellow background", "seed": 42}}, timeout=600)
if not output or "images" not in output:  # it has failed, and says why; None: it was cancelled, or its time was over
    raise SystemExit(f"no picture: {output}")
with urlopen(output["images"][0]) as picture:  # a data URI, or a URL in a bucket: it opens both
    Path("star.png").write_bytes(picture.read())
print(f"star.png: {output['width']}x{output['height']}, seed {output['seed']}")
