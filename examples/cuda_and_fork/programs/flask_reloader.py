"""The same in debug mode: the reloader starts the program a second time, and both of them load."""

import os

import picture_model
from flask import Flask, request

picture_model.load()

app = Flask(__name__)


@app.post("/")
def inference():
    return picture_model.draw(request.json["prompt"])


if __name__ == "__main__":
    app.run(port=int(os.environ["PORT"]), debug=True)
