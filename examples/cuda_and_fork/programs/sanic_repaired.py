"""Repaired: the process that answers requests is the one that loads, after it has been started."""

import os

import picture_model
from sanic import Sanic, response
from sanic.worker.manager import WorkerManager

WorkerManager.THRESHOLD = 6000  # tenths of a second that a worker may take to start: loading counts
server = Sanic("my_app")


@server.before_server_start
async def load(app, loop):
    picture_model.load()


@server.route("/", methods=["POST"])
def inference(request):
    return response.json(picture_model.draw(request.json["prompt"]))


if __name__ == "__main__":
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), workers=1)
