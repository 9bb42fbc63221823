"""`python -m local_endpoint`: an endpoint with one worker on your desk, until Ctrl-C."""

import argparse
import contextlib
import signal
import sys
import threading
import time
from pathlib import Path

from local_endpoint.app import LocalEndpoint
from local_endpoint.config import EndpointConfig
from local_endpoint.worker_process import LocalWorker

RESTART_PAUSE_S = 1.0

HOW_TO = """
  playground  {base_url}/#{key}
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
    for ending in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal must not leave the worker behind
        signal.signal(ending, signal.default_int_handler)
    config = EndpointConfig(host=options.host, port=options.port, api_key=options.key)
    try:
        endpoint = LocalEndpoint(config).start()
    except OSError as error:
        print(f"cannot listen on {config.host}:{config.port}: {error.strerror}", file=sys.stderr)
        return 1
    print(HOW_TO.format(base_url=endpoint.base_url, url=endpoint.url, key=config.api_key), flush=True)
    try:
        return _serve(endpoint, options.script)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        return 0
    finally:
        endpoint.stop()


def _serve(endpoint: LocalEndpoint, script: Path) -> int:
    """Keeps one worker running: one that worked and left is replaced, one that never asked for a job is not."""
    while True:
        worker = LocalWorker(endpoint, script)
        try:
            _announce_ready(worker)
            code = worker.wait(timeout=threading.TIMEOUT_MAX)
        except KeyboardInterrupt:
            worker.stop(grace_s=3)
            raise
        if not endpoint.events.of("poll", worker_id=worker.id):
            print(f"the worker ended with code {code} before it asked for a job", file=sys.stderr)
            return code or 1
        print(f"the worker ended with code {code}; starting another", flush=True)
        threading.Event().wait(RESTART_PAUSE_S)


def _announce_ready(worker: LocalWorker) -> None:
    """Says, once it is so, that the worker has loaded and asks for jobs; nothing if it ends before."""
    started = time.monotonic()
    with contextlib.suppress(RuntimeError):
        worker.wait_ready(timeout=threading.TIMEOUT_MAX)
        print(f"the worker is ready: it asks for jobs after {time.monotonic() - started:.1f} s", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local_endpoint", description=__doc__)
    parser.add_argument("script", nargs="?", type=Path, default=Path("handler.py"), help="the worker (handler.py)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--key", default="local", help="the API key callers must send (local)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
