"""Attacks on a receiver, and what an honest sender notices of them.

    python benchmarks/attacks.py --seconds 20 --json attacks.json
    python benchmarks/attacks.py --framewalk ../old/.venv/bin/framewalk

Each attack is a process of its own, nice and on one core, and comes from another address of this
machine (127.0.0.66). Beside it an honest sender (127.0.0.1) sends a stream every half second, and
every fifth over a new connection. The figures: its slowest answer, what was refused, and the
receiver's peak memory. Ends with 1 where an answer took longer than 2 s, one was refused, or the
receiver took more than 512 MiB.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import hpack

from framewalk.receiver.transports import COLLECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB: Final = 2**20
SLOWEST_S: Final = 2.0
MOST_BYTES: Final = 512 * MIB
ATTACKER: Final = "127.0.0.66"

_HALVES: Final = "halves"
_LONG_ANSWER: Final = b"SELECT repeat('x', 1000) FROM range(1000000)"
_EVERY_S: Final = 0.5
_DEADLINE_S: Final = 20
_START_S: Final = 30
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGEST_FRAME_BYTES: Final = 16_384
_WINDOW_BYTES: Final = 65_535


@dataclass
class Noticed:
    """What an honest sender noticed, and what the receiver needed."""

    attack: str
    streams: int = 0
    refused: int = 0
    slowest_s: float = 0
    peak_bytes: int = 0
    attacked: dict[str, float] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Whether nobody but the attacker noticed."""
        held = self.slowest_s <= SLOWEST_S and self.peak_bytes <= MOST_BYTES
        return held and not self.refused and self.streams > 0


# HTTP/2, as an attacker has it


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    head = struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream)
    return head + content


def _headers(**more: str) -> bytes:
    """Return a header block that means the same on every stream."""
    named = {":method": "POST", ":scheme": "http", ":path": COLLECT, ":authority": "localhost"}
    named |= {"te": "trailers", "content-type": "application/grpc"}
    named |= {name.replace("_", "-"): value for name, value in more.items()}
    fields = [hpack.NeverIndexedHeaderTuple(name, value) for name, value in named.items()]
    return bytes(hpack.Encoder().encode(fields, huffman=False))


_SETTINGS: Final = _frame(4, 0, 0, b"")
_BEGIN: Final = _PREFACE + _SETTINGS


def _connect(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), 10, source_address=(ATTACKER, 0))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _data(stream: int, body: bytes) -> bytes:
    pieces = range(0, len(body), _LARGEST_FRAME_BYTES)
    return b"".join(_frame(0, 0, stream, body[at : at + _LARGEST_FRAME_BYTES]) for at in pieces)


