"""Servers: taking in messages, a whole server under load, and one that has nothing to do."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import idle
import ingress
import live
from frame.contest import Answer, Benchmark, Contest, Rival, Sample, text_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from frame.captures import Size
    from frame.contest import Context

# Of what grpcio's empty handler needs.
INGRESS_AT_MOST: Final = 0.2
_SETTLE_S: Final = 1
# What the system counts CPU time in.
_TICK_S: Final = 0.01


@dataclass(frozen=True)
class _Load:
    """How much each benchmark does."""

    ingress_messages: int
    live_per_s: float
    live_s: float
    idle_s: float


_LOADS: Final[Mapping[str, _Load]] = {
    "small": _Load(ingress_messages=5_000, live_per_s=3_000, live_s=1, idle_s=1),
    "medium": _Load(ingress_messages=50_000, live_per_s=20_000, live_s=5, idle_s=10),
    "large": _Load(ingress_messages=100_000, live_per_s=50_000, live_s=15, idle_s=20),
}


def benchmark(context: Context) -> Benchmark:
    """Measure the CPU time of servers, without that of their clients."""
    load = _LOADS[context.size.name]
    return Benchmark(
        [
            _ingress(load, "bulk", "many messages in a DATA frame", context.size),
            _ingress(load, "each", "a DATA frame for each message", context.size),
            Contest(
                f"live, {load.live_per_s:,.0f} messages a second",
                "logs",
                _Live(load),
                "the engine, two thirds of it: what a replay needs without its fixed part, and a "
                "commit every five seconds; then the spool. Memory is that of both processes.",
            ),
            Contest(
                "idle server",
                "seconds",
                _Idle(load),
                "an interpreter that wakes up every five seconds to look at a folder. Memory is "
                "that of both processes.",
            ),
        ]
    )


def _ingress(load: _Load, shape: str, name: str, size: Size) -> Contest:
    at_most = INGRESS_AT_MOST if size.name == "large" else None
    return Contest(
        f"ingress, {name}",
        "messages",
        _Ingress("uvicorn", shape, load.ingress_messages),
        "uvicorn's and asyncio's work for each chunk that the socket gives, and zttp's for each "
        "frame. The bytes were made before and are sent in chunks of up to a whole window, one "
        "stream in all; what a real client needs is measured by make go-ingress.",
        [
            Rival(_Ingress(ingress.EMPTY, shape, load.ingress_messages), at_most=at_most),
            Rival(_Ingress("uvicorn, spool", shape, load.ingress_messages)),
        ],
    )


@dataclass(frozen=True)
class _Ingress:
    name: str
    shape: str
    count: int

    def run(self) -> Sample:
        """Send one stream to a new server."""
        warm_up = ingress.Body.of(ingress.WARM_UP_MESSAGES, self.shape)
        body = ingress.Body.of(self.count, self.shape)
        taken = ingress.take_in(self.name, warm_up, body)
        answer = Answer(taken.messages, text_answer(f"{taken.size_bytes} bytes").checksum)
        return Sample(taken.cpu_s, taken.cpu_s, taken.peak_bytes, answer)


@dataclass
class _Live:
    load: _Load
    name: str = "framewalk serve"
    # Logs, known after the first run; the same in each.
    count: int = field(default=0, init=False)

    def run(self) -> Sample:
        """Send messages at a steady rate; every one must be acknowledged and counted."""
        found = live.measure(self.load.live_per_s, self.load.live_s)
        self.count = found.logs
        return Sample(
            found.receiver_cpu_s + found.engine_cpu_s,
            found.seconds,
            found.receiver_peak_bytes + found.engine_peak_bytes,
            Answer(found.messages, text_answer(f"{found.logs} logs").checksum),
        )


@dataclass(frozen=True)
class _Idle:
    load: _Load
    name: str = "framewalk serve"

    @property
    def count(self) -> int:
        """Seconds."""
        return int(self.load.idle_s)

    def run(self) -> Sample:
        """Let a fresh server be; it must answer, and have counted nothing."""
        with idle.serving() as server:
            time.sleep(_SETTLE_S)
            both = idle.measure_both("fresh", server, self.load.idle_s)
            told = server.told()
        cpu_s = max(sum(one.cpu_s for one in both), _TICK_S)
        rss_bytes = sum(one.rss_bytes for one in both)
        logs = f"{told['framewalk_engine_logs']:g} logs"
        return Sample(cpu_s, both[0].duration_s, rss_bytes, text_answer(logs))
