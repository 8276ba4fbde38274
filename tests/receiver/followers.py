"""A running `framewalk query-server --follow`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Self

from prepared import framewalk
from processes import free_port
from recording import DEADLINE_S, FRAMEWALK, wait_until
from server_logs import ServerLog, show_if_test_fails

from framewalk.engine.errors import FramewalkError
from framewalk.queries.sql_endpoint import SqlClient

_COMMITS = "SELECT name, commits FROM engines"


class FollowerProcess:
    """A follower with the store `NAME.duckdb` in a folder, which looks at the table often."""

    def __init__(
        self, folder: Path, name: str, uri: str, *options: str, **environment: str
    ) -> None:
        self.store = folder / f"{name}.duckdb"
        self._log = folder / f"{name}.log"
        self._port = free_port()
        arguments = ["--store", self.store, "--follow", uri, "--follow-every", "0.2", *options]
        known = {
            "FRAMEWALK_SQL_LISTEN_PORT": str(self._port),
            "SW_QUERY": "-",
            "SW_PROMQL": "-",
            "SW_TELEMETRY_PROMETHEUS_PORT": str(free_port()),
            "FRAMEWALK_LOG_FORMAT": "json",
        }
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [FRAMEWALK, "query-server", *arguments],
                env=os.environ | known | environment,
                stderr=log,
            )
        has_ended = lambda: self.process.poll() is not None  # noqa: E731
        show_if_test_fails(ServerLog(f"follower {name}", self._lines, has_ended))

    def _lines(self) -> list[str]:
        return self._log.read_text().splitlines(keepends=True)

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the lines that tell of something."""
        told = [json.loads(line) for line in self._lines() if line.startswith("{")]
        return [one for one in told if one["event"] == event]

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query; none while nobody answers."""
        client = SqlClient(f"http://127.0.0.1:{self._port}", None)
        try:
            return client.ask(sql).rows
        except FramewalkError:
            return []

    def commits(self) -> dict[str, int]:
        """Return how far it has each engine, by its name."""
        return {str(name): int(count) for name, count in self.ask(_COMMITS)}

    def status(self) -> dict[str, Any]:
        """Return what `framewalk status` says of it."""
        done = framewalk("status", "--store", self.store, "--format", "json")
        return dict(json.loads(done.stdout))

    def wait_for(self, commits: dict[str, int]) -> None:
        wait_until(lambda: self.commits() == commits)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)
