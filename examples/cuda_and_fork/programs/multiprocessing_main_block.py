"""The message's advice taken literally: in the main block, `set_start_method("spawn")` and the load.

The argument says which of them comes first: `before` sets the start method before it loads, `after` when it has loaded.
"""

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import picture_model


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            status, answer = 200, children.submit(picture_model.draw, body["prompt"]).result()
        except Exception as error:
            status, answer = 500, {"error": str(error)}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


if __name__ == "__main__":
    if sys.argv[1] == "before":
        multiprocessing.set_start_method("spawn")
        picture_model.load()
    else:
        picture_model.load()
        multiprocessing.set_start_method("spawn")
    children = ProcessPoolExecutor(1)
    HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
