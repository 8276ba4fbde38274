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
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT: Final = 0.01
BOOKINFO: Final = Path(__file__).parents[1] / "fixtures" / "captures" / "bookinfo"
FRAMEWALK: Final = Path(sys.executable).with_name("framewalk")
_SETTLE_S: Final = 15
# The endpoints are on, at ports of their own.
_PORTS: Final = {"FRAMEWALK_SQL_LISTEN_PORT": "31801", "SW_TELEMETRY_PROMETHEUS_PORT": "31235"}
READY: Final = re.compile(r"ready host=\S+ port=(\d+)")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_BYTES_PER_MB: Final = 10**6
_START_S: Final = 60
# Where user and system time stand in /proc/PID/stat, after the name in brackets.
_TIMES: Final = slice(11, 13)


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
    with running() as (process, port):
        time.sleep(_SETTLE_S)
        found = measure_both("fresh", process, minutes * 60)
        subprocess.run(
            [FRAMEWALK, "send", BOOKINFO, "--to", f"127.0.0.1:{port}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(_SETTLE_S)
        return found + measure_both("after bookinfo", process, minutes * 60)


@contextmanager
def running() -> Iterator[tuple[int, int]]:
    """Run a server until the end; gives its process id and its port."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stderr:
            server = subprocess.Popen(
                [FRAMEWALK, "serve", "--port", "0", "--entities", BOOKINFO / "kubectl.yaml"],
                cwd=folder,
                env=os.environ | _PORTS,
                stderr=stderr,
            )
        try:
            wait_for(log, "engine ready")
            ready = READY.search(log.read_text())
            assert ready is not None
            yield server.pid, int(ready[1])
        finally:
            server.terminate()
            code = server.wait()
        assert code == 0, log.read_text()


def measure_both(when: str, receiver: int, duration_s: float) -> list[Idle]:
    """Measure both processes of a server while time passes."""
    engine = engine_of(receiver)
    processes = {"receiver": receiver, "engine": engine}
    before = {name: cpu_s(process) for name, process in processes.items()}
    started_s = time.monotonic()
    time.sleep(duration_s)
    lasted_s = time.monotonic() - started_s
    return [
        Idle(when, name, lasted_s, cpu_s(process) - before[name], _rss_bytes(process))
        for name, process in processes.items()
    ]


def engine_of(receiver: int) -> int:
    """Return the engine process of a server."""
    return int(Path(f"/proc/{receiver}/task/{receiver}/children").read_text().split()[0])


def cpu_s(process: int) -> float:
    """Return the CPU time of a process, user and system."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[_TIMES])) / _TICKS_PER_S


def _rss_bytes(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE_BYTES


def wait_for(log: Path, event: str) -> None:
    """Wait until a server's log tells of an event."""
    end_s = time.monotonic() + _START_S
    while event not in log.read_text():
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.1)


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
