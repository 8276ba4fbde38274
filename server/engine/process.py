"""The engine process of a server: follows the spool, commits metrics, answers queries.

    python -m framewalk.server.engine.process

`server/engine/child.py` starts it, and starts it again when it dies. It ends at once when that
process is gone: what it has not committed, the next one reads again.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING, Final

from framewalk.engine.archive import Archive, ArchiveOptions, Mode, Sampling, Shown
from framewalk.engine.errors import (
    FramewalkError,
    StoreError,
    StoreLockedError,
    StoreRoomError,
)
from framewalk.engine.runs import SpoolFollower
from framewalk.engine.store import Store
from framewalk.engine.telling import tell
from framewalk.server.changing import Deciding, InForce, Sources
from framewalk.server.engine.disks import Reserve
from framewalk.server.engine.link import (
    FINISH,
    READ_ENTITIES,
    EngineOptions,
    Queries,
    Report,
)
from framewalk.server.engine.memory import Growth, resident_bytes
from framewalk.server.engine.naming import Naming
from framewalk.server.engine.suspicion import Watch, examine
from framewalk.server.engine.upkeep import Upkeep
from framewalk.server.logs import start_logging
from framewalk.server.sharing import Publishing, tell_unpublished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from framewalk.engine.oal import Plan
    from framewalk.queries.protocols import Served

# The engine of a server that was killed may hold the store for a moment longer.
_LOCK_PATIENCE_S: Final = 5
_LOCK_RETRY_S: Final = 0.1
_READ_BYTES: Final = 1 << 16
_QUERY_MEMORY_BYTES: Final = 96 * 2**20
# Hours of which one commit makes files: logs of more are few, or somebody makes them up.
_MOST_HOURS: Final = 8
# And so many each node may open within an hour: one that was cut off for a day has no more.
_MOST_HOURS_OF_NODE: Final = 30
# Of hours that are not about now so many within an hour, of all nodes: a sender may name many.
_MOST_FAR_HOURS: Final = 100
_NS_PER_S: Final = 10**9
_TELL_EVERY_S: Final = 5
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_CHECK_PATH: Final = "check that it is there, and its permissions"


def main() -> None:
    """Work until the parent asks to finish, or is gone."""
    # The parent says when to end; a signal that was meant for it must not.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lines = _lines(sys.stdin.fileno())
    first = next(lines, None)
    if first is None:
        # The parent is gone before it said anything.
        sys.exit(1)
    options = EngineOptions.from_line(first)
    start_logging(options.log_format, options.log_level)
    asked = _Asked()
    threading.Thread(target=_listen, args=(lines, asked), daemon=True).start()
    report = Report(_private_output())
    try:
        _work_with_room(options, report, asked)
    except FramewalkError as error:
        report.fail(str(error))
        sys.exit(1)
    except BrokenPipeError:
        # The parent is gone.
        sys.exit(1)
    except OSError as error:
        report.fail(_explained(error))
        sys.exit(1)
    except Exception as error:
        if "FRAMEWALK_TRACEBACK" in os.environ:
            raise
        remedy = "please report it with what FRAMEWALK_TRACEBACK=1 prints"
        bug = f"{type(error).__name__}: {error}"
        tell(logging.ERROR, "this is a bug in framewalk", error=bug, remedy=remedy)
        sys.exit(1)


def _explained(error: OSError) -> str:
    """Say what the system refuses: the file, the problem, what to do."""
    place = "the engine" if error.filename is None else os.fsdecode(error.filename)
    problem = (error.strerror or str(error)).lower()
    remedies = {
        errno.EMFILE: "let the server open more files (ulimit -n)",
        errno.ENFILE: "let the system open more files",
        errno.ENOSPC: "make room on the disk",
        errno.EDQUOT: "make room on the disk",
        errno.EIO: "see to the disk",
    }
    return f"{place}: {problem}; {remedies.get(error.errno or 0, _CHECK_PATH)}"


def _private_output() -> IO[bytes]:
    """Take standard output for the parent; whatever else writes to it writes to standard error."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return output


def _lines(descriptor: int) -> Iterator[bytes]:
    """Yield lines without a buffered file: a thread that waits in one is in the way of an exit."""
    rest = b""
    while content := os.read(descriptor, _READ_BYTES):
        *whole, rest = (rest + content).split(b"\n")
        yield from (line + b"\n" for line in whole)


class _Asked:
    """What the parent has asked for."""

    def __init__(self) -> None:
        self.finish = threading.Event()
        self.read_entities = threading.Event()


def _listen(lines: Iterator[bytes], asked: _Asked) -> None:
    for line in lines:
        if line == FINISH:
            asked.finish.set()
        elif line == READ_ENTITIES:
            asked.read_entities.set()
    # The parent is gone. A transaction under way is as if it had never begun.
    os._exit(1)


def _work_with_room(options: EngineOptions, report: Report, asked: _Asked) -> None:
    """Work, and give the reserve up where the disk is full: the next engine goes on with it."""
    reserve = Reserve(options.store_path, options.reserve_bytes)
    try:
        _work(options, report, asked, reserve)
    except StoreRoomError as error:
        reserve.release(str(error))
        raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            reserve.release(_explained(error))
        raise


