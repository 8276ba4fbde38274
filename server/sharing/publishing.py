"""The outbox of a running engine is emptied by a thread: commits do not wait for storage."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from framewalk.engine.closing import Closing
from framewalk.engine.counters import Counters
from framewalk.engine.errors import FramewalkError, StoreError, TableAwayError
from framewalk.engine.sharing import (
    LogsTable,
    Outbox,
    OutboxReader,
    SharedTable,
    has_published,
    open_for_publishing,
    publish,
)
from framewalk.engine.telling import Trouble, tell

if TYPE_CHECKING:
    from framewalk.engine.store import Store
    from framewalk.server.sharing.settings import PublishSettings

# A sign of life of an engine that has nothing else to publish.
_LIFE_EVERY_S: Final = 60
_FIRST_WAIT_S: Final = 1
_LONGEST_WAIT_S: Final = 60
# What is left at the end is published by the next engine.
_LAST_S: Final = 5


class Publishing(Closing):
    """Publishes what an engine commits; all but the thread's own is called between commits.

    Where the storage is away the engine goes on, until its outbox is full: then it computes
    nothing, and what is received waits in the spool.

    Raises:
        TableError: the table is there, and is not for this engine.
    """

    def __init__(self, settings: PublishSettings, store: Store) -> None:
        self._settings = settings
        self._plan = store.plan
        if not has_published(store) and store.newest():
            event = "what the store has by now is not published, only what is to come"
            tell(logging.WARNING, event, table=settings.uri)
        now_us = lambda: time.time_ns() // 1_000  # noqa: E731
        self._outbox = Outbox(store, settings.label, now_us, takes_logs=settings.has_logs)
        self._reader = OutboxReader(store.connection.cursor())
        self._table = SharedTable(settings.uri)
        self._logs = LogsTable(settings.uri) if settings.has_logs else None
        self._place = self._outbox.place
        self._trouble = Trouble("commits are not published, they wait", "commits are published")
        self._full = Trouble(
            "outbox is full, nothing is computed until it is published", "outbox has room"
        )
        self._last_s = 0.0
        self._failures = 0
        self._lived_s = time.monotonic()
        self._stop = threading.Event()
        try:
            open_for_publishing(self._table, self._plan, self._place, self._logs)
        except TableAwayError as error:
            self._trouble.goes_on(str(error))
        store.outbound = self._outbox
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()
        facts = {"table": self._table.uri, "engine": self._place.engine}
        tell(logging.INFO, "engine publishes its commits", **facts, waiting=self._outbox.pending)

    def settle(self) -> bool:
        """Take out what is published; tells whether the outbox has room for another commit.

        Raises StoreError where the thread has ended: another engine can try again.
        """
        if not self._thread.is_alive():
            place, problem = self._table.uri, "the thread that publishes has ended"
            raise StoreError(place, problem, "see the lines before")
        if self._place.published != self._outbox.place.published:
            self._lived_s = time.monotonic()
        self._outbox.settle(self._place)
        if self._outbox.pending_bytes >= self._settings.outbox_bytes:
            self._full.goes_on(f"{self._outbox.pending} commits wait for {self._table.uri}")
            return False
        self._full.is_over()
        if not self._outbox.pending and time.monotonic() - self._lived_s >= _LIFE_EVERY_S:
            self._lived_s = time.monotonic()
            self._outbox.add_empty(Counters())
        return True

    def facts(self) -> dict[str, float]:
        """Return what is told to the parent, as EngineStatus has it."""
        return {
            "is_publishing": True,
            "publish_pending_commits": self._outbox.pending,
            "publish_pending_bytes": self._outbox.pending_bytes,
            "publish_last_s": self._last_s,
            "publish_failures": self._failures,
        }

    def close(self) -> None:
        """Publish what waits, for some seconds, and end."""
        self._stop.set()
        self._thread.join(_LAST_S)
        self._outbox.settle(self._place)

    def _run(self) -> None:
        wait_s: float = 0
        while True:
            is_last = self._stop.wait(wait_s)
            try:
                has_more = self._step()
            except Exception as error:  # noqa: BLE001 - whatever it is, commits are to go on
                self._failures += 1
                self._trouble.goes_on(_explained(error))
                wait_s = min(max(2 * wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
                has_more = False
            else:
                wait_s = 0 if has_more else self._settings.every_s
            if is_last and not has_more:
                return

    def _step(self) -> bool:
        """Publish some commits; tells whether there may be more at once."""
        before = self._place
        open_for_publishing(self._table, self._plan, before, self._logs)
        self._place = publish(self._reader, self._table, before, self._logs)
        self._trouble.is_over()
        if self._place == before:
            return False
        self._last_s = time.time()
        return self._reader.token(self._place.published + 1) is not None


def _explained(error: Exception) -> str:
    """Say what is wrong; what nobody has thought of is tried again as well."""
    return str(error) if isinstance(error, FramewalkError) else f"{type(error).__name__}: {error}"


def tell_unpublished(store: Store) -> None:
    """Tell that a store has published before, and what it commits now is not."""
    if has_published(store):
        event = "this engine has published before, what it computes now is not published"
        tell(logging.WARNING, event, store=store.path)
