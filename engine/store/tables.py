"""The tables and views of a store: how they are made, and of which version they are (store.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

import duckdb

from framewalk.engine.errors import StoreError, StoreVersionError
from framewalk.engine.oal import SCOPES, Former, bind, parse
from framewalk.engine.questions import asked_macros, comment_statements
from framewalk.engine.states import TRAITS
from framewalk.engine.store import described, dictionary
from framewalk.engine.store.connection import insert, run, transaction
from framewalk.engine.store.rows import as_definitions, strings
from framewalk.engine.views import (
    BUCKET,
    ENTITY,
    RESOLUTIONS,
    between_macro,
    bounded_macro,
    empty_macro,
    empty_values_macro,
    metric_values_macro,
    metric_values_view,
    metric_view,
    metrics_macro,
    percentiles_macro,
    tables_of_states,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
# Before `until` a metric meant what `definition` says, or nothing where that is NULL.
_MEANINGS_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS internal.meanings "
    "(name VARCHAR NOT NULL, until TIMESTAMP NOT NULL, definition VARCHAR)"
)
_MEANINGS_VIEW: Final = "former_meanings"
# A view that a store has when it has all macros that there are here; in another schema than those
# that people read.
_MADE_VIEW: Final = "macros_3"
_MINUTE_US: Final = 60_000_000
# Logs that are later than this are not added to what a metric meant before.
_LATE_US: Final = 60 * _MINUTE_US
# Minutes that are later than now by more than this are of clocks that are wrong.
_MOST_AHEAD_S: Final = 600
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


def has_all_macros(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether a store has the macros and views that are made here."""
    sql = f"SELECT 1 FROM duckdb_views() WHERE view_name = '{_MADE_VIEW}'"
    return bool(run(connection, sql))


def define(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    plan: Plan,
    redefined: Collection[str] = (),
    at_s: float | None = None,
) -> None:
    """Add what the plan defines and the store does not know; refuse changed meanings.

    But for those `redefined`: what the store has keeps the meaning that it was written with. With a
    time (`at_s`, since 1970) all may change, and what is new begins with the next minute, too.
    """
    run(connection, _MEANINGS_TABLE)
    changed = set(changed_meanings(connection, plan))
    taken = changed if at_s is not None else changed.intersection(redefined)
    rows = run(connection, "SELECT name, definition FROM internal.definitions")
    # DuckDB's column names do not tell case apart.
    stored = {name.casefold(): (name, definition) for name, definition in rows}
    for metric in plan.metrics:
        known = stored.get(metric.name.casefold())
        if known is not None and (known[0] != metric.name or metric.name in changed - taken):
            raise StoreError(
                path,
                f"it defines {known[0]!r} as `{_one_line(known[1])}`, "
                f"the definitions at hand as `{_one_line(str(metric.definition))}`",
                "give the new meaning a new name, or use a new store",
            )
    added = [
        metric
        for metric in plan.metrics
        if metric.name.casefold() not in stored or metric.name in taken
    ]
    with transaction(connection):
        has_obsolete = _forget_obsolete(connection)
        views = (
            f"SELECT 1 FROM duckdb_views() WHERE view_name IN ('{_MADE_VIEW}', '{_MEANINGS_VIEW}')"
        )
        if not (added or has_obsolete) and len(run(connection, views)) > 1:
            return
        begins = [one for one in added if at_s is not None or one.name in taken]
        _note_meanings(connection, plan, begins, at_s)
        for name in taken:
            run(connection, "DELETE FROM internal.definitions WHERE name = ?", [name])
        columns = _new_columns(added, state_columns(connection))
        for column in columns:
            for table in tables_of_states(column.scope):
                run(connection, f"ALTER TABLE {table} ADD COLUMN {column.sql}")
        _note(connection, added, columns)
        if taken or has_obsolete:
            _drop_unneeded(connection, known_metrics(connection, plan))
        create_views(connection, stored_metrics(connection, plan))


