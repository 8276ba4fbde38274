"""The transports under load and abuse: whatever a client does, the others go on unharmed.

Unharmed: another client that sends all the time gets an answer to every stream, and each is in
the spool once.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import grpc.aio
import pytest
from http2_client import Http2Client, body_of, framed, raw_frame
from processes import free_port
from recording import (
    COLLECT,
    DEADLINE_S,
    Messages,
    OpenStream,
    Server,
    Start,
    call_of,
    on_both_transports,
    on_uvicorn,
    own_connection,
    recorded,
    stream,
    wait_until,
)
from unharmed import (
    MIB,
    PREFACE,
    SETTINGS,
    connect,
    memory_bytes,
    others_unharmed,
    request_headers,
    send_and_read,
    times_told,
)

from framewalk.receiver.intake.collect import Collector, Received
from framewalk.receiver.intake.limits import InFlight
from framewalk.receiver.intake.telemetry import Telemetry
from framewalk.receiver.spool.spool import Spool, SpoolOptions
from framewalk.receiver.transports.opening import open_transport
from framewalk.receiver.transports.options import GrpcServer
from framewalk.receiver.transports.transport import TransportKind

pytest_plugins = ["servers"]

# Callers that speak something else


@on_uvicorn
def test_callers_without_http2_cost_a_line_a_minute(server: Server) -> None:
    with others_unharmed(server):
        for _ in range(200):
            send_and_read(server, b"GET / HTTP/1.1\r\n\r\n")
    assert server.stop() == 0
    assert times_told(server, "no_http2") == 200


# Many streams


@on_both_transports
def test_a_thousand_streams_open_at_once(server: Server) -> None:
    sent = [stream(f"open {number:04}") for number in range(1_000)]
    channels = [own_connection(server) for _ in range(10)]
    opened = [OpenStream(channels[number % 10], one) for number, one in enumerate(sent)]
    wait_until(lambda: server.metrics()["framewalk_open_streams"] == 1_000)
    assert [one.finish() for one in opened] == [b""] * 1_000
    for channel in channels:
        channel.close()
    assert recorded(server.spool) == sent


@on_both_transports
def test_thousands_of_streams_through_one_channel(server: Server) -> None:
    sent = [stream(f"one {number:04}") for number in range(1_500)]

    async def call() -> list[bytes]:
        room = asyncio.Semaphore(100)

        async def send(messages: Messages) -> bytes:
            async with room:
                return bytes(await collect(iter(messages)))

        async with grpc.aio.insecure_channel(server.address) as channel:
            collect = channel.stream_unary(COLLECT)
            return await asyncio.gather(*map(send, sent))

    assert asyncio.run(call()) == [b""] * 1_500
    assert recorded(server.spool) == sent


@on_both_transports
def test_thousands_of_streams_leave_no_memory_behind(server: Server, transport: str) -> None:
    sender = ShortStreams(server)
    sender.send(1_000)
    before_bytes = memory_bytes(server)
    sender.send(5_000)
    # The spool knows each stream: some hundred bytes.
    assert memory_bytes(server) - before_bytes < 5_000 * 1_000
    streams = Counter(one[0] for one in recorded(server.spool))
    assert (len(streams), set(streams.values())) == (6_000, {1})
    # One connection each time, or as few as it takes where they are made anew.
    assert sender.connections <= (2 if transport == "grpcio" else 2 + 6_000 // 2_000)


@on_uvicorn
def test_calls_that_are_given_up_do_not_cost_the_others_on_their_connection(
    server: Server,
) -> None:
    with own_connection(server) as channel:
        # What is long may take long, also on a machine with much else to do.
        kept = [OpenStream(channel, stream(f"kept {one}", size_bytes=90_000)) for one in range(20)]
        wait_until(lambda: server.metrics()["framewalk_open_streams"] == 20)
        for _ in range(6):
            given_up = [
                OpenStream(channel, stream("given up", size_bytes=90_000)) for _ in range(60)
            ]
            wait_until(lambda: server.metrics()["framewalk_open_streams"] == 80)
            for one in given_up:
                one.break_off()
            wait_until(lambda: server.metrics()["framewalk_open_streams"] == 20)
        assert [one.finish() for one in kept] == [b""] * 20
    assert len(recorded(server.spool)) == 20


class ShortStreams:
    """Sends streams of one message, a hundred at a time, and makes a connection as needed."""

    def __init__(self, server: Server) -> None:
        self.connections = 0
        self._server = server
        self._block = request_headers()
        self._left: list[bytes] = []
        self._named = 0

    def send(self, count: int) -> None:
        """Send new streams until all are answered."""
        self._left = [f"{self._named + number}".encode() for number in range(count)]
        self._named += count
        while self._left:
            self.connections += 1
            with connect(self._server) as client, client.makefile("rb") as answers:
                client.sendall(PREFACE + SETTINGS)
                self._send_on(client, answers)

    def _send_on(self, client: socket.socket, answers: BinaryIO) -> None:
        first, is_gone = 1, False
        while self._left and not is_gone:
            at_once = self._left[:100]
            for number, message in enumerate(at_once):
                identifier = first + 2 * number
                head = raw_frame(1, 4, identifier, self._block)
                client.sendall(head + raw_frame(0, 1, identifier, framed(message)))
            open_streams = dict(zip(range(first, first + 200, 2), at_once, strict=False))
            while open_streams:
                kind, flags, identifier, content = _read_frame(answers)
                if kind == 7:
                    assert content[4:8] == bytes(4), "an error on the connection"
                    is_gone, last = True, int.from_bytes(content[:4])
                    open_streams = {one: m for one, m in open_streams.items() if one <= last}
                elif kind == 1 and flags & 1:
                    # Headers at the end of a stream: its status.
                    self._left.remove(open_streams.pop(identifier))
                elif kind in {4, 6} and not flags:
                    client.sendall(raw_frame(kind, 1, 0, content if kind == 6 else b""))
            first += 200


def _read_frame(answers: BinaryIO) -> tuple[int, int, int, bytes]:
    head = answers.read(9)
    assert len(head) == 9, "the server closed the connection"
    identifier, size_bytes = int.from_bytes(head[5:]), int.from_bytes(head[:3])
    return head[3], head[4], identifier, answers.read(size_bytes)


# Slow and large


@on_both_transports
def test_clients_that_send_a_byte_now_and_then(server: Server) -> None:
    request = PREFACE + SETTINGS + raw_frame(1, 4, 1, request_headers())
    body = raw_frame(0, 1, 1, body_of(stream("slow")))
    places = (10, len(PREFACE) + 3, len(request) - 30, len(request) + 20)
    with others_unharmed(server) as acknowledged:
        clients = [connect(server) for _ in places]
        whole = request + body
        for client, place in zip(clients, places, strict=True):
            client.sendall(whole[:place])
        for step in range(10):
            for client, place in zip(clients, places, strict=True):
                client.sendall(whole[place + step : place + step + 1])
            enough = len(acknowledged) + 1
            wait_until(lambda enough=enough: len(acknowledged) >= enough)
        clients[-1].sendall(whole[places[-1] + 10 :])
        wait_until(lambda: stream("slow") in recorded(server.spool))
        for client in clients:
            client.close()


@on_both_transports
def test_a_message_of_a_hundred_megabytes(start: Start) -> None:
    server = start(
        FRAMEWALK_SPOOL_FSYNC="never",
        SW_CORE_GRPC_MAX_MESSAGE_SIZE=str(128 * MIB),
        FRAMEWALK_MAX_BYTES_IN_FLIGHT=str(256 * MIB),
        SW_TELEMETRY_PROMETHEUS_PORT=str(free_port()),
    )
    large = bytes(100 * MIB)
    with others_unharmed(server), own_connection(server) as channel:
        assert call_of(channel)(iter([b"small", large]), timeout=DEADLINE_S) == b""
    assert [b"small", large] in recorded(server.spool)
    assert server.metrics()["framewalk_in_flight_bytes"] == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(Collector):
    """A collector that begins to read when it may."""

    may_read: asyncio.Event

    async def collect(self, received: AsyncIterator[Received], peer: str = "") -> None:
        await self.may_read.wait()
        # By its name: a class with slots has no `super()` of its own.
        await Collector.collect(self, received, peer)


@pytest.mark.parametrize("kind", ["uvicorn", "grpcio"])
def test_a_slow_collector_slows_its_senders_down(kind: TransportKind, tmp_path: Path) -> None:
    sent = [b"x" * 10_000] * 3_000

    async def run() -> int:
        sending = 0

        async def messages() -> AsyncIterator[bytes]:
            nonlocal sending
            for message in sent:
                sending += 1
                yield message

        spool = Spool(SpoolOptions(tmp_path))
        may_read = asyncio.Event()
        collector = Slow(spool, InFlight(10, 100 * MIB), Telemetry(), may_read=may_read)
        options = GrpcServer("127.0.0.1", 0, None, MIB, None)
        transport = open_transport(kind, options, collector, None)
        await transport.start()
        address, alone = f"127.0.0.1:{transport.port}", [("grpc.use_local_subchannel_pool", 1)]
        async with (
            grpc.aio.insecure_channel(address, alone) as channel,
            grpc.aio.insecure_channel(address, alone) as other,
        ):
            call = channel.stream_unary(COLLECT)(messages())
            quick = other.unary_unary("/skywalking.v3.EBPFProfilingService/queryTasks")
            last = -1
            while last != sending:
                last = sending
                # Some time for the sender; another connection is served meanwhile.
                assert [await quick(b"x") for _ in range(100)] == [b""] * 100
            may_read.set()
            assert await call == b""
        await transport.stop(1)
        spool.close()
        return last

    sent_before_reading = asyncio.run(run())
    # Windows, buffers of the system and of both libraries.
    assert 0 < sent_before_reading * 10_000 < 20 * MIB
    assert recorded(tmp_path) == [sent]


# Frames of the connection


@on_both_transports
def test_ping_goaway_and_reset(server: Server) -> None:
    with Http2Client(server.address) as client:
        client.h2.ping(b"12345678")
        client.flush()
        wait_until(lambda: client.pongs or client.receive())
        assert client.pongs == [b"12345678"]
        streams = [client.open() for _ in range(3)]
        for number in streams:
            client.send(number, body_of(stream(f"stream {number}")))
        wait_until(lambda: server.metrics()["framewalk_in_flight_bytes"] > 3 * 5 * 30)
        client.h2.reset_stream(streams[0])
        client.flush()
        wait_until(lambda: server.metrics()["framewalk_open_streams"] == 2)
        client.socket.sendall(raw_frame(7, 0, 0, bytes(8)))
        client.send(streams[1], b"", end=True)
        assert client.wait_for(streams[1]).status == "0"
    wait_until(lambda: server.metrics()["framewalk_open_streams"] == 0)
    assert server.metrics()["k8s_als_error_streams"] == 2
    assert recorded(server.spool) == [stream(f"stream {streams[1]}")]


@on_uvicorn
def test_a_stop_lets_a_caller_try_elsewhere(server: Server) -> None:
    block = request_headers()

    def send(identifier: int) -> None:
        body = body_of(stream(f"stream {identifier}"))
        head = raw_frame(1, 4, identifier, block)
        client.sendall(head + raw_frame(0, identifier > 1, identifier, body))

    def wait_for_frame(kind: int, identifier: int) -> bytes:
        while (found := _read_frame(answers))[0] != kind or found[2] != identifier:
            pass
        return found[3]

    with connect(server) as client, client.makefile("rb") as answers:
        client.sendall(PREFACE + SETTINGS)
        send(1)
        wait_until(lambda: server.metrics()["framewalk_in_flight_bytes"] > 5 * 30)
        server.process.send_signal(signal.SIGTERM)
        assert wait_for_frame(7, 0) == struct.pack(">II", 1, 0)
        # These crossed the news on their way: "refused" says that nothing was done with them.
        send(3)
        assert wait_for_frame(3, 3) == struct.pack(">I", 7)
        client.sendall(raw_frame(0, 1, 1, b""))
        assert wait_for_frame(0, 1) == framed(b"")
        send(5)
        assert wait_for_frame(3, 5) == struct.pack(">I", 7)
        answers.read()
    assert server.wait() == 0
    assert recorded(server.spool) == [stream("stream 1")]


@on_uvicorn
def test_headers_and_frames_too_large(server: Server) -> None:
    with others_unharmed(server):
        for frames in (
            raw_frame(0, 0, 1, bytes(20_000)),
            raw_frame(1, 4, 1, request_headers()) + raw_frame(0, 0, 1, bytes(16_385)),
            raw_frame(1, 0, 1, request_headers()) + raw_frame(9, 0, 1, bytes(16_384)) * 100,
            raw_frame(1, 0, 1, request_headers()) + raw_frame(9, 0, 1, b"") * 10_000,
            raw_frame(1, 4, 1, _bomb()),
        ):
            send_and_read(server, PREFACE + SETTINGS + frames)
        with Http2Client(server.address) as client:
            opened = client.open(x_large="x" * 16_000)
            client.send(opened, body_of(stream("headers")), end=True)
            client.wait_for(opened)


def _bomb() -> bytes:
    """A header of 4,000 bytes in the table, and 10,000 references to it."""
    block = bytearray(request_headers())
    block += b"\x40\x01x" + b"\x7f" + bytes([4_000 - 127 & 127 | 128, 4_000 - 127 >> 7])
    return bytes(block + b"a" * 4_000 + b"\xbe" * 10_000)


@on_uvicorn
def test_a_client_that_does_not_read_is_not_read_from(server: Server) -> None:
    pings = raw_frame(6, 0, 0, b"12345678") * 10_000
    with others_unharmed(server):
        before_bytes = memory_bytes(server)
        with connect(server) as client:
            client.sendall(PREFACE + SETTINGS)
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.sendall(pings * 500)
            assert memory_bytes(server) - before_bytes < 10 * MIB


@on_uvicorn
def test_streams_that_are_opened_and_reset_at_once(server: Server) -> None:
    block = request_headers()
    pairs = [
        raw_frame(1, 4, number, block) + raw_frame(3, 0, number, b"\0\0\0\x08")
        for number in range(1, 20_000, 2)
    ]
    with others_unharmed(server):
        send_and_read(server, PREFACE + SETTINGS + b"".join(pairs))
        before_bytes = memory_bytes(server)
        for _ in range(3):
            send_and_read(server, PREFACE + SETTINGS + b"".join(pairs))
        assert memory_bytes(server) - before_bytes < 20 * MIB
    wait_until(lambda: server.metrics()["framewalk_open_streams"] == 0)
