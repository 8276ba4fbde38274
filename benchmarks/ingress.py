"""CPU time that a server needs to take in a message, by transport.

    python benchmarks/ingress.py --messages 200000 --rounds 3 --json ingress.json

Sends one stream of 200-byte messages over a plain socket, in turn with many messages in each
HTTP/2 DATA frame and with a frame for each message (as Go's client sends), to: grpcio's asyncio
server with an empty handler of raw bytes, and both of framewalk's transports, with a collector
that counts and with the spool. A server counts its own CPU time, user and system; the figure is
the median of the rounds. Ends with 1 where a transport needs too large a share of grpcio's.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio
import hpack
import uvicorn
from frame.memory_peak import peak_bytes
from uvicorn.protocols.http.zttp_h2_impl import ZttpH2Protocol

from framewalk.engine import CaptureReader
from framewalk.engine.captures import segments_in
from framewalk.receiver.intake import Collector, InFlight, Telemetry
from framewalk.receiver.spool import Spool, SpoolOptions
from framewalk.receiver.transports import COLLECT, GrpcServer, TransportKind, open_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from framewalk.receiver.intake import Received

# Of what grpcio's empty handler needs, at most this share for the transport alone.
SHARE_LIMIT: Final = 0.2

MESSAGE_BYTES: Final = 200
EMPTY: Final = "grpcio, empty handler"
FLOOR: Final = "uvicorn, reads and answers"
SERVERS: Final = (EMPTY, "grpcio", "uvicorn", "grpcio, spool", "uvicorn, spool")
SHAPES: Final = ("bulk", "each")

_FRAME_BYTES: Final = 16_384
_FRAME_HEAD_BYTES: Final = 9
# Of a gRPC message: whether it is compressed, and its size.
_MESSAGE_HEAD: Final = struct.Struct(">BI")
_WINDOW_BYTES: Final = 65_535
WARM_UP_MESSAGES: Final = 2_000
_LARGEST_MESSAGE_BYTES: Final = 2**22
_MOST_BYTES_IN_FLIGHT: Final = 2**40
_TIMEOUT_S: Final = 300


@dataclass(frozen=True)
class Measured:
    """CPU time of a server per message, in microseconds: of each round."""

    server: str
    shape: str
    rounds_us: tuple[float, ...]

    @property
    def median_us(self) -> float:
        """The figure."""
        return statistics.median(self.rounds_us)


# The servers


async def serve(kind: str, folder: Path) -> None:
    """Serve until standard input ends; each line of it is answered with what was needed."""
    counted = _Counted()
    if kind == EMPTY:
        port, stop = await _serve_empty(counted)
    elif kind == FLOOR:
        port, stop = await _serve_floor(counted)
    else:
        port, stop = await _serve_transport(kind, folder, counted)
    print(port, flush=True)
    await asyncio.to_thread(_tell, counted)
    await stop()


@dataclass
class _Counted:
    messages: int = 0
    size_bytes: int = 0


def _tell(counted: _Counted) -> None:
    for _ in sys.stdin:
        told = (time.process_time_ns(), peak_bytes(), counted.messages, counted.size_bytes)
        print(*told, flush=True)


async def _serve_empty(counted: _Counted) -> tuple[int, Any]:
    async def handle(messages: AsyncIterator[bytes], _context: object) -> bytes:
        async for message in messages:
            counted.messages += 1
            counted.size_bytes += len(message)
        return b""

    class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, _details: object) -> Any:  # noqa: ANN401 - grpc has no types
            return grpc.stream_unary_rpc_method_handler(handle)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return port, lambda: server.stop(0)


async def _serve_floor(counted: _Counted) -> tuple[int, Any]:
    """Serve with uvicorn alone: the body is read, and answered; nothing is split."""
    head = [(b"content-type", b"application/grpc")]
    start = {"type": "http.response.start", "status": 200, "headers": head, "trailers": True}
    body = {"type": "http.response.body", "body": bytes(_MESSAGE_HEAD.size)}
    end = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}

    async def app(_scope: object, receive: Any, send: Any) -> None:  # noqa: ANN401
        parts, has_more = [], True
        while has_more:
            event = await receive()
            parts.append(event["body"])
            has_more = event["more_body"]
        # Before the answer: who has it may ask how many there were.
        counted.messages += _count(b"".join(parts))
        for part in (start, body, end):
            await send(part)

    config = uvicorn.Config(
        app, http=ZttpH2Protocol, port=0, log_config=None, access_log=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)

    async def stop() -> None:
        server.should_exit = True
        await serving

    return server.servers[0].sockets[0].getsockname()[1], stop


def _count(content: bytes) -> int:
    count = start = 0
    while start < len(content):
        start += _MESSAGE_HEAD.size + _MESSAGE_HEAD.unpack_from(content, start)[1]
        count += 1
    return count


async def _serve_transport(kind: str, folder: Path, counted: _Counted) -> tuple[int, Any]:
    transport, _, sink = kind.partition(", ")
    in_flight = InFlight(10, _MOST_BYTES_IN_FLIGHT)
    telemetry = Telemetry()
    if sink == "spool":
        spool = Spool(SpoolOptions(folder))
        collector: Collector = Collector(spool, in_flight, telemetry)
    else:
        collector = _Counting(cast("Spool", None), in_flight, telemetry, counted=counted)
    options = GrpcServer("127.0.0.1", 0, None, _LARGEST_MESSAGE_BYTES, None)
    opened = open_transport(cast("TransportKind", transport), options, collector, None)
    await opened.start()
    return opened.port, lambda: opened.stop(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counting(Collector):
    counted: _Counted

    async def collect(self, received: AsyncIterator[Received], _peer: str = "") -> None:
        async for messages, _ in received:
            self.counted.messages += len(messages)
            self.counted.size_bytes += sum(map(len, messages))


# The client


@dataclass(frozen=True)
class Body:
    """DATA frames of one stream, cut where a window may end: `sizes` count against it."""

    frames: tuple[bytes, ...]
    sizes_bytes: tuple[int, ...]

    @staticmethod
    def of(messages: int, shape: str) -> Body:
        """Make the frames of a stream of messages that all differ."""
        framed = list(_framed(messages))
        if shape == "each":
            contents = framed
        else:
            body = b"".join(framed)
            starts = range(0, len(body), _FRAME_BYTES)
            contents = [body[start : start + _FRAME_BYTES] for start in starts]
        frames = tuple(frame(0, 0, 1, content) for content in contents)
        return Body(frames, tuple(map(len, contents)))

    def messages(self) -> Iterator[bytes]:
        """Yield the messages that the frames carry."""
        content = b"".join(frame[_FRAME_HEAD_BYTES:] for frame in self.frames)
        start = 0
        while start < len(content):
            _, size_bytes = _MESSAGE_HEAD.unpack_from(content, start)
            start += _MESSAGE_HEAD.size + size_bytes
            yield content[start - size_bytes : start]


def _framed(messages: int) -> Iterator[bytes]:
    filler = bytes(range(MESSAGE_BYTES))
    for number in range(messages):
        message = struct.pack(">Q", number) + filler[8:]
        yield _MESSAGE_HEAD.pack(0, MESSAGE_BYTES) + message


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """Return a frame of HTTP/2."""
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


class Sender:
    """One connection and one stream on it, with flow control and no more of HTTP/2 than that."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        self._received = b""
        self._connection_bytes = self._stream_bytes = self._initial_bytes = _WINDOW_BYTES
        self._decoder = hpack.Decoder()
        self._status: str | None = None

    def send(self, body: Body) -> None:
        """Send a whole stream and wait for its answer, which must be OK."""
        self._socket.sendall(frame(1, 4, 1, _headers()))
        next_frame, total = 0, len(body.frames)
        while next_frame < total:
            room_bytes = min(self._connection_bytes, self._stream_bytes)
            first = next_frame
            while next_frame < total and body.sizes_bytes[next_frame] <= room_bytes:
                room_bytes -= body.sizes_bytes[next_frame]
                next_frame += 1
            if next_frame == first:
                self._receive()
                continue
            used_bytes = sum(body.sizes_bytes[first:next_frame])
            self._connection_bytes -= used_bytes
            self._stream_bytes -= used_bytes
            self._socket.sendall(b"".join(body.frames[first:next_frame]))
        self._socket.sendall(frame(0, 1, 1, b""))
        while self._status is None:
            self._receive()
        self._socket.close()
        assert self._status == "0", f"the stream ended with status {self._status}"

    def _receive(self) -> None:
        more = self._socket.recv(65_536)
        assert more, "the server closed the connection"
        self._received += more
        while len(self._received) >= 9:
            size_bytes = int.from_bytes(self._received[:3])
            if len(self._received) < 9 + size_bytes:
                return
            kind, flags, stream = struct.unpack_from(">BBI", self._received, 3)
            content = self._received[9 : 9 + size_bytes]
            self._received = self._received[9 + size_bytes :]
            self._take(kind, flags, stream, content)

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == 8 and stream:
            self._stream_bytes += int.from_bytes(content)
        elif kind == 8:
            self._connection_bytes += int.from_bytes(content)
        elif kind == 4 and not flags:
            initial_bytes = dict(struct.iter_unpack(">HI", content)).get(4, self._initial_bytes)
            self._stream_bytes += initial_bytes - self._initial_bytes
            self._initial_bytes = initial_bytes
            self._socket.sendall(frame(4, 1, 0, b""))
        elif kind == 6 and not flags:
            self._socket.sendall(frame(6, 1, 0, content))
        elif kind == 1:
            self._status = dict(self._decoder.decode(content)).get("grpc-status", self._status)
        assert kind not in {3, 7}, "the server reset the stream or the connection"


