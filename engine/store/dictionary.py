"""The dictionary: each entity once, under the number that its rows of states have.

What the tables of states refer to; the catalogue of entities is read from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.oal import SCOPES
from framewalk.engine.states import (
    TRAITS,
    component_names,
    detect_point_names,
    tls_mode_names,
)
from framewalk.engine.store.connection import insert, run
from framewalk.engine.views import (
    BUCKET,
    ENTITY,
    entities_table,
    entity_id,
    entity_name,
    literal,
    quoted,
    seen_table,
    states_table,
    tables_of_states,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import duckdb

    from framewalk.engine.oal import Scope

_SEEN: Final = ("first_seen", "last_seen", TRAITS)
_SEEN_OF_ROWS: Final = (
    pl.col(BUCKET).min().alias("first_seen"),
    pl.col(BUCKET).max().alias("last_seen"),
    pl.col(TRAITS).bitwise_or(),
)
# Entities whose numbers are kept in memory; beyond, they are asked for again. Some 100 MB.
_MOST_KNOWN: Final = 500_000


class Dictionary:
    """Gives entities their numbers, within the transaction that writes their rows."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._known: dict[str, pl.DataFrame] = {}

    def forget(self) -> None:
        """Forget what is known: a transaction was undone, or entities were deleted."""
        self._known.clear()

    def numbered(self, scope: Scope, rows: pl.DataFrame) -> pl.DataFrame:
        """Replace the names in rows of a scope by `entity` (Int64); entities that are new are kept.

        `rows` have the names, the bucket and `traits`, and are not null there.
        """
        keys = list(scope.keys)
        known = self._known.get(scope.view, _nobody(scope))
        found = _found(rows, known, keys)
        if found.null_count():
            known = self._learned(scope, rows.filter(found.is_null()), known)
            found = _found(rows, known, keys)
        return rows.drop(keys).with_columns(found)

    def _learned(self, scope: Scope, rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
        keys = list(scope.keys)
        stored = self._stored(scope, rows.select(keys).unique())
        added = (
            rows.join(stored, on=keys, how="anti")
            .group_by(keys)
            .agg(_SEEN_OF_ROWS)
            # So that the rows of one service stand together.
            .sort(keys)
        )
        if added.height:
            last = f"SELECT coalesce(max({ENTITY}), 0) FROM {entities_table(scope)}"
            first = int(run(self._connection, last)[0][0]) + 1
            numbers = pl.int_range(first, first + added.height, dtype=pl.Int64, eager=True)
            added = added.with_columns(numbers.alias(ENTITY))
            insert(self._connection, entities_table(scope), added.select(ENTITY, *keys))
            insert(self._connection, seen_table(scope), added.select(ENTITY, *_SEEN))
        found = pl.concat([stored, added.select(stored.columns)]) if added.height else stored
        known = pl.concat([known, _with_own_text(found)])
        # One commit may name more: then only these are kept until the next.
        self._known[scope.view] = known if known.height <= _MOST_KNOWN else _nobody(scope)
        return known

    def _stored(self, scope: Scope, named: pl.DataFrame) -> pl.DataFrame:
        keys = ", ".join(map(quoted, scope.keys))
        self._connection.register("named", named.to_arrow())
        try:
            sql = f"SELECT {keys}, {ENTITY} FROM {entities_table(scope)} JOIN named USING ({keys})"
            found: pl.DataFrame = self._connection.sql(sql).pl()
        finally:
            self._connection.unregister("named")
        return found


def _found(rows: pl.DataFrame, known: pl.DataFrame, keys: Sequence[str]) -> pl.Series:
    return rows.select(keys).join(known, on=keys, how="left", maintain_order="left")[ENTITY]


def _with_own_text(rows: pl.DataFrame) -> pl.DataFrame:
    """Copy the texts: as views they keep all of the decoded messages that they are from."""
    return pl.DataFrame(rows.to_arrow(compat_level=pl.CompatLevel.oldest()))


def _nobody(scope: Scope) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(scope.keys, pl.String) | {ENTITY: pl.Int64})


def tables() -> Iterator[str]:
    """Yield the statements that make the tables."""
    for scope in SCOPES.values():
        names = ", ".join(f"{quoted(name)} VARCHAR NOT NULL" for name in scope.keys)
        yield f"CREATE TABLE {entities_table(scope)} ({ENTITY} BIGINT NOT NULL, {names})"
        yield (
            f"CREATE TABLE {seen_table(scope)} ({ENTITY} BIGINT NOT NULL, "
            "first_seen TIMESTAMP NOT NULL, last_seen TIMESTAMP NOT NULL, "
            f"{TRAITS} BIGINT NOT NULL)"
        )
    yield "CREATE TABLE internal.newest (minute TIMESTAMP NOT NULL)"


