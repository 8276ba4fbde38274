"""A running `framewalk serve`, over one spool and one store."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from prepared import framewalk
from processes import free_port
from recording import Server, wait_until

from framewalk.engine.captures.format import CaptureReader, CaptureWriter, captures_in

BOOKINFO = Path(__file__).parent.parent.parent / "fixtures" / "captures" / "bookinfo"
FEW = Path(__file__).parent.parent / "few.oal"
FLUSH_S = "0.2"


class Serving(Server):
    """A server with an engine of few definitions that commits often; `arguments` are options."""

    command = "serve"

    def __init__(self, folder: Path, *arguments: str | Path, **environment: str) -> None:
        self.store = folder / "metrics.duckdb"
        known = {
            "FRAMEWALK_FLUSH_INTERVAL_SECONDS": FLUSH_S,
            "FRAMEWALK_STORE_RESERVE_BYTES": str(2**20),
            "FRAMEWALK_OAL_PATHS": str(FEW),
            # What is about logs turns them on.
            "FRAMEWALK_ARCHIVE_MODE": "none",
            "FRAMEWALK_SQL_LISTEN_PORT": str(free_port()),
            # What is about other protocols turns them on.
            "SW_QUERY": "-",
            "SW_PROMQL": "-",
            "SW_TELEMETRY_PROMETHEUS_PORT": str(free_port()),
        }
        options = ("--store", self.store, *arguments)
        super().__init__(folder / "spool", 0, *options, **known | environment)

    def status(self) -> dict[str, Any]:
        """Return what `framewalk status` says."""
        url = f"http://127.0.0.1:{self.environment['SW_TELEMETRY_PROMETHEUS_PORT']}"
        done = framewalk("status", "--url", url, "--format", "json")
        return json.loads(done.stdout) if done.stdout else {}

    def engine(self) -> int:
        """Return the engine's process id."""
        found: list[int] = []

        def there_is_one() -> bool:
            found[:] = _children(self.process.pid)
            return bool(found)

        wait_until(there_is_one)
        return found[0]

    def has_stored_all(self) -> bool:
        """Tell whether an engine runs that has nothing to read."""
        told = self.metrics()
        is_up = told.get("framewalk_engine_up") == 1
        return is_up and told.get("framewalk_engine_unread_bytes") == 0

    def wait_until_stored(self, messages: int) -> None:
        """Wait until the engine that runs now has committed this many messages in all."""
        wait_until(lambda: self.metrics().get("framewalk_engine_messages") == messages)


Serve = Callable[..., Serving]


@cache
def part_of_bookinfo() -> Path:
    """Return a folder with every fourth stream of the capture and its dump, until the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="framewalk-tests-"))
    atexit.register(shutil.rmtree, folder)
    (path,) = captures_in(BOOKINFO)
    with CaptureReader(path) as reader, CaptureWriter(folder / path.name) as writer:
        for batch in reader:
            numbers = batch.messages["stream"].to_numpy()
            writer.write(batch.messages.filter(pa.array(numbers % 4 == 0)))
    shutil.copy(BOOKINFO / "kubectl.yaml", folder)
    return folder


def _children(process: int) -> list[int]:
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
    except FileNotFoundError:
        return []
    return [int(one) for one in text.split()]


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def send(server: Serving, capture: Path, *options: str) -> str:
    """Send a capture as a person would."""
    done = framewalk("send", capture, "--to", server.address, *options)
    done.check_returncode()
    return done.stdout
