"""The tables and views of a store: how they are made, and of which version they are (store.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import duckdb

from framewalk.engine.errors import StoreError, StoreVersionError
from framewalk.engine.oal import SCOPES, bind, parse
from framewalk.engine.questions import MARK, asked_macros, comment_statements
from framewalk.engine.states import TRAITS
from framewalk.engine.store import described, dictionary
from framewalk.engine.store.connection import insert, run, transaction
from framewalk.engine.store.rows import as_definitions, strings
from framewalk.engine.store.views import (
    BUCKET,
    ENTITY,
    RESOLUTIONS,
    between_macro,
    bounded_macro,
    empty_macro,
    empty_values_macro,
    entities_view,
    metric_values_macro,
    metric_values_view,
    metric_view,
    metrics_macro,
    tables_of_states,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from framewalk.engine.oal import Metric, Plan, Scope, State

STORE_VERSION: Final = 3

_ANYTHING: Final = (
    "SELECT 1 FROM duckdb_tables() UNION ALL "
    "SELECT 1 FROM duckdb_views() WHERE NOT internal UNION ALL "
    "SELECT 1 FROM duckdb_schemas() WHERE NOT internal"
)
# Record batches before the last position of their capture that are not in the store yet.
HELD_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS internal.held "
    "(capture BIGINT NOT NULL, begin_bytes BIGINT NOT NULL, end_bytes BIGINT NOT NULL)"
)
_KEYED_TYPE: Final = 'STRUCT("key" {key}, "value" BIGINT)[]'


class _Column(NamedTuple):
    """A column of a scope's tables of states."""

    scope: Scope
    name: str
    state: State

    @property
    def sql(self) -> str:
        return f"{self.name} {column_type(self.state)}"


