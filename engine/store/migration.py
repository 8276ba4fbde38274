"""Files of earlier versions become those of this one: in one transaction, whatever interrupts it.

Rows keep their states and get the number of their entity in place of its names. They are rolled up
to hours and days as new rows are: by compaction, later, some at a time.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from framewalk.engine.oal import SCOPES
from framewalk.engine.states import TRAITS
from framewalk.engine.store import described
from framewalk.engine.store.connection import WRITER_MEMORY, run, transaction
from framewalk.engine.store.tables import (
    HELD_TABLE,
    STORE_VERSION,
    check_version,
    column_type,
    create_views,
    define,
    is_new,
    make,
    state_columns,
    stored_metrics,
    tables_of_metrics,
)
from framewalk.engine.telling import tell
from framewalk.engine.views import (
    BUCKET,
    ENTITY,
    entities_table,
    quoted,
    seen_table,
    states_table,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import duckdb

    from framewalk.engine.oal import Plan, Scope

_NAMES_KEPT_FROM: Final = 2
_BEFORE: Final = "internal.before_{}"


def prepare(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    plan: Plan,
    redefined: Collection[str] = (),
    at_s: float | None = None,
) -> None:
    """Make the tables in a new file; check the version of an existing one, and bring it up to date.

    Then it has what the plan defines. A file is of the old version or of the new one, whenever
    this ends.
    """
    if is_new(connection):
        make(connection, plan)
        return
    _bring_up_to_date(connection, path, plan)
    define(connection, path, plan, redefined, at_s)


def _bring_up_to_date(connection: duckdb.DuckDBPyConnection, path: Path, plan: Plan) -> None:
    version = check_version(connection, path)
    if version == STORE_VERSION:
        return
    size_bytes = path.stat().st_size
    tell(
        logging.WARNING,
        "store of an earlier version is brought up to date",
        store=path,
        version=version,
        new_version=STORE_VERSION,
        size_bytes=size_bytes,
        # Both are in the file until the new one is whole.
        wanted_bytes=size_bytes,
    )
    run(connection, f"SET memory_limit = '{WRITER_MEMORY}'")
    with transaction(connection):
        _migrate(connection, version, plan)
    run(connection, "RESET memory_limit")
    tell(logging.INFO, "store is up to date", store=path, version=STORE_VERSION)


def _migrate(connection: duckdb.DuckDBPyConnection, version: int, plan: Plan) -> None:
    if version < _NAMES_KEPT_FROM:
        for statement in described.tables():
            run(connection, statement)
    run(connection, HELD_TABLE)
    for (name,) in run(connection, "SELECT view_name FROM duckdb_views() WHERE NOT internal"):
        run(connection, f"DROP VIEW IF EXISTS {quoted(name)}")
    for scope in SCOPES.values():
        run(connection, f"ALTER TABLE {states_table(scope)} RENAME TO before_{scope.view}")
    metrics = stored_metrics(connection, plan)
    types = {
        (metric.scope.view, state.name): column_type(state)
        for metric in metrics
        for state in metric.states
    }
    columns = state_columns(connection)
    typed = {
        view: [f"{column} {types[view, state]}" for state, column in of_scope.items()]
        for view, of_scope in columns.items()
    }
    run(connection, ";\n".join(tables_of_metrics(typed)))
    for done, scope in enumerate(SCOPES.values()):
        rows = _move(connection, scope, list(columns.get(scope.view, {}).values()))
        tell(
            logging.INFO,
            "store is brought up to date",
            scope=scope.name,
            rows=rows,
            done=f"{done + 1} of {len(SCOPES)} scopes",
        )
    newest = " UNION ALL ".join(
        f"SELECT max({BUCKET}) AS minute FROM {states_table(scope)}" for scope in SCOPES.values()
    )
    run(
        connection,
        f"INSERT INTO internal.newest SELECT max(minute) FROM ({newest}) HAVING count(minute) > 0",
    )
    run(connection, "CREATE VIEW metrics AS FROM internal.definitions")
    create_views(connection, metrics)
    run(connection, f"UPDATE internal.store SET version = {STORE_VERSION}")


def _move(connection: duckdb.DuckDBPyConnection, scope: Scope, columns: list[str]) -> int:
    """Move the rows of a scope; return how many they are."""
    before, keys = _BEFORE.format(scope.view), ", ".join(map(quoted, scope.keys))
    run(
        connection,
        f"INSERT INTO {entities_table(scope)} SELECT row_number() OVER (ORDER BY {keys}), {keys} "
        f"FROM (SELECT DISTINCT {keys} FROM {before})",
    )
    held = ", ".join([f"before.{TRAITS}", *columns])
    rows = run(
        connection,
        f"INSERT INTO {states_table(scope)} SELECT {BUCKET}, {ENTITY}, {held} "
        f"FROM {before} AS before JOIN {entities_table(scope)} USING ({keys})",
    )
    run(
        connection,
        f"INSERT INTO {seen_table(scope)} SELECT {ENTITY}, min({BUCKET}), max({BUCKET}), "
        f"bit_or({TRAITS}) FROM {states_table(scope)} GROUP BY 1",
    )
    run(connection, f"DROP TABLE {before}")
    return int(rows[0][0])
