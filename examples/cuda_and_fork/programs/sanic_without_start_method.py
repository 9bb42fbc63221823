"""The same server without `set_start_method`: what Sanic does by itself."""

import os

import picture_model
from sanic import Sanic, response

picture_model.load()

server = Sanic("my_app")


@server.route("/", methods=["POST"])
def inference(request):
    return response.json(picture_model.draw(request.json["prompt"]))


if __name__ == "__main__":
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), workers=1)
