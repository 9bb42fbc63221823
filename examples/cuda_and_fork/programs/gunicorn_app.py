"""An application for gunicorn. Who reads this file, and so loads, is gunicorn's choice: `--preload` or not."""

import picture_model
from flask import Flask, request

picture_model.load()

app = Flask(__name__)


@app.post("/")
def inference():
    return picture_model.draw(request.json["prompt"])
