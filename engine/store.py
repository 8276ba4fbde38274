"""Stage 6: states -> one DuckDB file, exactly once (store.md).

States are appended, never updated; the views merge them. Each commit is one transaction that
holds states together with the position in the capture they come from, so whatever happens, a
message is either counted and behind the position, or neither.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import duckdb
import polars as pl

from framewalk.engine.capture import CapturePosition
from framewalk.engine.errors import StoreError, StoreLockedError, StoreVersionError
from framewalk.engine.oal.bind import bind
from framewalk.engine.oal.catalogue import SCOPES
from framewalk.engine.oal.parser import parse
from framewalk.engine.states import KEY, MINUTE, TRAITS, VALUE
from framewalk.engine.views import (
    BUCKET,
    RESOLUTIONS,
    entities_view,
    metric_values_view,
    metric_view,
    quoted,
    states_table,
    view_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from framewalk.engine.counters import Counters
    from framewalk.engine.oal.bound import Metric, State
    from framewalk.engine.oal.catalogue import Scope
    from framewalk.engine.oal.plan import Plan
    from framewalk.engine.states import ScopeStates, States

STORE_VERSION: Final = 1
IN_MEMORY: Final = ":memory:"

# What DuckDB raises when a file cannot be read or written, whatever is asked of it.
_FAULTS: Final = (duckdb.OperationalError, duckdb.FatalException, duckdb.InternalError)
_ANYTHING: Final = (
    "SELECT 1 FROM duckdb_tables() UNION ALL "
    "SELECT 1 FROM duckdb_views() WHERE NOT internal UNION ALL "
    "SELECT 1 FROM duckdb_schemas() WHERE NOT internal"
)
_KEYED_TYPE: Final = 'STRUCT("key" {key}, "value" BIGINT)[]'


class Store:
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
        self._connection = _connect(self.path, read_only=False)
        self.plan = plan
        try:
            _prepare(self._connection, self.path)
            self._remember(plan)
            self._columns = _state_columns(self._connection)
        except _FAULTS as error:
            self._connection.close()
            raise _explained(self.path, error) from error
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

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

    def positions(self, capture: int) -> frozenset[CapturePosition]:
        """Return the ends of all record batches of a capture that are in the store."""
        rows = self._run(
            "SELECT offset_bytes, messages, digest FROM internal.positions WHERE capture = ?",
            [capture],
        )
        return frozenset(CapturePosition(*position) for position in rows)

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
        self._run("BEGIN")
        try:
            if capture is None:
                capture = self._new_capture(path)
            for scope in self.plan.scopes:
                self._append(scope.scope, states.scopes[scope.scope.view], scope.keyed_states)
            self._insert("internal.counters", _as_counters(capture, states.counters))
            self._insert("internal.positions", _as_positions(capture, reached))
            self._run("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        return capture

    def _new_capture(self, path: Path) -> int:
        rows = self._run(
            "INSERT INTO internal.captures SELECT coalesce(max(id), 0) + 1, ? "
            "FROM internal.captures RETURNING id",
            [str(path)],
        )
        return int(rows[0][0])

    def _append(self, scope: Scope, states: ScopeStates, keyed: Sequence[State]) -> None:
        columns = self._columns.get(scope.view, {})
        frame = _as_table(scope, states, keyed).rename(
            {name: column for name, column in columns.items() if name in states.scalars.columns}
            | {state.name: columns[state.name] for state in keyed}
        )
        self._insert(states_table(scope), frame)

    def _insert(self, table: str, rows: pl.DataFrame) -> None:
        names = ", ".join(map(quoted, rows.columns))
        self._connection.register("inserted", rows)
        try:
            self._run(f"INSERT INTO {table} ({names}) SELECT {names} FROM inserted")
        finally:
            self._connection.unregister("inserted")

    def _remember(self, plan: Plan) -> None:
        """Add what the plan defines and the store does not know; refuse changed meanings."""
        rows = self._run("SELECT name, definition FROM internal.definitions")
        # DuckDB's column names do not tell case apart.
        stored = {name.casefold(): (name, definition) for name, definition in rows}
        for metric in plan.metrics:
            known = stored.get(metric.name.casefold())
            if known is not None and (known[0] != metric.name or _changed(known[1], metric)):
                raise StoreError(
                    self.path,
                    f"it defines {known[0]!r} as `{_one_line(known[1])}`, "
                    f"the definitions at hand as `{_one_line(str(metric.definition))}`",
                    "give the new meaning a new name, or use a new store",
                )
        added = [metric for metric in plan.metrics if metric.name.casefold() not in stored]
        if not added and self._run("SELECT 1 FROM duckdb_views() WHERE view_name = 'entities'"):
            return
        self._run("BEGIN")
        try:
            self._define(added)
            self._run("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _define(self, added: Sequence[Metric]) -> None:
        self._insert("internal.definitions", _as_definitions(added))
        known = _state_columns(self._connection)
        new_columns: list[tuple[str, str, str]] = []
        for metric in added:
            columns = known.setdefault(metric.scope.view, {})
            for state in metric.states:
                if state.name not in columns:
                    columns[state.name] = f"state_{len(columns)}"
                    self._add_column(metric.scope, columns[state.name], state)
                    new_columns.append((metric.scope.view, state.name, columns[state.name]))
        schema = ["scope", "state", "column_name"]
        self._insert("internal.state_columns", _strings(new_columns, schema))
        _create_views(self._connection)

    def _add_column(self, scope: Scope, column: str, state: State) -> None:
        key_type = "BIGINT" if state.has_bucket else "VARCHAR"
        column_type = _KEYED_TYPE.format(key=key_type) if state.keyed else "BIGINT"
        self._run(f"ALTER TABLE {states_table(scope)} ADD COLUMN {column} {column_type}")

    def _run(self, sql: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        try:
            return _run(self._connection, sql, parameters)
        except _FAULTS as error:
            raise _explained(self.path, error) from error

    def _roll_back(self) -> None:
        # A commit that failed has rolled back already.
        with contextlib.suppress(duckdb.TransactionException):
            self._connection.rollback()


def open_for_reading(path: str | Path) -> duckdb.DuckDBPyConnection:
    """Open a store read-only; several processes may, while none writes.

    Raises StoreError and its kinds as Store does.
    """
    store_path = Path(path)
    if not store_path.exists():
        raise StoreError(store_path, "there is no such file", "make it with `framewalk replay`")
    connection = _connect(store_path, read_only=True)
    try:
        _check_version(connection, store_path)
    except _FAULTS as error:
        connection.close()
        raise _explained(store_path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    try:
        # Absolute, as DuckDB takes some relative names for something else than a file.
        name = IN_MEMORY if str(path) == IN_MEMORY else str(path.absolute())
        return duckdb.connect(name, read_only=read_only)
    except duckdb.Error as error:
        raise _explained(path, error) from error
    except RuntimeError as error:
        # What DuckDB makes of a path that is not Unicode.
        raise StoreError(path, "its name is not UTF-8 text", "name it otherwise") from error


def _explained(path: Path, error: duckdb.Error) -> StoreError:
    text = str(error).splitlines()[0]
    if "lock on file" in text:
        return StoreLockedError(
            path, f"another process has it open ({_lock_holder(text)})", "stop it, or wait for it"
        )
    return StoreError(path, *(_wrong_path(path) or _wrong_content(path, text)))


def _wrong_path(path: Path) -> tuple[str, str] | None:
    if path.is_dir():
        return "this is a folder", "name a file"
    if not path.parent.is_dir():
        return "its folder does not exist", "make it, or check the path"
    return None


def _wrong_content(path: Path, text: str) -> tuple[str, str]:
    if "Could not write" in text:
        reason = text.rpartition(": ")[2].lower()
        return f"cannot be written ({reason})", "make room and run this again, nothing is lost"
    if "Could not read" in text or "Corrupt" in text:
        return "the file is damaged or cut off", "use a copy of it, or replay into a new store"
    if "not a valid DuckDB database file" not in text:
        return text, "check the path, or name another file"
    if path.stat().st_size == 0:
        return "the file is empty", "remove it, or name another file"
    return "this is not a DuckDB file", "name another file"


def _lock_holder(text: str) -> str:
    _, found, holder = text.partition("Conflicting lock is held in ")
    return holder.split(". ")[0] if found else "unknown process"


def _prepare(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Make the tables in a new file; check the version of an existing one."""
    if _run(connection, _ANYTHING):
        _check_version(connection, path)
        return
    _run(connection, "BEGIN")
    for statement in _tables():
        _run(connection, statement)
    _run(connection, "COMMIT")