def changed_meanings(connection: duckdb.DuckDBPyConnection, plan: Plan) -> list[str]:
    """Return the names of metrics that a store defines otherwise than the plan."""
    rows = run(connection, "SELECT name, definition FROM internal.definitions")
    stored = {name.casefold(): (name, definition) for name, definition in rows}
    known = [(metric, stored.get(metric.name.casefold())) for metric in plan.metrics]
    return [
        metric.name
        for metric, one in known
        if one is not None and one[0] == metric.name and _has_changed(one[1], metric)
    ]


def _note_meanings(
    connection: duckdb.DuckDBPyConnection,
    plan: Plan,
    begins: Sequence[Metric],
    at_s: float | None,
) -> None:
    """Note what these metrics meant up to now: something else, or nothing."""
    (newest_us,) = run(connection, "SELECT epoch_us(max(minute)) FROM internal.newest")[0]
    if newest_us is None:
        return
    if at_s is not None:
        newest_us = min(newest_us, int(at_s + _MOST_AHEAD_S) // 60 * _MINUTE_US)
    until_us = newest_us + _MINUTE_US
    before = {metric.name: metric for metric in stored_metrics(connection, plan)}
    # What metrics that stay were made of up to now.
    held = {
        (old.scope.view, state.name)
        for metric in plan.metrics
        if (old := before.get(metric.name)) is not None
        for state in old.states
    }
    rows = run(connection, "SELECT name, max(epoch_us(until)) FROM internal.meanings GROUP BY 1")
    noted = dict(rows)
    for metric in begins:
        old = before.get(metric.name)
        # Its states are there already: it has values for all that the store has.
        has_all = all((metric.scope.view, state.name) in held for state in metric.states)
        if has_all or noted.get(metric.name, 0) >= until_us:
            continue
        text = None
        if old and old.scope is metric.scope and old.function.sql_type == metric.function.sql_type:
            text = str(old.definition)
        sql = "INSERT INTO internal.meanings VALUES (?, make_timestamp(?), ?)"
        run(connection, sql, [metric.name, until_us, text])


def _forget_obsolete(connection: duckdb.DuckDBPyConnection) -> bool:
    """Forget meanings that no bucket has any more; tells whether there were."""
    buckets = " UNION ALL ".join(
        f"SELECT min({BUCKET}) AS bucket FROM {table}"
        for scope in SCOPES.values()
        for table in tables_of_states(scope)
    )
    if not run(connection, "SELECT 1 FROM internal.meanings LIMIT 1"):
        return False
    oldest = f"SELECT coalesce(min(bucket), 'infinity') FROM ({buckets})"
    sql = f"DELETE FROM internal.meanings WHERE until <= ({oldest}) RETURNING name"
    return bool(run(connection, sql))


def former_meanings(connection: duckdb.DuckDBPyConnection) -> list[Former]:
    """Return what metrics meant before, each name's in order; those that no bucket has, too."""
    sql = "SELECT name, epoch_us(until), definition FROM internal.meanings ORDER BY name, until"
    formers = []
    for name, until_us, text in run(connection, sql):
        found = bind([parse(text, "<store>")]).metrics if text is not None else ()
        formers.append(Former(name, until_us, found[0] if found else None))
    return formers


def begin_meanings(
    connection: duckdb.DuckDBPyConnection, plan: Plan, names: Collection[str], minute: int | None
) -> None:
    """Have metrics mean what they do now from a minute (since 1970) on, or in all; no later one.

    To be called within a transaction.
    """
    until_us = 0 if minute is None else minute * _MINUTE_US
    listed = list(names)
    moved = run(
        connection,
        "SELECT name, arg_min(definition, until) FROM internal.meanings WHERE until > "
        "make_timestamp(?) AND name IN (SELECT unnest(?::VARCHAR[])) GROUP BY 1",
        [until_us, listed],
    )
    for name, text in moved:
        sql = "DELETE FROM internal.meanings WHERE name = ? AND until >= make_timestamp(?)"
        kept = run(
            connection,
            "SELECT 1 FROM internal.meanings WHERE name = ? AND until = make_timestamp(?)",
            [name, until_us],
        )
        if kept:
            sql = sql.replace(">=", ">")
        run(connection, sql, [name, until_us])
        if not kept:
            sql = "INSERT INTO internal.meanings VALUES (?, make_timestamp(?), ?)"
            run(connection, sql, [name, until_us, text])
    if moved:
        metrics = stored_metrics(connection, plan)
        gone = {name for name, _ in moved}
        scopes = {metric.scope.view: metric.scope for metric in metrics if metric.name in gone}
        _make_macros(connection, list(scopes.values()), metrics)


def _drop_unneeded(connection: duckdb.DuckDBPyConnection, metrics: Iterable[Metric]) -> None:
    """Forget the states that no metric needs."""
    needed = {(metric.scope.view, state.name) for metric in metrics for state in metric.states}
    for view, columns in sorted(state_columns(connection).items()):
        (scope,) = (one for one in SCOPES.values() if one.view == view)
        for state, column in columns.items():
            if (view, state) in needed:
                continue
            for table in tables_of_states(scope):
                run(connection, f"ALTER TABLE {table} DROP COLUMN {column}")
            sql = "DELETE FROM internal.state_columns WHERE scope = ? AND state = ?"
            run(connection, sql, [view, state])


def _new_columns(
    metrics: Iterable[Metric], known: Mapping[str, Mapping[str, str]]
) -> list[_Column]:
    """Return the columns that metrics need besides those that are known, as `state_columns` has."""
    taken = {
        view: max((int(name.rpartition("_")[2]) + 1 for name in columns.values()), default=0)
        for view, columns in known.items()
    }
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


def known_metrics(connection: duckdb.DuckDBPyConnection, plan: Plan) -> tuple[Metric, ...]:
    """Return what `stored_metrics` does and what metrics meant before, under names of no metric."""
    stored = stored_metrics(connection, plan)
    return (*stored, *former_metrics(former_meanings(connection)))


def former_metrics(formers: Iterable[Former]) -> Iterator[Metric]:
    """Yield the metrics of former meanings, under names that no metric has: with a space."""
    for one in formers:
        if one.metric is not None:
            definition = replace(one.metric.definition, name=one.own_name)
            yield replace(one.metric, definition=definition)


def recent_formers(connection: duckdb.DuckDBPyConnection) -> Iterator[Metric]:
    """Yield former meanings that late logs may still be of: those that ended within the hour."""
    (newest_us,) = run(connection, "SELECT epoch_us(max(minute)) FROM internal.newest")[0]
    late_us = (newest_us or 0) - _LATE_US
    yield from former_metrics(one for one in former_meanings(connection) if one.until_us > late_us)


def create_views(connection: duckdb.DuckDBPyConnection, metrics: Sequence[Metric]) -> None:
    """Make all views; `metrics` are those that the store knows."""
    run(connection, _MEANINGS_TABLE)
    run(
        connection,
        f"CREATE OR REPLACE VIEW {_MEANINGS_VIEW} AS SELECT name, until, definition "
        "FROM internal.meanings WHERE until > make_timestamp(0)",
    )
    own = {
        view: [metric for metric in metrics if metric.scope.view == view]
        for view in (scope.view for scope in SCOPES.values())
    }
    run(connection, f"CREATE OR REPLACE VIEW internal.{_MADE_VIEW} AS SELECT 3 AS version")
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
    _make_macros(connection, list(SCOPES.values()), metrics)
    run(connection, dictionary.entities_view())
    for statement in comment_statements(metrics):
        run(connection, statement)


def _make_macros(
    connection: duckdb.DuckDBPyConnection, scopes: Iterable[Scope], metrics: Sequence[Metric]
) -> None:
    """Make what the views of scopes are read from."""
    columns = state_columns(connection)
    formers = [one for one in former_meanings(connection) if one.until_us > 0]
    for scope in scopes:
        own = [metric for metric in metrics if metric.scope.view == scope.view]
        of_scope = columns.get(scope.view, {})
        run(connection, metrics_macro(scope, own, of_scope, formers))
        run(connection, between_macro(scope, own, of_scope, formers))
        run(connection, percentiles_macro(scope, own, of_scope, formers))


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
