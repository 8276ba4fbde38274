"""Compaction: what commits have appended is rolled up to minutes, hours and days.

Each commit appends rows; an engine that commits every few seconds leaves many rows of one
minute. Those of closed minutes leave their table for three others, in which the rows of one
entity and bucket are one: in one transaction, so that each row is in all three or in none. They
are merged as states are (merging.py), with two exceptions: rows that hold different states
(written with other definitions) stay apart, as the views tell them apart; and so do rows whose
sum would stop at the end of 64 bits, as the views add further before they stop. So no value in
any view changes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from framewalk.engine.oal import Keep
from framewalk.engine.states import TRAITS, VALUE, Runs, merge_lists, one_number
from framewalk.engine.store.connection import insert, run, transaction
from framewalk.engine.store.dictionary import note_seen
from framewalk.engine.store.tables import known_metrics, state_columns
from framewalk.engine.views import (
    BUCKET,
    ENTITY,
    RESOLUTIONS,
    Resolution,
    quoted,
    rolled_table,
    states_table,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import duckdb

    from framewalk.engine.oal import Plan, Scope, State

# What is worked on at once, in cells of a table: some 25 MB, and a few times that while they are
# merged. A list has as much as so many cells.
PART_CELLS: Final = 4_000_000
_CELLS_OF_LIST: Final = 16
# Rows of such parts that are committed at once: a full row group (122,880 rows) goes to its place
# in the file, and not through the log of changes.
ROWS_AT_ONCE: Final = 250_000
# Hours with fewer rows of all scopes are rolled up together.
SLICE_ROWS: Final = 50_000
# Entities whose rows stand together, minute by minute. More take less room for their times; of many
# one is found more slowly (32: 40% where all its columns are read).
_ENTITIES_TOGETHER: Final = 8

_GROUP: Final = "group_number"
_ROW: Final = "rowid"
_ADDED: Final = frozenset({Keep.COUNT, Keep.SUM})
_ENDS: Final = (-(2**63), 2**63 - 1)
# Of the year 10136: DuckDB has later times, and nobody else.
_LAST_MINUTE: Final = 2**32
_MINUTE_US: Final = 60_000_000
_HOUR_US: Final = 60 * _MINUTE_US
_KEYS: Final = (BUCKET, ENTITY)
_PER: Final = {"minute": "1m", "hour": "1h", "day": "1d"}


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did: the minutes it looked at, and their rows before and after.

    `rows_before` are those that were rolled up and those of their minutes that they were added to,
    `rows_after` what they are now.
    """

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
    """The columns of a scope's states, and how each merges; `lists` are of {key, value}."""

    scope: Scope
    scalars: Mapping[str, Keep]
    lists: Mapping[str, Keep]

    @property
    def columns(self) -> str:
        """The columns as SQL."""
        return ", ".join(map(quoted, [*_KEYS, *self.scalars, *self.lists]))

    @property
    def part_rows(self) -> int:
        """How many rows are worked on at once."""
        cells = len(_KEYS) + len(self.scalars) + _CELLS_OF_LIST * len(self.lists)
        return max(1, PART_CELLS // cells)


@dataclass(frozen=True, slots=True)
class Replacement:
    """The rows to delete (`rowid`), and those that take their place."""

    old: pl.DataFrame
    new: pl.DataFrame


@dataclass(frozen=True, slots=True)
class _Slice:
    """Whole hours with rows to roll up, from `first_us` to before `end_us` (since 1970)."""

    first_us: int
    end_us: int
    minutes: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Some entities of a table, as a condition, and how many rows they have."""

    condition: str
    rows: int


class Compactor:
    """Rolls up what is appended."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
        self._connection = connection
        self._plan = plan
        self._tables: tuple[StatesTable, ...] = ()

    def compact(
        self,
        before_minute: int | None,
        after_minute: int | None,
        rows_at_once: int = ROWS_AT_ONCE,
    ) -> Iterator[Compacted]:
        """Roll up the rows of minutes before the one or after the other; see Store.

        Yields what each transaction did.
        """
        self._tables = self._tables or states_tables(self._connection, self._plan)
        last = _LAST_MINUTE if before_minute is None else before_minute
        closed = f"{BUCKET} < {_timestamp(last)}"
        if after_minute is not None:
            closed += f" OR {BUCKET} > {_timestamp(after_minute)}"
        for one in _slices(self._connection, self._tables, f"({closed})"):
            minutes = one.minutes
            due = (
                f"({closed}) AND {BUCKET} >= make_timestamp({one.first_us}) "
                f"AND {BUCKET} < make_timestamp({one.end_us})"
            )
            for table in self._tables:
                every = _parts(self._connection, states_table(table.scope), table.part_rows, due)
                for parts in _together(every, rows_at_once):
                    done = Compacted(minutes)
                    minutes = 0
                    with transaction(self._connection):
                        for part in parts:
                            done += self._roll_up(table, f"{due} AND {part.condition}")
                    yield done

    def _roll_up(self, table: StatesTable, due: str) -> Compacted:
        appended = states_table(table.scope)
        sql = f"SELECT {table.columns} FROM {appended} WHERE {due}"
        rows: pl.DataFrame = self._connection.sql(sql).pl()
        note_seen(self._connection, table.scope, rows)
        done = []
        rolled = rows
        for resolution in RESOLUTIONS:
            # Each resolution is made of the one before, which has fewer rows.
            rolled = _merged(rolled, table, resolution)
            done.append(self._add(table, resolution, rolled))
        run(self._connection, f"DELETE FROM {appended} WHERE {due}")
        return Compacted(0, rows.height + done[0].old.height, done[0].new.height)

    def _add(self, table: StatesTable, resolution: Resolution, rows: pl.DataFrame) -> Replacement:
        """Add rows to those of a resolution."""
        target = rolled_table(table.scope, resolution)
        there = self._there(table, target, rows)
        replacement = Replacement(there.select(_ROW), rows)
        if there.height:
            replacement = merge_duplicates(pl.concat([there, rows], how="diagonal"), table)
            self._delete(target, replacement.old)
        insert(self._connection, target, replacement.new)
        return replacement

    def _there(self, table: StatesTable, target: str, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of a table that others are to be added to, with their `rowid`."""
        # Most often there are none: no table of many columns is joined to find that out.
        within = " AND ".join(f"{column} BETWEEN ? AND ?" for column in _KEYS)
        ends = [end for column in _KEYS for end in (rows[column].min(), rows[column].max())]
        if not run(self._connection, f"SELECT 1 FROM {target} WHERE {within} LIMIT 1", ends):
            return rows.clear().with_columns(pl.lit(None, pl.Int64).alias(_ROW))
        self._connection.register("added", rows.select(_KEYS).unique().to_arrow())
        try:
            sql = (
                f"SELECT {_ROW}, {table.columns} FROM {target} "
                f"SEMI JOIN added USING ({', '.join(_KEYS)})"
            )
            there: pl.DataFrame = self._connection.sql(sql).pl()
        finally:
            self._connection.unregister("added")
        return there

    def _delete(self, target: str, old: pl.DataFrame) -> None:
        self._connection.register("replaced", old.to_arrow())
        try:
            run(self._connection, f"DELETE FROM {target} WHERE {_ROW} IN (FROM replaced)")
        finally:
            self._connection.unregister("replaced")


def states_tables(connection: duckdb.DuckDBPyConnection, plan: Plan) -> tuple[StatesTable, ...]:
    """Describe the tables of all scopes, with the columns that earlier definitions left."""
    columns = state_columns(connection)
    known = {one.scope.view: {state.name: state for state in one.states} for one in plan.scopes}
    if any(columns.get(view, {}).keys() - states.keys() for view, states in known.items()):
        for metric in known_metrics(connection, plan):
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
    return StatesTable(scope, {TRAITS: Keep.BITS} | scalars, lists)


def _merged(rows: pl.DataFrame, table: StatesTable, resolution: Resolution) -> pl.DataFrame:
    """Return rows merged by entity and bucket of a resolution."""
    if resolution.minutes > 1:
        rows = rows.with_columns(pl.col(BUCKET).dt.truncate(_PER[resolution.name]))
    none = pl.lit(None, pl.Int64).alias(_ROW)
    return merge_duplicates(rows.with_columns(none), table).new


def merge_duplicates(rows: pl.DataFrame, table: StatesTable) -> Replacement:
    """Merge rows (columns of `table` and `rowid`) with the same keys and the same states.

    `rowid` is null for rows that are new. Of the others, those that are alone or must stay apart
    are in neither part of the answer.
    """
    if rows.is_empty():
        return Replacement(rows.select(_ROW), rows.drop(_ROW))
    # Picking rows out of columns in many pieces takes ten times as long.
    rows = rows.rechunk()
    numbers = _in_order(rows, table)
    order = numbers.arg_sort()
    runs = Runs.of(numbers.gather(order))
    if len(runs.starts) == rows.height:
        new = rows[order].filter(pl.col(_ROW).is_null()).drop(_ROW)
        return Replacement(rows.clear().select(_ROW), new)
    is_several = runs.of_rows(runs.lengths > 1)
    places = runs.of_rows(np.arange(len(runs.starts))).alias(_GROUP)
    duplicates = rows[order.filter(is_several)]
    own = Runs.with_lengths(runs.lengths[runs.lengths > 1])
    merged = _merged_runs(duplicates, own, table)
    merged = merged.with_columns(own.first(places.filter(is_several)))
    is_merged = ~_at_an_end(merged, duplicates, own, table)
    of_rows = own.of_rows(is_merged.to_numpy())
    is_new = duplicates[_ROW].is_null()
    # What is alone, and what must stay apart.
    apart = [
        rows[order.filter(~is_several)].with_columns(places.filter(~is_several)),
        duplicates.with_columns(places.filter(is_several)).filter(~of_rows),
    ]
    added = [one.filter(pl.col(_ROW).is_null()).select(merged.columns) for one in apart]
    new = pl.concat([merged.filter(is_merged), *added], rechunk=True)
    old = duplicates.select(_ROW).filter(of_rows & ~is_new)
    return Replacement(old, new[new[_GROUP].arg_sort()].drop(_GROUP))


def _in_order(rows: pl.DataFrame, table: StatesTable) -> pl.Series:
    """Number rows as they are read, a few entities and then the next within what was due at once.

    Minute by minute of these: a time that changes with every row takes four bytes of it. Rows with
    the same keys and the same states have the same number.
    """
    held = rows.select(
        pl.col(name).is_not_null() for name in _added(table) if rows[name].null_count()
    )
    keys = rows.select(
        pl.col(ENTITY) // _ENTITIES_TOGETHER,
        pl.col(BUCKET).cast(pl.Int64),
        (pl.col(ENTITY) % _ENTITIES_TOGETHER).alias(_ROW),
    )
    if held.width:
        kinds = held.unique(maintain_order=True).with_row_index(_GROUP)
        kind = held.join(kinds, on=held.columns, how="left", maintain_order="left")[_GROUP]
        keys = keys.with_columns(kind)
    return one_number(keys)


def _added(table: StatesTable) -> list[str]:
    """Return the columns in which NULL means that a row's definitions did not have the state."""
    return [name for name, keep in table.scalars.items() if keep in _ADDED] + list(table.lists)


def _merged_runs(rows: pl.DataFrame, runs: Runs, table: StatesTable) -> pl.DataFrame:
    """Return one row for each run of rows with the same keys and the same states."""
    merged = [runs.first(rows[name]) for name in _KEYS]
    for name, keep in table.scalars.items():
        column = runs.merged(rows[name], keep)
        if keep in _ADDED and rows[name].null_count():
            is_held = runs.first(rows[name]).is_not_null()
            column = pl.select(pl.when(is_held).then(column).alias(name)).to_series()
        merged.append(column)
    merged += [merge_lists(rows[name], runs, keep) for name, keep in table.lists.items()]
    return pl.DataFrame(merged)


def _at_an_end(
    merged: pl.DataFrame, rows: pl.DataFrame, runs: Runs, table: StatesTable
) -> pl.Series:
    """Tell of each run whether a sum has reached an end of 64 bits, and so may have stopped."""
    sums = [name for name, keep in table.scalars.items() if keep in _ADDED]
    ends = [pl.col(name).is_in(_ENDS) for name in sums if not runs.fits(rows[name])]
    ends += [
        pl.col(name).list.eval(pl.element().struct.field(VALUE).is_in(_ENDS)).list.any()
        for name in table.lists
        if _has_an_end(merged[name].explode().struct.field(VALUE))
    ]
    no = pl.repeat(value=False, n=merged.height, dtype=pl.Boolean)
    return merged.select(
        pl.any_horizontal(no, *(one.fill_null(value=False) for one in ends)).alias("at an end")
    ).to_series()


def _has_an_end(values: pl.Series) -> bool:
    return values.min() == _ENDS[0] or values.max() == _ENDS[1]


def _timestamp(minute: int) -> str:
    return f"make_timestamp({max(-_LAST_MINUTE, min(minute, _LAST_MINUTE)) * _MINUTE_US})"


def _slices(
    connection: duckdb.DuckDBPyConnection, tables: Iterable[StatesTable], closed: str
) -> Iterator[_Slice]:
    """Yield hours with rows to roll up, the oldest first; of few rows several at once."""
    each = " UNION ALL ".join(
        f"SELECT {BUCKET} FROM {states_table(table.scope)} WHERE {closed}" for table in tables
    )
    hours = run(
        connection,
        f"SELECT epoch_us(date_trunc('hour', {BUCKET})), count(DISTINCT {BUCKET}), count(*) "
        f"FROM ({each}) GROUP BY 1 ORDER BY 1",
    )
    first_us, minutes, rows = 0, 0, 0
    for hour_us, minutes_of_hour, rows_of_hour in hours:
        if rows and rows + rows_of_hour > SLICE_ROWS:
            yield _Slice(first_us, hour_us, minutes)
            minutes = rows = 0
        first_us = first_us if rows else hour_us
        minutes, rows = minutes + minutes_of_hour, rows + rows_of_hour
    if rows:
        yield _Slice(first_us, hours[-1][0] + _HOUR_US, minutes)


def _parts(
    connection: duckdb.DuckDBPyConnection, source: str, most_rows: int, due: str
) -> list[_Part]:
    """Return entities of a table that have so many rows together, or one that has more.

    Together they are all that have rows.
    """
    counted = f"SELECT {ENTITY}, count(*) AS rows FROM {source} WHERE {due} GROUP BY 1"
    numbered = (
        f"SELECT *, (sum(rows) OVER (ORDER BY {ENTITY}) - 1) // {most_rows} AS part "
        f"FROM ({counted})"
    )
    ends = (
        f"SELECT min({ENTITY}), max({ENTITY}), sum(rows) FROM ({numbered}) GROUP BY part ORDER BY 1"
    )
    return [
        _Part(f"{ENTITY} BETWEEN {first} AND {last}", rows)
        for first, last, rows in run(connection, ends)
    ]


def _together(parts: Iterable[_Part], most_rows: int) -> Iterator[list[_Part]]:
    """Yield parts that have so many rows together, or one that has more."""
    some: list[_Part] = []
    for part in parts:
        if some and sum(one.rows for one in some) + part.rows > most_rows:
            yield some
            some = []
        some.append(part)
    if some:
        yield some


def replace_minutes(
    connection: duckdb.DuckDBPyConnection,
    table: StatesTable,
    minutes: Sequence[int],
    fresh: pl.DataFrame,
    replaced: Collection[str],
) -> None:
    """Replace some columns of all rows of minutes (since 1970), within a transaction.

    `fresh` has these columns, bucket, entity and traits. It is appended, with what the rows had in
    other columns; hours and days are made again without what they had of these minutes.
    """
    due = f"{BUCKET} IN (SELECT make_timestamp(unnest({list(minutes)}::BIGINT[]) * {_MINUTE_US}))"
    places = (states_table(table.scope), rolled_table(table.scope, RESOLUTIONS[0]))
    if others := [name for name in (*table.scalars, *table.lists) if name not in replaced]:
        each = [f"SELECT {table.columns} FROM {one} WHERE {due}" for one in places]
        old: pl.DataFrame = connection.sql(" UNION ALL ".join(each)).pl()
        states = [name for name in others if name != TRAITS]
        fresh = _beside(_with_states(old, states, replaced, table), fresh, replaced)
    sql = f"SELECT DISTINCT epoch_us(date_trunc('hour', {BUCKET})) FROM {places[1]} WHERE {due}"
    hours = [hour_us for (hour_us,) in run(connection, sql)]
    for place in places:
        run(connection, f"DELETE FROM {place} WHERE {due}")
    _remake(connection, table, hours)
    insert(connection, places[0], fresh)


def _with_states(
    old: pl.DataFrame, states: Sequence[str], replaced: Collection[str], table: StatesTable
) -> pl.DataFrame:
    """Return rows that have one of these states, merged, without what is replaced."""
    none = [pl.lit(None, old.schema[name]).alias(name) for name in replaced]
    held = [pl.col(name).is_not_null() for name in states]
    has_some = pl.any_horizontal(pl.lit(value=False), *held)
    kept = old.with_columns(*none, pl.lit(None, pl.Int64).alias(_ROW)).filter(has_some)
    return merge_duplicates(kept, table).new.select(old.columns)


def _beside(old: pl.DataFrame, fresh: pl.DataFrame, replaced: Collection[str]) -> pl.DataFrame:
    """Put new columns into the first row of each entity and bucket, or into one of their own."""
    is_first = pl.int_range(pl.len()).over(_KEYS) == 0
    first, others = (old.filter(one) for one in (is_first, ~is_first))
    both = first.drop(replaced).join(
        fresh.with_columns(pl.lit(value=True).alias(_GROUP)),
        on=_KEYS,
        how="left",
        suffix=" new",
        maintain_order="left",
    )
    traits = pl.col(TRAITS) | pl.col(f"{TRAITS} new").fill_null(0)
    alone = fresh.join(first, on=_KEYS, how="anti")
    filled = both.with_columns(traits).drop(f"{TRAITS} new", _GROUP)
    return pl.concat([filled, others, alone], how="diagonal")


def _remake(
    connection: duckdb.DuckDBPyConnection, table: StatesTable, hours_us: Sequence[int]
) -> None:
    """Make hours (their starts, since 1970) and their days again, of what is finer."""
    for finer, resolution in itertools.pairwise(RESOLUTIONS):
        source, target = (rolled_table(table.scope, one) for one in (finer, resolution))
        length_us = resolution.minutes * _MINUTE_US
        for start_us in sorted({hour_us - hour_us % length_us for hour_us in hours_us}):
            begin = f"make_timestamp({start_us})"
            run(connection, f"DELETE FROM {target} WHERE {BUCKET} = {begin}")
            due = f"{BUCKET} >= {begin} AND {BUCKET} < make_timestamp({start_us + length_us})"
            for part in _parts(connection, source, table.part_rows, due):
                sql = f"SELECT {table.columns} FROM {source} WHERE {due} AND {part.condition}"
                insert(connection, target, _merged(connection.sql(sql).pl(), table, resolution))
