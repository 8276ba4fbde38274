"""A server under load, end to end: CPU time per message, memory and lag of both processes.

    python benchmarks/live.py --rate 50000 --seconds 60 --json live.json

Starts `framewalk serve` and sends it a generated capture at a steady rate, again and again, over
plain sockets. Every message must be acknowledged and counted. Ends with 1 where the rate was not
reached, or a process needed more memory than it may.

With `--services 1000` it is a large cluster (large_cluster.py) in place of the generated one, at
the rate that is its own: a request of each pair of pods a minute, 100,000 messages.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from frame.server import cpu_s, running
from ingress import Body, Sender, frame
from large.cluster import make_cluster, pairs_of, write_dump
from large.minutes import Minutes

from framewalk.engine import CaptureReader
from framewalk.fixtures import GenerateOptions, generate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from frame.server import Server

MEMORY_LIMIT_BYTES: Final = 2**30
_STREAM_MESSAGES: Final = 500
_CAPTURE_S: Final = 60
_FRAME_BYTES: Final = 16_384
_CONNECTIONS: Final = 4
# A field that nobody knows makes a stream differ from the one before it: its key, a varint.
_UNKNOWN_FIELD: Final = b"\xc0\x3e"
_WAIT_S: Final = 600
_NO_SQL: Final = {"FRAMEWALK_SQL": "-"}
_BYTES_PER_MB: Final = 10**6
# A flush is sent over the five seconds in which it is gathered: logs are not to be ahead of it.
_BEFORE_NS: Final = 10 * 10**9


@dataclass(frozen=True)
class Live:
    """What a server did under load."""

    messages: int
    logs: int
    wanted_per_s: float
    seconds: float
    receiver_cpu_s: float
    engine_cpu_s: float
    receiver_peak_bytes: int
    engine_peak_bytes: int
    largest_lag_s: float
    commits: int
    median_commit_s: float
    p99_commit_s: float
    longest_commit_s: float
    caught_up_s: float

    @property
    def messages_per_s(self) -> float:
        """The rate that was reached."""
        return self.messages / self.seconds


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: the cluster's dump, and streams in turn, framed for gRPC; all differ."""

    dump_name: str
    dump_text: str
    stream: Callable[[int], Framed]


class Framed(NamedTuple):
    """A stream's messages, as they stand in a body."""

    messages: int
    content: bytes


def measure(rate: float, seconds: float, load: Load | None = None) -> Live:
    """Send at a rate for some time, and wait until all of it is in the store."""
    load = load or boutique_load()
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / load.dump_name
        dump.write_text(load.dump_text)
        with running(dump, _NO_SQL) as server:
            return load_server(server, load.stream, rate, seconds)


def large_load(services: int, variants: int = 2) -> Load:
    """Return the load of a large cluster, whose minutes begin a little before now."""
    minutes = Minutes(make_cluster(services), time.time_ns() - _BEFORE_NS)
    made = [minutes.make(number) for number in range(variants)]

    def stream(number: int) -> Framed:
        at, own = divmod(number, made[0].streams)
        one = made[at % variants]
        if not own:
            one.move_to(at)
        messages = one.stream_messages(own)
        return Framed(len(messages), _framed(messages))

    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "kubectl.json"
        write_dump(minutes.cluster, dump)
        return Load(dump.name, dump.read_text(), stream)


def large_rate(services: int) -> float:
    """Return how many messages a large cluster sends in a second."""
    return 2 * len(pairs_of(make_cluster(services))) / 60


@cache
def boutique_load() -> Load:
    """Return the load of the generated shop, some hundreds of messages to a stream."""
    with tempfile.TemporaryDirectory() as name:
        capture, dump = Path(name) / "load.capture.arrows", Path(name) / "kubectl.yaml"
        options = GenerateOptions("boutique", duration_s=_CAPTURE_S, requests_per_second=60)
        generate(options, capture, dump)
        streams, dump_text = _streams(capture), dump.read_text()
    framed = [_framed(stream[1:]) for stream in streams]

    def stream(number: int) -> Framed:
        messages, rest = streams[number % len(streams)], framed[number % len(streams)]
        own = messages[0] + _UNKNOWN_FIELD + _varint(number)
        return Framed(len(messages), _framed([own]) + rest)

    return Load(dump.name, dump_text, stream)


def load_server(
    server: Server, stream: Callable[[int], Framed], rate: float, seconds: float
) -> Live:
    """Send streams to a server at a rate, and wait until all of it is in its store."""
    before = {process: cpu_s(process) for process in (server.receiver, server.engine)}
    watch = _Watch(server)
    started_s = time.monotonic()
    sent = _send(server.port, stream, rate, seconds)
    sent_s = time.monotonic() - started_s
    told = _wait_until_counted(server, sent)
    caught_up_s = time.monotonic() - started_s - sent_s
    watch.stop()
    return Live(
        messages=sent,
        logs=int(told["framewalk_engine_logs"]),
        wanted_per_s=rate,
        seconds=sent_s,
        receiver_cpu_s=cpu_s(server.receiver) - before[server.receiver],
        engine_cpu_s=cpu_s(server.engine) - before[server.engine],
        receiver_peak_bytes=_peak_bytes(server.receiver),
        engine_peak_bytes=_peak_bytes(server.engine),
        largest_lag_s=watch.lag_s,
        commits=int(told["framewalk_engine_flush_seconds_count"]),
        median_commit_s=watch.commit_s(0.5),
        p99_commit_s=watch.commit_s(0.99),
        longest_commit_s=watch.commit_s(1),
        caught_up_s=caught_up_s,
    )


