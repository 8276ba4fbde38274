"""The tables and views of a store: how they are made, and of which version they are (store.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import duckdb

from framewalk.engine.errors import StoreError, StoreVersionError
from framewalk.engine.oal import SCOPES, bind, parse
from framewalk.engine.states import TRAITS
from framewalk.engine.store import described, dictionary
from framewalk.engine.store.connection import run, transaction
from framewalk.engine.store.views import (
    BUCKET,
    ENTITY,
    RESOLUTIONS,
    between_macro,
    bounded_macro,
    empty_view,
    entities_view,
    metric_values_view,
    metric_view,
    tables_of_states,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from framewalk.engine.oal import Metric, Plan, State

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


def make(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables in a new file."""
    with transaction(connection):
        for statement in _tables():
            run(connection, statement)


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


def _tables() -> Iterator[str]:
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
    yield from tables_of_metrics()


def tables_of_metrics() -> Iterator[str]:
    """Yield the statements that make the dictionary and the tables of states."""
    yield from dictionary.tables()
    for scope in SCOPES.values():
        for table in tables_of_states(scope):
            yield (
                f"CREATE TABLE {table} ({BUCKET} TIMESTAMP NOT NULL, {ENTITY} BIGINT NOT NULL, "
                f"{TRAITS} BIGINT NOT NULL)"
            )


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
    scopes = [
        (scope, resolution, [metric for metric in metrics if metric.scope is scope])
        for scope in SCOPES.values()
        for resolution in RESOLUTIONS
    ]
    run(connection, bounded_macro())
    # A view is bound when it is made, with all views that it reads: empty ones are bound fast.
    for scope, resolution, own in scopes:
        run(connection, empty_view(scope, resolution, own))
    run(connection, metric_values_view(metrics))
    for scope, resolution, own in scopes:
        run(connection, metric_view(scope, resolution, own, columns.get(scope.view, {})))
    for scope in SCOPES.values():
        own = [metric for metric in metrics if metric.scope is scope]
        run(connection, between_macro(scope, own, columns.get(scope.view, {})))
    run(connection, entities_view())
    for statement in described.views():
        run(connection, statement)


def state_columns(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    """Return the columns of all states: scope (by view name) -> state -> column."""
    columns: dict[str, dict[str, str]] = {}
    rows = run(connection, "SELECT scope, state, column_name FROM internal.state_columns")
    for scope, state, column in rows:
        columns.setdefault(scope, {})[state] = column
    return columns


def has_changed(known: str, metric: Metric) -> bool:
    """Tell whether a stored definition means something else; how it is written does not count."""
    if known == str(metric.definition):
        return False
    (before,) = bind([parse(known, "<store>")]).metrics or (None,)
    return before is None or before.meaning != metric.meaning


def one_line(text: str) -> str:
    """Return a definition on one line."""
    return " ".join(text.split())
