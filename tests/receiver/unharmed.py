"""What tests of abuse have in common: the others, who must not notice, and bare sockets."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import grpc.aio
import hpack
from http2_client import raw_frame
from recording import (
    COLLECT,
    DEADLINE_S,
    Messages,
    Server,
    call_of,
    own_connection,
    recorded,
    stream,
    wait_until,
)

MIB = 2**20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = raw_frame(4, 0, 0, b"")


@contextmanager
def others_unharmed(server: Server) -> Iterator[list[Messages]]:
    """Send streams all the while; yields those that were acknowledged so far."""
    acknowledged: list[Messages] = []
    problems: list[object] = []
    done = threading.Event()

    def send() -> None:
        with own_connection(server) as channel:
            collect = call_of(channel)
            while not done.is_set():
                messages = stream(f"other {len(acknowledged):06}", 20)
                try:
                    collect(iter(messages), timeout=DEADLINE_S)
                except grpc.RpcError as error:
                    problems.append(error)
                    return
                acknowledged.append(messages)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        wait_until(lambda: acknowledged or problems)
        yield acknowledged
        enough = len(acknowledged) + 2
        wait_until(lambda: len(acknowledged) >= enough or problems)
    finally:
        done.set()
        thread.join(DEADLINE_S)
    assert not problems
    kept = [one for one in recorded(server.spool) if one[0].startswith(b"other")]
    assert kept == sorted(acknowledged)


def memory_bytes(server: Server) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def connect(server: Server) -> socket.socket:
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), timeout=DEADLINE_S)


def request_headers() -> bytes:
    """A header block that means the same on every stream: nothing of it is put into a table."""
    named = {":method": "POST", ":scheme": "http", ":path": COLLECT, ":authority": "localhost"}
    named |= {"te": "trailers", "content-type": "application/grpc"}
    fields = [hpack.NeverIndexedHeaderTuple(name, value) for name, value in named.items()]
    return bytes(hpack.Encoder().encode(fields, huffman=False))


def send_and_read(server: Server, content: bytes) -> None:
    """Send bytes, say that there are no more, and read until the server closes."""
    with connect(server) as client, suppress(OSError):
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65_536):
            pass


def times_told(server: Server, reason: str) -> int:
    """Return how many were told of, of a server that has ended: in a line a minute, and a last."""
    told = [json.loads(line) for line in server.lines if line.startswith("{")]
    lines = [one for one in told if one.get("reason") == reason]
    times = [datetime.fromisoformat(one["time"]) for one in lines]
    # The first at once, and a last one at the end.
    assert len(lines) <= 2 + (times[-1] - times[0]).total_seconds() / 60
    return sum(int(one["times"]) for one in lines)
