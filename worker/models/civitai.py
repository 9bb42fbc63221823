"""An address of Civitai -> a file on the network volume or in the cache, fetched if it is not there.

Civitai names a version of a model; its API says which files that has, how large they are and what their hash is. The
download itself is redirected to a storage, which is never told the token.
"""

import json
import logging
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin

from huggingface_hub.constants import HF_HOME

from worker import http
from worker.errors import MissingFileError, ModelError
from worker.files import StalledError, UnreadableError, list_folder
from worker.http import MAX_URL_LENGTH, Receive
from worker.models.addresses import WEIGHTS, CivitaiPlace, read_civitai
from worker.models.checks import check_file
from worker.models.file_download import RemoteFile, fetch_to
from worker.models.locate import download_folder
from worker.settings import VOLUME, Settings

if TYPE_CHECKING:
    from yarl import URL

log = logging.getLogger("worker")

MAX_ANSWER_BYTES = 8_000_000  # of the API's, which describes pictures too
MAX_REDIRECTS = 5
MAX_NAME_LENGTH = 120  # characters
MAX_FAILURES = 3  # of questions to the API
PAUSE_S = 1.0  # after the first of them
ANSWER_S = 60.0
STALL_S = 60.0

# Civitai's own hosts, which share their accounts, and where each is asked. Its storage is under other names.
SITES: Mapping[str, str] = MappingProxyType(
    {host: f"https://{host}" for host in ("civitai.com", "civitai.red", "civitai.green")}
)
FOLDERS = (VOLUME / "civitai", Path(HF_HOME) / "civitai")  # where such files are looked for
_METADATA = ("format", "size", "fp")  # selectors that the API tells of there
_REDIRECTS = (301, 302, 303, 307, 308)
_NO_ADDRESS = "it was redirected to what is no https address"
_NEVER_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


@dataclass(frozen=True)
class _File:
    """What Civitai's API says of one file."""

    id: int | None
    name: str
    size: int | None  # bytes, not exactly
    sha256: str | None
    primary: bool
    said: Mapping[str, str]  # selector -> what it would have to be


def fetch_place(name: str, settings: Settings) -> str:
    """The local file that an address of Civitai stands for, fetched if need be; every other name as it is.

    Raises:
        ModelError: the address names no version; or it cannot be fetched, and what would have to be done.
    """
    place = read_civitai(name)
    if place is None:
        return name
    file = _find_local(place)
    if file is None:
        file = _fetch(place, settings)
    else:
        log.info("%s: it is at %s", place, file)
    return str(file)


def _find_local(place: CivitaiPlace) -> Path | None:
    for path in (path for root in FOLDERS for path in _list_weights(root / _key(place))):
        try:
            check_file(path)
        except ModelError as error:
            log.warning("%s: not taking the copy that is there: %s", place, error)
            if isinstance(error.__cause__, UnreadableError):  # which says nothing of what is in it
                raise
            with suppress(OSError):
                path.unlink()
        else:
            return path
    return None


def _list_weights(folder: Path) -> list[Path]:
    """The files in a folder, if there is one, that have come whole."""
    try:
        return [folder / name for name in list_folder(folder) if name.endswith(WEIGHTS) and not name.startswith(".")]
    except StalledError as error:
        raise ModelError(str(error)) from error
    except UnreadableError:
        return []


def _key(place: CivitaiPlace) -> str:
    """A folder's name that says which file of which version it holds."""
    said = "".join(f"-{name}-{value}" for name, value in place.selectors)
    return re.sub(r"[^\w.-]", "_", f"{place.version}{said}")[:MAX_NAME_LENGTH]


def _fetch(place: CivitaiPlace, settings: Settings) -> Path:
    token = settings.civitai_token.get_secret_value() if settings.civitai_token else None
    file = _choose(place, _ask(place, token))
    path = FOLDERS[0 if download_folder() else 1] / _key(place) / _file_name(file.name)
    log.info("%s: fetching %s to %s", place, file.name, path.parent)

    def send(offset: int, receive: Receive) -> None:
        _download(place, file, token, offset, receive)

    fetch_to(path, RemoteFile(f"{place.site}: {path.name}", file.size, file.sha256), send)
    return path


def _file_name(name: str) -> str:
    """The name as Civitai has it, fit to be a file's, and no path."""
    plain = _NEVER_IN_NAMES.sub("_", PurePosixPath(name.replace("\\", "/")).name).lstrip(". ")
    return plain.removesuffix(WEIGHTS)[:MAX_NAME_LENGTH] + WEIGHTS


def _ask(place: CivitaiPlace, token: str | None) -> list[_File]:
    """The files of a version, by the API."""
    answer = _read_answer(_ask_patiently(place, token))
    files = answer.get("files") if isinstance(answer, dict) else None
    if not isinstance(files, list):
        raise ModelError(f"{place}: {place.site} did not say which files there are")
    return [_read_file(file) for file in files if isinstance(file, dict) and isinstance(file.get("name"), str)]


def _ask_patiently(place: CivitaiPlace, token: str | None) -> http.Response:
    url = f"{SITES[place.site]}/api/v1/model-versions/{place.version}"
    for failures in range(1, 1 + MAX_FAILURES):
        try:
            return _follow(place, url, token, {"Accept": "application/json"}, None)
        except OSError as error:
            reason = str(error) or type(error).__name__
        if failures < MAX_FAILURES:
            time.sleep(PAUSE_S * failures)
    raise ModelError(f"{place}: {place.site} cannot be asked: {reason}, {failures} times")


