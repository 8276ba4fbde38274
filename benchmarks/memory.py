"""Memory of a replay by the length of the capture: it must not grow.

    python benchmarks/memory.py --lengths 1 4 8 --json memory.json

Makes a bookinfo capture of each length, replays each in a process of its own and prints the
most memory that the process held. Ends with 1 where a longer capture needs too much more, or any
of them more than a replay may.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from framewalk.engine import open_for_reading
from framewalk.fixtures import GenerateOptions, generate

if TYPE_CHECKING:
    from collections.abc import Sequence

# How much more memory the longest capture may need than the shortest.
GROWTH_LIMIT: Final = 1.3
# What a replay of any length may need.
MEMORY_LIMIT_BYTES: Final = 2**30

_BYTES_PER_MB: Final = 10**6
# Linux counts ru_maxrss in KiB, macOS in bytes.
_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024

_STORED_LOGS: Final = "SELECT sum(count)::BIGINT FROM internal.counters WHERE kind = 'logs'"


@dataclass(frozen=True)
class Measured:
    """One replay: what was in the capture, and the most memory its process held."""

    duration_s: int
    logs: int
    capture_bytes: int
    rss_bytes: int


def measure(
    folder: Path, duration_s: int, requests_per_second: float, commit_logs: int
) -> Measured:
    """Make a capture of this length, replay it in a new process, check that all logs count."""
    capture, dump = folder / f"{duration_s}.capture.arrows", folder / f"{duration_s}.yaml"
    options = GenerateOptions(
        "bookinfo", duration_s=duration_s, requests_per_second=requests_per_second
    )
    made = generate(options, capture, dump)
    store = folder / f"{duration_s}.duckdb"
    rss_bytes = replay_rss_bytes(capture, dump, store, commit_logs)
    stored = stored_logs(store)
    assert stored == made.logs, f"the store counts {stored:,} logs, the capture has {made.logs:,}"
    capture.unlink()
    return Measured(duration_s, made.logs, made.size_bytes, rss_bytes)


def replay_rss_bytes(capture: Path, dump: Path, store: Path, commit_logs: int) -> int:
    """Replay in a process of its own; return the most memory that it held."""
    program = str(Path(sys.executable).with_name("framewalk"))
    paths = [str(capture), "--entities", str(dump), "--store", str(store)]
    command = [program, "replay", *paths, "--commit-logs", str(commit_logs)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"the replay ended with {process.returncode}"
    return usage.ru_maxrss * _RSS_UNIT


def stored_logs(store: Path) -> int:
    """Return how many logs the store has counted."""
    with open_for_reading(store) as connection:
        ((logs,),) = connection.execute(_STORED_LOGS).fetchall()
    return int(logs)


def growth(measured: Sequence[Measured]) -> float:
    """Return how many times the memory of the first the hungriest of the others needs."""
    return max(one.rss_bytes for one in measured[1:]) / measured[0].rss_bytes


def main() -> int:
    """Measure, print a table as it fills, and tell whether memory stays within the limit."""
    options = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        measured = []
        _print_heading()
        for length in sorted(options.lengths):
            duration_s = length * options.seconds
            one = measure(Path(folder), duration_s, options.rate, options.commit_logs)
            _print_row(one)
            measured.append(one)
    grown, most_bytes = growth(measured), max(one.rss_bytes for one in measured)
    print(f"growth {grown:.2f}, limit {options.limit:.2f}")
    limit_bytes = options.memory_limit
    print(
        f"memory {most_bytes / _BYTES_PER_MB:,.0f} MB, limit {limit_bytes / _BYTES_PER_MB:,.0f} MB"
    )
    if options.json:
        rows = [asdict(one) for one in measured]
        options.json.write_text(json.dumps({"growth": grown, "replays": rows}, indent=2) + "\n")
    return int(grown > options.limit or most_bytes > limit_bytes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[1, 4, 8], metavar="N", help="how many units long"
    )
    parser.add_argument(
        "--seconds", type=int, default=180, help="the simulated time of one unit of length"
    )
    parser.add_argument("--rate", type=float, default=150.0, help="requests per second")
    parser.add_argument("--commit-logs", type=int, default=500_000, help="as of `framewalk replay`")
    parser.add_argument("--limit", type=float, default=GROWTH_LIMIT, help="the growth allowed")
    parser.add_argument(
        "--memory-limit",
        type=int,
        default=MEMORY_LIMIT_BYTES,
        metavar="BYTES",
        help="the memory allowed, default: 1 GiB",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    options = parser.parse_args()
    if len(set(options.lengths)) != len(options.lengths) or len(options.lengths) == 1:
        parser.error("--lengths: give at least two different lengths")
    return options


def _print_heading() -> None:
    print(f"{'seconds':>8} {'logs':>12} {'capture MB':>11} {'memory MB':>10}", flush=True)


def _print_row(one: Measured) -> None:
    size_mb, rss_mb = one.capture_bytes / _BYTES_PER_MB, one.rss_bytes / _BYTES_PER_MB
    print(f"{one.duration_s:>8,} {one.logs:>12,} {size_mb:>11.1f} {rss_mb:>10.0f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