def _streams(capture: Path) -> list[list[bytes]]:
    """Return the capture's messages, some hundreds to a stream."""
    with CaptureReader(capture) as reader:
        columns = [
            (batch.messages["stream"].to_pylist(), batch.messages["message"].to_pylist())
            for batch in reader
        ]
    by_stream: dict[int, list[bytes]] = {}
    for numbers, messages in columns:
        for number, message in zip(numbers, messages, strict=True):
            by_stream.setdefault(number, []).append(message)
    streams: list[list[bytes]] = [[]]
    for own in by_stream.values():
        # Each begins with its node and connection, so some in a row are a stream as well.
        if len(streams[-1]) >= _STREAM_MESSAGES:
            streams.append([])
        streams[-1] += own
    return streams


def _send(port: int, stream: Callable[[int], Framed], rate: float, seconds: float) -> int:
    """Send streams at a rate; returns the number of messages, all of them acknowledged."""
    next_s = time.monotonic()
    sent = number = 0
    room = threading.Semaphore(2 * _CONNECTIONS)
    with ThreadPoolExecutor(_CONNECTIONS) as threads:
        calls = []
        while sent < rate * seconds:
            framed = stream(number)
            room.acquire()
            call = threads.submit(send_stream, port, framed.content)
            call.add_done_callback(lambda _: room.release())
            calls.append(call)
            sent += framed.messages
            number += 1
            next_s += framed.messages / rate
            time.sleep(max(next_s - time.monotonic(), 0))
        for call in calls:
            call.result()
    return sent


def send_stream(port: int, content: bytes) -> None:
    """Send a framed stream over a connection of its own, and wait until it is acknowledged."""
    starts = range(0, len(content), _FRAME_BYTES)
    pieces = [content[start : start + _FRAME_BYTES] for start in starts]
    frames = tuple(frame(0, 0, 1, piece) for piece in pieces)
    Sender(port).send(Body(frames, tuple(map(len, pieces))))


def _framed(messages: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack(">BI", 0, len(message)) + message for message in messages)


def _varint(number: int) -> bytes:
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    return bytes([*content, number])


class _Watch(threading.Thread):
    """Asks every second for the lag, and how long the last commit took, if it is another."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._ended = threading.Event()
        self._commits_s: dict[float, float] = {}
        self.lag_s = 0.0
        self.start()

    def run(self) -> None:
        while not self._ended.wait(1):
            told = self._server.told()
            self.lag_s = max(self.lag_s, told["framewalk_engine_lag_seconds"])
            if commits := told["framewalk_engine_flush_seconds_count"]:
                self._commits_s[commits] = told["framewalk_engine_last_flush_seconds"]

    def commit_s(self, share: float) -> float:
        """Return how long a commit took at most, of this share of those that were asked about.

        It is 0 where a run was too short for any.
        """
        return float(np.quantile(list(self._commits_s.values()) or [0.0], share))

    def stop(self) -> None:
        """Ask no more."""
        self._ended.set()
        self.join()


def _wait_until_counted(server: Server, messages: int) -> dict[str, float]:
    end_s = time.monotonic() + _WAIT_S
    while (told := server.told())["framewalk_engine_messages"] < messages:
        assert time.monotonic() < end_s, told
        time.sleep(0.5)
    assert told["framewalk_engine_messages"] == told["k8s_als_in_count"] == messages
    return told


def _peak_bytes(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> int:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=50_000, help="messages per second")
    parser.add_argument("--services", type=int, help="of a large cluster, at its own rate")
    parser.add_argument("--seconds", type=float, default=60, help="how long to send")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    if options.services:
        load, rate = large_load(options.services), large_rate(options.services)
        found = measure(rate, options.seconds, load)
    else:
        found = measure(options.rate, options.seconds)
    cpu_us = 10**6 / found.messages
    print(f"messages            {found.messages:,} ({found.logs:,} logs)")
    print(f"messages per second {found.messages_per_s:,.0f} of {found.wanted_per_s:,.0f} wanted")
    print(
        f"receiver            {found.receiver_cpu_s * cpu_us:.2f} us of CPU per message,"
        f" {found.receiver_cpu_s / found.seconds:.0%} of a core"
    )
    print(
        f"engine              {found.engine_cpu_s * cpu_us:.2f} us of CPU per message,"
        f" {found.engine_cpu_s / found.seconds:.0%} of a core"
    )
    for name, size_bytes in (
        ("receiver", found.receiver_peak_bytes),
        ("engine", found.engine_peak_bytes),
    ):
        print(f"{name + ' memory':19} {size_bytes / _BYTES_PER_MB:,.0f} MB at most")
    print(
        f"lag                 {found.largest_lag_s:.1f} s at most,"
        f" all counted {found.caught_up_s:.1f} s after the end"
    )
    print(
        f"commits             {found.commits:,}: {found.median_commit_s:.2f} s at the median,"
        f" {found.p99_commit_s:.2f} s the 99th of 100, {found.longest_commit_s:.2f} s at most"
    )
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(found), indent=2))
    memory_bytes = found.receiver_peak_bytes + found.engine_peak_bytes
    too_slow = found.messages_per_s < 0.99 * found.wanted_per_s
    return int(too_slow or memory_bytes > MEMORY_LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
