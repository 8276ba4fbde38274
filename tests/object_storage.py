"""Object storage that tests start: an emulator of the S3 API, and a proxy before it.

The emulator keeps objects in memory, so it is never killed, and finds out whether an object is
there before it writes it, not at once: the proxy lets one PUT through at a time. It can refuse,
hang, and cut answers off, too.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

from processes import ending, free_port
from waiting import wait_until

BUCKET = "shared"
_CREDENTIAL = "20260101/us-east-1/s3/aws4_request"
_SERVE = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
# Where a Delta table has its commits.
_LOG = "_delta_log"
_HOP = {"connection", "transfer-encoding", "content-length", "server", "date"}


class Fault(StrEnum):
    NONE = "none"
    FORBIDDEN = "403"
    BUSY = "503"
    HANG = "hang"
    CUT = "cut"
    # A commit of a table is written, and nobody is told.
    LOST = "lost"


class ObjectStorage:
    """The proxy; `fault` is what it does to requests from now on, if `part` is in their path."""

    def __init__(self, emulator_port: int) -> None:
        self.fault = Fault.NONE
        self.faults = 0
        self.part = ""
        self._emulator_port = emulator_port
        self._puts = threading.Lock()
        self._mended = threading.Event()
        storage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                storage.handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815 - as it calls them

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def environment(self) -> dict[str, str]:
        """What tells a client of it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_address[1]}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
            # A request that hangs is given up soon.
            "AWS_TIMEOUT": "2s",
            "AWS_RETRY_TIMEOUT": "2s",
        }

    def put(self, name: str, content: bytes) -> str:
        """Write an object, whatever storage does to others; returns its URI."""
        path = f"/{BUCKET}/{quote(name)}"
        assert _put(self._emulator_port, path, content)
        return f"s3://{BUCKET}/{name}"

    def mend(self) -> None:
        """Let all through again, and those end that hang."""
        self.fault = Fault.NONE
        self._mended.set()

    def go_through(self, faults: Iterable[Fault], work: Callable[[int], object]) -> None:
        """Do one fault after the other, until somebody has met it; `work` gets its number."""
        for number, fault in enumerate(faults):
            before, self.fault = self.faults, fault
            work(number)
            wait_until(lambda before=before: self.faults > before)
            self.mend()

    def close(self) -> None:
        self.mend()
        self._server.shutdown()
        self._server.server_close()

    def handle(self, asked: Any) -> None:  # noqa: ANN401 - the handler's own class
        body = asked.rfile.read(int(asked.headers.get("Content-Length", 0)))
        fault = self.fault if self.part in asked.path else Fault.NONE
        if fault is Fault.LOST and not (asked.command == "PUT" and _LOG in asked.path):
            fault = Fault.NONE
        self.faults += fault is not Fault.NONE
        if fault in {Fault.FORBIDDEN, Fault.BUSY}:
            _answer(asked, int(fault), [], b"")
            return
        if fault is Fault.HANG:
            self._mended.clear()
            self._mended.wait()
            asked.close_connection = True
            return
        if asked.command == "PUT":
            with self._puts:
                answer = self._forward(asked, body)
        else:
            answer = self._forward(asked, body)
        if fault is Fault.LOST:
            asked.close_connection = True
            return
        # Who has waited too long is gone.
        with suppress(OSError):
            _answer(asked, *answer, cut=fault is Fault.CUT)
        asked.close_connection |= fault is Fault.CUT

    def _forward(self, asked: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:  # noqa: ANN401
        connection = http.client.HTTPConnection("127.0.0.1", self._emulator_port)
        try:
            connection.request(asked.command, asked.path, body, dict(asked.headers))
            response = connection.getresponse()
            headers = [
                (name, value) for name, value in response.getheaders() if name.lower() not in _HOP
            ]
            if asked.command == "HEAD":
                headers.append(("Content-Length", response.getheader("Content-Length", "0")))
            return response.status, headers, response.read()
        finally:
            connection.close()


def _answer(
    asked: Any,  # noqa: ANN401 - the handler's own class
    status: int,
    headers: list[tuple[str, str]],
    content: bytes,
    *,
    cut: bool = False,
) -> None:
    asked.send_response(status)
    for name, value in headers:
        asked.send_header(name, value)
    if asked.command != "HEAD":
        asked.send_header("Content-Length", str(len(content)))
    asked.end_headers()
    asked.wfile.write(content[: len(content) // 2] if cut else content)


@contextmanager
def object_storage() -> Iterator[ObjectStorage]:
    """Start both, with a bucket."""
    port = free_port()
    command = [sys.executable, "-c", _SERVE, str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    with ending(process):
        wait_until(lambda: _has_bucket(port))
        storage = ObjectStorage(port)
        try:
            yield storage
        finally:
            storage.close()
            process.terminate()


def _has_bucket(port: int) -> bool:
    try:
        return _put(port, f"/{BUCKET}", b"")
    except OSError:
        return False


def _put(port: int, path: str, content: bytes) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    credential = f"AWS4-HMAC-SHA256 Credential=tests/{_CREDENTIAL}"
    try:
        connection.request("PUT", path, content, {"Authorization": credential})
        return connection.getresponse().status == 200
    finally:
        connection.close()