def _check_version(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    try:
        version = int(_run(connection, "SELECT version FROM internal.store")[0][0])
    except (duckdb.ProgrammingError, IndexError, TypeError, ValueError) as error:
        raise StoreError(
            path, "this DuckDB file was not made by framewalk", "name another file"
        ) from error
    if version > STORE_VERSION:
        raise StoreVersionError(
            path,
            f"store version {version} is newer than {STORE_VERSION}, the newest known here",
            "upgrade framewalk",
        )


def _tables() -> Iterable[str]:
    yield "CREATE SCHEMA internal"
    yield "CREATE TABLE internal.store (version INTEGER NOT NULL)"
    yield f"INSERT INTO internal.store VALUES ({STORE_VERSION})"
    yield (
        "CREATE TABLE internal.definitions (name VARCHAR NOT NULL, scope VARCHAR NOT NULL, "
        "function VARCHAR NOT NULL, definition VARCHAR NOT NULL, unit VARCHAR NOT NULL, "
        "family VARCHAR NOT NULL, columns VARCHAR[] NOT NULL)"
    )
    yield "CREATE VIEW metrics AS FROM internal.definitions"
    yield (
        "CREATE TABLE internal.state_columns "
        "(scope VARCHAR NOT NULL, state VARCHAR NOT NULL, column_name VARCHAR NOT NULL)"
    )
    yield ("CREATE TABLE internal.captures (id BIGINT NOT NULL, path VARCHAR NOT NULL)")
    yield (
        "CREATE TABLE internal.positions (capture BIGINT NOT NULL, offset_bytes BIGINT NOT NULL, "
        "messages BIGINT NOT NULL, digest VARCHAR NOT NULL)"
    )
    yield (
        "CREATE TABLE internal.counters (capture BIGINT NOT NULL, kind VARCHAR NOT NULL, "
        "name VARCHAR NOT NULL, count BIGINT NOT NULL)"
    )
    for scope in SCOPES.values():
        keys = ", ".join(f"{quoted(name)} VARCHAR NOT NULL" for name in scope.keys)
        yield (
            f"CREATE TABLE {states_table(scope)} "
            f"({BUCKET} TIMESTAMP NOT NULL, {keys}, {TRAITS} BIGINT NOT NULL)"
        )


def _create_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Make all views from the definitions that the store knows."""
    texts = _run(connection, "SELECT definition FROM internal.definitions ORDER BY rowid")
    metrics = bind([parse("\n".join(text for (text,) in texts), "<store>")]).metrics
    columns = _state_columns(connection)
    for scope in SCOPES.values():
        own = [metric for metric in metrics if metric.scope is scope]
        for resolution in RESOLUTIONS:
            _run(connection, metric_view(scope, resolution, own, columns.get(scope.view, {})))
    _run(connection, entities_view())
    _run(connection, metric_values_view(metrics))


def _as_definitions(metrics: Sequence[Metric]) -> pl.DataFrame:
    columns = ["name", "scope", "function", "definition", "unit", "family"]
    rows = [
        (
            metric.name,
            metric.scope.name,
            metric.function.name,
            str(metric.definition),
            metric.unit,
            metric.family,
        )
        for metric in metrics
    ]
    views = [
        [f"{view_name(metric.scope, one)}.{metric.name}" for one in RESOLUTIONS]
        for metric in metrics
    ]
    in_views = pl.Series("columns", views, dtype=pl.List(pl.String))
    return _strings(rows, columns).with_columns(in_views)


def _strings(rows: Sequence[tuple[str, ...]], columns: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def _state_columns(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    columns: dict[str, dict[str, str]] = {}
    rows = _run(connection, "SELECT scope, state, column_name FROM internal.state_columns")
    for scope, state, column in rows:
        columns.setdefault(scope, {})[state] = column
    return columns


def _as_table(scope: Scope, states: ScopeStates, keyed: Sequence[State]) -> pl.DataFrame:
    """Return the states as rows of the states table, with states under their own names."""
    keys = [*scope.keys, MINUTE]
    frame = states.scalars
    for state in keyed:
        entries = (
            states.keyed[state.name].group_by(keys).agg(pl.struct(KEY, VALUE).alias(state.name))
        )
        # A state that was computed and found nothing is an empty list, not NULL.
        none = pl.lit([], dtype=entries.schema[state.name])
        frame = frame.join(entries, on=keys, how="left").with_columns(
            pl.col(state.name).fill_null(none)
        )
    minute_us = 60_000_000
    bucket = (pl.col(MINUTE) * minute_us).cast(pl.Datetime("us")).alias(BUCKET)
    return frame.select(bucket, pl.exclude(MINUTE))


def _as_positions(capture: int, reached: Sequence[CapturePosition]) -> pl.DataFrame:
    rows = [(capture, one.offset_bytes, one.messages, one.digest) for one in reached]
    columns = {
        "capture": pl.Int64,
        "offset_bytes": pl.Int64,
        "messages": pl.Int64,
        "digest": pl.String,
    }
    return pl.DataFrame(rows, schema=columns, orient="row")


def _as_counters(capture: int, counters: Counters) -> pl.DataFrame:
    rows = [("messages", "", counters.messages), ("logs", "", counters.logs)]
    rows += [("dropped", reason, count) for reason, count in counters.dropped.items()]
    rows += [("quality", name, count) for name, count in counters.quality.items()]
    columns = {"kind": pl.String, "name": pl.String, "count": pl.Int64}
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    return frame.with_columns(capture=pl.lit(capture, pl.Int64)).filter(pl.col("count") > 0)


def _changed(known: str, metric: Metric) -> bool:
    """Tell whether a stored definition means something else; how it is written does not count."""
    if known == str(metric.definition):
        return False
    (before,) = bind([parse(known, "<store>")]).metrics or (None,)
    return before is None or before.meaning != metric.meaning


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _run(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | None = None
) -> list[tuple[Any, ...]]:
    try:
        # A result that is not read to its end keeps the connection busy.
        return connection.execute(sql, parameters).fetchall()
    except RuntimeError as error:
        if "interrupted" in str(error):
            # What DuckDB makes of Ctrl-C.
            raise KeyboardInterrupt from error
        raise
