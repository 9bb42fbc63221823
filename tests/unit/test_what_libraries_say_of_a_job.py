"""What a library says of a failure may quote anything in any spelling: whatever a job brought, and where a host
redirected to, is in no log and in no other job's answer."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from unicodedata import normalize
from urllib.parse import quote, quote_plus

import httpx2
import pytest
from huggingface_hub.utils import hf_raise_for_status
from hypothesis import example, given
from hypothesis import strategies as st

import worker.http
from tests.helpers.fuzzing import examples
from tests.helpers.picture_sources import answer, hosting, refused
from tests.unit.test_a_log_line_stays_a_line import written
from worker.errors import ModelError
from worker.images.load import PictureRules
from worker.models import hub as hub_module
from worker.runtime.logs import note_brought

LOG = logging.getLogger("worker")
SIGNED = "/canarypath/x.png?X-Amz-Credential=AKIAcanary%2F1&X-Amz-Signature=0a1b2c3d4e5f60718293a4b5c6d7e8f9canary"
SAID = ["{}", "'{}'", "cannot use {!r} here", "({}, {})", "Error code: [{}]\nat line 5", "<{}>"]
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "repr": repr,
    "ascii": ascii,
    "json": json.dumps,
    "bytes": lambda text: repr(text.encode()),
    "percent": quote,
    "of a form": quote_plus,
    "composed": lambda text: normalize("NFKC", text),
    "decomposed": lambda text: normalize("NFD", text),
    "beside a letter that is two small ones": lambda text: f"\u0130 {text}",
    "in large letters": lambda text: f"{text.upper()} \u03a3\u03c2",
    "small letters": str.lower,
    "its middle": lambda text: text[len(text) // 4 : len(text) // 4 + max(len(text) // 2, 12)],
    "its beginning": lambda text: f"{text[:20]}...",
    "one word": lambda text: max(text.split(), key=len),
    "its lines": lambda text: "\n  | ".join(text.splitlines()),
}


def words(letters: str) -> st.SearchStrategy[str]:
    return st.lists(st.text(letters, min_size=4, max_size=10), min_size=3, max_size=12).map(" ".join)


texts = words("bdfgkmpqvwxz0123456789") | words("жзйкфцчшщъэю") | words("縦横高低") | words("ñßœøåđ'\"\\")


def places(text: str) -> dict[str, Any]:
    """Where in a job a text may stand."""
    return {
        "a prompt": {"input": {"prompt": text}},
        "one of several": {"input": {"prompt": ["a", text, "b"]}},
        "an unknown field": {"input": {text: 1}},
        "deep": {"input": {"controlnet": [{"extra": [{"x": text}]}]}},
        "its bucket": {"input": {}, "s3Config": {"accessSecret": text}},
        "beside its input": {"input": {}, "webhook": {"url": text}, "policy": text},
    }


PLACES = sorted(places(""))


@pytest.mark.parametrize("spelling", SPELLINGS)
@examples(15)
@given(text=texts, said=st.sampled_from(SAID), place=st.sampled_from(PLACES))
@example(text="Жёлтый кот на крыше", said="{}", place="a prompt")
@example(text="Ein Ölgemälde des ΣΊΣΥΦΟΣ in İzmir", said="{}", place="a prompt")
def test_what_a_job_brought_is_not_quoted(spelling: str, text: str, said: str, place: str) -> None:
    quoted = SPELLINGS[spelling](text)
    job, other = {"id": "job-1", **places(text)[place]}, {"id": "job-2", "input": {"prompt": "another job"}}
    with written() as (stream, formatter), formatter.in_hand("job-1", job), formatter.in_hand("job-2", other):
        try:
            raise RuntimeError(said.format(quoted, quoted))
        except RuntimeError as error:
            LOG.error("unexpected failure", exc_info=error)
            LOG.warning("not at all: %s", error)
        _say_in_a_library(said.format(quoted, quoted), LOG.handlers[0])

    said_after = stream.getvalue()
    assert said_after.count("job-2 | ") == 3
    assert find_common(said_after, quoted) == [], said_after
    assert find_common(said_after, text) == [], said_after


def _say_in_a_library(message: str, handler: logging.Handler) -> None:
    library = logging.getLogger("a.library")
    library.propagate, library.handlers = False, [handler]
    library.warning(message)
    library.handlers = []


def find_common(said: str, text: str, length: int = 8) -> list[str]:
    """What both have in common that is longer than chance makes it."""
    said, text = said.lower(), text.lower()
    return [piece for at in range(len(text) - length + 1) if (piece := text[at : at + length]) in said]


@pytest.mark.parametrize("in_hand", [True, False], ids=["in a job", "at the start"])
@pytest.mark.parametrize(
    "said",
    [
        f"403 for url 'https://cdn.example.com{SIGNED}'",
        f"HTTPSConnectionPool(host='cdn', port=443): Max retries exceeded with url: {SIGNED} (Caused by 5)",
        f"Location: {SIGNED}",
        f"ftp://user:canary@host{SIGNED}.",
        "cannot decode data:image/png;base64,iVBORw0canaryKGgo",
        "token hf_0a1B2c3D4e5F6g7H8canary",
    ],
)
def test_addresses_and_keys_are_not_quoted_whoever_named_them(said: str, in_hand: bool) -> None:
    with written() as (stream, formatter):
        if in_hand:
            with formatter.in_hand("job-1", {"input": {"prompt": "a cat"}}):
                LOG.warning("failed: %s", OSError(said))
        else:
            LOG.warning("failed: %s", OSError(said))
        assert "failed: " in stream.getvalue()
        assert "canary" not in stream.getvalue().lower()


@pytest.fixture
def hub_that_refuses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """`hub_that_refuses(403)`: each file of the hub is redirected to a signed address, which answers so."""

    def refuse(status: int) -> None:
        def fetch_file(*_: Any, **__: Any) -> str:
            request = httpx2.Request("GET", f"https://cdn.example.com{SIGNED}")
            hf_raise_for_status(httpx2.Response(status, request=request))
            raise AssertionError("it does not refuse")

        monkeypatch.setattr(hub_module, "fetch_file", fetch_file)

    yield refuse


@pytest.mark.parametrize("status", [400, 403, 410, 416, 429, 500, 503])
def test_the_hubs_signed_addresses_are_told_nobody(status: int, hub_that_refuses: Callable[[int], None]) -> None:
    hub_that_refuses(status)
    with pytest.raises(ModelError) as refused:
        hub_module.download("org/name", "x.safetensors", {"revision": None, "token": None, "cache_dir": None})
    assert "org/name cannot be fetched from the hub: " in str(refused.value)
    assert "canary" not in str(refused.value)
    assert "\n" not in str(refused.value)


TARGETS = [
    SIGNED,
    f"http://127.0.0.1:PORT{SIGNED}",
    f"https://127.0.0.1:PORT{SIGNED}",
    f"http://canary.invalid{SIGNED}",
    f"http://user:canary@127.0.0.1:PORT{SIGNED}",
    "http://127.0.0.1:canary/",
    "http://127.0.0.1:999999/canary",
    "http://[canary",
    "http://canary..canary/",
    f"http://{'canary' * 20}.invalid/",
    "http://xn--canary-\xff.invalid/",
    "//canary@/",
    "canary://canary/canary",
    "/canary path\x7f",
    "/canary" * 1_000,
]


@pytest.mark.parametrize("status", [200, 403, 500])
@pytest.mark.parametrize("target", TARGETS)
def test_where_a_picture_was_redirected_to_is_told_nobody(
    target: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker.http.is_public
    monkeypatch.setattr(worker.http, "is_public", lambda ip: ip == "127.0.0.1" or real(ip))

    def lead(request: BaseHTTPRequestHandler) -> None:
        if "canary" in request.path:
            return answer(b"canary, and no picture", status)(request)
        location = target.replace("PORT", str(request.server.server_address[1]))
        return answer(b"", 302, Location=location)(request)

    with written() as (stream, formatter), hosting(lead) as host:
        url = host.url("/first.png")
        with formatter.in_hand("job-1", {"input": {"image": url}}):
            told = refused(url, PictureRules(hosts=("127.0.0.1", "canary.invalid")))
    assert "canary" not in told.lower().replace("canary.invalid only", "") + stream.getvalue().lower()


def test_what_a_replayed_picture_brings_is_the_jobs() -> None:
    """Until it is read nobody knows what it brings, and nothing is quoted at all."""
    job = {"input": {"replay": "data:image/png;base64,iVBOR"}}
    with written() as (stream, formatter), formatter.in_hand("job-1", job):
        LOG.warning("%s", ValueError("the canary of a chunk"))
        note_brought(["a yellow canary"])
        LOG.warning("%s", ValueError("a yellow thing, and more of it"))
        LOG.warning("%s", ValueError("the canary of a prompt"))
    unread, alike, word = stream.getvalue().splitlines()
    assert "chunk" not in unread and "yellow" not in alike and "more of it" in alike
    assert "canary" not in word and "of a prompt" in word


def test_a_job_that_is_over_hides_nothing_any_more() -> None:
    stream: io.StringIO
    with written() as (stream, formatter):
        with formatter.in_hand("job-1", {"input": {"prompt": "a canary"}}):
            pass
        LOG.warning("%s", ValueError("a canary is a word like any other now"))
        assert "a canary is a word" in stream.getvalue()
