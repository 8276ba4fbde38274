"""A large cluster: replay beside reading and decoding, and a server that it is sent to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import large.cluster
import live
from frame.captures import CACHE, Capture
from frame.contest import Answer, Benchmark, Contest, Rival, Sample, text_answer
from frame.hours import hashed_answer
from large_cluster import CAPTURE_NAME, DUMP_NAME, write_capture
from suite.replay import read_only_process, replay_process

from framewalk.fixtures import GenerateSummary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from frame.contest import Context


@dataclass(frozen=True)
class _Size:
    """How large, and for how long."""

    services: int
    minutes: int
    live_s: float


_SIZES: Final[Mapping[str, _Size]] = {
    "small": _Size(services=12, minutes=1, live_s=1),
    "medium": _Size(services=100, minutes=10, live_s=10),
    "large": _Size(services=1_000, minutes=10, live_s=60),
}


def benchmark(context: Context) -> Benchmark:
    """Measure what a cluster of this size costs."""
    size = _SIZES[context.size.name]
    capture = _capture(size)
    services = f"{size.services:,} services"
    return Benchmark(
        [
            Contest(
                f"replay of {services}",
                "logs",
                replay_process(capture, context.folder / "large.duckdb", hashed_answer),
                "the roll-up and commits of many entities: they cost by entity and minute, each of "
                "which has few logs.",
                [Rival(read_only_process(capture), same_answer=False)],
            ),
            Contest(
                f"live, {services}",
                "logs",
                _Live(size),
                "the engine: commits of many entities. Memory is that of both processes.",
            ),
        ]
    )


def _capture(size: _Size, cache_folder: Path = CACHE) -> Capture:
    """Return the capture of a size; it is made if it is not there yet."""
    sources = sorted(Path(large.cluster.__file__).parent.glob("*.py"))
    digest = hashlib.blake2b(b"".join(one.read_bytes() for one in sources), digest_size=8)
    folder = cache_folder / f"large-{size.services}-{size.minutes}min-{digest.hexdigest()}"
    summary = folder / "summary.json"
    if not summary.exists():
        written = asdict(write_capture(folder, size.services, size.minutes))
        summary.write_text(json.dumps(written) + "\n", encoding="utf-8")
    made = GenerateSummary(**json.loads(summary.read_text(encoding="utf-8")))
    return Capture(folder / CAPTURE_NAME, folder / DUMP_NAME, made)


@dataclass
class _Live:
    size: _Size
    name: str = "framewalk serve"
    # Logs, known after the first run; the same in each.
    count: int = field(default=0, init=False)

    def run(self) -> Sample:
        """Send the cluster's messages at its own rate; all must be acknowledged and counted."""
        services = self.size.services
        load, rate = live.large_load(services), live.large_rate(services)
        found = live.measure(rate, self.size.live_s, load)
        self.count = found.logs
        return Sample(
            found.receiver_cpu_s + found.engine_cpu_s,
            found.seconds,
            found.receiver_peak_bytes + found.engine_peak_bytes,
            Answer(found.messages, text_answer(f"{found.logs} logs").checksum),
        )
