"""An HTTP proxy in front of a real server, for tests: it passes requests on unchanged, except those it has a fault for.

Signatures stay valid, for the `Host` that was signed is passed on too. It knows requests, never what they are about.
"""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Fault:
    """What happens to the requests whose line ("PUT /bucket/key HTTP/1.1") contains `on`.

    Attributes:
        bytes_per_s: at which the body is read; None means as it comes.
        delay_s: once the request has come in; a hang is a long one, and who has not waited is not served.
        let_go: ends the delay when it is set.
        status: is answered, with a page of HTML as gateways send it, and the server never hears of the request.
        reset_within: the connection is reset after this share of the body has reached the server.
        answer_lost: the server does what it is asked, and the connection is reset before it can say so.
        times: counts down; None means always.
    """

    on: str
    bytes_per_s: int | None = None
    delay_s: float = 0.0
    let_go: threading.Event = field(default_factory=threading.Event)
    status: int | None = None
    reset_within: float | None = None
    answer_lost: bool = False
    times: int | None = None


@dataclass
class FaultyProxy:
    """A running proxy.

    Attributes:
        faults: to put faults in and take them out of; the first that matches is played.
        seen: the lines of all requests, in order.
    """

    url: str
    server: tuple[str, int]
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def next_fault(self, line: str) -> Fault | None:
        """The fault to play for this request, counted."""
        self.seen.append(line)
        for fault in self.faults:
            if fault.on in line and fault.times != 0:
                fault.times = fault.times and fault.times - 1
                return fault
        return None


@contextmanager
def in_front_of(url: str) -> Iterator[FaultyProxy]:
    """A proxy in front of this server until the block ends."""
    where = urlsplit(url)
    assert where.hostname and where.port
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as listener:
        listener.daemon_threads = True
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)  # or the kernel would read ahead
        listener.block_on_close = False  # a hang must not hold up the test that has seen it
        proxy = FaultyProxy(f"http://127.0.0.1:{listener.server_port}", (where.hostname, where.port))
        listener.proxy = proxy  # type: ignore[attr-defined]
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield proxy
        finally:
            listener.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        proxy: FaultyProxy = self.server.proxy  # type: ignore[attr-defined]
        fault = proxy.next_fault(self.requestline) or Fault(on="")
        length = int(self.headers.get("Content-Length", 0))
        with suppress(OSError):  # the client has gone
            if fault.reset_within is not None:
                self._pass_on(proxy.server, self.rfile.read(int(length * fault.reset_within)), cut=True)
                return self._reset()
            sent = self._read_slowly(length, fault.bytes_per_s) if fault.bytes_per_s else self.rfile.read(length)
            if len(sent) < length:  # the client has gone
                self.close_connection = True
                return
            fault.let_go.wait(fault.delay_s)
            if fault.delay_s and self._client_gone():
                self.close_connection = True
            elif fault.status is not None:
                self._answer(fault.status, [("Content-Type", "text/html")], b"<html>no</html>")
            else:
                status, headers, body = self._pass_on(proxy.server, sent)
                self._reset() if fault.answer_lost else self._answer(status, headers, body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def _read_slowly(self, length: int, bytes_per_s: int) -> bytes:
        body = b""
        while len(body) < length and (piece := self.rfile.read1(min(bytes_per_s // 20, length - len(body)))):
            body += piece
            time.sleep(0.05)
        return body

    def _pass_on(
        self, server: tuple[str, int], body: bytes, cut: bool = False
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(*server, timeout=30)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "expect":  # has been answered here
                upstream.putheader(name, value)
        upstream.endheaders(body)
        if cut:
            upstream.close()
            return 0, [], b""
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        return answer.status, answer.getheaders(), content

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _client_gone(self) -> bool:
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False

    def _reset(self) -> None:
        """End the connection with RST, as a broken router does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""
