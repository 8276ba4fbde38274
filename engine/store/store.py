"""Stage 6: states -> one DuckDB file, exactly once (store.md).

States are appended, never updated; the views merge them, and compaction rolls up what is old
enough (compact.py). Each commit is one transaction that holds states together with the positions in
captures they come from, so whatever happens, a message is either counted and behind the
position, or neither.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from framewalk.engine.closing import Closing
from framewalk.engine.counters import Counters
from framewalk.engine.errors import InputError, StoreError
from framewalk.engine.kubernetes import SIGHTINGS_SCHEMA
from framewalk.engine.paths import one_path
from framewalk.engine.states import minutes_of
from framewalk.engine.store import described, dictionary
from framewalk.engine.store.compact import Compacted, Compactor
from framewalk.engine.store.connection import (
    FAULTS,
    IN_MEMORY,
    WRITER_MEMORY,
    connect,
    explained,
    roll_back,
    run,
    transaction,
)
from framewalk.engine.store.dictionary import Dictionary
from framewalk.engine.store.migration import prepare
from framewalk.engine.store.names import StoredNames
from framewalk.engine.store.positions import Reached, StoredCaptures
from framewalk.engine.store.room import (
    Borders,
    Room,
    StoredDay,
    days_of,
    expire,
    growth_of,
    room_of,
)
from framewalk.engine.store.rows import as_table
from framewalk.engine.store.tables import (
    STORE_VERSION,
    check_version,
    state_columns,
)
from framewalk.engine.store.views import (
    BUCKET,
    RESOLUTIONS,
    rolled_table,
    states_table,
    tables_of_states,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import polars as pl

    from framewalk.engine.captures import CapturePosition
    from framewalk.engine.kubernetes import Described
    from framewalk.engine.oal import Plan, Scope, State
    from framewalk.engine.states import ScopeStates, States

__all__ = [
    "IN_MEMORY",
    "STORE_VERSION",
    "Compacted",
    "Store",
    "open_for_reading",
]


class Store(StoredCaptures, Closing):
    """A DuckDB file with the tables and views of this version.

    Open it with a plan to write; the file is made if it is not there, and ":memory:" is a store
    without one. One process can have a file open for writing, and then no other can open it.

    Raises:
        StoreLockedError: another process has it open.
        StoreVersionError: a newer framewalk wrote it.
        StoreError: it is no DuckDB file, not framewalk's, or defines a metric differently.
    """

    def __init__(self, path: str | Path, plan: Plan) -> None:
        super().__init__(Path(path))
        self.plan = plan
        # Whether a transaction waits for more, and what its states have counted.
        self._is_uncommitted = False
        self._counted = Counters()
        self._dictionary = Dictionary(self._connection)
        try:
            prepare(self._connection, self.path, plan)
            self._columns = state_columns(self._connection)
            self._compactor = Compactor(self._connection, plan)
            self.names = StoredNames(self._connection, self.path, plan)
        except FAULTS as error:
            self._connection.close()
            raise explained(self.path, error) from error
        except BaseException:
            self._connection.close()
            raise

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection that writes; read in other threads through `.cursor()` of it.

        A cursor sees what was committed, and does not hold up commits and compaction.
        """
        return self._connection

    def limit_memory(self) -> None:
        """Let DuckDB hold 384 MiB; what needs more goes to disk beside the file."""
        self.run(f"SET memory_limit = '{WRITER_MEMORY}'")

    def close(self) -> None:
        """Write the log of changes into the file and close it."""
        self._connection.close()

    def query(self, sql: str) -> duckdb.DuckDBPyRelation:
        """Run a query; `.pl()`, `.to_arrow_table()` or `.fetchall()` give its rows.

        Raises:
            InputError: the query is wrong. What comes up later, while rows are computed, is
                DuckDB's own error.
            StoreError: the file is damaged, or the store is closed.
        """
        try:
            return self._connection.sql(sql)
        except duckdb.ConnectionException as error:
            raise StoreError(self.path, "the store is closed", "open it again") from error
        except FAULTS as error:
            raise explained(self.path, error) from error
        except duckdb.Error as error:
            place, problem = "query", str(error).splitlines()[0]
            raise InputError(place, problem, "correct the query") from error

    def commit(
        self,
        capture: int | None,
        path: Path,
        reached: Sequence[CapturePosition],
        states: States,
    ) -> int:
        """Write states and the positions in a capture that they reach, all or nothing.

        `capture` is None for one that the store does not know; returns its id.
        """
        (committed,) = self.commit_many([Reached(capture, path, reached)], [states])
        return committed

    def append(self, states: States) -> None:
        """Write states that count when the next commit does, or not at all.

        For what is more than memory holds. Until then only states may be written.
        """
        with self._explaining(), self._uncommitted():
            self._write(states)

    def discard(self) -> None:
        """Undo what was appended and not committed: whoever appended it has given up."""
        if self._is_uncommitted:
            self._undo()

    def commit_many(
        self,
        captures: Sequence[Reached],
        states: Iterable[States],
        *,
        ends_only: bool = False,
        also: Callable[[], None] = lambda: None,
    ) -> tuple[int, ...]:
        """Write states that come from several captures, at least one, all or nothing.

        With `ends_only` a capture's first position is written once, and of those that follow
        the last one: enough to go on from and to recognise a whole copy of the capture by, but
        not one that was cut off. The counters go to the last capture. `also` is called once the
        states are written, to write what belongs to them with `run`. Returns the ids.
        """
        with self._explaining(), self._uncommitted():
            ids = tuple(self._write_positions(one, ends_only=ends_only) for one in captures)
            for part in states:
                self._write(part)
            self._write_counters(ids[-1], self._counted)
            also()
            run(self._connection, "COMMIT")
        self._is_uncommitted, self._counted = False, Counters()
        return ids

    def compact(
        self,
        before_minute: int | None = None,
        after_minute: int | None = None,
        most_rows: int = 2**62,
        on_progress: Callable[[], object] = lambda: None,
    ) -> Compacted:
        """Roll up what commits have appended, but for minutes that are open.

        Closed are those before the one and, if it is given, after the other, both in minutes since
        the epoch; without either all are. The rows of one entity become one a minute, hour and day.
        No value in any view changes. Each transaction covers a bounded number of rows, and
        `on_progress` is called after it. Where `rows_before` is `most_rows` or more, some may be
        left for the next time.
        """
        with self._explaining():
            with self.transaction():
                described.compact_unknown(self._connection)
            return self._compactor.compact(before_minute, after_minute, most_rows, on_progress)

    def waiting_rows(self) -> int:
        """Return how many rows commits have appended that are not rolled up yet."""
        tables = [states_table(scope.scope) for scope in self.plan.scopes]
        counted = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables) or "0"
        return int(self.run(f"SELECT {counted}")[0][0])

    def newest_minute_s(self, until_s: float) -> float | None:
        """Return the newest minute with states that is not after a time, both since 1970 in s.

        None where there is none.
        """
        buckets = " UNION ALL ".join(
            f"SELECT max({BUCKET}) AS newest FROM {table} "
            f"WHERE {BUCKET} <= make_timestamp($until_us)"
            for scope in self.plan.scopes
            for table in (states_table(scope.scope), rolled_table(scope.scope, RESOLUTIONS[0]))
        )
        sql = f"SELECT epoch(max(newest)) FROM ({buckets})"
        newest_s: float | None = self.run(sql, {"until_us": int(until_s * 10**6)})[0][0]
        return newest_s

    def expire(
        self,
        before: dt.datetime | Borders,
        on_progress: Callable[[], None] = lambda: None,
    ) -> int:
        """Delete the states of buckets that begin before a time; returns how many rows that were.

        With `Borders` each resolution has its own time. What is not rolled up yet stays until it is
        before all of them. `on_progress` is called after each transaction, of a bounded number of
        rows, the oldest first. Entities of which nothing is left are forgotten.
        """
        borders = before if isinstance(before, Borders) else Borders(before, before, before)
        with self.transaction():
            described.expire(self._connection, int(borders.earliest.timestamp()) * 10**9)
        scopes = [scope.scope for scope in self.plan.scopes]
        with self._explaining():
            deleted = expire(self._connection, scopes, borders, on_progress)
            with transaction(self._connection):
                for scope in scopes:
                    dictionary.expire(self._connection, scope)
            self._dictionary.forget()
        return deleted

    def room(self) -> Room:
        """Return what the store takes of its disk."""
        tables = [one for scope in self.plan.scopes for one in tables_of_states(scope.scope)]
        with self._explaining():
            return room_of(self._connection, self.path, tables)

    def days(self, *, coarser: bool = False) -> list[StoredDay]:
        """Return the days (UTC) that have states by minute, the oldest first.

        With `coarser` those, too, that have hours or days only.
        """
        with self._explaining():
            scopes = [scope.scope for scope in self.plan.scopes]
            return days_of(self._connection, scopes, coarser=coarser)

    def growth(self) -> dict[str, int]:
        """Return the bytes that minutes take a day, by the view of their scope."""
        with self._explaining():
            return growth_of(self._connection, [scope.scope for scope in self.plan.scopes])

    def keep_entities(self, before: Described | None, after: Described) -> None:
        """Keep what is known of Pods and Services; `before` is what was given last.

        What is not in `after` any more stays until it expires.
        """
        with self.transaction():
            described.keep(self._connection, before, after)

    def kept_sightings(self, gone_after_ns: int = -(2**63)) -> pl.DataFrame:
        """Return what is kept of Pods and Services: SIGHTINGS_SCHEMA.

        Without those that were gone by then, in ns since 1970.
        """
        sql = f"FROM internal.sightings WHERE coalesce(gone_ns > {gone_after_ns}, true)"
        with self._explaining():
            rows: pl.DataFrame = self._connection.sql(sql).pl()
        return rows.cast(SIGHTINGS_SCHEMA)

    def checkpoint(self) -> bool:
        """Write the log of changes into the file and free what deleted rows took.

        Returns False where another transaction is in the way; those that only read are not.
        """
        with self._explaining():
            try:
                run(self._connection, "CHECKPOINT")
            except duckdb.TransactionException:
                return False
        return True

    @contextlib.contextmanager
    def _uncommitted(self) -> Iterator[None]:
        """Go on with the transaction, or begin one; an error undoes all of it."""
        if not self._is_uncommitted:
            run(self._connection, "BEGIN")
            self._is_uncommitted = True
        try:
            yield
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        self._is_uncommitted, self._counted = False, Counters()
        self._dictionary.forget()
        roll_back(self._connection)

    def _write(self, states: States) -> None:
        for scope in self.plan.scopes:
            self._append(scope.scope, states.scopes[scope.scope.view], scope.keyed_states)
        self._insert("internal.unknown_peers", described.unknown_rows(states.unknown))
        self._counted += states.counters
        newest = minutes_of(states).max()
        if isinstance(newest, int):
            dictionary.note_newest(self._connection, newest)

    def _append(self, scope: Scope, states: ScopeStates, keyed: Sequence[State]) -> None:
        if states.scalars.is_empty():
            return
        columns = self._columns.get(scope.view, {})
        frame = as_table(scope, states, keyed).rename(
            {name: column for name, column in columns.items() if name in states.scalars.columns}
            | {state.name: columns[state.name] for state in keyed}
        )
        self._insert(states_table(scope), self._dictionary.numbered(scope, frame))


def open_for_reading(path: str | Path) -> duckdb.DuckDBPyConnection:
    """Open a store read-only; several processes may, while none writes.

    Raises StoreError and its kinds as Store does.
    """
    store_path = one_path(path, StoreError)
    if not store_path.exists():
        remedy = "make it with `framewalk replay` or `serve`"
        raise StoreError(store_path, "there is no such file", remedy)
    connection = connect(store_path, read_only=True)
    try:
        check_version(connection, store_path)
    except FAULTS as error:
        connection.close()
        raise explained(store_path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection
