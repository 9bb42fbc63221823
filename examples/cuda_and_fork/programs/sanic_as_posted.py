"""The server of the question, its slips mended just enough to start: the model is loaded where the file is read."""

import os

import picture_model
import torch
from sanic import Sanic, response

picture_model.load()

server = Sanic("my_app")


@server.route("/", methods=["POST"])
def inference(request):
    try:
        model_inputs = response.json.loads(request.json)
    except Exception:
        model_inputs = request.json
    return response.json(picture_model.draw(model_inputs["prompt"]))


if __name__ == "__main__":
    torch.multiprocessing.set_start_method("spawn", force=True)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), workers=1)