def _read_answer(response: http.Response) -> Any:
    try:
        return json.loads(response.body) if response.complete else None
    except ValueError:
        return None


def _read_file(file: Mapping[str, Any]) -> _File:
    about, hashes = (_read_object(file.get(part)) for part in ("metadata", "hashes"))
    sha256, size, number = str(hashes.get("SHA256", "")).lower(), file.get("sizeKB"), file.get("id")
    said = {"fileid": number, "type": file.get("type"), **{name: about.get(name) for name in _METADATA}}
    return _File(
        id=number if isinstance(number, int) else None,
        name=str(file["name"]),
        size=int(size * 1024) if isinstance(size, (int, float)) and size > 0 else None,
        sha256=sha256 if re.fullmatch("[0-9a-f]{64}", sha256) else None,
        primary=file.get("primary") is True,
        said={name: str(value).lower() for name, value in said.items() if value is not None},
    )


def _read_object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _choose(place: CivitaiPlace, files: list[_File]) -> _File:
    """The file that is meant: what the address says, of that the safetensors, of those the main one."""
    meant = [file for file in files if all(file.said.get(name) == value.lower() for name, value in place.selectors)]
    names = ", ".join(file.name for file in meant or files) or "nothing"
    if not meant:
        raise ModelError(f"{place}: there is no such file; the version has {names}")
    safe = [file for file in meant if file.name.endswith(WEIGHTS)]
    if not safe:
        raise ModelError(f"{place} is offered as {names} only; only .safetensors files are read, others can run code")
    return next((file for file in safe if file.primary), safe[0])


def _download(place: CivitaiPlace, file: _File, token: str | None, offset: int, receive: Receive) -> None:
    """Ask for the file from this byte on. By its own number, because the account's preferences choose otherwise."""
    url = f"{SITES[place.site]}/api/download/models/{place.version}"
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    numbered = f"{url}?{urlencode({'fileId': file.id})}" if file.id is not None else url
    try:
        _follow(place, numbered, token, headers, receive)
    except MissingFileError:
        if file.id is None:
            raise
        _follow(place, url, token, headers, receive)


def _follow(
    place: CivitaiPlace, address: str, token: str | None, headers: Mapping[str, str], receive: Receive | None
) -> http.Response:
    """The first answer that is no redirect, and is what was asked for.

    Raises:
        OSError: the transfer failed, or may succeed later.
        ModelError: it was refused.
    """
    for _ in range(1 + MAX_REDIRECTS):
        url = _read_url(place, address)
        own = str(url.origin()) in SITES.values()
        response = http.request(
            "GET",
            url,
            headers={**headers, **({"Authorization": f"Bearer {token}"} if token and own else {})},
            max_bytes=MAX_ANSWER_BYTES,
            timeout_s=None if receive else ANSWER_S,
            stall_s=STALL_S,
            body_of=() if receive else (200,),
            receive=_judge(place, receive, token) if receive else (lambda status, headers: None),
        )
        if response.status not in _REDIRECTS:
            _check_status(place, response.status, token, own)
            return response
        address = _join(place, address, response.headers.get("Location", ""))
        _check_login(place, address, token)
    raise ModelError(f"{place}: it was redirected more than {MAX_REDIRECTS} times")


def _join(place: CivitaiPlace, address: str, location: str) -> str:
    try:
        return urljoin(address, location)
    except ValueError:
        raise ModelError(f"{place}: {_NO_ADDRESS}") from None


def _judge(place: CivitaiPlace, receive: Receive, token: str | None) -> Receive:
    """Take a body where it is a file, and no web page."""

    def judge(status: int, headers: Mapping[str, str]) -> Any:
        if status == 200 and headers.get("Content-Type", "").startswith("text/html"):
            raise ModelError(f"{place}: a web page came instead of the file; {_remedy(token)}")
        return receive(status, headers)

    return judge


def _read_url(place: CivitaiPlace, address: str) -> "URL":
    from yarl import URL

    try:
        url = URL(address[: MAX_URL_LENGTH + 1], encoded=address.isascii())  # as it came: signatures cover the spelling
        good = url.scheme == URL(SITES[place.site]).scheme and url.raw_host and "@" not in url.raw_authority
    except ValueError:
        good = False
    if not good or len(address) > MAX_URL_LENGTH:
        raise ModelError(f"{place}: {_NO_ADDRESS}")
    return url


def _check_login(place: CivitaiPlace, address: str, token: str | None) -> None:
    """Refuse to go where people log in or buy access."""
    if "reason=early-access" in address:
        raise ModelError(f"{place} is in early access: the account of CIVITAI_TOKEN must have bought it")
    if "reason=download-auth" in address or re.match(r"https?://[^/]+/login\b", address):
        raise ModelError(f"{place}: {_remedy(token)}")


def _check_status(place: CivitaiPlace, status: int, token: str | None, own: bool) -> None:
    if status in (200, 206, 416):
        return
    if status in (401, 403) and own:
        raise ModelError(f"{place}: {_remedy(token)} (status {status})")
    if status in (404, 410):
        raise MissingFileError(f"{place} is not on {place.site} (status {status})")
    whose = place.site if own else f"the storage of {place.site}"
    raise ConnectionError(f"{whose} answered with status {status}")


def _remedy(token: str | None) -> str:
    if token:
        return "the account of CIVITAI_TOKEN may not download it, or the token is no longer valid"
    return "it is for people with an account; set CIVITAI_TOKEN to an API key of yours, from your account's settings"
