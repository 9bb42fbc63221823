"""Checks test_input.json and `--test_input` before the SDK reads them; without a job in them, it leaves a traceback.

A local run is told of them, and of settings that cannot be, before it has waited for anything.
"""

import json
from pathlib import Path

from runpod.serverless import parser

from worker.environment import has_queue, on_platform, serves_api
from worker.errors import SettingsError
from worker.files import UnreadableError, exists, read_file
from worker.runtime.gate import report_load_failure
from worker.settings import list_mistaken_names, read_settings

TEST_INPUT = Path("test_input.json")
MAX_TEST_INPUT_BYTES = 200_000_000  # pictures in it are base64
EXAMPLE = '{"input": {"prompt": "a red circle"}}'


def is_local_test() -> bool:
    """Whether the SDK, once started, will run one job from here and end; not what any job says of itself."""
    options, _ = parser.parse_known_args()
    if options.rp_serve_api or serves_api():
        return False
    return bool(options.test_input) or not has_queue()


def check_local_job() -> None:
    """Check that test_input.json, or --test_input, holds a job; its fields are for the job's own answer to judge.

    Raises:
        SystemExit: it holds none, and this is a local test; one line says where and why.
    """
    options, unknown = parser.parse_known_args()
    if not is_local_test():
        return
    if unknown:
        raise SystemExit(f"unknown options: {' '.join(unknown)}; --help lists them")
    if options.test_input:
        _check("--test_input", options.test_input)
    elif exists(TEST_INPUT):  # the SDK says so where there is none
        _check(TEST_INPUT.name, _read(TEST_INPUT))


def check_local_settings() -> None:
    """Check the settings where there is no platform, to which a worker could report them.

    Raises:
        SystemExit: one cannot be; a line says which. If a name may be mistaken, too, the worker tells of both.
    """
    if on_platform() or list_mistaken_names():
        return
    try:
        read_settings()
    except SettingsError as error:
        report_load_failure(error, on_platform=False)


def _read(path: Path) -> str:
    try:
        return read_file(path, MAX_TEST_INPUT_BYTES).decode("utf-8")
    except UnreadableError as error:
        raise SystemExit(str(error)) from None
    except UnicodeDecodeError as error:
        raise SystemExit(f"{path.name}: byte {error.start + 1} is not UTF-8") from None


def _check(place: str, text: str) -> None:
    try:
        job = json.loads(text)
    except json.JSONDecodeError as error:
        raise SystemExit(f"{place}, line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number or a nesting that Python does not read
        raise SystemExit(f"{place}: {error}") from None
    if not isinstance(job, dict):
        raise SystemExit(f"{place}: got a {type(job).__name__}; a job is an object, for example {EXAMPLE}")
    if job.get("input") is None:
        raise SystemExit(f'{place}: "input" is missing; a job is, for example, {EXAMPLE}')
