"""A server whose requests are drawn in a child of multiprocessing. The arguments: its start method, and for the start
method forkserver the modules that the fork server imports, which may be this one.
"""

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import picture_model

picture_model.load()


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
    method, *preloaded = sys.argv[1:]
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(preloaded)  # said outright, since Python's own choice has changed
    children = ProcessPoolExecutor(1, context)
    HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
