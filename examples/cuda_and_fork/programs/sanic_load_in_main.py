"""The load moved under `if __name__ == "__main__"`: one load, and not where the requests arrive."""

import os

import picture_model
from sanic import Sanic, response

server = Sanic("my_app")


@server.route("/", methods=["POST"])
def inference(request):
    return response.json(picture_model.draw(request.json["prompt"]))


if __name__ == "__main__":
    picture_model.load()
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), workers=1)
