"""Requests as callers send them: over HTTP, through Celery, through an SQS queue. Each returns what the caller got."""

import base64
import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from examples.cuda_and_fork.harness.cases import PROGRAMS
from examples.cuda_and_fork.harness.running import MAX_ANSWER_S, Running, free_port, running

PROMPT = "a red heart"
PICTURE = "a picture"
ERROR = "an error"
NOTHING = "nothing, it does not start"
AWS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the environment names


def tell(answer: Any) -> str:
    """`a picture`, or that it is none."""
    if "image" not in answer:
        return ERROR
    is_png = base64.b64decode(answer["image"]).startswith(b"\x89PNG")
    return PICTURE if is_png else "something that is no picture"


def ask_http(program: Running) -> str:
    """POST / with a prompt."""
    if not program.wait_for_port():
        return NOTHING
    try:
        return tell(post(f"http://127.0.0.1:{program.port}/", {"prompt": PROMPT}))
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except OSError as error:
        return f"nothing: {error}"


def post(url: str, body: Any, key: str = "") -> Any:
    """POST JSON, get JSON. Raises urllib's errors."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
    with LOCAL.open(request, timeout=MAX_ANSWER_S) as answer:
        return json.load(answer)


def ask_celery(python: Path, env: Mapping[str, str]) -> str:
    """Run the client that celery_tasks.py is when it is started as a program."""
    command = [str(python), str(PROGRAMS / "celery_tasks.py"), PROMPT]
    client = subprocess.run(command, cwd=PROGRAMS, env=env, capture_output=True, text=True, timeout=MAX_ANSWER_S)
    return tell(json.loads(client.stdout)) if client.returncode == 0 else ERROR


@dataclass(frozen=True)
class Queues:
    """Two queues of a local SQS server."""

    client: Any
    env: dict[str, str]

    def ask(self) -> str:
        """Send a job and wait for its answer."""
        self.client.send_message(QueueUrl=self.env["JOBS_QUEUE"], MessageBody=json.dumps({"prompt": PROMPT}))
        deadline = time.monotonic() + MAX_ANSWER_S
        while time.monotonic() < deadline:
            taken = self.client.receive_message(QueueUrl=self.env["ANSWERS_QUEUE"], WaitTimeSeconds=1)
            for message in taken.get("Messages", []):
                return tell(json.loads(message["Body"]))
        return f"nothing in {MAX_ANSWER_S:g} s"


@contextlib.contextmanager
def local_queues(python: Path, folder: Path) -> Iterator[Queues]:
    """A server that speaks SQS, with a queue for jobs and one for answers."""
    port = free_port()
    with running([str(python), "-m", "moto.server", "--port", str(port)], port, folder, {}) as server:
        if not server.wait_for_port():
            raise RuntimeError(f"the queue's server does not start: {server.last_error()}; see {folder}")
        url = f"http://127.0.0.1:{port}"
        keys = {name.lower(): value for name, value in AWS.items()}
        client = boto3.client("sqs", endpoint_url=url, region_name="us-east-1", **keys)
        jobs, answers = (client.create_queue(QueueName=name)["QueueUrl"] for name in ("jobs", "answers"))
        yield Queues(client, {"SQS_URL": url, "JOBS_QUEUE": jobs, "ANSWERS_QUEUE": answers, **AWS})