def _work(options: EngineOptions, report: Report, asked: _Asked, reserve: Reserve) -> None:
    with ExitStack() as stack:
        in_force = _in_force(options)
        options = _with_kept(options, in_force.kept)
        report.set(is_opening_store=True)
        store = stack.enter_context(_open_store(options, in_force.plan, reserve))
        report.set(is_opening_store=False)
        store.limit_memory()
        cancel_queries: Callable[[str], None] = _no_queries
        publishing = _publishing(options, store)
        if publishing is not None:
            stack.enter_context(publishing)
        naming = stack.enter_context(Naming(options, store, time.time()))
        archive = _archive(options, store)
        if archive is not None:
            stack.enter_context(archive)
        if options.sql or options.graphql or options.promql:
            # Here, so that an engine that answers nobody does not load a web server.
            from framewalk.server.answering import Wanted, answering  # noqa: PLC0415

            wanted = Wanted(
                options.sql,
                options.graphql,
                options.promql,
                (options.minute_ttl_days, options.hour_ttl_days, options.day_ttl_days),
                archive.folder if archive is not None else None,
                _QUERY_MEMORY_BYTES,
                Queries(report),
                options.refused_s,
            )
            found = stack.enter_context(answering(store.connection, store.path, wanted))
            ports = {f"{name.lower()}_port": port for name, port in found.ports.items()}
            report.set(**ports)
            cancel_queries = partial(_cancel_queries, found)
        spool, complete_through = options.spool_folder, options.complete_through
        # Readers and commits share the memory; what was received comes first.
        make_room = partial(cancel_queries, "no memory for a commit, running queries are cancelled")
        follower = stack.enter_context(
            SpoolFollower(spool, store, time.monotonic(), complete_through, make_room)
        )
        follower.most_ahead_s = options.max_ahead_s
        follower.caps = options.caps
        follower.archive = archive
        # A dump that is read once tells nothing new.
        learns = options.kubernetes or (options.entities_paths and options.entities_reload_s)
        follower.holding.wait_s = options.name_wait_s if learns else 0
        upkeep = Upkeep(options, store, follower, time.time(), time.monotonic())
        in_the_way = "no room in the store, running queries are cancelled"
        upkeep.budget.cancel_queries = partial(cancel_queries, in_the_way)
        engine = _Engine(options, follower, naming, upkeep, report)
        engine.publishing = publishing
        is_shared = publishing is not None
        deciding = Deciding(store, in_force, upkeep.remaking, time.time(), is_shared=is_shared)
        tell(logging.INFO, "engine ready", store=options.store_path)
        # From here on the parent knows that this can work.
        engine.tell()
        watch = Watch(engine.tell_now_and_then, lambda: not asked.finish.is_set())
        examine(options, store, follower, naming.entities, watch)
        while not asked.finish.wait(engine.wait_s()):
            upkeep.run(time.time(), time.monotonic())
            if _is_to_switch(asked, naming, deciding) or engine.is_outgrown():
                report.set(is_switching=True)
                report.write()
                break
            engine.look(asked.finish)
            engine.make_again()
    tell(logging.INFO, "engine stopped")


def _is_to_switch(asked: _Asked, naming: Naming, deciding: Deciding) -> bool:
    """Do what is asked; tells whether the next engine is to go on, with other definitions."""
    if deciding.look():
        return True
    if not asked.read_entities.is_set():
        return False
    asked.read_entities.clear()
    naming.read_again()
    return deciding.read_again()


def _cancel_queries(found: Served, event: str) -> None:
    tell(logging.WARNING, event)
    found.cancel_queries()


def _no_queries(_event: str) -> None:
    """Nobody reads."""


