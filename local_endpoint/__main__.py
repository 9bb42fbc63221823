"""`python -m local_endpoint`: an endpoint with one worker, or several, on your desk, until Ctrl-C."""

import argparse
import re
import secrets
import signal
import sys
import threading
from pathlib import Path
from urllib.parse import quote

from local_endpoint.app import LocalEndpoint
from local_endpoint.config import EndpointConfig
from local_endpoint.doors import is_loopback
from local_endpoint.supervisor import Supervisor, tell

MAX_WORKERS = 32

HOW_TO = """
  playground  {base_url}/#{fragment}
  endpoint    {url}
  API key     {key}
  API docs    {base_url}/docs

  curl -s {url}/runsync -H 'Authorization: Bearer {key}' \\
       -H 'Content-Type: application/json' -d '{{"input": {{"prompt": "a red circle"}}}}'

  {workers} starting; a line will say when one is ready. Ctrl-C ends all.
"""


def main() -> int:
    """Serves until Ctrl-C; returns the worker's exit code when it cannot even start."""
    options = _options()
    ending = _note_signals()
    config = _config(options)
    try:
        endpoint = LocalEndpoint(config).start()
    except (OSError, UnicodeError) as error:  # UnicodeError: of a name with an empty or endless part
        reason = getattr(error, "strerror", None) or error
        print(f"cannot listen on {config.host}:{config.port}: {reason}", file=sys.stderr)
        return 1
    tell(_explain(endpoint, options.workers))
    try:
        code = Supervisor(endpoint, options.script, options.workers, ending).run()
    finally:
        endpoint.stop()
    if not code:
        tell("\nstopped")
    return code


def _explain(endpoint: LocalEndpoint, workers: int) -> str:
    key = endpoint.config.api_key
    return HOW_TO.format(
        base_url=endpoint.base_url,
        url=endpoint.url,
        key=key,
        fragment=quote(key, safe=""),
        workers="The worker is" if workers == 1 else f"{workers} workers are",
    )


def _note_signals() -> threading.Event:
    """Set by whatever ends a program from outside: a closed terminal must not leave the worker behind either.

    What is ignored from the start, as `nohup` has it, stays ignored.
    """
    ending = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: ending.set())
    return ending


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
    add("--workers", type=_count, default=1, metavar="N", help="so many worker processes for one queue (1)")
    add("--host", type=_host, default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    add("--port", type=_port, default=8080, help="8080; 0: any free one")
    add("--key", type=_key, help="the API key callers must send (local, or a random one beyond this machine)")
    add("--allow-host", action="append", default=[], metavar="NAME", help="one more name it may be called by")
    add("--allow-origin", action="append", default=[], metavar="ORIGIN", type=_origin, help="whose pages may call it")
    add("--allow-webhook-host", action="append", default=[], metavar="NAME", help="may be at a private address")
    return parser.parse_args()


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers; 1 to {MAX_WORKERS}")
    return int(text)


def _host(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z._:%-]{1,253}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no address and no name of a host; 127.0.0.1")
    return text


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
