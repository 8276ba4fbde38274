"""Compaction: the rows of one entity and minute become one, and no value in any view changes.

Each commit appends rows; an engine that commits every few seconds leaves many rows of one
minute. Rows are merged as states are (states.py), with two exceptions: rows that hold different
states (written with other definitions) stay apart, as the views tell them apart; and so do rows
whose sum would stop at the end of 64 bits, as the views add further before they stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.oal import Keep
from framewalk.engine.states import KEY, TRAITS, VALUE, merge_expression, merge_rows
from framewalk.engine.store.connection import insert, transaction
from framewalk.engine.store.tables import state_columns, stored_metrics
from framewalk.engine.store.views import BUCKET, quoted, states_table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import duckdb

    from framewalk.engine.oal import Plan, Scope, State

# Rows that are worked on at once: at most some 200 MB.
CHUNK_ROWS: Final = 50_000

# Minutes that are looked at at once.
_MINUTES: Final = 10_000

_GROUP: Final = "group_number"
_ROW: Final = "rowid"
_ADDED: Final = frozenset({Keep.COUNT, Keep.SUM})
_ENDS: Final = (-(2**63), 2**63 - 1)
_MINUTE_US: Final = 60_000_000


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did: the minutes it looked at, and their rows before and after."""

    minutes: int = 0
    rows_before: int = 0
    rows_after: int = 0

    def __add__(self, other: Compacted) -> Compacted:
        """Return the sum of both."""
        return Compacted(
            self.minutes + other.minutes,
            self.rows_before + other.rows_before,
            self.rows_after + other.rows_after,
        )


@dataclass(frozen=True, slots=True)
class StatesTable:
    """A table of states; `scalars` and `lists` map its columns of states to how they merge.

    `keys` are the columns whose values rows of one entity and bucket share.
    """

    name: str
    keys: tuple[str, ...]
    scalars: Mapping[str, Keep]
    lists: Mapping[str, Keep]


@dataclass(frozen=True, slots=True)
class Replacement:
    """The rows to delete (`rowid`), and those that take their place."""

    old: pl.DataFrame
    new: pl.DataFrame


class Compactor:
    """Knows which minutes may have several rows of one entity, and merges them."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
        self._connection = connection
        self._plan = plan
        self._touched = pl.Series(dtype=pl.Int64)
        self._tables: tuple[StatesTable, ...] = ()

    def touch(self, minutes: pl.Series) -> None:
        """Remember minutes that have got rows."""
        self._touched = pl.concat([self._touched, minutes]).unique().sort()

    def compact(self, before_minute: int, after_minute: int | None = None) -> Compacted:
        """Merge the rows of touched minutes before the one or after the other; see Store."""
        if not self._tables:
            self._tables = states_tables(self._connection, self._plan)
            self.touch(_minutes_with_duplicates(self._connection, self._tables))
        minute = self._touched
        is_due = minute < before_minute
        if after_minute is not None:
            is_due |= minute > after_minute
        every = minute.filter(is_due)
        total = Compacted()
        for start in range(0, len(every), _MINUTES):
            due = every.slice(start, _MINUTES)
            for chunk in _chunks(_rows_by_minute(self._connection, self._tables, due.to_list())):
                total += self._compact_at_once(chunk)
            # Those that were expired have no rows.
            self._touched = self._touched.filter(~self._touched.is_in(due.implode()))
        return total

    def _compact_at_once(self, minutes: Sequence[int]) -> Compacted:
        total = Compacted(len(minutes))
        with transaction(self._connection):
            for table in self._tables:
                rows = _rows_of(self._connection, table, minutes)
                replacement = merge_duplicates(rows, table)
                merged = replacement.old.height - replacement.new.height
                if merged:
                    _replace(self._connection, table, minutes, replacement)
                total += Compacted(0, rows.height, rows.height - merged)
        return total


def states_tables(connection: duckdb.DuckDBPyConnection, plan: Plan) -> tuple[StatesTable, ...]:
    """Describe the tables of all scopes, with the columns that earlier definitions left."""
    columns = state_columns(connection)
    known = {one.scope.view: {state.name: state for state in one.states} for one in plan.scopes}
    if any(columns.get(view, {}).keys() - states.keys() for view, states in known.items()):
        for metric in stored_metrics(connection, plan):
            known[metric.scope.view].update((state.name, state) for state in metric.states)
    return tuple(
        _states_table(scope.scope, known[scope.scope.view], columns.get(scope.scope.view, {}))
        for scope in plan.scopes
    )


def _states_table(
    scope: Scope, states: Mapping[str, State], columns: Mapping[str, str]
) -> StatesTable:
    held = {column: states[name] for name, column in columns.items()}
    scalars = {column: state.keep for column, state in held.items() if not state.keyed}
    lists = {column: state.keep for column, state in held.items() if state.keyed}
    return StatesTable(
        states_table(scope), (BUCKET, *scope.keys), {TRAITS: Keep.BITS} | scalars, lists
    )


def merge_duplicates(rows: pl.DataFrame, table: StatesTable) -> Replacement:
    """Merge rows (columns of `table` and `rowid`) with the same keys and the same states.

    Rows that are alone, or that must stay apart, are in neither part of the answer.
    """
    nullable = [name for name in _added(table) if rows[name].null_count()]
    held = {f"{name} held": pl.col(name).is_not_null() for name in nullable}
    rows = rows.with_columns(**held)
    same = [*table.keys, *held]
    groups = rows.group_by(same).len().filter(pl.col("len") > 1).drop("len")
    duplicates = rows.join(groups.with_row_index(_GROUP), on=same, how="inner")
    merged = duplicates.group_by(_GROUP).agg(
        pl.col(table.keys).first(),
        *(_merged_scalar(duplicates, name, keep) for name, keep in table.scalars.items()),
    )
    for name, keep in table.lists.items():
        merged = merged.join(_merged_lists(duplicates, name, keep), on=_GROUP, how="left")
    merged = merged.filter(~_at_an_end(table)).sort(table.keys)
    old = duplicates.join(merged, on=_GROUP, how="semi").select(_ROW)
    return Replacement(old, merged.drop(_GROUP))


def _added(table: StatesTable) -> list[str]:
    """Return the columns in which NULL means that a row's definitions did not have the state."""
    return [name for name, keep in table.scalars.items() if keep in _ADDED] + list(table.lists)