def make(connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """Make the tables and views in a new file, with what the plan defines."""
    columns = _new_columns(plan.metrics, {})
    with transaction(connection):
        run(connection, ";\n".join(_tables(columns)))
        _note(connection, plan.metrics, columns)
        create_views(connection, plan.metrics)


def is_new(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether there is nothing in a file yet."""
    return not run(connection, _ANYTHING)


def check_version(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Return the version; raise StoreError for a file that is no store or is of a newer one."""
    try:
        version = int(run(connection, "SELECT version FROM internal.store")[0][0])
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
    return version


def define(connection: duckdb.DuckDBPyConnection, path: Path, plan: Plan) -> None:
    """Add what the plan defines and the store does not know; refuse changed meanings."""
    rows = run(connection, "SELECT name, definition FROM internal.definitions")
    # DuckDB's column names do not tell case apart.
    stored = {name.casefold(): (name, definition) for name, definition in rows}
    for metric in plan.metrics:
        known = stored.get(metric.name.casefold())
        if known is not None and (known[0] != metric.name or _has_changed(known[1], metric)):
            raise StoreError(
                path,
                f"it defines {known[0]!r} as `{_one_line(known[1])}`, "
                f"the definitions at hand as `{_one_line(str(metric.definition))}`",
                "give the new meaning a new name, or use a new store",
            )
    added = [metric for metric in plan.metrics if metric.name.casefold() not in stored]
    if not added and run(connection, f"SELECT 1 FROM duckdb_views() WHERE view_name = '{MARK}'"):
        return
    columns = _new_columns(added, state_columns(connection))
    with transaction(connection):
        for column in columns:
            for table in tables_of_states(column.scope):
                run(connection, f"ALTER TABLE {table} ADD COLUMN {column.sql}")
        _note(connection, added, columns)
        create_views(connection, stored_metrics(connection, plan))


def _new_columns(
    metrics: Iterable[Metric], known: Mapping[str, Mapping[str, str]]
) -> list[_Column]:
    """Return the columns that metrics need besides those that are known, as `state_columns` has."""
    taken = {view: len(columns) for view, columns in known.items()}
    added: dict[tuple[str, str], _Column] = {}
    for metric in metrics:
        view = metric.scope.view
        for state in metric.states:
            if state.name in known.get(view, {}) or (view, state.name) in added:
                continue
            number = taken.get(view, 0)
            taken[view] = number + 1
            added[view, state.name] = _Column(metric.scope, f"state_{number}", state)
    return list(added.values())


def _note(
    connection: duckdb.DuckDBPyConnection, metrics: Sequence[Metric], columns: Iterable[_Column]
) -> None:
    insert(connection, "internal.definitions", as_definitions(metrics))
    rows = [(column.scope.view, column.state.name, column.name) for column in columns]
    names = strings(rows, ["scope", "state", "column_name"])
    insert(connection, "internal.state_columns", names)


def _tables(columns: Sequence[_Column]) -> Iterator[str]:
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
    yield HELD_TABLE
    yield from described.tables()
    of_scopes: dict[str, list[str]] = {}
    for column in columns:
        of_scopes.setdefault(column.scope.view, []).append(column.sql)
    yield from tables_of_metrics(of_scopes)


def tables_of_metrics(columns: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Yield the statements that make the dictionary and the tables of states.

    `columns` has those of states as SQL, by the view of their scope.
    """
    yield from dictionary.tables()
    for scope in SCOPES.values():
        own = [
            f"{BUCKET} TIMESTAMP NOT NULL",
            f"{ENTITY} BIGINT NOT NULL",
            f"{TRAITS} BIGINT NOT NULL",
            *columns.get(scope.view, ()),
        ]
        for table in tables_of_states(scope):
            yield f"CREATE TABLE {table} ({', '.join(own)})"


def column_type(state: State) -> str:
    """Return the SQL type of the column that holds a state."""
    key_type = "BIGINT" if state.has_bucket else "VARCHAR"
    return _KEYED_TYPE.format(key=key_type) if state.keyed else "BIGINT"


def stored_metrics(connection: duckdb.DuckDBPyConnection, plan: Plan) -> tuple[Metric, ...]:
    """Return all metrics that the store knows, those of earlier definitions included.

    Only what the plan does not have is parsed.
    """
    rows = run(connection, "SELECT definition FROM internal.definitions ORDER BY rowid")
    at_hand = {str(metric.definition): metric for metric in plan.metrics}
    others = [text for (text,) in rows if text not in at_hand]
    parsed = iter(bind([parse("\n".join(others), "<store>")]).metrics if others else ())
    return tuple(at_hand[text] if text in at_hand else next(parsed) for (text,) in rows)


def create_views(connection: duckdb.DuckDBPyConnection, metrics: Sequence[Metric]) -> None:
    """Make all views; `metrics` are those that the store knows."""
    columns = state_columns(connection)
    own = {
        view: [metric for metric in metrics if metric.scope.view == view]
        for view in (scope.view for scope in SCOPES.values())
    }
    run(connection, bounded_macro())
    for scope in SCOPES.values():
        run(connection, empty_macro(scope, own[scope.view]))
        for resolution in RESOLUTIONS:
            run(connection, metric_view(scope, resolution))
    run(connection, empty_values_macro())
    run(connection, metric_values_view())
    for statement in (*described.views(), *asked_macros(metrics)):
        run(connection, statement)
    run(connection, metric_values_macro(metrics))
    for scope in SCOPES.values():
        of_scope = columns.get(scope.view, {})
        run(connection, metrics_macro(scope, own[scope.view], of_scope))
        run(connection, between_macro(scope, own[scope.view], of_scope))
    run(connection, entities_view())
    for statement in comment_statements(metrics):
        run(connection, statement)


def state_columns(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """Return the columns of all states: scope (by view name) -> state -> column."""
    columns: dict[str, dict[str, str]] = {}
    rows = run(connection, "SELECT scope, state, column_name FROM internal.state_columns")
    for scope, state, column in rows:
        columns.setdefault(scope, {})[state] = column
    return columns


def _has_changed(known: str, metric: Metric) -> bool:
    """Tell whether a stored definition means something else; how it is written does not count."""
    if known == str(metric.definition):
        return False
    (before,) = bind([parse(known, "<store>")]).metrics or (None,)
    return before is None or before.meaning != metric.meaning


def _one_line(text: str) -> str:
    """Return a definition on one line."""
    return " ".join(text.split())
