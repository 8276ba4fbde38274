"""Stage 6: states -> one DuckDB file, exactly once (store.md).

States are appended, never updated; the views merge them, and compaction rolls up what is old
enough (compact.py). Each commit is one transaction that holds states together with the positions in
captures they come from, so whatever happens, a message is either counted and behind the
position, or neither.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
import polars as pl

from framewalk.engine.closing import Closing
from framewalk.engine.counters import Counters
from framewalk.engine.errors import InputError, StoreError
from framewalk.engine.oal import make_plan
from framewalk.engine.paths import one_path
from framewalk.engine.states import MINUTE, TRAITS, minutes_of
from framewalk.engine.store import described, dictionary, tables
from framewalk.engine.store.compact import (
    ROWS_AT_ONCE,
    Compacted,
    Compactor,
    replace_minutes,
    states_tables,
)
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
from framewalk.engine.store.described import KeptSightings
from framewalk.engine.store.dictionary import Dictionary
from framewalk.engine.store.migration import prepare
from framewalk.engine.store.names import StoredNames
from framewalk.engine.store.positions import Reached, StoredCaptures
from framewalk.engine.store.room import Borders, MeasuredRoom, expire, note_expired
from framewalk.engine.store.rows import UNKNOWN_PEERS, as_states, as_table
from framewalk.engine.store.tables import (
    STORE_VERSION,
    begin_meanings,
    check_version,
    has_all_macros,
    known_metrics,
    recent_formers,
    state_columns,
)
from framewalk.engine.views import (
    BUCKET,
    ENTITY,
    RESOLUTIONS,
    entities_table,
    quoted,
    rolled_table,
    states_table,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from framewalk.engine.captures import CapturePosition
    from framewalk.engine.oal import Plan, Scope, ScopePlan, State
    from framewalk.engine.states import ScopeStates, States
    from framewalk.engine.store.rows import Outbound

__all__ = [
    "IN_MEMORY",
    "STORE_VERSION",
    "Compacted",
    "Store",
    "open_for_reading",
]

_MINUTE_US: Final = 60_000_000


class Store(StoredCaptures, MeasuredRoom, KeptSightings, Closing):
    """A DuckDB file with the tables and views of this version.

    Open it with a plan to write; the file is made if it is not there, and ":memory:" is a store
    without one. One process can have a file open for writing, and then no other can open it.
    Metrics that are `redefined` may have another meaning than before: what was written keeps its
    own. With a time (`at_s`, since 1970) all may, as a server that goes on takes definitions: what
    changes or is new begins with the next minute. `plan` then has, for late logs, what metrics
    meant before as well, under names with a space.

    Raises:
        StoreLockedError: another process has it open.
        StoreVersionError: a newer framewalk wrote it.
        StoreError: it is no DuckDB file, not framewalk's, or defines a metric differently.
    """

    def __init__(
        self,
        path: str | Path,
        plan: Plan,
        redefined: Collection[str] = (),
        *,
        at_s: float | None = None,
    ) -> None:
        super().__init__(Path(path))
        # Whether a transaction waits for more, and what its states have counted.
        self._is_uncommitted = False
        self._counted = Counters()
        self._dictionary = Dictionary(self._connection)
        self.outbound: Outbound | None = None
        try:
            prepare(self._connection, self.path, plan, redefined, at_s)
            self.plan = plan.and_metrics(recent_formers(self._connection))
            self._columns = state_columns(self._connection)
            self._compactor = Compactor(self._connection, self.plan)
            self.names = StoredNames(self._connection, self.path, self.plan)
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
                # The next one is computed, and all of it committed, without this one in memory.
                del part
            self._write_counters(ids[-1], self._counted)
            also()
            if self.outbound is not None:
                self.outbound.close(self._counted)
            run(self._connection, "COMMIT")
        self._is_uncommitted, self._counted = False, Counters()
        return ids

    def add(
        self,
        rows: Iterable[tuple[str, pl.DataFrame]],
        also: Callable[[], None] = lambda: None,
    ) -> None:
        """Write rows that another store has written, as its outbound took them, all or nothing.

        Rows may be computed while they are written. `also` is called within the transaction, to
        write what belongs to it with `run`.
        """
        scopes = {one.scope.view: one.scope for one in self.plan.scopes}
        with self._explaining(), self._uncommitted():
            for view, own in rows:
                if view == UNKNOWN_PEERS:
                    self._insert("internal.unknown_peers", described.unknown_rows(own))
                    continue
                self._insert(states_table(scopes[view]), self._numbered(scopes[view], own))
                newest = own.select(pl.col(BUCKET).max().dt.epoch("us") // _MINUTE_US).item()
                dictionary.note_newest(self._connection, newest)
            also()
            run(self._connection, "COMMIT")
        self._is_uncommitted = False

    def replace(
        self,
        minutes: Sequence[int],
        states: Iterable[tuple[ScopePlan, ScopeStates]],
        *,
        whole: bool = False,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        """Replace what minutes (since 1970) have of some states, all or nothing.

        Each scope is planned with the states that are replaced, and comes with all that they are
        in these minutes. With `whole` what minutes have of other states goes, too. Hours and days
        follow. `also` is called within the transaction, to write what belongs to it with `run`.
        Not to be used for minutes that have expired (`first_kept_minute`).
        """
        with self._explaining(), self._uncommitted():
            each = {one.scope.view: one for one in states_tables(self._connection, self.plan)}
            for scope, own in states:
                view = scope.scope.view
                columns = self._columns.get(view, {})
                replaced = list(columns.values())
                if not whole:
                    replaced = [columns[state.name] for state in scope.states]
                fresh = self._numbered(scope.scope, as_table(scope.scope, own, scope.keyed_states))
                every = {*replaced, TRAITS} if whole else set(replaced)
                replace_minutes(self._connection, each[view], minutes, fresh, every)
                newest = own.scalars[MINUTE].max()
                if isinstance(newest, int):
                    dictionary.note_newest(self._connection, newest)
            also()
            run(self._connection, "COMMIT")
        self._is_uncommitted = False

    def states_of(self, scope: ScopePlan, minutes: Sequence[int]) -> ScopeStates:
        """Return what minutes (since 1970) have of the states of a scope."""
        columns = self._columns[scope.scope.view]
        names = ", ".join(map(quoted, [*scope.scope.keys]))
        states = ", ".join(
            f"{quoted(columns[state.name])} AS {quoted(state.name)}" for state in scope.states
        )
        each = " UNION ALL ".join(
            f"SELECT {ENTITY}, {BUCKET}, {TRAITS}, {states} FROM {table}"
            for table in (states_table(scope.scope), rolled_table(scope.scope, RESOLUTIONS[0]))
        )
        asked = f"SELECT make_timestamp(unnest({list(minutes)}::BIGINT[]) * 60000000)"
        rows = self.query(
            f"SELECT {names}, every.* EXCLUDE ({ENTITY}) FROM ({each}) AS every "
            f"JOIN {entities_table(scope.scope)} USING ({ENTITY}) WHERE {BUCKET} IN ({asked})"
        )
        return as_states(scope, rows.pl())

    def forget_unused(self, view: str) -> None:
        """Forget the entities of a scope (by its view) that no bucket has."""
        (scope,) = (one.scope for one in self.plan.scopes if one.scope.view == view)
        with self._explaining():
            with transaction(self._connection):
                dictionary.forget_unused(self._connection, scope)
            self._dictionary.forget()

    def known_plan(self) -> Plan:
        """Return a plan of all metrics that the store knows, those of earlier definitions too.

        What metrics meant before has names with a space.
        """
        with self._explaining():
            metrics = known_metrics(self._connection, self.plan)
        known = {metric.name for metric in self.plan.metrics}
        return self.plan.and_metrics(one for one in metrics if one.name not in known)

    def changed_meanings(self, plan: Plan) -> list[str]:
        """Return the names of metrics that the store defines otherwise than a plan."""
        with self._explaining():
            return tables.changed_meanings(self._connection, plan)

    def meanings_begin(self) -> dict[str, int]:
        """Return from which minutes (since 1970) on metrics mean what they do now, if not ever."""
        sql = "SELECT name, epoch_us(max(until)) // 60000000 FROM former_meanings GROUP BY 1"
        return dict(self.run(sql))

    def begin_meanings(self, names: Collection[str], minute: int | None) -> None:
        """Have metrics mean what they do now from an earlier minute (since 1970) on, or ever.

        To be called in the transaction that writes what they are from then on.
        """
        with self._explaining():
            begin_meanings(self._connection, self.plan, names, minute)

    def compact(
        self,
        before_minute: int | None = None,
        after_minute: int | None = None,
        on_progress: Callable[[], object] = lambda: None,
    ) -> Compacted:
        """Roll up what commits have appended, but for minutes that are open.

        Closed are those before the one and, if it is given, after the other, both in minutes since
        the epoch; without either all are. The rows of one entity become one a minute, hour and day.
        No value in any view changes. Each transaction covers a bounded number of rows, and
        `on_progress` is called after it.
        """
        total = Compacted()
        for done in self.compacting(before_minute, after_minute):
            total += done
            on_progress()
        return total

    def compacting(
        self,
        before_minute: int | None = None,
        after_minute: int | None = None,
        rows_at_once: int = ROWS_AT_ONCE,
    ) -> Iterator[Compacted]:
        """Do what `compact` does step by step: each is a transaction, and is told when it is over.

        What is committed between two steps need not be rolled up by those that follow. A step has
        at most `rows_at_once` rows, or one part of what is worked on at once.
        """
        with self._explaining():
            with self.transaction():
                described.compact_unknown(self._connection)
            yield from self._compactor.compact(before_minute, after_minute, rows_at_once)

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
        deleted = 0
        for rows in self.expiring(borders):
            deleted += rows
            on_progress()
        return deleted

    def expiring(self, borders: Borders) -> Iterator[int]:
        """Do what `expire` does step by step: each is a transaction, told by its rows when over."""
        with self.transaction():
            note_expired(self._connection, borders)
            described.expire(self._connection, int(borders.earliest.timestamp()) * 10**9)
        scopes = [scope.scope for scope in self.plan.scopes]
        with self._explaining():
            yield from expire(self._connection, scopes, borders)
            with transaction(self._connection):
                gone = sum(dictionary.expire(self._connection, scope) for scope in scopes)
        if gone:
            self._dictionary.forget()

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
        if self.outbound is not None:
            self.outbound.undo()
        roll_back(self._connection)

    def _write(self, states: States) -> None:
        for scope in self.plan.scopes:
            self._append(scope.scope, states.scopes[scope.scope.view], scope.keyed_states)
        self._insert("internal.unknown_peers", described.unknown_rows(states.unknown))
        if self.outbound is not None:
            self.outbound.add(UNKNOWN_PEERS, states.unknown)
        self._counted += states.counters
        newest = minutes_of(states).max()
        if isinstance(newest, int):
            dictionary.note_newest(self._connection, newest)

    def _append(self, scope: Scope, states: ScopeStates, keyed: Sequence[State]) -> None:
        if states.scalars.is_empty():
            return
        rows = as_table(scope, states, keyed)
        if self.outbound is not None:
            self.outbound.add(scope.view, rows)
        self._insert(states_table(scope), self._numbered(scope, rows))

    def _numbered(self, scope: Scope, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows with the columns of a table of states, and numbers in place of names."""
        columns = self._columns.get(scope.view, {})
        known = {name: column for name, column in columns.items() if name in rows.columns}
        return self._dictionary.numbered(scope, rows.rename(known))


def changed_meanings(path: Path, plan: Plan) -> list[str]:
    """Return the names of metrics that a store defines otherwise than the plan.

    Raises StoreError as open_for_reading does.
    """
    connection = open_for_reading(path)
    try:
        return tables.changed_meanings(connection, plan)
    finally:
        connection.close()


def open_for_reading(path: str | Path) -> duckdb.DuckDBPyConnection:
    """Open a store read-only; several processes may, while none writes.

    One that an earlier framewalk of this version of stores has made gets the macros of now first.

    Raises StoreError and its kinds as Store does.
    """
    store_path = one_path(path, StoreError)
    if not store_path.exists():
        remedy = "make it with `framewalk replay` or `serve`"
        raise StoreError(store_path, "there is no such file", remedy)
    connection = _opened_for_reading(store_path)
    if has_all_macros(connection) or check_version(connection, store_path) < STORE_VERSION:
        return connection
    connection.close()
    # One that may not be written, or is open elsewhere, is read as it is.
    with contextlib.suppress(StoreError), Store(store_path, make_plan(())):
        pass
    return _opened_for_reading(store_path)


def _opened_for_reading(store_path: Path) -> duckdb.DuckDBPyConnection:
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