def entities_view() -> str:
    """Return the statement that makes the catalogue of entities."""
    selects = map(entities_select, SCOPES.values())
    return "CREATE OR REPLACE VIEW entities AS\n" + "\nUNION ALL\n".join(selects)


def entities_select(scope: Scope) -> str:
    """Return the part of that catalogue that one scope is."""
    names = ", ".join(f"{literal(name)}: {quoted(name)}" for name in scope.keys)
    new = (
        f"SELECT {ENTITY}, min({BUCKET}) AS first, max({BUCKET}) AS last, "
        f"bit_or(traits) AS bits FROM {states_table(scope)} GROUP BY 1"
    )
    return (
        f"SELECT {literal(scope.name)} AS scope, {entity_id(scope)} AS entity_id, "
        f"{entity_name(scope)} AS entity, MAP {{{names}}} AS names, 'K8S_SERVICE' AS layer, "
        "least(first_seen, first) AS first_seen, greatest(last_seen, last) AS last_seen, "
        f"{_names_of_bits(component_names())}::BIGINT[] AS component_ids, "
        f"{_names_of_bits(tls_mode_names())} AS tls_modes, "
        f"{_names_of_bits(detect_point_names())} AS detect_points "
        f"FROM {entities_table(scope)} JOIN {seen_table(scope)} USING ({ENTITY}) "
        f"LEFT JOIN ({new}) AS added USING ({ENTITY})"
    )


def _names_of_bits(names: Mapping[int, str]) -> str:
    cases = ", ".join(
        f"CASE WHEN (traits | coalesce(bits, 0)) & {bit} <> 0 THEN {literal(name)} END"
        for bit, name in names.items()
    )
    return f"list_filter([{cases}], lambda n: n IS NOT NULL)"


# What follows replaces rows and updates none: after an UPDATE no checkpoint is possible while a
# transaction reads that began before.


def note_newest(connection: duckdb.DuckDBPyConnection, minute: int) -> None:
    """Note a minute (since 1970) that has rows, if it is the newest."""
    newest_us = minute * 60_000_000
    known = run(connection, "SELECT max(epoch_us(minute)) FROM internal.newest")[0][0]
    if known is None or known < newest_us:
        run(connection, "DELETE FROM internal.newest")
        run(connection, "INSERT INTO internal.newest VALUES (make_timestamp(?))", [newest_us])


def note_seen(connection: duckdb.DuckDBPyConnection, scope: Scope, rows: pl.DataFrame) -> None:
    """Note when entities were seen and what they were like: `entity`, bucket and `traits`."""
    connection.register("added", rows.group_by(ENTITY).agg(_SEEN_OF_ROWS).to_arrow())
    try:
        sql = f"SELECT {ENTITY}, {', '.join(_SEEN)} FROM {seen_table(scope)} SEMI JOIN added"
        kept: pl.DataFrame = connection.sql(f"{sql} USING ({ENTITY}) UNION ALL FROM added").pl()
        merged = kept.group_by(ENTITY).agg(
            pl.col("first_seen").min(), pl.col("last_seen").max(), pl.col(TRAITS).bitwise_or()
        )
        run(
            connection,
            f"DELETE FROM {seen_table(scope)} WHERE {ENTITY} IN (SELECT {ENTITY} FROM added)",
        )
    finally:
        connection.unregister("added")
    insert(connection, seen_table(scope), merged.sort(ENTITY))


def expire(connection: duckdb.DuckDBPyConnection, scope: Scope) -> int:
    """Delete the entities of which nothing is left: they were last seen before the oldest bucket.

    Returns how many that were. Rows that are not rolled up yet are not in what was last seen.
    """
    oldest = " UNION ALL ".join(
        f"SELECT min({BUCKET}) AS oldest FROM {table}" for table in tables_of_states(scope)
    )
    run(
        connection,
        f"DELETE FROM {seen_table(scope)} "
        f"WHERE coalesce(last_seen < (SELECT min(oldest) FROM ({oldest})), true) "
        f"AND {ENTITY} NOT IN (SELECT {ENTITY} FROM {states_table(scope)})",
    )
    gone = run(
        connection,
        f"DELETE FROM {entities_table(scope)} "
        f"WHERE {ENTITY} NOT IN (SELECT {ENTITY} FROM {seen_table(scope)})",
    )
    return int(gone[0][0])


def forget_unused(connection: duckdb.DuckDBPyConnection, scope: Scope) -> None:
    """Delete the entities that no table of states has."""
    used = " UNION ALL ".join(f"SELECT {ENTITY} FROM {one}" for one in tables_of_states(scope))
    for table in (seen_table(scope), entities_table(scope)):
        run(connection, f"DELETE FROM {table} WHERE {ENTITY} NOT IN ({used})")
