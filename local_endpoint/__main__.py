"""`python -m local_endpoint`: an endpoint with one worker on your desk, until Ctrl-C."""

import argparse
import contextlib
import re
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

from local_endpoint.app import LocalEndpoint
from local_endpoint.config import EndpointConfig
from local_endpoint.doors import is_loopback
from local_endpoint.worker_process import LocalWorker

RESTART_PAUSE_S = 1.0
CHECK_S = 0.2
GRACE_S = 3.0

HOW_TO = """
  playground  {base_url}/#{fragment}
  endpoint    {url}
  API key     {key}
  API docs    {base_url}/docs

  curl -s {url}/runsync -H 'Authorization: Bearer {key}' \\
       -H 'Content-Type: application/json' -d '{{"input": {{"prompt": "a red circle"}}}}'

  The worker is starting; a line will say when it is ready. Ctrl-C ends both.
"""


def main() -> int:
    """Serves until Ctrl-C; returns the worker's exit code when it cannot even start."""
    options = _options()
    ending = _note_signals()
    config = _config(options)
    try:
        endpoint = LocalEndpoint(config).start()
    except OSError as error:
        print(f"cannot listen on {config.host}:{config.port}: {error.strerror}", file=sys.stderr)
        return 1
    key = config.api_key
    _tell(HOW_TO.format(base_url=endpoint.base_url, url=endpoint.url, key=key, fragment=quote(key, safe="")))
    try:
        return _serve(endpoint, options.script, ending)
    finally:
        endpoint.stop()


def _note_signals() -> threading.Event:
    """Set by whatever ends a program from outside: a closed terminal must not leave the worker behind either.

    What is ignored from the start, as `nohup` has it, stays ignored.
    """
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: ending.set())
    return ending


def _serve(endpoint: LocalEndpoint, script: Path, ending: threading.Event) -> int:
    """Keeps one worker running: one that worked and left is replaced, one that never asked for a job is not."""
    while not ending.is_set():
        worker = LocalWorker(endpoint, script)
        worked = _follow(endpoint, worker, ending)
        if ending.is_set():
            break
        code = worker.wait()
        if not worked:
            print(f"the worker ended with code {code} before it asked for a job", file=sys.stderr)
            return code or 1
        _tell(f"the worker ended with code {code}; starting another")
        ending.wait(RESTART_PAUSE_S)
    _tell("\nstopped")
    return 0


def _follow(endpoint: LocalEndpoint, worker: LocalWorker, ending: threading.Event) -> bool:
    """Stays with a worker to its end, or brings that about; says whether it has asked for a job.

    One that the endpoint has given up, because it was silent with a job in hand, is killed, as its machine would be.
    """
    started, ready = time.monotonic(), False
    while not worker.ended:
        if ending.wait(CHECK_S):
            worker.stop(GRACE_S)
        elif not ready and endpoint.events.of("poll", worker_id=worker.id):
            ready = True
            _tell(f"the worker is ready: it asks for jobs after {time.monotonic() - started:.1f} s")
        elif ready and not worker.ended and worker.id not in endpoint.queue.workers:
            _tell("the worker has been silent for too long with a job in hand, which goes back into the queue")
            worker.kill()
    return ready or bool(endpoint.events.of("poll", worker_id=worker.id))


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(text, flush=True)


def _config(options: argparse.Namespace) -> EndpointConfig:
    """An endpoint's numbers; its key is well known only where nobody else can come."""
    return EndpointConfig(
        host=options.host,
        port=options.port,
        api_key=options.key or ("local" if is_loopback(options.host.lower()) else secrets.token_urlsafe(16)),
        allowed_hosts=tuple(options.allow_host),
        allowed_origins=tuple(options.allow_origin),
        webhook_hosts=tuple(options.allow_webhook_host),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local_endpoint", description=__doc__)
    add = parser.add_argument
    add("script", nargs="?", type=Path, default=Path("handler.py"), help="the worker (handler.py)")
    add("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    add("--port", type=_port, default=8080, help="8080; 0: any free one")
    add("--key", type=_key, help="the API key callers must send (local, or a random one beyond this machine)")
    add("--allow-host", action="append", default=[], metavar="NAME", help="one more name it may be called by")
    add("--allow-origin", action="append", default=[], metavar="ORIGIN", type=_origin, help="whose pages may call it")
    add("--allow-webhook-host", action="append", default=[], metavar="NAME", help="may be at a private address")
    return parser.parse_args()


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; 0 to 65535")
    return int(text)


def _key(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise argparse.ArgumentTypeError("a key goes into a header: visible ASCII letters without spaces")
    return text


def _origin(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no origin; http://localhost:3000, without a path")
    return text.lower()


if __name__ == "__main__":
    sys.exit(main())
