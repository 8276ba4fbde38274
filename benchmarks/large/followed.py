"""A `framewalk query-server --follow` to measure: a process of its own, and what it has used."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import httpx
from frame.server import FRAMEWALK, free_port
from prometheus_client.parser import text_string_to_metric_families

from framewalk.engine.processes import used_by

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_EVERY_S: Final = 0.5
_LONGEST_S: Final = 6 * 3_600
_PEAK: Final = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_VERSION: Final = "framewalk_follow_version"
_ROWS: Final = "framewalk_follow_rows"


@dataclass(frozen=True, slots=True)
class Reached:
    """What it took to come to a version of the table: `peak_bytes` is since the process began."""

    rows: int
    cpu_s: float
    elapsed_s: float
    peak_bytes: int


class FollowerProcess:
    """A follower with a store at `path`, without ports but those that tell of it."""

    def __init__(self, uri: str, path: Path) -> None:
        self._metrics_port = free_port()
        self._rows = 0
        own = {
            "FRAMEWALK_SQL_LISTEN_PORT": str(free_port()),
            "SW_QUERY": "-",
            "SW_PROMQL": "-",
            "SW_TELEMETRY_PROMETHEUS_PORT": str(self._metrics_port),
            "FRAMEWALK_ARCHIVE_MODE": "none",
        }
        command = [FRAMEWALK, "query-server", "--follow", uri, "--store", path, "--tidy-every", "0"]
        self._log = path.with_suffix(".log")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=os.environ | own, stderr=log)

    def reach(self, version: int, then: Callable[[], object] = lambda: None) -> Reached:
        """Wait until it has all of a version of the table, and return what that took from now on.

        `then` is done first, while what it uses is counted.
        """
        before_s, begun_s = self._cpu_s(), time.monotonic()
        then()
        while (told := self._told()).get(_VERSION, -1) < version:
            if self._process.poll() is not None or time.monotonic() - begun_s > _LONGEST_S:
                raise RuntimeError(self._log.read_text())
            time.sleep(_LOOK_EVERY_S)
        cpu_s, elapsed_s = self._cpu_s() - before_s, time.monotonic() - begun_s
        rows, self._rows = int(told[_ROWS]) - self._rows, int(told[_ROWS])
        return Reached(rows, cpu_s, elapsed_s, self._peak_bytes())

    def signal(self, number: signal.Signals) -> None:
        """Have it stop (SIGSTOP), go on (SIGCONT) or end (SIGTERM)."""
        self._process.send_signal(number)

    def end(self) -> None:
        """End it as an operator does."""
        self.signal(signal.SIGTERM)
        if self._process.wait():
            raise RuntimeError(self._log.read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _told(self) -> dict[str, float]:
        """Return what it tells Prometheus; nothing while it does not answer."""
        try:
            url = f"http://127.0.0.1:{self._metrics_port}/metrics"
            families = text_string_to_metric_families(httpx.get(url, timeout=_LONGEST_S).text)
        except httpx.HTTPError:
            return {}
        return {sample.name: sample.value for family in families for sample in family.samples}

    def _cpu_s(self) -> float:
        used = used_by(self._process.pid)
        return used.cpu_s if used is not None else 0

    def _peak_bytes(self) -> int:
        told = _PEAK.search(Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii"))
        return int(told[1]) * 1024 if told else 0
