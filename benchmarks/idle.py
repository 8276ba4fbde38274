"""CPU time and memory of a server that has nothing to do, and of one that had.

    python benchmarks/idle.py --minutes 10 --json idle.json

Starts `framewalk serve` with the default configuration, lets it settle, and measures both of its
processes; then sends it the bookinfo capture, and measures again. Ends with 1 where they need
more than one hundredth of a core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frame.server import FRAMEWALK, cpu_s, running

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from frame.server import Server

LIMIT: Final = 0.01
BOOKINFO: Final = Path(__file__).parents[1] / "fixtures" / "captures" / "bookinfo"
_SETTLE_S: Final = 15
# The endpoints are on, at ports of their own.
_SQL_PORT: Final = 31_801
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_BYTES_PER_MB: Final = 10**6


@dataclass(frozen=True)
class Idle:
    """What a process needed while it had nothing to do."""

    when: str
    process: str
    duration_s: float
    cpu_s: float
    rss_bytes: int

    @property
    def cores(self) -> float:
        """The share of one core."""
        return self.cpu_s / self.duration_s


def measure(minutes: float) -> list[Idle]:
    """Measure a fresh server, and one that has received a capture."""
    with serving() as server:
        time.sleep(_SETTLE_S)
        found = measure_both("fresh", server, minutes * 60)
        subprocess.run(
            [FRAMEWALK, "send", BOOKINFO, "--to", f"127.0.0.1:{server.port}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(_SETTLE_S)
        return found + measure_both("after bookinfo", server, minutes * 60)


def serving() -> AbstractContextManager[Server]:
    """Run a server with the default configuration."""
    environment = {
        "FRAMEWALK_SQL_LISTEN_PORT": str(_SQL_PORT),
        "SW_CORE_REST_PORT": str(_SQL_PORT + 1),
        "SW_PROMQL_REST_PORT": str(_SQL_PORT + 2),
    }
    return running(BOOKINFO / "kubectl.yaml", environment)


def measure_both(when: str, server: Server, duration_s: float) -> list[Idle]:
    """Measure both processes of a server while time passes."""
    processes = {"receiver": server.receiver, "engine": server.engine}
    before = {name: cpu_s(process) for name, process in processes.items()}
    started_s = time.monotonic()
    time.sleep(duration_s)
    lasted_s = time.monotonic() - started_s
    return [
        Idle(when, name, lasted_s, cpu_s(process) - before[name], _rss_bytes(process))
        for name, process in processes.items()
    ]


def _rss_bytes(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE_BYTES


def main() -> int:
    """Measure, and print a line for each process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="of each measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    found = measure(options.minutes)
    for one in found:
        print(
            f"{one.when:15}  {one.process:8}  {100 * one.cores:5.2f}% of a core"
            f"  {one.rss_bytes / _BYTES_PER_MB:5,.0f} MB"
        )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=2))
    sums = {
        when: sum(one.cores for one in found if one.when == when)
        for when in dict.fromkeys(one.when for one in found)
    }
    return int(any(cores > LIMIT for cores in sums.values()))


if __name__ == "__main__":
    sys.exit(main())
