"""The local endpoint serves who calls it by its own names, with a key of his side, and no page from elsewhere; nothing
that a worker answers becomes a part of its page."""

import base64
import hashlib
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.fuzzing import examples

PATHS = ("/", "/docs", "/docs/swagger-ui.css", "/openapi.json", "/v2/local/health", "/v2/local/ping/someone")
OURS = ("localhost", "LOCALHOST:80", "127.0.0.1", "127.8.9.1:1", "[::1]:8080", "desk.localhost", "localhost.")
NOT_OURS = (
    "evil.example",
    "evil.example:8080",
    "127.0.0.1.nip.io",
    "localhost.evil.example",
    "127.0.0.1@evil.example",
    "evil.example#localhost",
    "192.168.1.7",
    "0.0.0.0",
    "[::2]",
    "",
    "localhost:",
    "local host",
)
ELSEWHERE = (
    "null",
    "http://evil.example",
    "http://localhost:3000",
    "https://127.0.0.1",
    "http://127.0.0.1.evil.example",
    "chrome-extension://abc",
)


@pytest.fixture(scope="module")
def desk(open_platform: Any) -> Iterator[Any]:
    with open_platform(allowed_hosts=("desk.example",), allowed_origins=("http://app.example",)) as platform:
        yield platform


def ask(desk: Any, path: str, **headers: str) -> httpx.Response:
    """With both keys, each where its side has it."""
    params = {"key": desk.config.worker_key} if "/ping/" in path else None
    headers = {"Authorization": f"Bearer {desk.config.api_key}", **headers}
    return httpx.get(desk.base_url + path, params=params, headers=headers, trust_env=False)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", [*OURS, "desk.example"])
def test_it_answers_to_its_own_names(host: str, path: str, desk: Any) -> None:
    assert ask(desk, path, Host=host).status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", NOT_OURS)
def test_it_answers_to_no_other_name(host: str, path: str, desk: Any) -> None:
    answer = ask(desk, path, Host=host)

    assert answer.status_code in (400, 403)  # 400: no name at all, for the server under it
    assert answer.status_code == 400 or "--allow-host" in answer.json()["detail"]


def test_every_route_is_for_its_own_names_and_its_own_pages(desk: Any) -> None:
    asked = 0
    for route in iter_route_contexts(desk.make_app().routes):
        for method in route.methods - {"HEAD"}:
            url = desk.base_url + route.path.replace("{endpoint}", "local").replace(":rest", "")
            for stranger in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
                assert httpx.request(method, url, headers=stranger, trust_env=False).status_code == 403, route.path
                asked += 1
    assert asked > 30


@examples(40)
@given(name=st.from_regex(r"[a-z0-9-]{1,20}(\.[a-z0-9-]{1,20}){0,3}(:[0-9]{1,5})?", fullmatch=True))
def test_no_made_up_name_is_its_own(name: str, desk: Any) -> None:
    host = name.partition(":")[0]
    if host != "localhost" and not host.endswith(".localhost") and not re.fullmatch(r"127(\.\d+){3}", host):
        assert desk.http.get("/health", headers={"Host": name}).status_code == 403


def test_a_request_without_a_name_is_refused(desk: Any) -> None:
    with socket.create_connection((desk.config.host, desk.port)) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b" 403 " in connection.recv(100)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", ELSEWHERE)
def test_a_page_from_elsewhere_is_turned_away(origin: str, path: str, desk: Any) -> None:
    answer = ask(desk, path, Origin=origin)

    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_its_own_page_may_call_it(desk: Any) -> None:
    assert ask(desk, "/v2/local/health", Origin=desk.base_url).status_code == 200
    assert ask(desk, "/v2/local/health", Host="localhost:9000", Origin="http://localhost:9000").status_code == 200


def test_a_page_that_is_let_in_may_call_it_and_read_what_it_answers(desk: Any) -> None:
    origin = {"Origin": "http://app.example"}
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    before = httpx.options(f"{desk.url}/run", headers={**origin, **asking}, trust_env=False)
    answer = ask(desk, "/v2/local/health", **origin)

    assert before.status_code == answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "http://app.example"


@pytest.mark.parametrize("path", ["job-take/w", "job-take-batch/w?batch_size=2", "job-stop/w", "ping/w"])
@pytest.mark.parametrize("key", ["local", "Bearer local", "anything", ""])
def test_the_callers_key_opens_nothing_on_the_workers_side(path: str, key: str, desk: Any) -> None:
    assert httpx.get(f"{desk.url}/{path}", headers={"Authorization": key}, trust_env=False).status_code == 401


def test_the_workers_key_opens_nothing_on_the_callers_side(desk: Any) -> None:
    for key in (desk.config.worker_key, f"Bearer {desk.config.worker_key}"):
        answer = httpx.get(f"{desk.url}/health", headers={"Authorization": key}, trust_env=False)
        assert answer.status_code == 401


def test_the_workers_key_is_another_for_every_endpoint(desk: Any, platform: Any) -> None:
    assert desk.config.worker_key != platform.config.worker_key
    assert desk.config.worker_key not in repr(desk.config)


def test_only_the_pages_own_script_and_style_run_in_it(desk: Any) -> None:
    answer = ask(desk, "/")
    rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))

    assert rules["script-src"] == rules["style-src"] == "'self'"
    assert not re.search(r"<script(?![^>]* src=)|<style", answer.text)
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert not re.search(r"\son[a-z]+=|\sstyle=", answer.text)


def test_the_documents_of_the_api_are_served_from_this_machine_alone(desk: Any) -> None:
    answer = ask(desk, "/docs")
    rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    parts = re.findall(r'(?:src|href)="([^"]*)"', answer.text)

    assert len(parts) == 3 and all(part.startswith("/docs/") for part in parts)
    assert all(ask(desk, part).status_code == 200 for part in parts)
    (inline,) = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    assert rules["script-src"].split() == ["'self'", _hash(inline)]
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert {rules["connect-src"], rules["style-src"]} == {"'self'"} and rules["img-src"] == "'self' data:"


def test_nothing_else_is_sent_from_where_these_lie(desk: Any) -> None:
    for path in ("/docs/__init__.py", "/docs/../app.py", "/docs/%2e%2e%2fapp.py", "/redoc", "/docs/oauth2-redirect"):
        assert ask(desk, path).status_code == 404


def test_no_other_page_may_show_it_in_a_frame_or_as_a_part_of_its_own(desk: Any) -> None:
    for path in PATHS:
        headers = ask(desk, path).headers
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
