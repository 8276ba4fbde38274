"""The loop of a process that follows a table: open, merge, upkeep, tidy, tell."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from framewalk.engine.closing import Closing
from framewalk.engine.errors import StoreError, StoreMemoryError, TableAwayError, TableError
from framewalk.engine.oal import make_plan
from framewalk.engine.sharing import Follower, LogsTable, SharedTable, before_day
from framewalk.engine.store import Store
from framewalk.engine.telling import Trouble, tell
from framewalk.server.changing import Answer, State, answer, take_request
from framewalk.server.following.logs import MOST_REQUESTS, FollowedLogs
from framewalk.server.following.status import FollowerStatus, Versions, engines_of
from framewalk.server.following.upkeep import FollowerUpkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from framewalk.engine.sharing import Followed, Tidied
    from framewalk.server.following.logs import KeptLogs
    from framewalk.server.following.upkeep import Kept

_LOOK_AT_ENGINES_EVERY_S: Final = 30
_TELL_EVERY_S: Final = 10
# Silent ones that a line names.
_NAMED_ENGINES: Final = 20
_FOLLOWS: Final = "this store follows a table, and has what engines have published"
_ASK_ENGINES: Final = "ask those"
_US_PER_S: Final = 10**6
# Between two steps of one that catches up: others have the processor and the store meanwhile.
_BETWEEN_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """Which table is looked at, and how often.

    Its small files are merged and days that are older than `table_days` deleted every
    `tidy_every_s`; with 0 somebody else does that. Where engines publish logs they are archived as
    `logs` says, and at most `most_requests` of them put together at once.
    """

    uri: str
    every_s: float
    tidy_every_s: float
    table_days: int
    logs: KeptLogs | None = None
    most_requests: int = MOST_REQUESTS


class Following(Closing):
    """A store, and the table that it is brought to again and again.

    `cancel_queries` is called where a merge finds no memory. Times named `now_s` are since 1970,
    `elapsed_s` is of a clock that is never set.

    Raises StoreError and TableError where the store, or the table, is not to be used.
    """

    def __init__(self, options: FollowOptions, kept: Kept, path: Path) -> None:
        self.cancel_queries: Callable[[], None] = lambda: None
        self._options = options
        self._kept = kept
        self._path = path
        self._table = SharedTable(options.uri)
        self._away = Trouble("table is not read, it is tried again", "table is read again")
        self._silent = Trouble("engines are silent", "all engines publish")
        self._store: Store | None = None
        self._follower: Follower | None = None
        self._upkeep: FollowerUpkeep | None = None
        self._logs: FollowedLogs | None = None
        self._has_looked = False
        self._steps: Iterator[Followed] = iter(())
        self._rows = 0
        self._looked_at_engines_s = self._told_s = 0.0
        self._looked_s = float("-inf")
        self._status = FollowerStatus()
        self._merging_since_s: float | None = None
        self._tidied_now_s = 0.0
        self._tidied_s: float | None = None
        self._tidying: threading.Thread | None = None

    @property
    def every_s(self) -> float:
        """How often the table is looked at."""
        return self._options.every_s

    @property
    def status(self) -> FollowerStatus:
        """What is told of it; any thread may ask."""
        return replace(self._status, tidied_s=self._tidied_now_s)

    def open(self, now_s: float, elapsed_s: float) -> Store | None:
        """Return the store, as soon as there is one: a new one is made for what the table has."""
        try:
            is_there = self._table.open()
            if not is_there:
                self._away.goes_on(f"{self._table.uri}: no engine has published here yet")
        except TableError as error:
            self._is_away(error)
            is_there = False
        if not is_there and not self._path.exists():
            return None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # One that is there knows by itself what its metrics are.
        plan = self._table.plan() if is_there else make_plan(())
        store = self._store = Store(self._path, plan)
        store.limit_memory()
        self._upkeep = FollowerUpkeep(store, self._kept, now_s, elapsed_s)
        if is_there:
            try:
                self._begin(store, now_s, elapsed_s)
            except TableAwayError as error:
                self._is_away(error)
        return store

    def step(self, now_s: float, elapsed_s: float) -> float:
        """Do one step of what is due; returns after how many seconds the next one is."""
        assert self._store is not None, "it is open"  # noqa: S101
        assert self._upkeep is not None, "it is open"  # noqa: S101
        is_busy = self._upkeep.run(now_s, elapsed_s)
        self._refuse()
        if self._upkeep.has_much:
            return _BETWEEN_S
        try:
            if self._logs is not None:
                self._logs.upkeep(now_s, elapsed_s)
            has_more = self._merge(self._store, now_s, elapsed_s)
        except TableError as error:
            self._steps = iter(())
            self._is_away(error)
            return self._options.every_s
        except StoreMemoryError as error:
            self._steps = iter(())
            tell(
                logging.WARNING, "no memory for a merge, running queries are cancelled", error=error
            )
            self.cancel_queries()
            return self._options.every_s
        if has_more or is_busy:
            return _BETWEEN_S
        self._tell_silent(self._store, elapsed_s)
        self._tidy(now_s, elapsed_s)
        return self._options.every_s

    def _is_away(self, error: TableError) -> None:
        """Tell that the table was not read."""
        self._away.goes_on(str(error))
        failures = self._status.failures + 1
        self._status = replace(self._status, is_reading=False, failures=failures)

    def close(self) -> None:
        """Close the store, and its archive."""
        if self._logs is not None:
            self._logs.close()
        if self._store is not None:
            self._store.close()

    def _refuse(self) -> None:
        """Refuse what a command asks of a server: engines compute, and not this process."""
        request = take_request(self._path)
        if request is not None:
            problem = str(StoreError(self._path, _FOLLOWS, _ASK_ENGINES))
            answer(self._path, Answer(request.name, State.REFUSED, problem))

    def _begin(self, store: Store, now_s: float, elapsed_s: float) -> Follower:
        if self._table.logs_id:
            # It is there before the first states: what a store has without one is not related.
            self._logs = self._open_logs(store, now_s, elapsed_s)
            follower = Follower(store, self._table, self._logs.note_minutes)
        else:
            follower = Follower(store, self._table)
        self._follower = follower
        facts = {"table": self._table.uri, "version": self._table.version, "store": self._path}
        tell(logging.INFO, "table is followed", **facts)
        return follower

    def _open_logs(self, store: Store, now_s: float, elapsed_s: float) -> FollowedLogs:
        if self._options.logs is None:
            problem = "engines publish logs, and the archive is turned off here"
            raise StoreError(self._table.uri, problem, "turn it on (FRAMEWALK_ARCHIVE=parquet)")
        return FollowedLogs(store, self._table, self._options.logs, now_s, elapsed_s)

    def _merge(self, store: Store, now_s: float, elapsed_s: float) -> bool:
        """Merge some of what is new; tells whether there is more."""
        if self._merge_some(store, elapsed_s):
            return True
        # States first: then the first relations are made of all that is there.
        if self._logs is not None and self._has_looked and self._logs.step(now_s, elapsed_s):
            return True
        if elapsed_s - self._looked_s < self._options.every_s:
            return False
        self._looked_s = elapsed_s
        if not self._table.open():
            raise TableError(self._table.uri, "the table is gone", "see to the storage")
        self._away.is_over()
        follower = self._follower or self._begin(store, now_s, elapsed_s)
        self._steps = follower.follow(int(now_s * _US_PER_S))
        self._has_looked, self._merging_since_s = True, now_s
        return self._merge_some(store, elapsed_s)

    def _merge_some(self, store: Store, elapsed_s: float) -> bool:
        """Do a step of merging what the last look has found; tells whether there was one."""
        followed = next(self._steps, None)
        if followed is not None:
            self._rows += followed.rows
            self._note(rows=self._status.rows + followed.rows, files_left=followed.files_left)
            if elapsed_s - self._told_s >= _TELL_EVERY_S:
                self._told_s = elapsed_s
                facts = {"version": followed.version, "of": self._table.version}
                if followed.files_left:
                    facts["files_left"] = followed.files_left
                tell(logging.INFO, "table is merged", **facts, rows=self._rows)
                self._rows = 0
            return True
        if self._merging_since_s is not None:
            self._note(watermark_s=self._merging_since_s, engines=engines_of(store))
            self._merging_since_s = None
        return False

    def _note(self, **known: Any) -> None:  # noqa: ANN401 - fields of the status
        """Note what is known after a step."""
        assert self._follower is not None, "it has begun"  # noqa: S101
        states = Versions(self._follower.version, self._table.version)
        logs = self._logs.versions if self._logs is not None else None
        self._status = replace(self._status, is_reading=True, states=states, logs=logs, **known)

    def _tell_silent(self, store: Store, elapsed_s: float) -> None:
        if elapsed_s - self._looked_at_engines_s < _LOOK_AT_ENGINES_EVERY_S:
            return
        self._looked_at_engines_s = elapsed_s
        engines = engines_of(store)
        self._status = replace(self._status, engines=engines)
        silent = sorted(f"{one.name} ({one.engine})" for one in engines.newest if one.is_silent)
        if silent:
            self._silent.goes_on(", ".join(silent[:_NAMED_ENGINES]))
        else:
            self._silent.is_over()

    def _tidy(self, now_s: float, elapsed_s: float) -> None:
        """Have a thread tidy the table, where it is due and the last one has ended."""
        every_s = self._options.tidy_every_s
        if self._tidied_s is None:
            self._tidied_s = elapsed_s
        if not every_s or elapsed_s - self._tidied_s < every_s:
            return
        if self._tidying is not None and self._tidying.is_alive():
            return
        self._tidied_s = elapsed_s
        options = self._options
        tables: dict[SharedTable, int] = {SharedTable(options.uri): options.table_days}
        if self._logs is not None and options.logs is not None:
            tables[LogsTable(options.uri)] = options.logs.ttl_days
        days = {table: before_day(now_s, kept) for table, kept in tables.items()}
        thread = self._tidying = threading.Thread(
            target=self._tidy_tables, args=(days, now_s), name="tidy", daemon=True
        )
        thread.start()

    def _tidy_tables(self, days: Mapping[SharedTable, str], now_s: float) -> None:
        """Tidy tables that nobody else uses here, each from a day on."""
        are_tidy = True
        for table, day in days.items():
            try:
                done = table.tidy(day) if table.open() else None
            except TableError as error:
                # Another follower may have been faster.
                tell(logging.INFO, "table not tidied, it is tried again", problem=error)
                are_tidy = False
                continue
            if done is not None:
                _tell_tidied(table, done)
        if are_tidy:
            self._tidied_now_s = now_s


def _tell_tidied(table: SharedTable, done: Tidied) -> None:
    tell(
        logging.INFO,
        "table tidied",
        table=table.uri,
        merged_files=done.merged_files,
        expired_files=done.expired_files,
        deleted_files=done.deleted_files,
    )
