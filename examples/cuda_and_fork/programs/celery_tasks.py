"""A Celery application whose broker is a folder. Run as a program, it sends one task and prints what comes back."""

import json
import os
import sys
from pathlib import Path

import picture_model
from celery import Celery

FOLDER = Path(os.environ["CELERY_FOLDER"])
for name in ("messages", "results"):
    (FOLDER / name).mkdir(parents=True, exist_ok=True)

app = Celery("celery_tasks", broker="filesystem://", backend=f"file://{FOLDER / 'results'}")
app.conf.broker_transport_options = {
    "data_folder_in": str(FOLDER / "messages"),
    "data_folder_out": str(FOLDER / "messages"),
    "control_folder": str(FOLDER / "control"),
}

if __name__ != "__main__":
    picture_model.load()


@app.task(name="draw")
def draw(prompt):
    return picture_model.draw(prompt)


if __name__ == "__main__":
    result = draw.delay(sys.argv[1])
    try:
        print(json.dumps(result.get(timeout=60)))
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
