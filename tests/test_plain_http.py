"""Callers of HTTP/1.1 that stop halfway, do not read, or are too many; SQL and metrics have it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sql_serving import NO_TLS, OPTIONS, rows, serving
from waiting import DEADLINE_S, wait_until

from framewalk.engine import Store
from framewalk.engine.oal.plan import Plan, make_plan
from framewalk.queries.plain_http import Http1Server, patient_http1
from framewalk.queries.sql_endpoint.server import SqlServer, secure

PATIENCE_S = 0.4
HEAD = b"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"
LONG = b"SELECT repeat('x', 1000) FROM range(1000000)"


@pytest.fixture
def impatient(tmp_path: Path, plan: Plan) -> Iterator[SqlServer]:
    with Store(tmp_path / "store.duckdb", make_plan(plan.metrics[::12])) as store:
        secure(store.connection)
        options = replace(OPTIONS, patience_s=PATIENCE_S, max_rows=10**9)
        with serving(store.connection, tmp_path / "store.duckdb", options) as server:
            yield server


def connected(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), DEADLINE_S, (source, 0))


def read_to_end(client: socket.socket) -> bytes:
    content = b""
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65_536):
            content += part
    return content


def query(text: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(text), text)


HALVES = {
    "nothing": b"",
    "half a line": b"GET / HT",
    "half a head": HEAD,
    "half a body": query(b"FROM metrics")[:-3],
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10\r\nFROM",
    "a request, and half of one": query(b"SELECT 1") + HEAD,
}


@pytest.mark.parametrize("content", HALVES.values(), ids=HALVES.keys())
def test_half_a_request_ends_with_its_connection(content: bytes, impatient: SqlServer) -> None:
    with connected(impatient.port) as client:
        client.sendall(content)
        answer = read_to_end(client)
    assert answer.count(b"HTTP/1.1 200") == content.count(b"SELECT 1")


def test_an_answer_that_is_not_read_ends_with_its_connection(impatient: SqlServer) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(DEADLINE_S)
        client.connect(("127.0.0.1", impatient.port))
        client.sendall(query(LONG))
        # What cannot be sent: the connection is there no more.
        wait_until(lambda: is_reset(client))
    assert rows(impatient, "SELECT 1 AS one") == [{"one": 1}]


def is_reset(client: socket.socket) -> bool:
    try:
        client.sendall(b"x")
    except ConnectionError:
        return True
    return False


def test_an_answer_that_is_read_steadily_comes_to_its_end(impatient: SqlServer) -> None:
    # Longer than the patience, with the server always ahead.
    with connected(impatient.port) as client:
        client.sendall(query(b"SELECT i, repeat('x', 1000) FROM range(50000) AS t(i)"))
        assert b"HTTP/1.1 200" in client.recv(100)
        size_bytes = 0
        client.settimeout(DEADLINE_S)
        while not (part := client.recv(1_000_000)).endswith(b"0\r\n\r\n"):
            assert part
            size_bytes += len(part)
        assert size_bytes > 45_000_000


def test_who_asks_again_and_again_keeps_a_connection(impatient: SqlServer) -> None:
    """Between its requests nothing is awaited for as long as the patience."""
    thinks = threading.Event()
    begun_s = time.monotonic()
    with connected(impatient.port) as client:
        answers = client.makefile("rb")
        while time.monotonic() - begun_s < 4 * PATIENCE_S:
            client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            head = list(iter(answers.readline, b"\r\n"))
            assert head[0] == b"HTTP/1.1 200 OK\r\n"
            (length,) = (line for line in head if line.startswith(b"content-length:"))
            assert answers.read(int(length.split()[1]))
            thinks.wait(PATIENCE_S / 20)


def test_one_peer_has_only_so_many_connections() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = Http1Server(app, listener)
    server.start()
    try:
        with contextlib.ExitStack() as opened:
            many = [opened.enter_context(connected(port, "127.0.0.66")) for _ in range(17)]
            assert read_to_end(many[-1]) == b""
            # Else the body of each answer waits 40 ms for its head to be acknowledged.
            assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            ask = f"http://127.0.0.1:{port}/"
            assert httpx.get(ask, timeout=DEADLINE_S, verify=NO_TLS).status_code == 204
            many[0].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert many[0].recv(100).startswith(b"HTTP/1.1 204")
    finally:
        server.stop()
    with pytest.raises(ConnectionRefusedError):
        connected(port)


def test_the_shipped_patience_is_that_of_a_real_sender() -> None:
    assert patient_http1().bounds.patience_s == OPTIONS.patience_s == 20