def _headers() -> bytes:
    return bytes(
        hpack.Encoder().encode(
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", COLLECT),
                (":authority", "localhost"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            ]
        )
    )


# Measuring


@dataclass(frozen=True)
class Content:
    """What a stream held."""

    messages: int
    size_bytes: int
    digest: str


@dataclass(frozen=True)
class Taken:
    """What a server needed for a stream, and what it took in; memory is the most it ever held."""

    cpu_s: float
    peak_bytes: int
    messages: int
    size_bytes: int


def take_in(kind: str, warm_up: Body, body: Body) -> Taken:
    """Send a stream to a new server, and return what it needed.

    Raises AssertionError where the server counts, or its spool holds, anything but what was sent.
    """
    with tempfile.TemporaryDirectory() as folder:
        with measured_server(kind, Path(folder)) as server:
            Sender(server.port).send(warm_up)
            before = server.ask()
            Sender(server.port).send(body)
            after = server.ask()
        kept = content_of_spool(Path(folder))
    cpu_s = (after.cpu_ns - before.cpu_ns) / 10**9
    sent = content_of(body.messages())
    if kind.endswith("spool"):
        assert kept == {content_of(warm_up.messages()), sent}, f"{kind}: the spool holds {kept}"
        return Taken(cpu_s, after.peak_bytes, sent.messages, sent.size_bytes)
    messages, size_bytes = after.messages - before.messages, after.size_bytes - before.size_bytes
    assert (messages, size_bytes) == (sent.messages, sent.size_bytes), (
        f"{kind}: {messages:,} messages of {size_bytes:,} bytes were counted, not {sent}"
    )
    return Taken(cpu_s, after.peak_bytes, messages, size_bytes)


