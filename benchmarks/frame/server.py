"""A whole server to measure: `framewalk serve` with its two processes, and what it tells."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FRAMEWALK: Final = Path(sys.executable).with_name("framewalk")
_READY: Final = re.compile(r"ready host=\S+ port=(\d+)")
_SERVED: Final = re.compile(r"(\w+) served host=\S+ port=(\d+)")
_PORTS: Final = ("FRAMEWALK_SQL_LISTEN_PORT", "SW_CORE_REST_PORT", "SW_PROMQL_REST_PORT")
_START_S: Final = 300
_ANSWER_S: Final = 120
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
# Where user and system time stand in /proc/PID/stat, after the name in brackets.
_TIMES: Final = slice(11, 13)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: the ids of its processes, and the ports where it listens."""

    receiver: int
    engine: int
    port: int
    metrics_port: int
    query_ports: Mapping[str, int]

    def told(self) -> dict[str, float]:
        """Return what it tells Prometheus."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        families = text_string_to_metric_families(httpx.get(url, timeout=_ANSWER_S).text)
        return {sample.name: sample.value for family in families for sample in family.samples}


@dataclass(frozen=True, slots=True)
class Serving:
    """A running query server: its process, and its ports by protocol (sql, graphql, promql)."""

    process: int
    ports: Mapping[str, int]


@contextmanager
def running(entities: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """Run a server until the end, in a folder of its own; it must end well."""
    metrics_port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [FRAMEWALK, "serve", "--port", "0", "--entities", entities],
                cwd=folder,
                env={
                    **os.environ,
                    **environment,
                    "SW_TELEMETRY_PROMETHEUS_PORT": str(metrics_port),
                },
                stderr=stderr,
            )
        try:
            _wait_for(log, "engine ready", process)
            ready = _READY.search(log.read_text())
            assert ready is not None, log.read_text()
            yield Server(
                process.pid,
                _child_of(process.pid),
                int(ready[1]),
                metrics_port,
                query_ports(log),
            )
        finally:
            process.terminate()
            code = process.wait()
        assert code == 0, log.read_text()


@contextmanager
def serving_store(store: Path) -> Iterator[Serving]:
    """Run `framewalk query-server` until the end of the block; it must end well."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [FRAMEWALK, "query-server", "--store", store],
                cwd=folder,
                env={**os.environ, **free_ports()},
                stderr=stderr,
            )
        try:
            _wait_for(log, " ready ", process)
            yield Serving(process.pid, query_ports(log))
        finally:
            process.terminate()
            code = process.wait()
        assert code == 0, log.read_text()


def free_ports() -> dict[str, str]:
    """Return settings of the query protocols by which each has a port that is free."""
    return {name: str(free_port()) for name in _PORTS}


def query_ports(log: Path) -> dict[str, int]:
    """Return the port of each query protocol, as a server tells it."""
    return {name: int(port) for name, port in _SERVED.findall(log.read_text())}


def cpu_s(process: int) -> float:
    """Return the CPU time of a process, user and system."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[_TIMES])) / _TICKS_PER_S


def _child_of(process: int) -> int:
    return int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_for(log: Path, event: str, process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + _START_S
    while event not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.1)
