"""A data set that uses the model, read by a torch DataLoader with one worker process.

The argument is the DataLoader's `multiprocessing_context`: without one it is fork on Linux, up to Python 3.13.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import picture_model
from torch.utils.data import DataLoader, Dataset


class Pictures(Dataset):
    def __init__(self, prompts):
        self.prompts = prompts

    def __len__(self):
        return len(self.prompts)

    def __getitem__(self, index):
        return picture_model.draw(self.prompts[index])


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        global pictures  # the worker lives as long as its iterator
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
        data = DataLoader(Pictures([prompt]), batch_size=None, num_workers=1, multiprocessing_context=sys.argv[1])
        pictures = iter(data)
        try:
            status, answer = 200, next(pictures)
        except Exception as error:
            status, answer = 500, {"error": str(error)}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


picture_model.load()

if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
