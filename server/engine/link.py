"""What the receiving process and its engine process say to each other, a line of JSON each.

The receiver writes EngineOptions to the engine's standard input and keeps it open: its end tells
the engine that the receiver is gone. More lines ask the engine to read the entities again, and to
finish. The engine writes an EngineStatus to its standard output after each look at the spool.
"""

from __future__ import annotations

import logging
import os
import resource
import threading
from collections import Counter
from dataclasses import field, replace
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import IO, TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from framewalk.engine.caps import DEFAULT_CAPS, Caps
from framewalk.engine.telling import tell
from framewalk.server.answering import (  # noqa: TC001 - pydantic reads the annotations
    RestEndpoint,
    SqlEndpoint,
)
from framewalk.server.engine.memory import resident_bytes
from framewalk.server.sharing import (  # noqa: TC001 - pydantic reads the annotations
    PublishSettings,
)

if TYPE_CHECKING:
    from framewalk.engine.runs import Flushed

FINISH: Final = b"finish\n"
READ_ENTITIES: Final = b"read entities\n"

_MINUTE_S: Final = 60
_LONGEST_ERROR: Final = 10_000


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """What is kept of logs, `mode` of engine/archive; of requests the `texts` that are named.

    Mode `sampled` leaves one in `sample_one_in` requests that took less than `slow_ms`. Logs that
    are passing are kept until relations were made of them.
    """

    mode: str
    folder: Path
    ttl_days: int
    budget_bytes: int
    texts: tuple[str, ...]
    sample_one_in: int = 20
    slow_ms: int = 500
    is_passing: bool = False


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What an engine process works on.

    Segments up to the name `complete_through` are not written any more. Minutes, hours and days of
    metrics are kept for their `ttl_days`. `sql` is None for no endpoint, and so are `graphql` and
    `promql`. `budget_bytes` is the
    spool's, and `reserve_bytes` are kept on the store's disk. `memory_bytes` is what its parent
    lets it take while a query runs. `refused_s` are the digests of statements and the peers that
    it refuses, and for how long. `entities_paths` may be `NAME=PATH`; streams wait `name_wait_s`
    for names at most. `kubernetes` watches clusters as well, those of a `kubeconfig` and its
    contexts, which may be `NAME=CONTEXT`. `archive` is None where logs are not kept,
    `publish` where commits are not shared. An engine that is a restart of one has that one's
    definitions, whatever has become of their files.
    """

    spool_folder: Path
    complete_through: str
    retention_s: float
    budget_bytes: int
    store_path: Path
    minute_ttl_days: int
    hour_ttl_days: int
    day_ttl_days: int
    flush_interval_s: float
    max_ahead_s: float
    entities_paths: tuple[Path, ...]
    entities_reload_s: float
    name_wait_s: float
    oal_paths: tuple[Path, ...]
    apdex_path: Path | None
    sql: SqlEndpoint | None
    log_format: str
    log_level: str
    caps: Caps = DEFAULT_CAPS
    memory_bytes: int = 2**62
    segment_bytes: int = 64 * 2**20
    store_budget_bytes: int = 2**62
    reserve_bytes: int = 0
    endpoint_patterns_path: Path | None = None
    name_by_owner: bool = False
    kubernetes: bool = False
    kubeconfig: Path | None = None
    kubernetes_contexts: tuple[str, ...] = ()
    refused_s: dict[str, float] = field(default_factory=dict)
    archive: ArchiveSettings | None = None
    graphql: RestEndpoint | None = None
    promql: RestEndpoint | None = None
    is_restart: bool = False
    publish: PublishSettings | None = None

    def as_line(self) -> bytes:
        """Return the options as a line of JSON; it holds the token."""
        return _OPTIONS.dump_json(self) + b"\n"

    @staticmethod
    def from_line(line: bytes) -> EngineOptions:
        """Return what a line says; raise ValueError where it is something else."""
        return _OPTIONS.validate_json(line)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What an engine process has done since it started.

    Times are in seconds since 1970. What was received before `watermark_s` is in the store.
    `error` is why the engine cannot work, said as its last line; it is about the store if
    `is_opening_store`. `queries` are the statements that run, as `asked` names them; one that does
    not end is `outlived`, and the engine ends itself for it. One that `is_switching` ends, and the
    next goes on at once: with other definitions, or with less memory.
    """

    pid: int = 0
    watermark_s: float = 0
    latest_minute_s: float = 0
    messages: int = 0
    logs: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    quality: dict[str, int] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    flushes: int = 0
    flush_total_s: float = 0
    last_flush_s: float = 0
    unread_bytes: int = 0
    removed_segments: int = 0
    given_up_segments: int = 0
    given_up_logs: int = 0
    archive_bytes: int = 0
    remaking_minutes: int = 0
    deleted_days: int = 0
    deleted_rows: int = 0
    store_bytes: int = 0
    store_used_bytes: int = 0
    store_bytes_per_day: dict[str, int] = field(default_factory=dict)
    memory_bytes: int = 0
    cpu_s: float = 0
    sql_port: int = 0
    graphql_port: int = 0
    promql_port: int = 0
    is_publishing: bool = False
    publish_pending_commits: int = 0
    publish_pending_bytes: int = 0
    publish_last_s: float = 0
    publish_failures: int = 0
    is_opening_store: bool = False
    is_switching: bool = False
    queries: tuple[str, ...] = ()
    outlived: str = ""
    error: str = ""

    def as_line(self) -> bytes:
        """Return the status as a line of JSON."""
        return _STATUS.dump_json(self) + b"\n"

    @staticmethod
    def from_line(line: bytes) -> EngineStatus:
        """Return what a line says; raise ValueError where it is something else."""
        return _STATUS.validate_json(line)


