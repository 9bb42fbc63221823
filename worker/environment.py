"""What others read of the environment, made fit for them before they are imported; and who hands out jobs."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from worker.files import UnreadableError, check_readable, exists, is_folder

_CERTIFICATES = ("AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")  # read by libraries
_SDK_NUMBERS: Mapping[str, type] = MappingProxyType(  # that it reads while it is imported, or started
    {
        "RUNPOD_GPU_BENCHMARK_TIMEOUT": int,
        "RUNPOD_GPU_MAX_ERROR_MESSAGES": int,
        "RUNPOD_GPU_TEST_TIMEOUT": int,
        "RUNPOD_MIN_DISK_PERCENT": float,
        "RUNPOD_MIN_MEMORY_GB": float,
        "RUNPOD_NETWORK_CHECK_TIMEOUT": int,
        "RUNPOD_PING_INTERVAL": int,
        "RUNPOD_REALTIME_CONCURRENCY": int,
        "RUNPOD_REALTIME_PORT": int,
    }
)
_LOG_LEVEL = "RUNPOD_LOG_LEVEL"
_LOG_LEVELS = ("NOTSET", "TRACE", "DEBUG", "INFO", "WARN", "ERROR")  # that the SDK knows, in any letters
_refused: dict[str, str] = {}  # variable that was set aside -> what is wrong; set before all else


def quiet_sdk() -> None:
    """Lower the SDK's log level, DEBUG by default, at which it prints whole results and presigned URLs.

    To be called before `runpod` is imported, which reads the level once, and ends the process at one that it does not
    know: `read_settings` will refuse that. An explicit RUNPOD_LOG_LEVEL stays; what is blank is none.
    """
    level = os.environ.get(_LOG_LEVEL, "").strip()
    if level and level.upper() not in _LOG_LEVELS:
        _refused[_LOG_LEVEL] = f"{_LOG_LEVEL}: got {level[:80]!r}; should be one of {', '.join(_LOG_LEVELS)}"
        level = ""
    os.environ[_LOG_LEVEL] = level or ("INFO" if on_platform() else "WARN")


def set_aside_unusable() -> None:
    """Take away the variables that name no file of certificates, or no number, which `read_settings` will refuse.

    To be called before `runpod` is imported, which reads some of them at once.
    """
    for name in _SDK_NUMBERS:
        if not os.environ.get(name, "0").strip():
            del os.environ[name]
    for name, problem in {**_check_certificates(), **_check_numbers()}.items():
        del os.environ[name]
        _refused[name] = problem


def list_refused() -> list[str]:
    """What is wrong with such variables, those that were set aside among them."""
    return [*_refused.values(), *_check_certificates().values()]


def keep_compiled_code(folder: Path) -> None:
    """Have torch's compiler and Triton keep what they make in this folder; they read it from the environment alone."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")


def has_queue() -> bool:
    """Whether there is a queue of RunPod's for this process."""
    return "RUNPOD_WEBHOOK_GET_JOB" in os.environ


def serves_api() -> bool:
    """Whether the SDK will serve an API of its own, as the platform sets it for workers that callers reach directly."""
    return os.environ.get("RUNPOD_REALTIME_PORT", "0").strip() not in ("", "0")


def on_platform() -> bool:
    """Whether this process will take its jobs from RunPod's queue, rather than run a local test or serve an API.

    The SDK takes any beginning of an option for it that is no other's.
    """
    options = [argument.partition("=")[0] for argument in sys.argv[1:]]
    local = any("--test_input".startswith(one) for one in options if one.startswith("--t"))
    served = any("--rp_serve_api".startswith(one) for one in options if one.startswith("--rp_s"))
    return has_queue() and not (local or served or serves_api())


def _check_numbers() -> dict[str, str]:
    """Variable -> what is wrong, of those in which the SDK looks for a number."""
    problems = {}
    for name, number in _SDK_NUMBERS.items():
        value = os.environ.get(name, "0")
        try:
            number(value)
        except ValueError:
            kind = "a whole number" if number is int else "a number"
            problems[name] = f"{name}: got {value[:80]!r}; should be {kind}"
    return problems


def _check_certificates() -> dict[str, str]:
    """Variable -> what is wrong, of those that name what no library can read; what is not there is not wrong."""
    problems = {}
    for name in _CERTIFICATES:
        path = Path(os.environ.get(name, ""))
        try:
            if os.environ.get(name) and exists(path) and not is_folder(path):
                check_readable(path)
        except UnreadableError as error:
            problems[name] = f"{name}: {error}"
    return problems
