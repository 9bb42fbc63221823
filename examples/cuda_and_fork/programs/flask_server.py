"""Flask's own server: one process, in which the model is loaded and used."""

import os

import picture_model
from flask import Flask, request

picture_model.load()

app = Flask(__name__)


@app.post("/")
def inference():
    return picture_model.draw(request.json["prompt"])


if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]))
