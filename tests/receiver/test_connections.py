"""Connections: how many there may be, and which are given up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from http2_client import Http2Client, framed, raw_frame
from processes import free_port
from recording import (
    COLLECT,
    DEADLINE_S,
    Server,
    Start,
    collect,
    on_uvicorn,
    recorded,
    stream,
    wait_until,
)
from serving import Serve
from unharmed import PREFACE, SETTINGS, connect, others_unharmed, request_headers, times_told

from framewalk.receiver.intake.collect import Collector
from framewalk.receiver.intake.limits import InFlight
from framewalk.receiver.intake.telemetry import Telemetry
from framewalk.receiver.spool.spool import Spool, SpoolOptions
from framewalk.receiver.transports.opening import open_transport
from framewalk.receiver.transports.options import GrpcServer
from framewalk.receiver.transports.uvicorn.listening import Place, Places

pytest_plugins = ["servers"]

OTHER = "127.0.0.66"
MIB = 2**20


# Connections that have to end


@on_uvicorn
def test_a_call_that_is_open_across_the_last_call_of_its_connection_is_kept(server: Server) -> None:
    block, sent = request_headers(), stream("across")
    with connect(server) as client, client.makefile("rb") as answers:
        client.sendall(PREFACE + SETTINGS + raw_frame(1, 4, 1, block))
        client.sendall(raw_frame(0, 0, 1, framed(sent[0])))
        number, is_told = 3, False
        while not is_told:
            for one in range(number, number + 100, 2):
                client.sendall(raw_frame(1, 5, one, block))
            number += 100
            is_told = answers_of(answers, number - 2)
        # It may open no more calls, and has all the time that it needs for this one.
        assert number > 2 * 2_000
        for message in sent[1:]:
            client.sendall(raw_frame(0, 0, 1, framed(message)))
        client.sendall(raw_frame(0, 1, 1, b""))
        wait_until(lambda: recorded(server.spool) == [sent])
        while answers.read(1):
            pass


def answers_of(answers: BinaryIO, last: int) -> bool:
    """Read until a call has ended, and tell whether there was word that no more are taken."""
    while True:
        head = answers.read(9)
        assert len(head) == 9, "the connection was cut off"
        content = answers.read(int.from_bytes(head[:3]))
        if head[3] == 7:
            assert struct.unpack(">II", content[:8])[1] == 0
            return True
        if int.from_bytes(head[5:]) == last and (head[4] & 1 or head[3] == 3):
            return False


@on_uvicorn
def test_who_only_resets_is_cut_off_and_after_some_times_turned_away(server: Server) -> None:
    block = request_headers()
    content = PREFACE + SETTINGS + resets(block, 3_000)
    with others_unharmed(server):
        for _ in range(8):
            assert is_cut_off(server, content)
        with source(server) as turned_away:
            assert is_at_end(turned_away)
    wait_until(lambda: server.metrics()["framewalk_open_streams"] == 0)
    assert server.wait_for("senders are refused")["peers"] == f"{OTHER} (1)"
    assert server.wait_for("senders are refused")["reason"] == "connections"


@on_uvicorn
def test_calls_beside_resets_end_with_their_connection(server: Server) -> None:
    block = request_headers()
    with source(server) as client:
        begin = raw_frame(1, 4, 1, block) + raw_frame(0, 0, 1, framed(b"open"))
        client.sendall(PREFACE + SETTINGS + begin)
        wait_until(lambda: server.metrics()["framewalk_open_streams"] == 1)
        with contextlib.suppress(OSError):
            client.sendall(resets(block, 300, first=3))
        wait_until(lambda: server.metrics()["framewalk_open_streams"] == 0)
        assert is_at_end(client)
    assert collect(server.address, stream("mine")) == b""


@on_uvicorn
def test_a_broken_protocol_cuts_a_connection_off_at_once(server: Server) -> None:
    block = request_headers()
    with source(server) as client:
        begin = raw_frame(1, 4, 1, block) + raw_frame(0, 0, 1, framed(b"open"))
        client.sendall(PREFACE + SETTINGS + begin)
        wait_until(lambda: server.metrics()["framewalk_open_streams"] == 1)
        client.sendall(raw_frame(0, 1, 0, b"data of no stream"))
        wait_until(lambda: server.metrics()["framewalk_open_streams"] == 0)
        assert is_at_end(client)


def resets(block: bytes, count: int, first: int = 1) -> bytes:
    return b"".join(
        raw_frame(1, 4, number, block) + raw_frame(3, 0, number, b"\0\0\0\x08")
        for number in range(first, first + 2 * count, 2)
    )


def is_cut_off(server: Server, content: bytes) -> bool:
    with source(server) as client:
        with contextlib.suppress(OSError):
            client.sendall(content)
        return is_at_end(client)


def source(server: Server, address: str = OTHER) -> socket.socket:
    host, port = server.address.split(":")
    return socket.create_connection((host, int(port)), DEADLINE_S, (address, 0))


def is_at_end(client: socket.socket) -> bool:
    """Read to the end, whatever comes; False where it does not come."""
    try:
        while client.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


# How many


@on_uvicorn
def test_one_peer_has_only_so_many_connections(start: Start) -> None:
    server = start(FRAMEWALK_MAX_CONNECTIONS_PER_PEER="4")
    with contextlib.ExitStack() as opened:
        for _ in range(4):
            client = opened.enter_context(Http2Client(server.address, source=OTHER))
            client.call("/Unknown", b"")
        for _ in range(3):
            assert is_at_end(opened.enter_context(source(server)))
        assert collect(server.address, stream("mine")) == b""
        assert client.call("/Unknown", b"").status == "12"
    # A place that is left is there for the next.
    wait_until(lambda: can_call(server))
    assert server.stop() == 0
    assert times_told(server, "connections") >= 3


@on_uvicorn
def test_a_newcomer_gets_a_connection_of_who_has_most(start: Start) -> None:
    server = start(FRAMEWALK_MAX_CONNECTIONS="9", SW_TELEMETRY_PROMETHEUS_PORT=str(free_port()))
    with contextlib.ExitStack() as opened:
        greedy = [opened.enter_context(Http2Client(server.address, source=OTHER)) for _ in range(9)]
        calls = [client.open() for client in greedy[:2]]
        wait_until(lambda: server.metrics()["framewalk_open_streams"] == 2)
        assert collect(server.address, stream("mine")) == b""
        # The oldest that had no call.
        while not greedy[2].gone:
            greedy[2].receive()
        for client, call in zip(greedy, calls, strict=False):
            client.send(call, framed(b"x"), end=True)
            assert client.wait_for(call).status == "0"


def can_call(server: Server) -> bool:
    with (
        contextlib.suppress(OSError, AssertionError),
        Http2Client(server.address, source=OTHER) as one,
    ):
        return one.call("/Unknown", b"").status == "12"
    return False


def test_places_are_shared_when_all_are_taken() -> None:
    ended: list[str] = []
    places = Places(10, 8)
    for number in range(8):
        name = f"a{number}"
        assert places.take(Place("a", lambda name=name: ended.append(name)), 0)
    assert not places.take(Place("a", ended.clear), 0)
    b = [Place("b", lambda: ended.append("b")) for _ in range(6)]
    assert [places.take(one, 0) for one in b] == [True] * 5 + [False]
    assert ended == ["a0", "a1", "a2"]
    places.leave(b[0])
    places.leave(b[0])
    assert places.take(b[0], 0)
    assert not places.take(b[5], 0)


def test_each_address_of_a_peer_has_its_own_bound_and_they_share_one_share() -> None:
    ended: list[str] = []
    places = Places(6, 2)
    for address in ("1", "1", "2", "2", "3", "3"):
        name = f"a{address}"
        assert places.take(Place("a", lambda name=name: ended.append(name), address=address), 0)
    assert not places.take(Place("a", ended.clear, address="4"), 0)
    b = [Place("b", lambda: ended.append("b"), address="4") for _ in range(3)]
    assert [places.take(one, 0) for one in b] == [True, True, False]
    assert ended == ["a1", "a1"]
    places.leave(b[1])
    assert places.take(b[2], 0)
    # The places of its first address are free again, and it has more than its share.
    assert not places.take(Place("a", ended.clear, address="1"), 0)


def test_a_peer_is_barred_for_some_seconds_only() -> None:
    places = Places(10, 10)
    for at_s in (0, 50, 51, 52, 53, 54, 55, 56):
        places.strike("a", at_s)
        assert places.take(Place("a", list), at_s)
    assert len(ended_at := [at_s for at_s in range(57, 70) if not barred(places, at_s)]) == 13
    places.strike("a", 57)
    assert [at_s for at_s in range(57, 70) if barred(places, at_s)] == [57, 58, 59]
    assert ended_at[0] == 57
    assert not places.is_barred("b", 57)


def barred(places: Places, at_s: float) -> bool:
    return places.is_barred("a", at_s)


def test_some_descriptors_are_not_for_connections() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400));"
        "from framewalk.receiver.transports.uvicorn.listening import most_connections as most;"
        "print(most(10), most(10_000))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["10", "272"]


def test_grpcio_says_what_it_does_not_hold(start: Start) -> None:
    server = start(FRAMEWALK_GRPC_TRANSPORT="grpcio")
    assert "uvicorn" in server.wait_for("grpcio does not hold all limits")["remedy"]


# Halves


HEADERS = raw_frame(1, 4, 1, request_headers())
HALVES = {
    "nothing": b"",
    "half a preface": PREFACE[:12],
    "no settings": PREFACE,
    "half the settings": PREFACE + SETTINGS[:5],
    "half a frame": PREFACE + SETTINGS + HEADERS[:20],
    "half a header block": PREFACE + SETTINGS + raw_frame(1, 0, 1, request_headers()),
    "half a header block, and more of it": PREFACE
    + SETTINGS
    + raw_frame(1, 0, 1, request_headers()[:5])
    + raw_frame(9, 0, 1, request_headers()[5:]),
    "half a frame after many": PREFACE
    + SETTINGS
    + raw_frame(6, 0, 0, bytes(8)) * 1_000
    + HEADERS[:20],
}


def with_transport(folder: Path, patience_s: float, attack: Callable[[int], None]) -> None:
    """Run something in a thread against a server of this patience."""

    async def run() -> None:
        spool = Spool(SpoolOptions(folder))
        collector = Collector(spool, InFlight(10, 100 * MIB), Telemetry())
        options = GrpcServer("127.0.0.1", 0, None, MIB, None, patience_s=patience_s)
        transport = open_transport("uvicorn", options, collector, None)
        await transport.start()
        try:
            await asyncio.to_thread(attack, transport.port)
        finally:
            await transport.stop(0)
            spool.close()

    asyncio.run(run())


@pytest.mark.parametrize("content", HALVES.values(), ids=HALVES.keys())
def test_who_stops_halfway_is_given_up(content: bytes, tmp_path: Path) -> None:
    def attack(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
            client.sendall(content)
            assert is_at_end(client)

    with_transport(tmp_path, 0.2, attack)


HALF_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "


def test_halves_on_every_port_of_a_server_are_given_up_and_who_is_idle_stays(serve: Serve) -> None:
    """Case 22: nothing, or half of what is due, to all ports of `framewalk serve` as shipped."""
    graphql_port = str(free_port())
    server = serve(FRAMEWALK_SQL="default", SW_QUERY="graphql", SW_CORE_REST_PORT=graphql_port)
    server.wait_for("engine ready")
    events = ("metrics served", "sql served", "graphql served")
    ports = [int(server.wait_for(event)["port"]) for event in events]
    halves = [(int(server.wait_for("ready")["port"]), content) for content in HALVES.values()]
    halves += [(port, content) for port in ports for content in (b"", HALF_REQUEST)]
    with contextlib.ExitStack() as opened:

        def open_one(port: int, content: bytes) -> socket.socket:
            client = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
            client.sendall(content)
            return opened.enter_context(client)

        idle = open_one(halves[0][0], PREFACE + SETTINGS)
        held = [open_one(port, content) for port, content in halves]
        # After the same 20 s; 30 where much came before.
        assert [is_at_end(client) for client in held] == [True] * len(held)
        idle.sendall(HEADERS + raw_frame(0, 1, 1, framed(b"idle")))
        wait_until(lambda: [b"idle"] in recorded(server.spool))


def test_who_sends_half_a_frame_byte_by_byte_is_given_up(tmp_path: Path) -> None:
    def attack(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
            client.sendall(PREFACE + SETTINGS + raw_frame(1, 4, 1, bytes(4_000))[:9])
            done = threading.Event()
            thread = threading.Thread(target=trickle, args=(client, done))
            thread.start()
            assert is_at_end(client)
            done.set()
            thread.join(DEADLINE_S)

    def trickle(client: socket.socket, done: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while not done.wait(0.02):
                client.sendall(b"x")

    with_transport(tmp_path, 0.2, attack)


def test_who_does_not_read_is_given_up(tmp_path: Path) -> None:
    def attack(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(PREFACE + SETTINGS)
            with pytest.raises(ConnectionError):
                client.sendall(raw_frame(6, 0, 0, bytes(8)) * 2_000_000)

    with_transport(tmp_path, 0.2, attack)


def test_who_is_silent_between_frames_stays(tmp_path: Path) -> None:
    def attack(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as idle:
            idle.sendall(PREFACE + SETTINGS)
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as half:
                    half.sendall(PREFACE + SETTINGS + HEADERS[:20])
                    assert is_at_end(half)
            with Http2Client(f"127.0.0.1:{port}") as other:
                assert other.call(COLLECT, framed(b"other")).status == "0"
            idle.sendall(HEADERS + raw_frame(0, 1, 1, framed(b"idle")))
            wait_until(lambda: [b"idle"] in recorded(tmp_path))

    with_transport(tmp_path, 0.1, attack)
