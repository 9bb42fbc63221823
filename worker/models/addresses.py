"""An address, as a page of the hub or of Civitai gives it -> what it names. Knows spellings only, and asks nobody."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from worker.errors import ModelError

WEIGHTS = ".safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_NAME_BYTES = 200  # of a file or folder; file systems take 255
_NO_FOLDERS = (".json", ".yaml", ".txt", ".md", ".gguf", ".onnx", ".msgpack", ".h5", ".zip", ".py", ".sft")

_HUB = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)(?:/|$)", re.IGNORECASE)
_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_CIVITAI = re.compile(r"(?:https?://)?(?:www\.)?(civitai\.(?:com|red|green))(/.*|)$", re.IGNORECASE)
_AIR = re.compile(r"urn:air:[^@]*:civitai:\d+@(\d+)")
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_VERSION = re.compile(r"/(?:api/download/models|model-versions|api/v1/model-versions)/(\d+)/?")
_ELSEWHERE = {"datasets": "a dataset", "spaces": "a space", "collections": "a collection", "papers": "a paper"}
_SELECTORS = ("fileid", "type", "format", "size", "fp")  # what a download's address says of the file that is meant


@dataclass(frozen=True)
class HubPlace:
    """A repository on the hub, or something in one.

    Attributes:
        kind: of what the path names.
        repository: org/name.
        path: in the repository; empty for all of it.
        revision: branch, tag or commit; None for the main one, or where nothing is said.
    """

    kind: Literal["repository", "folder", "file"]
    repository: str
    path: str = ""
    revision: str | None = None

    @property
    def location(self) -> str:
        """org/name, with the path after it."""
        return "/".join(filter(None, (self.repository, self.path)))


@dataclass(frozen=True)
class CivitaiPlace:
    """A version of a model on Civitai, or one of its files.

    Attributes:
        site: the host that the address names, one of Civitai's own.
        version: the version's number.
        selectors: what the address says of the file, names in small letters; empty for the version's main file.
    """

    site: str
    version: int
    selectors: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """As messages name it."""
        said = "".join(f", {name}={value}" for name, value in self.selectors)
        return f"{self.site} model version {self.version}{said}"


def read_hub(text: str) -> HubPlace:
    """What a hub id such as org/name or org/name/file, or the address of a page on the hub, names.

    Raises:
        ModelError: it is neither.
    """
    address = _HUB.match(text)
    if not address and (_URL.match(text) or read_civitai(text)):
        raise ModelError(_say_whose(text))
    path = text[address.end() :].partition("?")[0].partition("#")[0] if address else text
    segments = [unquote(part) if address else part for part in path.split("/") if part]
    if address and segments and segments[0] in _ELSEWHERE:
        raise ModelError(f"{text} is the address of {_ELSEWHERE[segments[0]]}, not of a model")
    if len(segments) < 2 or (not address and text.startswith(("/", ".", "~"))):
        raise ModelError(f"{text} is neither a folder, a .safetensors file nor a hub id like org/name")
    if ".." in segments:
        raise ModelError(f"{text} leaves its repository")
    repository = "/".join(segments[:2])
    fits = text.isprintable() and all(len(part.encode()) <= MAX_NAME_BYTES for part in segments)
    if not fits or not _REPOSITORY.fullmatch(repository):
        raise ModelError(
            f"{text[:200]} is neither a folder, a .safetensors file nor a hub id like org/name, of letters, digits, "
            f"-, _ and ., with names of {MAX_NAME_BYTES} bytes at most"
        )
    return _read_page(text, repository, segments[2:]) if address else _read_path(repository, segments[2:])


def _read_page(text: str, repository: str, rest: Sequence[str]) -> HubPlace:
    if not rest or rest[0] not in ("blob", "resolve", "raw", "tree", "blame", "commits", "commit", "discussions"):
        return _read_path(repository, rest)
    page, revision, path = rest[0], (*rest, "main")[1], "/".join(rest[2:])
    named = None if revision == "main" else revision
    if page == "tree":
        return HubPlace("folder" if path else "repository", repository, path, named)
    if page not in ("blob", "resolve", "raw") or not path:
        raise ModelError(f"{text} names no file of {repository}; copy the address of the file's own page")
    return HubPlace("file", repository, path, named)


def _read_path(repository: str, rest: Sequence[str]) -> HubPlace:
    path = "/".join(rest)
    if not path:
        return HubPlace("repository", repository)
    is_file = path.lower().endswith((WEIGHTS, *PICKLES, *_NO_FOLDERS))
    return HubPlace("file" if is_file else "folder", repository, path)


def _say_whose(text: str) -> str:
    if place := read_civitai(text):
        return f"{place} is nothing on the hub; it becomes a file at start"
    found = re.match(r"[^/]*//([^/?#\s]*)", text)
    host = (found and found[1].rpartition("@")[2]) or "another kind"
    return (
        f"it is an address of {host}; taken are folders, .safetensors files, hub ids like org/name, and addresses of "
        "huggingface.co and civitai.com"
    )


def read_civitai(text: str) -> CivitaiPlace | None:
    """The model version that an address of Civitai names; None for anything else.

    Raises:
        ModelError: it is an address of Civitai, and names no version, or carries somebody's token.
    """
    if found := _AIR.fullmatch(text):
        return CivitaiPlace("civitai.com", int(found[1]))
    address = _CIVITAI.match(text)
    if not address:
        return None
    parts = urlsplit("/" + address[2].lstrip("/"))
    query = {name.lower(): value for name, value in parse_qsl(parts.query)}
    if "token" in query:
        raise ModelError("the address holds a token, which everybody can read here; set CIVITAI_TOKEN to it instead")
    site = address[1].lower()
    if found := _VERSION.fullmatch(parts.path):
        selectors = tuple((name, query[name]) for name in _SELECTORS if query.get(name))
        return CivitaiPlace(site, int(found[1]), selectors)
    if parts.path.startswith("/models/") and re.fullmatch(r"\d+", query.get("modelversionid", "")):
        return CivitaiPlace(site, int(query["modelversionid"]))
    raise ModelError(
        f"{site}{parts.path} names no version of a model; choose one on its page, so that the address ends in "
        "?modelVersionId= and a number"
    )


def check_suffix(name: str, more: Sequence[str] = ()) -> None:
    """Refuse a file that holds no weights that are read, by its name.

    Args:
        more: endings that are taken beside .safetensors.

    Raises:
        ModelError: says why.
    """
    if name.lower().endswith(PICKLES):
        raise ModelError(f"{name} can run code when it is read and is refused; only .safetensors files are read")
    if name.endswith(".gguf") and not more:
        raise ModelError(
            f"{name} is GGUF, which is taken of a denoiser alone; name it in TRANSFORMER_NAME, beside a base"
        )
    if not name.endswith((WEIGHTS, *more)):
        raise ModelError(f"{name} is no .safetensors file, the only kind of weights that is read")