def _bomb(inflated_bytes: int, *, noise: int = 0) -> bytes:
    """Return a gzip message, a thousandth in size; with noise in every so many words, denser."""
    content = bytes(inflated_bytes)
    if noise:
        piece = os.urandom(16) + bytes(16 * noise - 16)
        content = b"".join(os.urandom(16) + piece[16:] for _ in range(inflated_bytes // len(piece)))
    packed = gzip.compress(content, 6)
    return struct.pack(">BI", 1, len(packed)) + packed


# The attacks: each goes on until it is killed


def _unfinished(ports: _Ports) -> None:
    """Five gzip messages of 50 MiB, 262 KB on the wire, and small ones; no stream ends."""
    bomb, block = _bomb(50 * MIB), _headers(grpc_encoding="gzip")
    small = [_bomb(size_bytes) for size_bytes in (60 * 1024, 4096, 1024)]
    while True:
        held = [_connect(ports.grpc) for _ in range(5 + len(small))]
        for one in held[:5]:
            one.sendall(_BEGIN + _frame(1, 4, 1, block) + _data(1, bomb))
        for one, body in zip(held[5:], small, strict=True):
            calls = (_frame(1, 4, call, block) + _data(call, body) for call in range(1, 250, 2))
            one.sendall(_BEGIN + b"".join(calls))
        _drain(held, 20)


def _open_calls(ports: _Ports) -> None:
    """Eight connections with 128 open calls each."""
    calls = b"".join(_frame(1, 4, number, _headers()) for number in range(1, 256, 2))
    while True:
        held = [_connect(ports.grpc) for _ in range(8)]
        for one in held:
            one.sendall(_BEGIN + calls)
        _drain(held, 5)


def _bombs(ports: _Ports, noise: int = 0) -> None:
    """Three connections with a gzip message of 50 MiB in each of their calls, for ever."""
    bomb = _bomb(50 * MIB, noise=noise)
    _in_threads(3, lambda: _send_calls(ports.grpc, bomb, _headers(grpc_encoding="gzip")))


def _dense_bombs(ports: _Ports) -> None:
    """The same, with messages that are compressed to about a fiftieth."""
    _bombs(ports, noise=50)


def _whole(ports: _Ports) -> None:
    """Eight connections that send whole streams of 4 MiB as fast as they go."""
    body = struct.pack(">BI", 0, 4 * MIB) + os.urandom(4 * MIB)
    _in_threads(8, lambda: _send_calls(ports.grpc, body, _headers()))


def _resets(ports: _Ports) -> None:
    """400 connections that open calls and reset them at once."""
    block = _headers()
    reset = b"\0\0\0\x08"
    pairs = b"".join(
        _frame(1, 4, number, block) + _frame(3, 0, number, reset) for number in range(1, 8_000, 2)
    )

    def attack() -> None:
        while True:
            held = []
            for _ in range(100):
                with contextlib.suppress(OSError):
                    held.append(_connect(ports.grpc))
            for one in held:
                one.settimeout(0)
                with contextlib.suppress(OSError):
                    one.send(_BEGIN + pairs)
            _drain(held, 0.5)

    _in_threads(4, attack)


def _halves(ports: _Ports) -> None:
    """Half a preface, half a header block and half a request on all ports; tells when they end."""
    request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
    begun = {
        "half a preface": (ports.grpc, _PREFACE[:12]),
        "a preface and no settings": (ports.grpc, _PREFACE),
        "half a header block": (ports.grpc, _BEGIN + _frame(1, 0, 1, _headers()[:20])),
        "half a frame": (ports.grpc, _BEGIN + _frame(1, 4, 1, _headers())[:20]),
        "half a request for metrics": (ports.metrics, request),
        "half a request for SQL": (ports.sql, request),
        "half a query": (ports.sql, _query(b"FROM metrics")[:-5]),
        "an answer of SQL that is not read": (ports.sql, _query(_LONG_ANSWER)),
    }
    started_s = time.monotonic()
    held = {}
    for name, (port, content) in begun.items():
        one = _connect(port)
        if "not read" in name:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.sendall(content)
        held[name] = one
    while held:
        for name, one in list(held.items()):
            if _is_closed(one, reads="not read" not in name):
                print(json.dumps({name: time.monotonic() - started_s}), flush=True)
                del held[name]
        time.sleep(0.05)


def _query(query: bytes) -> bytes:
    head = b"POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(query), query)


def _is_closed(one: socket.socket, *, reads: bool) -> bool:
    if not reads:
        # Its end is not seen by reading: the other side has closed when it resets.
        poll = select.poll()
        poll.register(one, select.POLLHUP | select.POLLERR | select.POLLRDHUP)
        return bool(poll.poll(0))
    one.settimeout(0)
    try:
        return not one.recv(65_536)
    except BlockingIOError:
        return False
    except OSError:
        return True


ATTACKS: Final[dict[str, Callable[[_Ports], None]]] = {
    "unfinished": _unfinished,
    "open-calls": _open_calls,
    "bombs": _bombs,
    "dense-bombs": _dense_bombs,
    "whole": _whole,
    "resets": _resets,
    _HALVES: _halves,
}


def _in_threads(count: int, attack: Callable[[], None]) -> None:
    threads = [threading.Thread(target=attack, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _send_calls(port: int, body: bytes, block: bytes) -> None:
    """Send calls one after the other, each whole, and a new connection where one has ended."""
    while True:
        with contextlib.suppress(OSError):
            _send_on(_connect(port), body, block)


def _send_on(connection: socket.socket, body: bytes, block: bytes) -> None:
    """Send calls until the connection ends; windows are kept to, as the receiver would end it."""
    with connection:
        connection.sendall(_BEGIN)
        answers = _Answers(connection)
        for number in range(1, 4_000, 2):
            connection.sendall(_frame(1, 4, number, block))
            answers.stream, answers.stream_bytes, answers.is_over = number, _WINDOW_BYTES, False
            at = 0
            while at < len(body) and not answers.is_over:
                room_bytes = min(answers.stream_bytes, answers.all_bytes, _LARGEST_FRAME_BYTES)
                if room_bytes <= 0:
                    answers.take()
                    continue
                piece = body[at : at + room_bytes]
                at += len(piece)
                answers.stream_bytes -= len(piece)
                answers.all_bytes -= len(piece)
                connection.sendall(_frame(0, at >= len(body), number, piece))
            while select.select([connection], [], [], 0)[0]:
                answers.take()


class _Answers:
    """What has come on a connection: the room that windows leave, and the end of a stream."""

    def __init__(self, connection: socket.socket) -> None:
        self.stream = 0
        self.all_bytes = self.stream_bytes = _WINDOW_BYTES
        self.is_over = False
        self._reading = connection.makefile("rb")

    def take(self) -> None:
        """Wait for a frame, and take it."""
        head = self._reading.read(9)
        if len(head) < 9:
            raise OSError
        content = self._reading.read(int.from_bytes(head[:3]))
        kind, stream = head[3], int.from_bytes(head[5:])
        if kind == 8:
            more_bytes = int.from_bytes(content)
            self.all_bytes += more_bytes * (stream == 0)
            self.stream_bytes += more_bytes * (stream == self.stream)
        elif kind == 7:
            raise OSError
        elif stream == self.stream and (kind == 3 or head[4] & 1):
            self.is_over = True


def _drain(held: list[socket.socket], seconds: float) -> None:
    """Read what comes for some time, and end."""
    end_s = time.monotonic() + seconds
    while held and (left_s := end_s - time.monotonic()) > 0:
        for one in select.select(held, [], [], left_s)[0]:
            with contextlib.suppress(BlockingIOError):
                try:
                    is_gone = not one.recv(65_536)
                except BlockingIOError:
                    continue
                except OSError:
                    is_gone = True
                if is_gone:
                    held.remove(one)
                    one.close()
    for one in held:
        one.close()


# The honest side


@dataclass(frozen=True)
class _Ports:
    grpc: int
    metrics: int
    sql: int


@contextlib.contextmanager
def _receiver(framewalk: str, command: str, folder: Path) -> Iterator[tuple[int, _Ports]]:
    metrics, sql = _free_port(), _free_port()
    known = {
        "SW_CORE_GRPC_HOST": "127.0.0.1",
        "FRAMEWALK_LOG_FORMAT": "json",
        "SW_TELEMETRY_PROMETHEUS_PORT": str(metrics),
        "FRAMEWALK_SQL_LISTEN_PORT": str(sql),
        "SW_QUERY": "-",
        "SW_PROMQL": "-",
        "FRAMEWALK_STORE_PATH": str(folder / "metrics.duckdb"),
    }
    arguments = [framewalk, command, "--port", "0", "--spool", str(folder / "spool")]
    errors = (folder / "errors").open("w+", encoding="utf-8")
    process = subprocess.Popen(arguments, env=os.environ | known, stderr=errors)
    try:
        ports = _Ports(_port(folder / "errors"), metrics, sql)
        _wait_for(metrics, *[sql] * (command == "serve"))
        yield process.pid, ports
    finally:
        process.send_signal(signal.SIGKILL if command == "record" else signal.SIGTERM)
        process.wait(60)
        errors.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


def _wait_for(*ports: int) -> None:
    end_s = time.monotonic() + _START_S
    for port in ports:
        while time.monotonic() < end_s:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)


def _port(errors: Path) -> int:
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s:
        for line in errors.read_text(encoding="utf-8").splitlines():
            if line.startswith("{") and json.loads(line)["event"] == "ready":
                return int(json.loads(line)["port"])
        time.sleep(0.05)
    raise TimeoutError(errors.read_text(encoding="utf-8"))


def _peak_bytes(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    line = next(one for one in status.splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _send_honestly(port: int, noticed: Noticed, seconds: float) -> None:
    address, alone = f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.insecure_channel(address, alone)
    number, next_s = 0, time.monotonic()
    end_s = next_s + seconds
    while time.monotonic() < end_s:
        if number % 5 == 4:
            channel.close()
            channel = grpc.insecure_channel(address, alone)
        messages = [f"{time.time_ns()} {part} ".encode() + os.urandom(970) for part in range(20)]
        started_s = time.monotonic()
        try:
            channel.stream_unary(COLLECT, None, None)(iter(messages), timeout=_DEADLINE_S)
        except grpc.RpcError as error:
            noticed.refused += 1
            print(f"  {error.code()}: {error.details()}", file=sys.stderr)
        number += 1
        noticed.streams += 1
        noticed.slowest_s = max(noticed.slowest_s, time.monotonic() - started_s)
        next_s += _EVERY_S
        time.sleep(max(next_s - time.monotonic(), 0))
    channel.close()


def run(name: str, framewalk: str, seconds: float) -> Noticed:
    """Attack a new receiver for some seconds."""
    noticed = Noticed(name)
    command = "serve" if name == _HALVES else "record"
    with (
        tempfile.TemporaryDirectory() as folder,
        _receiver(framewalk, command, Path(folder)) as (process, ports),
    ):
        arguments = [
            sys.executable,
            __file__,
            "--attack",
            name,
            "--ports",
            json.dumps(asdict(ports)),
        ]
        attacker = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        try:
            _send_honestly(ports.grpc, noticed, seconds)
            noticed.peak_bytes = _peak_bytes(process)
        finally:
            attacker.kill()
            told, _ = attacker.communicate()
    for line in told.splitlines():
        noticed.attacked |= json.loads(line)
    return noticed


def main() -> int:
    """Run the attacks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help=", ".join(ATTACKS))
    parser.add_argument("--framewalk", default=str(Path(sys.executable).with_name("framewalk")))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        os.nice(19)
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        ATTACKS[options.attack](_Ports(**options.ports))
        return 0
    found: list[Noticed] = []
    for name in options.names or ATTACKS:
        # What is half is closed after 20 s, so it takes longer to see.
        seconds = max(options.seconds, 40) if name == _HALVES else options.seconds
        found.append(run(name, options.framewalk, seconds))
        _print(found[-1])
    if options.json:
        content: list[Any] = [asdict(one) | {"is_good": one.is_good} for one in found]
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0 if all(one.is_good for one in found) else 1


def _print(noticed: Noticed) -> None:
    print(
        f"{noticed.attack:<12} {noticed.streams:>4} streams {noticed.refused:>4} refused "
        f"{noticed.slowest_s:>7.2f} s slowest {noticed.peak_bytes / MIB:>7.0f} MiB peak",
        flush=True,
    )
    for name, seconds in noticed.attacked.items():
        print(f"  {name}: closed after {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
