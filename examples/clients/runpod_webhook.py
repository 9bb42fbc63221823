"""RunPod's Python client: the answer comes by webhook, to this program, which waits for it and saves the picture.

WEBHOOK_URL is where RunPod reaches WEBHOOK_PORT of this machine, such as the address of a tunnel.
"""

import json
import os
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import runpod

PORT = int(os.environ.get("WEBHOOK_PORT", "8001"))
URL = os.environ.get("WEBHOOK_URL", f"http://127.0.0.1:{PORT}")
PATH = f"/{secrets.token_urlsafe(16)}"  # which nobody else knows


class Receiver(BaseHTTPRequestHandler):
    """Takes the answer; what is not answered 200 is sent again."""

    answer: dict[str, object] | None = None

    def do_POST(self) -> None:
        """Take it, if it is for us."""
        if self.path != PATH:
            return self.send_error(404)
        Receiver.answer = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        return self.end_headers()


endpoint = runpod.Endpoint(os.environ["RUNPOD_ENDPOINT_ID"], api_key=os.environ["RUNPOD_API_KEY"])
with ThreadingHTTPServer(("", PORT), Receiver) as server:  # a stranger who says nothing keeps nobody waiting
    server.timeout = 1
    fields = {"prompt": "a big green circle on a white background", "seed": 5}
    endpoint.run({"input": fields, "webhook": URL + PATH})
    while Receiver.answer is None:
        server.handle_request()

output = Receiver.answer.get("output")
if Receiver.answer["status"] != "COMPLETED" or not isinstance(output, dict):
    raise SystemExit(f"{Receiver.answer['status']}: {Receiver.answer.get('error')}")
with urlopen(output["images"][0]) as picture:
    Path("circle.png").write_bytes(picture.read())
print(f"circle.png: {Receiver.answer['status']}")
