"""A URL in a job leads the worker to public hosts only, for a bounded time, and what goes wrong there stays there."""

import asyncio
import socket
import time
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from runpod.serverless.utils import rp_ssrf  # noqa: F401  imported here, before any deadline runs

import worker.http
from tests.helpers.picture_sources import answer, corners, drip, file_of, hosting, refused
from worker.images.load import PictureRules

ROOT = Path(__file__).parents[2]
GOOD = {format: file_of(corners(), format) for format in ("PNG", "JPEG", "WEBP")}


# What a URL leads to


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a connection is attempted to; none is made but to this machine."""
    addresses: list[str] = []
    real = asyncio.SelectorEventLoop.sock_connect

    async def dial(loop: asyncio.SelectorEventLoop, sock: socket.socket, address: Any) -> None:
        addresses.append(address[0])
        if address[0] != "127.0.0.1":
            raise ConnectionRefusedError
        await real(loop, sock, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", dial)
    return addresses


def _resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """Lets every name lead to these addresses, the next question to the next list."""
    turn = cycle(answers)

    def getaddrinfo(host: object, port: int, *rest: object, **more: object) -> list[Any]:
        found = next(turn)
        families = [socket.AF_INET6 if ":" in ip else socket.AF_INET for ip in found]
        return [
            (family, socket.SOCK_STREAM, 6, "", (ip, port, 0, 0) if family == socket.AF_INET6 else (ip, port))
            for family, ip in zip(families, found, strict=True)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("ip", ["8.8.8.8", "2606:4700:4700::1111"])
def test_a_public_address_is_dialled(dialled: list[str], ip: str) -> None:
    """Or else the tests below would prove nothing."""
    refused(f"https://{f'[{ip}]' if ':' in ip else ip}/a.png")
    assert dialled == [ip]


PRIVATE = [
    "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
    "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.88.99.1",
    "::1", "::", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "fe80::1", "fc00::1", "fd00:ec2::254",
    "fec0::1", "ff02::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1", "2001:0:7f00:1::1", "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("ip", PRIVATE)
def test_no_address_that_is_not_public_is_dialled(monkeypatch: pytest.MonkeyPatch, dialled: list[str], ip: str) -> None:
    assert "no public address" in refused(f"http://{f'[{ip}]' if ':' in ip else ip}/a.png")
    _resolving(monkeypatch, [ip])
    assert "no public address" in refused("https://pictures.example/a.png")
    assert dialled == []


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost.", "LOCALHOST", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001",
        "127.1", "127.0.0.1.", "127\u30020\u30020\u30021", "①②⑦.⓪.⓪.①", "\uff11\uff12\uff17.0.0.1",
        "[0:0:0:0:0:0:0:1]", "[::ffff:7f00:1]",
        "[fe80::1%25lo]", "[::1%25lo]", "[::1", "::1", "", ".", "..", "a..b", "-", "a b", "a%2eb",
        "127.0.0.1%2f.example.com",
        f"{'a' * 64}.example", "a." * 200 + "example", "\ud800.example", "xn--a-ä.example", "[v1.x]", "[127.0.0.1]",
    ],
)  # fmt: skip
def test_no_spelling_of_this_machine_is_dialled(dialled: list[str], host: str) -> None:
    refused(f"http://{host}/a.png")
    assert dialled == []


def test_a_listed_host_may_not_be_private_either(monkeypatch: pytest.MonkeyPatch, dialled: list[str]) -> None:
    _resolving(monkeypatch, ["10.0.0.1"])
    refused("https://pictures.example/", PictureRules(hosts=("pictures.example",)))
    assert dialled == []


def test_the_sdk_s_escape_hatch_is_not_ours(monkeypatch: pytest.MonkeyPatch, dialled: list[str]) -> None:
    monkeypatch.setenv("RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS", "true")
    refused("http://169.254.169.254/latest/meta-data/")
    assert dialled == []


@pytest.mark.parametrize(
    "turns", [[["8.8.8.8", "127.0.0.1"]], [["127.0.0.1", "8.8.8.8"]], [["8.8.8.8"], ["127.0.0.1"]]]
)
def test_a_name_that_leads_to_both_kinds(
    monkeypatch: pytest.MonkeyPatch, dialled: list[str], turns: list[list[str]]
) -> None:
    """Whether in one answer or from one answer to the next."""
    _resolving(monkeypatch, *turns)
    for _ in range(3):
        refused("https://pictures.example/")
    assert set(dialled) == {"8.8.8.8"}


def test_proxies_are_not_asked(monkeypatch: pytest.MonkeyPatch, dialled: list[str]) -> None:
    with hosting(answer(GOOD["PNG"])) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        assert "directly" in refused("http://8.8.8.8/a.png")
        assert dialled == ["8.8.8.8"] and proxy.asked == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://user:canary@8.8.8.8/", "password"),
        ("http://user@8.8.8.8/", "password"),
        ("http://@8.8.8.8/", "password"),
        ("http://8.8.8.8:22/", "80 and 443"),
        ("https://8.8.8.8:8443/", "80 and 443"),
        ("http://8.8.8.8:99999/", "URL"),
        ("http://8.8.8.8:-1/", "URL"),
        ("http://8.8.8.8:x/", "URL"),
        ("http://8.8.8.8\\@127.0.0.1/", "backslashes"),
        ("http://8.8.8.8/\r\nX-Canary: 1", "control characters"),
        ("http://8.8.8.8\t/", "control characters"),
        ("http://8.8.8.8/a b", "spaces"),
        ("http://8.8.8.8/" + "a" * 9_000, "8000"),
        ("http:8.8.8.8/", "https://"),
        ("http:///a.png", "https://"),
        ("https://", "https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("FILE://localhost/etc/passwd", "http:// or https://"),
        ("ftp://user:canary@8.8.8.8/a.png", "http:// or https://"),
        ("gopher://8.8.8.8/", "http:// or https://"),
        ("//8.8.8.8/a.png", "nor"),
        ("javascript:alert(1)", "nor"),
        ("s3://bucket/canary.png", "http:// or https://"),
    ],
)
def test_a_url_that_no_job_may_name(dialled: list[str], url: str, why: str) -> None:
    told = refused(url)
    assert why in told and "canary" not in told.lower()
    assert dialled == []


@pytest.mark.parametrize(
    "host", ["evil.example", "pictures.example.evil.example", "evilpictures.example", "pictures.example", "8.8.8.8"]
)
def test_only_listed_hosts(monkeypatch: pytest.MonkeyPatch, dialled: list[str], host: str) -> None:
    _resolving(monkeypatch, ["8.8.8.8"])
    told = refused(f"https://{host}/", PictureRules(hosts=("*.pictures.example", "cdn.example")))
    assert told.endswith("this endpoint takes pictures from *.pictures.example, cdn.example only")
    assert dialled == []


# What a host answers


@pytest.fixture
def this_machine_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the tests' own hosts be dialled; where they lead is judged as ever, but for 127.0.0.1."""
    real = worker.http.is_public
    monkeypatch.setattr(worker.http, "is_public", lambda ip: ip == "127.0.0.1" or real(ip))


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.usefixtures("this_machine_is_public")
class TestHosts:
    RULES = PictureRules(hosts=("127.0.0.1",), timeout_s=10, max_bytes=100_000)

    def refused(self, send: Callable[[BaseHTTPRequestHandler], None], timeout_s: float = 10) -> str:
        with hosting(send) as host:
            rules = PictureRules(hosts=("127.0.0.1",), timeout_s=timeout_s, max_bytes=100_000)
            told = refused(host.url("/canary?canary=1"), rules)
            assert "canary" not in told and str(host.port) not in told and "rrno" not in told
            return told

    @pytest.mark.parametrize(
        "send",
        [
            pytest.param(lambda request: time.sleep(5), id="silence"),
            pytest.param(drip(b"HTTP/1.1 200 O", b"K"), id="no end of the status line"),
            pytest.param(drip(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"), id="headers without end"),
            pytest.param(drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"), id="one slow header"),
            pytest.param(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"x"), id="slow body"),
            pytest.param(drip(CHUNKED, b"1\r\nx\r\n"), id="slow chunks"),
            pytest.param(drip(CHUNKED + b"0\r\n", b"A: b\r\n"), id="slow trailers"),
            pytest.param(drip(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"), id="continue"),
        ],
    )
    def test_the_deadline_holds_however_slowly_it_comes(self, send: Callable[[BaseHTTPRequestHandler], None]) -> None:
        start = time.monotonic()
        assert self.refused(send, timeout_s=0.5).endswith("fetching it took longer than 0.5 s")
        assert time.monotonic() - start < 1.5

    def test_the_deadline_is_one_for_all_redirects(self) -> None:
        def lead(request: BaseHTTPRequestHandler) -> None:
            time.sleep(0.3)
            answer(b"", 302, Location="/canary")(request)

        assert "longer than 0.5 s" in self.refused(lead, timeout_s=0.5)

    @pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 403, 404, 429, 500, 503])
    def test_only_status_200_is_a_picture(self, status: int) -> None:
        body = b"" if status in (204, 304) else GOOD["PNG"]
        assert self.refused(answer(body, status)).endswith(f"the host answered with status {status}")

    @pytest.mark.parametrize(("status", "told"), [(404, "status 404"), (302, "more than 3 times")])
    def test_what_comes_with_an_error_or_a_redirect_is_not_waited_for(self, status: int, told: str) -> None:
        head = f"HTTP/1.1 {status} X\r\nLocation: /canary\r\nContent-Length: 9999\r\n\r\n".encode()
        start = time.monotonic()
        assert told in self.refused(drip(head, b"x"))
        assert time.monotonic() - start < 5

    def test_a_body_without_end(self) -> None:
        def flood(request: BaseHTTPRequestHandler) -> None:
            request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(10_000):
                request.wfile.write(bytes(100_000))

        assert "at most 100000 bytes" in self.refused(flood)

    @pytest.mark.parametrize("declared", ["5", "0", "-1", "x", "99999999999999999999"])
    def test_a_length_that_lies(self, declared: str) -> None:
        def lie(request: BaseHTTPRequestHandler) -> None:
            request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + declared.encode() + b"\r\n\r\n" + GOOD["PNG"])

        self.refused(lie)

    def test_an_answer_that_unfolds(self) -> None:
        packed = zlib.compressobj(9, wbits=31)
        body = packed.compress(bytes(50_000_000)) + packed.flush()
        assert len(body) < 100_000
        assert "no PNG" in self.refused(answer(body, Content_Encoding="gzip"))

    @pytest.mark.parametrize(
        "said", [b"", b"\0" * 100, b"SSH-2.0-canary\r\n", b"HTTP/1.1 200 OK\r\n: \r\n\xff\r\n\r\n"]
    )
    def test_a_host_that_speaks_something_else(self, said: bytes) -> None:
        assert "failed" in self.refused(lambda request: request.wfile.write(said))

    def test_a_host_without_a_good_certificate(self) -> None:
        with hosting(answer(GOOD["PNG"])) as host:
            assert "no secure connection" in refused(host.url().replace("http:", "https:"), self.RULES)

    @pytest.mark.parametrize(
        "target",
        ["http://169.254.169.254/", "//10.0.0.1/", "http://[2002:7f00:1::]/", "http://[::1]/", "file:///etc/passwd",
         "data:image/png;base64,AAAA", "ws://127.0.0.1:PORT/", "http://u:p@127.0.0.1:PORT/", "http://8.8.8.8/",
         "http://evil.example/", "/\\evil", "http://["],
    )  # fmt: skip
    @pytest.mark.parametrize("hosts", [("127.0.0.1",), ("127.0.0.1", "169.254.169.254", "10.0.0.1", "::1")])
    def test_redirects_are_judged_one_by_one(self, dialled: list[str], target: str, hosts: tuple[str, ...]) -> None:
        def lead(request: BaseHTTPRequestHandler) -> None:
            port = request.server.server_address[1]
            answer(b"", 302, Location=target.replace("PORT", str(port)))(request)

        with hosting(lead) as host:
            refused(host.url(), PictureRules(hosts=hosts))
            assert dialled == ["127.0.0.1"] and len(host.asked) == 1

    @pytest.mark.parametrize("target", ["/again", "", "http://", "/\xff\xfe"])
    def test_redirects_end(self, target: str) -> None:
        with hosting(answer(b"", 302, Location=target)) as host:
            assert "more than 3 times" in refused(host.url(), self.RULES)
            assert len(host.asked) == 4

    def test_nothing_is_asked_twice(self) -> None:
        with hosting(answer(b"", 503)) as host:
            refused(host.url(), self.RULES)
            assert len(host.asked) == 1