def content_of(messages: Iterable[bytes]) -> Content:
    """Count and digest messages in their order."""
    digest = hashlib.blake2b(digest_size=8)
    sizes_bytes = []
    for message in messages:
        digest.update(_MESSAGE_HEAD.pack(0, len(message)) + message)
        sizes_bytes.append(len(message))
    return Content(len(sizes_bytes), sum(sizes_bytes), digest.hexdigest())


def content_of_spool(folder: Path) -> set[Content]:
    """Read a spool and return what its streams hold."""
    streams: defaultdict[tuple[Path, int], list[bytes]] = defaultdict(list)
    for path in segments_in(folder):
        with CaptureReader(path) as reader:
            for batch in reader:
                columns = (batch.messages[name].to_pylist() for name in ("stream", "message"))
                for stream, message in zip(*columns, strict=True):
                    streams[path, stream].append(message)
    return {content_of(messages) for messages in streams.values()}


@dataclass(frozen=True)
class Told:
    """What a server says of itself: CPU time since its start, memory at most, what it counted."""

    cpu_ns: int
    peak_bytes: int
    messages: int
    size_bytes: int


@dataclass(frozen=True)
class MeasuredServer:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    def ask(self) -> Told:
        """Ask it what it needed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return Told(*map(int, self.process.stdout.readline().split()))


@contextmanager
def measured_server(kind: str, folder: Path) -> Iterator[MeasuredServer]:
    """Run a server; a spool is in the folder, and whole at the end."""
    command = [sys.executable, __file__, "--serve", kind, "--folder", folder]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        watchdog = threading.Timer(_TIMEOUT_S, server.kill)
        watchdog.start()
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            yield MeasuredServer(server, int(server.stdout.readline()))
            server.stdin.close()
            server.wait(_TIMEOUT_S)
        finally:
            watchdog.cancel()
            server.kill()


def measure(messages: int, rounds: int, servers: Sequence[str]) -> list[Measured]:
    """Measure all servers in turn, as often as `rounds` says."""
    found: dict[tuple[str, str], list[float]] = {}
    for shape in SHAPES:
        warm_up, body = Body.of(WARM_UP_MESSAGES, shape), Body.of(messages, shape)
        for _ in range(rounds):
            for server in servers:
                taken = take_in(server, warm_up, body)
                cpu_us = taken.cpu_s * 10**6 / messages
                found.setdefault((server, shape), []).append(cpu_us)
    return [Measured(server, shape, tuple(found[server, shape])) for server, shape in found]


def main() -> int:
    """Measure, print a table, and tell whether the default transport is cheap enough."""
    options = _arguments()
    if options.serve:
        asyncio.run(serve(options.serve, options.folder))
        return 0
    measured = measure(options.messages, options.rounds, options.servers)
    medians = {(one.server, one.shape): one.median_us for one in measured}
    print(
        f"{'CPU time per message, µs':<26} {'bulk':>8} {'of empty':>9} {'each':>8} {'of empty':>9}"
    )
    for server in options.servers:
        cells = []
        for shape in SHAPES:
            figure_us = medians[server, shape]
            cells.append(f"{figure_us:>8.2f} {figure_us / medians[EMPTY, shape]:>9.3f}")
        print(f"{server:<26} {' '.join(cells)}")
    if options.json:
        rows = [asdict(one) | {"median_us": one.median_us} for one in measured]
        result = {"messages": options.messages, "measured": rows}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    shares = [medians["uvicorn", shape] / medians[EMPTY, shape] for shape in SHAPES]
    print(f"largest share of uvicorn {max(shares):.3f}, limit {options.limit:.3f}")
    return int(max(shares) > options.limit)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=200_000, help="messages in the stream")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each server")
    parser.add_argument("--limit", type=float, default=SHARE_LIMIT, help="the share allowed")
    parser.add_argument(
        "--servers", nargs="+", choices=SERVERS, default=list(SERVERS), help="which to measure"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--serve", choices=(*SERVERS, FLOOR), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not {EMPTY, "uvicorn"} <= set(options.servers):
        parser.error(f"--servers: {EMPTY!r} and 'uvicorn' are always needed")
    return options


if __name__ == "__main__":
    sys.exit(main())
