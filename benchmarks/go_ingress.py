"""CPU time that a server needs to take in a message from Rover's own gRPC library.

    python benchmarks/go_ingress.py build/go_sender --rounds 5 --json go_ingress.json

A sender on grpc-go (benchmarks/go_sender, built by `make go-ingress`) sends streams of 278 messages
one after the other as Rover does: 4,600 messages a second on one connection, and 7,400 on eight. It
sends to, in turn: grpcio's asyncio server with an empty handler of raw bytes; uvicorn with an
application that only reads and answers, which is the floor of this transport; and this transport
with the spool. Servers count their own CPU time; the sender says how long it waited for answers.
Ends with 1 where the transport needs too large a share of grpcio's, or answers late.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ingress import EMPTY, FLOOR, Content, content_of, content_of_spool, measured_server
from large.cluster import make_cluster
from large.minutes import Minutes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SPOOL: Final = "uvicorn, spool"
SERVERS: Final = (EMPTY, FLOOR, SPOOL)
# Of what grpcio's empty handler needs.
SHARE_LIMIT: Final = 0.15
# What an answer may come later than that of grpcio's empty handler, at the median.
LATER_LIMIT_MS: Final = 20
STREAM_MESSAGES: Final = 278

_WARM_UP_STREAMS: Final = 8
_SERVICES: Final = 400


@dataclass(frozen=True, slots=True)
class Load:
    """Connections, and how long each waits from one stream to the next."""

    connections: int
    every_s: float

    @property
    def per_s(self) -> float:
        """Messages a second."""
        return self.connections * STREAM_MESSAGES / self.every_s

    def __str__(self) -> str:
        """Say it in words."""
        some = "one connection" if self.connections == 1 else f"{self.connections} connections"
        return f"{self.per_s:,.0f} messages a second on {some}"


LOADS: Final = (Load(1, 0.06), Load(8, 0.3))


@dataclass(frozen=True, slots=True)
class Taken:
    """What a server needed for a load."""

    messages: int
    cpu_s: float
    peak_bytes: int
    seconds: float
    answer_ms: dict[str, float]

    @property
    def cpu_us(self) -> float:
        """CPU time per message."""
        return self.cpu_s * 10**6 / self.messages


@dataclass(frozen=True, slots=True)
class Measured:
    """All rounds of one server under one load; `shares` are of grpcio's in the same round."""

    server: str
    load: str
    rounds_us: tuple[float, ...]
    shares: tuple[float, ...]
    answer_ms: dict[str, float]


def streams_of(seconds: float, load: Load) -> list[list[bytes]]:
    """Return streams for so long; all differ."""
    count = max(int(load.per_s * seconds / STREAM_MESSAGES), load.connections)
    minutes = Minutes(make_cluster(_SERVICES))
    messages: list[bytes] = []
    for number in itertools.count():
        if len(messages) >= count * STREAM_MESSAGES:
            break
        minute = minutes.make(number)
        for stream in range(minute.streams):
            messages += minute.stream_messages(stream)
    return [messages[at * STREAM_MESSAGES : (at + 1) * STREAM_MESSAGES] for at in range(count)]


def take_in(sender: Path, kind: str, load: Load, streams: Sequence[Sequence[bytes]]) -> Taken:
    """Send streams to a new server; it must have got what was sent, and all must be answered."""
    with tempfile.TemporaryDirectory() as folder:
        warm_up = [[b"warm up %d" % one] * STREAM_MESSAGES for one in range(_WARM_UP_STREAMS)]
        files = {"warm up": warm_up, "load": streams}
        for name, some in files.items():
            _write_streams(Path(folder) / name, some)
        spool = Path(folder) / "spool"
        spool.mkdir()
        with measured_server(kind, spool) as server:
            _send(sender, server.port, Load(1, 0.01), Path(folder) / "warm up")
            before = server.ask()
            told = _send(sender, server.port, load, Path(folder) / "load")
            after = server.ask()
        sent = [content_of(stream) for stream in streams]
        messages = sum(one.messages for one in sent)
        if kind == SPOOL:
            _check_spool(spool, sent, warm_up)
        else:
            counted = after.messages - before.messages
            assert counted == messages, f"{kind}: {counted:,} messages of {messages:,}"
    return Taken(
        messages,
        (after.cpu_ns - before.cpu_ns) / 10**9,
        after.peak_bytes,
        told["seconds"],
        told["answer_ms"],
    )


def _check_spool(folder: Path, sent: Sequence[Content], warm_up: Sequence[Sequence[bytes]]) -> None:
    kept = content_of_spool(folder)
    assert kept == {*sent, *map(content_of, warm_up)}, "the spool does not hold what was sent"


def _write_streams(path: Path, streams: Sequence[Sequence[bytes]]) -> None:
    with path.open("wb") as file:
        for stream in streams:
            file.write(struct.pack("<I", len(stream)))
            for message in stream:
                file.write(struct.pack("<I", len(message)) + message)


def _send(sender: Path, port: int, load: Load, file: Path) -> dict:  # type: ignore[type-arg]
    command = [sender, "-file", file, "-to", f"127.0.0.1:{port}"]
    command += ["-connections", str(load.connections), "-every", f"{load.every_s}s"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout)
    assert not told["failed"], told
    return dict(told)


def measure(
    sender: Path, rounds: int, seconds: float, servers: Sequence[str] = SERVERS
) -> Iterator[Measured]:
    """Measure all servers in turn, under each load."""
    for load in LOADS:
        streams = streams_of(seconds, load)
        found: defaultdict[str, list[Taken]] = defaultdict(list)
        for _ in range(rounds):
            for server in servers:
                found[server].append(take_in(sender, server, load, streams))
        for server, taken in found.items():
            us = [one.cpu_us for one in taken]
            shares = [one / other.cpu_us for one, other in zip(us, found[EMPTY], strict=True)]
            waits = {
                name: statistics.median(one.answer_ms[name] for one in taken)
                for name in taken[0].answer_ms
            }
            yield Measured(server, str(load), tuple(us), tuple(shares), waits)


def main() -> int:
    """Measure, print a table, and tell whether the transport is cheap and quick enough."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sender", type=Path, help="the program of benchmarks/go_sender")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--servers", nargs="+", default=SERVERS, choices=SERVERS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    measured = list(measure(options.sender, options.rounds, options.seconds, options.servers))
    for one in measured:
        if one.server == EMPTY:
            print(f"\n{one.load}\n{'':<28} {'us':>7} {'share':>7}   answer after ms: p50, p99, max")
        waits = ", ".join(f"{one.answer_ms[name]:.1f}" for name in ("p50", "p99", "max"))
        us, share = statistics.median(one.rounds_us), statistics.median(one.shares)
        print(f"{one.server:<28} {us:>7.2f} {share:>7.3f}   {waits}")
    if options.json:
        rows = [asdict(one) for one in measured]
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(not all(_is_good(one, measured) for one in measured))


def _is_good(one: Measured, measured: Sequence[Measured]) -> bool:
    if one.server != SPOOL:
        return True
    empty = next(each for each in measured if (each.server, each.load) == (EMPTY, one.load))
    later_ms = one.answer_ms["p50"] - empty.answer_ms["p50"]
    return statistics.median(one.shares) <= SHARE_LIMIT and later_ms <= LATER_LIMIT_MS


if __name__ == "__main__":
    sys.exit(main())