class _Engine:
    """Looks at the spool and at the dumps, again and again."""

    def __init__(
        self,
        options: EngineOptions,
        follower: SpoolFollower,
        naming: Naming,
        upkeep: Upkeep,
        report: Report,
    ) -> None:
        self._options = options
        self.publishing: Publishing | None = None
        self._follower = follower
        self._naming = naming
        self._upkeep = upkeep
        self._report = report
        self._looked_s: float = 0
        self._told: set[Path] = set()
        self._told_s: float = 0
        self._growth = Growth(time.monotonic())
        upkeep.budget.on_progress = self.tell_now_and_then

    def wait_s(self) -> float:
        """Return how long it is to the next look."""
        return max(self._looked_s + self._options.flush_interval_s - time.monotonic(), 0)

    def look(self, finish: threading.Event) -> None:
        """Commit what is whole in the spool by now; after `finish` the commit under way only."""
        self._looked_s = time.monotonic()
        now_s = time.time()
        self._naming.refresh(now_s, self._looked_s)
        if not self._has_room():
            self.tell()
            return
        started_s = time.monotonic()
        entities, show_life = self._naming.entities, self.tell_now_and_then
        for flushed in self._follower.follow(
            entities, started_s, on_progress=show_life, clock_ns=int(now_s * _NS_PER_S)
        ):
            ended_s = time.monotonic()
            self._report.flushed(flushed, ended_s - started_s)
            self._naming.count(flushed.counters.addresses, ended_s)
            # A look that catches up takes long, and streams wait for room.
            self._upkeep.make_room(time.monotonic())
            self.tell()
            started_s = time.monotonic()
            if finish.is_set() or not self._has_room():
                return
        self._naming.keep(time.monotonic())
        if self._follower.has_all:
            waits_since_ns = self._follower.waits_since_ns
            waits_since_s = now_s if waits_since_ns is None else waits_since_ns / _NS_PER_S
            self._report.set(watermark_s=min(now_s, waits_since_s))
        self._tell_unreadable()
        self.tell()

    def is_outgrown(self) -> bool:
        """Tell whether the next engine is to go on, as this one has grown; nobody is asking it."""
        memory_bytes = resident_bytes()
        self._growth.look(memory_bytes, time.monotonic())
        if not self._growth.is_much or self._report.runs_queries:
            return False
        line = "engine has grown, another goes on"
        tell(logging.INFO, line, memory_bytes=memory_bytes)
        return True

    def _has_room(self) -> bool:
        """Tell whether another commit may wait for its publishing."""
        return self.publishing is None or self.publishing.settle()

    def make_again(self) -> None:
        """Make metrics of before again, if that is asked, for half of the time until a look."""
        until_s = time.monotonic() + self._options.flush_interval_s / 2
        self._upkeep.remaking.run(self._naming.entities, until_s, self.tell_now_and_then)

    def _tell_unreadable(self) -> None:
        for path in self._follower.unreadable.keys() - self._told:
            self._told.add(path)
            problem = self._follower.unreadable[path]
            tell(logging.ERROR, "spool segment cannot be read, it is tried again", problem=problem)

    def tell_now_and_then(self) -> None:
        """Tell it while something takes long."""
        now_s = time.monotonic()
        if now_s - self._told_s >= _TELL_EVERY_S:
            self.tell()

    def tell(self) -> None:
        """Tell the parent how things are."""
        self._told_s = time.monotonic()
        upkeep = self._upkeep
        archive = self._follower.archive
        if self.publishing is not None:
            self._report.set(**self.publishing.facts())
        self._report.set(
            removed_segments=upkeep.removed_segments,
            given_up_segments=upkeep.given_up_segments,
            given_up_logs=archive.given_up_rows if archive is not None else 0,
            archive_bytes=upkeep.archive_bytes,
            remaking_minutes=upkeep.remaking.left,
            deleted_days=upkeep.budget.deleted_days,
            deleted_rows=upkeep.budget.deleted_rows,
            store_used_bytes=upkeep.budget.used_bytes,
            store_bytes_per_day=upkeep.bytes_per_day,
        )
        self._report.send(self._options, self._follower.unread_bytes())


def _in_force(options: EngineOptions) -> InForce:
    configured = Sources(options.oal_paths, options.apdex_path, options.endpoint_patterns_path)
    return InForce(options.store_path, configured, is_restart=options.is_restart)


def _with_kept(options: EngineOptions, kept: Sources) -> EngineOptions:
    return replace(
        options,
        oal_paths=kept.oal_paths,
        apdex_path=kept.apdex_path,
        endpoint_patterns_path=kept.endpoint_patterns_path,
    )


def _open_store(options: EngineOptions, plan: Plan, reserve: Reserve) -> Store:
    options.store_path.parent.mkdir(parents=True, exist_ok=True)
    reserve.release_if_full()
    deadline_s = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            return Store(options.store_path, plan, at_s=time.time())
        except StoreLockedError:
            if time.monotonic() >= deadline_s:
                raise
        except StoreRoomError as error:
            if not reserve.release(str(error)):
                raise
        time.sleep(_LOCK_RETRY_S)


def _publishing(options: EngineOptions, store: Store) -> Publishing | None:
    if options.publish is not None:
        return Publishing(options.publish, store)
    tell_unpublished(store)
    return None


def _archive(options: EngineOptions, store: Store) -> Archive | None:
    settings = options.archive
    if settings is None:
        return None
    shown = Shown.of(settings.texts)
    sampling = Sampling(settings.sample_one_in, settings.slow_ms)
    # A disk that is full costs logs before it costs metrics.
    kept = ArchiveOptions(
        Mode(settings.mode),
        shown,
        _MOST_HOURS,
        _MOST_HOURS_OF_NODE,
        _MOST_FAR_HOURS,
        gives_up=True,
        sampling=sampling,
        is_passing=settings.is_passing,
    )
    try:
        archive = Archive(store, settings.folder, kept)
    except (StoreError, OSError) as error:
        if options.publish is not None and options.publish.has_logs:
            # Others count on its logs.
            raise
        # Metrics come first, and receiving before them.
        remedy = "mend it, and start the server again"
        tell(logging.ERROR, "logs are not archived", problem=error, remedy=remedy)
        return None
    for problem in archive.problems:
        tell(logging.ERROR, "archived logs cannot be read, they are left out", problem=problem)
    return archive


if __name__ == "__main__":
    main()
