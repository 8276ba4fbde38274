"""Stage 6: states -> one DuckDB file, exactly once (store.md).

States are appended, never updated; the views merge them, and compaction what is old enough
(compact.py). Each commit is one transaction that holds states together with the positions in
captures they come from, so whatever happens, a message is either counted and behind the
position, or neither.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import duckdb
import polars as pl

from framewalk.engine.captures import CapturePosition
from framewalk.engine.closing import Closing
from framewalk.engine.counters import Counters
from framewalk.engine.errors import StoreError
from framewalk.engine.kubernetes import SIGHTINGS_SCHEMA
from framewalk.engine.states import minutes_of
from framewalk.engine.store import described
from framewalk.engine.store.compact import Compacted, Compactor
from framewalk.engine.store.connection import (
    FAULTS,
    IN_MEMORY,
    WRITER_MEMORY,
    connect,
    explained,
    insert,
    roll_back,
    run,
    transaction,
)
from framewalk.engine.store.names import StoredNames
from framewalk.engine.store.room import Room, StoredDay, days_of, delete_before, room_of
from framewalk.engine.store.rows import as_counters, as_definitions, as_table, strings
from framewalk.engine.store.tables import (
    STORE_VERSION,
    check_version,
    column_type,
    create_views,
    has_changed,
    one_line,
    prepare,
    state_columns,
    stored_metrics,
)
from framewalk.engine.store.views import BUCKET, states_table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from framewalk.engine.kubernetes import Described
    from framewalk.engine.oal import Metric, Plan, Scope, State
    from framewalk.engine.states import ScopeStates, States
    from framewalk.engine.store.connection import Parameters

__all__ = [
    "IN_MEMORY",
    "STORE_VERSION",
    "Compacted",
    "HeldPiece",
    "Reached",
    "Store",
    "open_for_reading",
]

# The capture that has the counters of all captures that were forgotten.
FORGOTTEN: Final = 0
_FORGOTTEN_PATH: Final = "(forgotten captures)"
# A row per element of the lists: cheaper for few rows than registering a frame.
_INSERT_POSITIONS: Final = (
    "INSERT INTO internal.positions "
    "SELECT ?, unnest(?::BIGINT[]), unnest(?::BIGINT[]), unnest(?::VARCHAR[])"
)
_INSERT_COUNTERS: Final = (
    "INSERT INTO internal.counters "
    "SELECT ?, unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::BIGINT[])"
)
_INSERT_HELD: Final = "INSERT INTO internal.held SELECT ?, unnest(?::BIGINT[]), unnest(?::BIGINT[])"
_CHOSEN: Final = "capture IN (SELECT unnest($captures::BIGINT[]))"
_CHOSEN_ID: Final = "id IN (SELECT unnest($captures::BIGINT[]))"


class HeldPiece(NamedTuple):
    """A record batch of a capture, by its place there, that is to be counted later."""

    begin_bytes: int
    end_bytes: int


class Reached(NamedTuple):
    """How far a commit comes in one capture.

    `capture` is None for one that the store does not know; `positions` are the ends of the
    record batches that the commit covers, in order. Of what is before the last of them `held` is
    what is still not in the store.
    """

    capture: int | None
    path: Path
    positions: Sequence[CapturePosition]
    held: Sequence[HeldPiece] = ()


@dataclass(slots=True)
class _Written:
    """What a transaction has written so far."""

    counters: Counters = field(default_factory=Counters)
    minutes: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.Int64))


class Store(Closing):
    """A DuckDB file with the tables and views of this version.

    Open it with a plan to write; the file is made if it is not there, and ":memory:" is a store
    without one. One process can have a file open for writing, and then no other can open it.

    Raises:
        StoreLockedError: another process has it open.
        StoreVersionError: a newer framewalk wrote it.
        StoreError: it is no DuckDB file, not framewalk's, or defines a metric differently.
    """

    def __init__(self, path: str | Path, plan: Plan) -> None:
        self.path = Path(path)
        self._connection = connect(self.path, read_only=False)
        self.plan = plan
        self._written: _Written | None = None
        self._tables = [states_table(scope.scope) for scope in plan.scopes]
        try:
            prepare(self._connection, self.path, plan)
            self._remember(plan)
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
        self._run(f"SET memory_limit = '{WRITER_MEMORY}'")

    def close(self) -> None:
        """Write the log of changes into the file and close it."""
        self._connection.close()

    def query(self, sql: str) -> duckdb.DuckDBPyRelation:
        """Run a query; `.pl()`, `.to_arrow_table()` or `.fetchall()` give its rows."""
        return self._connection.sql(sql)

    def captures(self) -> dict[int, CapturePosition]:
        """Return the end of the first record batch of each capture in the store, by its id."""
        rows = self._run(
            "SELECT capture, offset_bytes, messages, digest FROM internal.positions "
            "QUALIFY row_number() OVER (PARTITION BY capture ORDER BY offset_bytes) = 1"
        )
        return {capture: CapturePosition(*position) for capture, *position in rows}

    def ends_at(self, paths: Collection[Path]) -> dict[Path, tuple[int, CapturePosition]]:
        """Return the captures that were read at these paths: their ids and last positions."""
        rows = self._run(
            "SELECT path, capture, offset_bytes, messages, digest FROM internal.positions JOIN "
            "(SELECT path, max(id) AS capture FROM internal.captures "
            "WHERE path IN (SELECT unnest(?::VARCHAR[])) GROUP BY path) USING (capture) "
            "QUALIFY row_number() OVER (PARTITION BY capture ORDER BY offset_bytes DESC) = 1",
            [[str(path) for path in paths]],
        )
        return {
            Path(path): (capture, CapturePosition(*position)) for path, capture, *position in rows
        }

    def newest(self) -> int:
        """Return the highest id of a capture; 0 where there is none."""
        return int(self._run("SELECT coalesce(max(id), 0) FROM internal.captures")[0][0])

    def end_of_alike(
        self, begin: CapturePosition, newest: int
    ) -> tuple[int, CapturePosition] | None:
        """Return a capture up to `newest` with this position: its id and its last position.

        Of several it is the one that goes furthest.
        """
        rows = self._run(
            "SELECT capture, offset_bytes, messages, digest FROM internal.positions "
            "WHERE capture IN (SELECT capture FROM internal.positions "
            "WHERE offset_bytes = ? AND digest = ? AND capture <= ?) "
            "ORDER BY offset_bytes DESC LIMIT 1",
            [begin.offset_bytes, begin.digest, newest],
        )
        return next(((capture, CapturePosition(*end)) for capture, *end in rows), None)

    def positions(self, capture: int) -> frozenset[CapturePosition]:
        """Return the ends of all record batches of a capture that are in the store."""
        rows = self._run(
            "SELECT offset_bytes, messages, digest FROM internal.positions WHERE capture = ?",
            [capture],
        )
        return frozenset(CapturePosition(*position) for position in rows)

    def held(self, captures: Collection[int]) -> dict[int, frozenset[HeldPiece]]:
        """Return what captures have before their last position that is not in the store.

        Those that have nothing are not in the result.
        """
        rows = self._run(
            f"SELECT capture, begin_bytes, end_bytes FROM internal.held WHERE {_CHOSEN}",
            {"captures": list(captures)},
        )
        found: dict[int, set[HeldPiece]] = {}
        for capture, begin_bytes, end_bytes in rows:
            found.setdefault(capture, set()).add(HeldPiece(begin_bytes, end_bytes))
        return {capture: frozenset(pieces) for capture, pieces in found.items()}

    def paths(self, before_name: str | None = None) -> dict[int, Path]:
        """Return where each capture in the store was read, by its id.

        With `before_name` only those whose file's name sorts before it.
        """
        rows = self._run(
            "SELECT id, path FROM internal.captures "
            "WHERE id <> $forgotten AND ($before IS NULL OR parse_filename(path) < $before)",
            {"forgotten": FORGOTTEN, "before": before_name},
        )
        return {capture: Path(path) for capture, path in rows}

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
        with self._explaining(), self._uncommitted() as written:
            self._write(states, written)

    def discard(self) -> None:
        """Undo what was appended and not committed: whoever appended it has given up."""
        if self._written is not None:
            self._written = None
            roll_back(self._connection)

    def commit_many(
        self, captures: Sequence[Reached], states: Iterable[States], *, ends_only: bool = False
    ) -> tuple[int, ...]:
        """Write states that come from several captures, at least one, all or nothing.

        With `ends_only` a capture's first position is written once, and of those that follow
        the last one: enough to go on from and to recognise a whole copy of the capture by, but
        not one that was cut off. The counters go to the last capture. Returns the ids.
        """
        with self._explaining(), self._uncommitted() as written:
            ids = tuple(self._write_positions(one, ends_only=ends_only) for one in captures)
            for part in states:
                self._write(part, written)
            self._write_counters(ids[-1], written.counters)
            run(self._connection, "COMMIT")
        self._written = None
        self._compactor.touch(written.minutes)
        return ids

    def finish(self, *captures: int) -> None:
        """Keep the first and the last position of captures to which nothing will be added.

        Their counters are added up. A whole copy of such a capture is recognised, one that was
        cut off is not.
        """
        if not captures:
            return
        chosen = {"captures": list(captures)}
        with self._transaction():
            self._run(
                "DELETE FROM internal.positions "
                f"USING (SELECT capture AS finished, min(offset_bytes) AS first, "
                f"max(offset_bytes) AS last FROM internal.positions WHERE {_CHOSEN} GROUP BY 1) "
                "WHERE capture = finished AND offset_bytes NOT IN (first, last)",
                chosen,
            )
            self._add_up_counters("capture", chosen)

    def forget(self, captures: Collection[int]) -> None:
        """Remove captures that are gone; their counters are added to those of capture 0.

        What they counted stays. A copy of such a capture would be counted again.
        """
        if not captures:
            return
        chosen = {"captures": [FORGOTTEN, *captures]}
        with self._transaction():
            self._add_up_counters(f"{FORGOTTEN}", chosen)
            self._run(f"DELETE FROM internal.positions WHERE {_CHOSEN}", chosen)
            self._run(f"DELETE FROM internal.held WHERE {_CHOSEN}", chosen)
            self._run(f"DELETE FROM internal.captures WHERE {_CHOSEN_ID}", chosen)
            self._run("INSERT INTO internal.captures VALUES (?, ?)", [FORGOTTEN, _FORGOTTEN_PATH])

    def compact(self, before_minute: int, after_minute: int | None = None) -> Compacted:
        """Merge the rows of one entity and minute into one, but for minutes that are open.

        Closed are those before the one and, if it is given, after the other, both in minutes since
        the epoch. Looks at minutes that got rows since they were last compacted; the first call
        finds those of before the store was opened. No value in any view changes. Each transaction
        covers a bounded number of rows.
        """
        with self._explaining():
            with self._transaction():
                described.compact_unknown(self._connection)
            return self._compactor.compact(before_minute, after_minute)

    def newest_minute_s(self, until_s: float) -> float | None:
        """Return the newest minute with states that is not after a time, both since 1970 in s.

        None where there is none.
        """
        buckets = " UNION ALL ".join(
            f"SELECT max({BUCKET}) AS newest FROM {states_table(scope.scope)} "
            f"WHERE {BUCKET} <= make_timestamp($until_us)"
            for scope in self.plan.scopes
        )
        sql = f"SELECT epoch(max(newest)) FROM ({buckets})"
        newest_s: float | None = self._run(sql, {"until_us": int(until_s * 10**6)})[0][0]
        return newest_s

    def expire(self, before: dt.datetime, on_progress: Callable[[], None] = lambda: None) -> int:
        """Delete the states of minutes before a time (UTC); returns how many rows that were.

        Hours and days that have begun before lose what they had until then. `on_progress` is called
        after each transaction, of a bounded number of rows, the oldest first.
        """
        utc = before.astimezone(dt.UTC).replace(tzinfo=None) if before.tzinfo else before
        with self._transaction():
            before_ns = int(utc.replace(tzinfo=dt.UTC).timestamp()) * 10**9
            described.expire(self._connection, before_ns)
        with self._explaining():
            return delete_before(self._connection, self._tables, utc, on_progress)

    def room(self) -> Room:
        """Return what the store takes of its disk."""
        with self._explaining():
            return room_of(self._connection, self.path, self._tables)

    def days(self) -> list[StoredDay]:
        """Return the days (UTC) that have states, the oldest first."""
        with self._explaining():
            return days_of(self._connection, self._tables)

    def keep_entities(self, before: Described | None, after: Described) -> None:
        """Keep what is known of Pods and Services; `before` is what was given last.

        What is not in `after` any more stays until it expires.
        """
        with self._transaction():
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
    def _uncommitted(self) -> Iterator[_Written]:
        """Go on with the transaction, or begin one; an error undoes all of it."""
        if self._written is None:
            run(self._connection, "BEGIN")
            self._written = _Written()
        try:
            yield self._written
        except BaseException:
            self._written = None
            roll_back(self._connection)
            raise

    def _write(self, states: States, written: _Written) -> None:
        for scope in self.plan.scopes:
            self._append(scope.scope, states.scopes[scope.scope.view], scope.keyed_states)
        self._insert("internal.unknown_peers", described.unknown_rows(states.unknown))
        written.counters += states.counters
        written.minutes = pl.concat([written.minutes, minutes_of(states)]).unique()

    def _write_positions(self, reached: Reached, *, ends_only: bool) -> int:
        capture, path, positions, held = reached
        if ends_only:
            first = positions[:1] if capture is None else ()
            positions = [*first, *positions[len(first) :][-1:]]
        if capture is None:
            capture = self._new_capture(path)
        else:
            self._run("DELETE FROM internal.held WHERE capture = ?", [capture])
        if held:
            begins, ends = ([piece[at] for piece in held] for at in range(2))
            self._run(_INSERT_HELD, [capture, begins, ends])
        columns = [
            [one.offset_bytes for one in positions],
            [one.messages for one in positions],
            [one.digest for one in positions],
        ]
        self._run(_INSERT_POSITIONS, [capture, *columns])
        return capture

    def _write_counters(self, capture: int, counters: Counters) -> None:
        rows = as_counters(counters)
        columns = ([row[at] for row in rows] for at in range(3))
        self._run(_INSERT_COUNTERS, [capture, *columns])

    def _new_capture(self, path: Path) -> int:
        rows = self._run(
            "INSERT INTO internal.captures SELECT coalesce(max(id), 0) + 1, ? "
            "FROM internal.captures RETURNING id",
            [str(path)],
        )
        return int(rows[0][0])

    def _append(self, scope: Scope, states: ScopeStates, keyed: Sequence[State]) -> None:
        if states.scalars.is_empty():
            return
        columns = self._columns.get(scope.view, {})
        frame = as_table(scope, states, keyed).rename(
            {name: column for name, column in columns.items() if name in states.scalars.columns}
            | {state.name: columns[state.name] for state in keyed}
        )
        self._insert(states_table(scope), frame)

    def _add_up_counters(self, capture: str, chosen: Mapping[str, list[int]]) -> None:
        """Replace the counters of chosen captures by their sums, under `capture` (SQL)."""
        sums = (
            f"CREATE OR REPLACE TEMP TABLE sums AS SELECT {capture} AS capture, kind, name, "
            f"sum(count)::BIGINT AS count FROM internal.counters WHERE {_CHOSEN} GROUP BY ALL"
        )
        self._run(sums, chosen)
        self._run(f"DELETE FROM internal.counters WHERE {_CHOSEN}", chosen)
        self._run("INSERT INTO internal.counters BY NAME FROM sums")
        self._run("DROP TABLE sums")

    def _remember(self, plan: Plan) -> None:
        """Add what the plan defines and the store does not know; refuse changed meanings."""
        rows = self._run("SELECT name, definition FROM internal.definitions")
        # DuckDB's column names do not tell case apart.
        stored = {name.casefold(): (name, definition) for name, definition in rows}
        for metric in plan.metrics:
            known = stored.get(metric.name.casefold())
            if known is not None and (known[0] != metric.name or has_changed(known[1], metric)):
                raise StoreError(
                    self.path,
                    f"it defines {known[0]!r} as `{one_line(known[1])}`, "
                    f"the definitions at hand as `{one_line(str(metric.definition))}`",
                    "give the new meaning a new name, or use a new store",
                )
        added = [metric for metric in plan.metrics if metric.name.casefold() not in stored]
        if not added and self._run("SELECT 1 FROM duckdb_views() WHERE view_name = 'entities'"):
            return
        with self._transaction():
            self._define(added)

    def _define(self, added: Sequence[Metric]) -> None:
        self._insert("internal.definitions", as_definitions(added))
        known = state_columns(self._connection)
        new_columns: list[tuple[str, str, str]] = []
        for metric in added:
            columns = known.setdefault(metric.scope.view, {})
            for state in metric.states:
                if state.name not in columns:
                    columns[state.name] = f"state_{len(columns)}"
                    self._add_column(metric.scope, columns[state.name], state)
                    new_columns.append((metric.scope.view, state.name, columns[state.name]))
        schema = ["scope", "state", "column_name"]
        self._insert("internal.state_columns", strings(new_columns, schema))
        create_views(self._connection, stored_metrics(self._connection, self.plan))

    def _add_column(self, scope: Scope, column: str, state: State) -> None:
        added = f"{column} {column_type(state)}"
        self._run(f"ALTER TABLE {states_table(scope)} ADD COLUMN {added}")

    def _insert(self, table: str, rows: pl.DataFrame) -> None:
        with self._explaining():
            insert(self._connection, table, rows)

    def _run(self, sql: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
        with self._explaining():
            return run(self._connection, sql, parameters)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explaining(), transaction(self._connection):
            yield

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except FAULTS as error:
            raise explained(self.path, error) from error


def open_for_reading(path: str | Path) -> duckdb.DuckDBPyConnection:
    """Open a store read-only; several processes may, while none writes.

    Raises StoreError and its kinds as Store does.
    """
    store_path = Path(path)
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