_OPTIONS: Final = TypeAdapter(EngineOptions)
_STATUS: Final = TypeAdapter(EngineStatus)


class Queries:
    """Tells the parent what runs, so that it knows what it ends a process for."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._running: list[str] = []
        self._lock = threading.Lock()

    def began(self, name: str) -> None:
        """Note that a query runs."""
        with self._lock:
            self._running.append(name)
            self._report.tell_queries(tuple(self._running))

    def ended(self, name: str) -> None:
        """Note that it does not any more."""
        with self._lock:
            self._running.remove(name)
            self._report.tell_queries(tuple(self._running))

    def outlived(self, name: str) -> None:
        """End this process at once: a transaction under way is as if it had never begun."""
        self._report.set(outlived=name)
        self._report.write()
        os._exit(1)


class Report:
    """What this process tells its parent; queries tell of themselves from other threads."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self._status = EngineStatus(pid=os.getpid())
        self._has_begun = False
        self._lock = threading.RLock()

    def set(self, **facts: Any) -> None:  # noqa: ANN401 - the fields have several types
        """Replace some of what is told."""
        with self._lock:
            self._status = replace(self._status, **facts)

    @property
    def runs_queries(self) -> bool:
        """Whether somebody is being answered."""
        with self._lock:
            return bool(self._status.queries)

    def tell_queries(self, running: tuple[str, ...]) -> None:
        """Write a line about what runs."""
        with self._lock:
            self.set(queries=running)
            # Before its first line, the parent does not take this for one that works.
            if self._has_begun:
                self.write()

    def flushed(self, flushed: Flushed, duration_s: float) -> None:
        """Add a commit."""
        for damage in flushed.damages:
            tell(logging.WARNING, "spool segment is damaged", damage=damage)
        before, counters = self._status, flushed.counters
        # Nobody else sets these.
        self.set(
            latest_minute_s=max(before.latest_minute_s, (flushed.latest_minute or 0) * _MINUTE_S),
            messages=before.messages + counters.messages,
            logs=before.logs + counters.logs,
            dropped=dict(Counter(before.dropped) + counters.dropped),
            quality=dict(Counter(before.quality) + counters.quality),
            addresses=dict(Counter(before.addresses) + counters.addresses),
            rows=before.rows + flushed.rows,
            flushes=before.flushes + 1,
            flush_total_s=before.flush_total_s + duration_s,
            last_flush_s=duration_s,
        )

    def send(self, options: EngineOptions, unread_bytes: int) -> None:
        """Write a line."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.set(
            unread_bytes=unread_bytes,
            store_bytes=_store_bytes(options.store_path),
            memory_bytes=resident_bytes(),
            cpu_s=used.ru_utime + used.ru_stime,
        )
        self.write()

    def fail(self, error: str) -> None:
        """Write the last line."""
        self.set(error=error[:_LONGEST_ERROR])
        self.write()

    def write(self) -> None:
        """Write how things are."""
        with self._lock:
            self._has_begun = True
            self._output.write(self._status.as_line())
            self._output.flush()


def _store_bytes(path: Path) -> int:
    log = path.with_name(f"{path.name}.wal")
    return path.stat().st_size + (log.stat().st_size if log.exists() else 0)