def _merged_scalar(rows: pl.DataFrame, name: str, keep: Keep) -> pl.Expr:
    merged = merge_expression(rows, name, keep)
    if keep in _ADDED and rows[name].null_count():
        return pl.when(pl.col(name).is_not_null().any()).then(merged).alias(name)
    return merged


def _merged_lists(rows: pl.DataFrame, name: str, keep: Keep) -> pl.DataFrame:
    """Return the merged list of each group: empty where its lists are, null where they are."""
    known = rows.filter(pl.col(name).is_not_null()).select(_GROUP, name)
    entries = known.filter(pl.col(name).list.len() > 0).explode(name).unnest(name)
    merged = merge_rows([entries], [_GROUP, KEY], {VALUE: keep}).sort(_GROUP, KEY)
    lists = merged.group_by(_GROUP).agg(pl.struct(KEY, VALUE).alias(name))
    none = pl.lit([], dtype=rows.schema[name])
    groups = known.select(_GROUP).unique().join(lists, on=_GROUP, how="left")
    return groups.with_columns(pl.col(name).fill_null(none))


def _at_an_end(table: StatesTable) -> pl.Expr:
    """Tell whether a sum has reached an end of 64 bits, and so may have stopped there."""
    sums = [pl.col(name).is_in(_ENDS) for name, keep in table.scalars.items() if keep in _ADDED]
    sums += [
        pl.col(name).list.eval(pl.element().struct.field(VALUE).is_in(_ENDS)).list.any()
        for name in table.lists
    ]
    return pl.any_horizontal(pl.lit(value=False), *(one.fill_null(value=False) for one in sums))


def _minutes_with_duplicates(
    connection: duckdb.DuckDBPyConnection, tables: Iterable[StatesTable]
) -> pl.Series:
    """Return the minutes with several rows of an entity, whatever states they hold.

    Names are compared by their hash: needs less memory, and a minute too many does no harm.
    """
    found = [pl.Series(dtype=pl.Int64)]
    for table in tables:
        names = ", ".join(map(quoted, table.keys[1:]))
        entities = (
            f"SELECT {BUCKET}, hash({names}) AS entity FROM {table.name} "
            "GROUP BY ALL HAVING count(*) > 1"
        )
        sql = f"SELECT DISTINCT (epoch_us({BUCKET}) // {_MINUTE_US})::BIGINT FROM ({entities})"
        found.append(connection.sql(sql).pl().to_series())
    return pl.concat(found)


_OF_MINUTES: Final = (
    f"{BUCKET} BETWEEN make_timestamp($first) AND make_timestamp($last) "
    f"AND {BUCKET} IN (SELECT make_timestamp(unnest($buckets::BIGINT[])))"
)


def _buckets(minutes: Collection[int]) -> dict[str, int | list[int]]:
    buckets = [minute * _MINUTE_US for minute in minutes]
    return {"first": min(buckets), "last": max(buckets), "buckets": buckets}


def _rows_by_minute(
    connection: duckdb.DuckDBPyConnection, tables: Sequence[StatesTable], minutes: Collection[int]
) -> list[tuple[int, int]]:
    """Return these minutes, in order, with the number of their rows in all tables."""
    if not minutes:
        return []
    buckets = " UNION ALL ".join(
        f"SELECT {BUCKET} FROM {table.name} WHERE {_OF_MINUTES}" for table in tables
    )
    sql = f"SELECT epoch_us({BUCKET}) // {_MINUTE_US}, count(*) FROM ({buckets}) GROUP BY 1"
    rows = connection.execute(sql, _buckets(minutes)).fetchall()
    return sorted((int(minute), int(count)) for minute, count in rows)


def _chunks(rows_by_minute: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """Yield minutes that have CHUNK_ROWS rows together, or one that has more."""
    chunk: list[int] = []
    total = 0
    for minute, rows in rows_by_minute:
        if chunk and total + rows > CHUNK_ROWS:
            yield chunk
            chunk, total = [], 0
        chunk.append(minute)
        total += rows
    if chunk:
        yield chunk


def _rows_of(
    connection: duckdb.DuckDBPyConnection, table: StatesTable, minutes: Collection[int]
) -> pl.DataFrame:
    columns = ", ".join(map(quoted, [*table.keys, *table.scalars, *table.lists]))
    sql = f"SELECT {_ROW}, {columns} FROM {table.name} WHERE {_OF_MINUTES}"
    rows: pl.DataFrame = connection.sql(sql, params=_buckets(minutes)).pl()
    return rows


def _replace(
    connection: duckdb.DuckDBPyConnection,
    table: StatesTable,
    minutes: Collection[int],
    replacement: Replacement,
) -> None:
    connection.register("replaced", replacement.old.to_arrow())
    try:
        sql = f"DELETE FROM {table.name} WHERE {_OF_MINUTES} AND {_ROW} IN (FROM replaced)"
        connection.execute(sql, _buckets(minutes)).fetchall()
    finally:
        connection.unregister("replaced")
    insert(connection, table.name, replacement.new)
