"""Values of metrics as arrays: one statement per scope, resolution and range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from framewalk.engine.views import quoted
from framewalk.queries.metrics.identifiers import ENDPOINT_RELATION, KEYS, EntityName
from framewalk.queries.metrics.narrowing import narrowed
from framewalk.queries.metrics.statements import Reader, Statement, table_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from framewalk.queries.metrics.buckets import Buckets
    from framewalk.queries.metrics.catalogue import Metric

Labels: TypeAlias = tuple[tuple[str, str], ...]
Values: TypeAlias = npt.NDArray[np.float64]

_BUCKET: Final = "time_bucket"


@dataclass(frozen=True, slots=True)
class Leaf:
    """What an expression reads: a metric of an entity of its scope, in buckets."""

    metric: Metric
    entity: EntityName
    buckets: Buckets


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A value per bucket (float64, NaN where nothing is stored), with its labels."""

    labels: Labels
    values: Values


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The values of metrics of entities in buckets.

    `values` has per metric and labels an array with a row per entity, in their order, and a column
    per bucket; NaN is where nothing is stored. Of a labelled metric it has the labels that occur.
    """

    entities: tuple[EntityName, ...]
    values: Mapping[Metric, Mapping[Labels, Values]]


def read_leaves(cursor: Reader, leaves: Iterable[Leaf]) -> dict[Leaf, tuple[Series, ...]]:
    """Read leaves, with one statement for all that share scope and buckets.

    A plain metric has one series, empty where nothing is stored; a labelled one a series per label
    that occurs in the range, in the order of texts. Raises duckdb.Error.
    """
    asked = list(dict.fromkeys(leaves))
    found = {leaf: nothing(leaf.metric, leaf.buckets) for leaf in asked}
    for group in _groups(asked):
        block = read_block(cursor, group.metrics, group.buckets, group.entities)
        rows = {entity: row for row, entity in enumerate(block.entities)}
        for leaf in group.leaves:
            row = rows.get(leaf.entity)
            if row is not None:
                found[leaf] = _series(block.values[leaf.metric], leaf, row)
    return found


def leaf_statements(cursor: Reader, leaves: Iterable[Leaf]) -> list[Statement]:
    """Return the statements that `read_leaves` runs. Raises duckdb.Error."""
    return [
        block_sql(
            group.metrics,
            group.buckets,
            group.entities,
            source_of(cursor, group.metrics, group.buckets),
        )
        for group in _groups(dict.fromkeys(leaves))
        if group.buckets.count
    ]


class _Group(NamedTuple):
    """Leaves that are read with one statement."""

    leaves: list[Leaf]
    metrics: tuple[Metric, ...]
    entities: tuple[EntityName, ...]
    buckets: Buckets


def _groups(leaves: Iterable[Leaf]) -> list[_Group]:
    groups: dict[tuple[str, Buckets], list[Leaf]] = {}
    for leaf in leaves:
        if leaf.metric.is_stored and leaf.entity.scope == leaf.metric.scope:
            groups.setdefault((leaf.metric.scope, leaf.buckets), []).append(leaf)
    return [
        _Group(
            own,
            tuple(dict.fromkeys(leaf.metric for leaf in own)),
            tuple(dict.fromkeys(leaf.entity for leaf in own)),
            buckets,
        )
        for (_, buckets), own in groups.items()
    ]


def nothing(metric: Metric, buckets: Buckets) -> tuple[Series, ...]:
    """Return the series of a metric of which nothing is stored."""
    return () if metric.is_labelled else (Series((), np.full(buckets.count, np.nan)),)


def read_block(
    cursor: Reader,
    metrics: Sequence[Metric],
    buckets: Buckets,
    entities: Sequence[EntityName] | None = None,
) -> Block:
    """Read metrics of one scope for entities of it, or for all that have rows (None).

    Entities without rows are left out. One statement. Raises duckdb.Error.
    """
    keys = KEYS[metrics[0].scope]
    if not buckets.count or (entities is not None and not entities):
        return Block((), {metric: {} for metric in metrics})
    source = source_of(cursor, metrics, buckets)
    table = table_of(cursor, block_sql(metrics, buckets, entities, source))
    if not table.num_rows:
        return Block((), {metric: {} for metric in metrics})
    names, rows = _numbered(table, keys)
    scope = metrics[0].scope
    numbered = tuple(EntityName(scope, name) for name in names)
    columns = (table.column(len(keys)).to_numpy() - buckets.first_ms) // (
        buckets.step.seconds * 1_000
    )
    shape = (len(numbered), buckets.count)
    values: dict[Metric, Mapping[Labels, Values]] = {}
    at = len(keys) + 1
    for metric in metrics:
        width = len(metric.labels) or 1
        parts = [table.column(one) for one in range(at, at + width)]
        at += width
        values[metric] = _arrays(metric, parts, (rows, columns), shape)
    return Block(numbered, values)


def source_of(cursor: Reader, metrics: Iterable[Metric], buckets: Buckets) -> str | None:
    """Return what has the rows of metrics of one scope in place of its view, if there is such."""
    named = list(metrics)
    columns = (one.column for one in named if not one.is_histogram)
    minutes = buckets.step.seconds // 60
    return narrowed(cursor, named[0].scope, buckets.step, columns, minutes)


def block_sql(
    metrics: Sequence[Metric],
    buckets: Buckets,
    entities: Sequence[EntityName] | None,
    source: str | None = None,
) -> Statement:
    """Return the statement of `read_block`; `source` stands for the view."""
    keys = KEYS[metrics[0].scope]
    shown = [*map(quoted, keys), f"epoch_ms({_BUCKET}) AS time_ms"]
    shown += [column for metric in metrics for column in value_columns(metric)]
    where, parameters = range_condition(buckets)
    if entities is not None:
        more, named = entity_condition(keys, entities)
        where, parameters = f"{where} AND {more}", [*parameters, *named]
    rows = rows_sql(metrics, buckets, where, source)
    return Statement(f"SELECT {', '.join(shown)} FROM {rows}", parameters)


def rows_sql(
    metrics: Iterable[Metric], buckets: Buckets, where: str, source: str | None = None
) -> str:
    """Return the rows of metrics of one scope that meet a condition, one per entity and bucket.

    The view of endpoint relations has a row per derivation, and clients know none: counts and sums
    are added, of other values that of the surest derivation is taken, which is the first by name.
    """
    named = list(dict.fromkeys(metrics))
    scope = named[0].scope
    view = f"{scope}_{buckets.step.resolution}" if source is None else f"({source})"
    rows = f"{view} WHERE {where}"
    if scope != ENDPOINT_RELATION:
        return rows
    merged = [
        f"{'sum({0})' if one.is_additive else 'arg_min({0}, derivation)'} AS {{0}}".format(
            quoted(one.column)
        )
        for one in named
    ]
    keys = ", ".join(map(quoted, KEYS[scope]))
    return f"(SELECT {_BUCKET}, {keys}, {', '.join(merged)} FROM {rows} GROUP BY {_BUCKET}, {keys})"


def range_condition(buckets: Buckets) -> tuple[str, list[object]]:
    """Return the condition that a row is in buckets."""
    return f"{_BUCKET} BETWEEN ?::TIMESTAMP AND ?::TIMESTAMP", [buckets.first, buckets.last]


def entity_condition(
    keys: Sequence[str], entities: Sequence[EntityName]
) -> tuple[str, list[object]]:
    """Return the condition that a row is of one of some entities.

    There is one condition per column: each reaches the tables. Together with those of all columns
    at once they are exact.
    """
    parts: list[str] = []
    parameters: list[object] = []
    for at, key in enumerate(keys):
        names = list(dict.fromkeys(entity.names[at] for entity in entities))
        parts.append(f"{quoted(key)} IN ({', '.join('?' * len(names))})")
        parameters += names
    if len(keys) > 1 and len(entities) > 1:
        row = f"({', '.join('?' * len(keys))})"
        columns = ", ".join(map(quoted, keys))
        parts.append(f"({columns}) IN ({', '.join([row] * len(entities))})")
        parameters += [name for entity in entities for name in entity.names]
    return " AND ".join(parts), parameters


def value_columns(metric: Metric) -> list[str]:
    """Return the expressions of a metric's values as doubles: one, or one per known label.

    A histogram has no number.
    """
    column = quoted(metric.column)
    if metric.labels:
        return [
            f"{column}.{quoted(f'p{label}')}::DOUBLE AS {quoted(f'{metric.column}.p{label}')}"
            for label in metric.labels
        ]
    if metric.is_histogram:
        return [f"NULL::DOUBLE AS {column}"]
    return [column if metric.is_map else f"{column}::DOUBLE AS {column}"]


def _numbered(
    table: pa.Table, keys: Sequence[str]
) -> tuple[list[tuple[str, ...]], npt.NDArray[np.int64]]:
    """Return the distinct entities, and for each row the number of its entity."""
    total = np.zeros(table.num_rows, dtype=np.int64)
    dictionaries: list[list[str]] = []
    for at in range(len(keys)):
        encoded: Any = table.column(at).cast(pa.string()).combine_chunks().dictionary_encode()
        dictionaries.append(encoded.dictionary.to_pylist())
        total = total * max(1, len(dictionaries[-1])) + encoded.indices.to_numpy()
    distinct, rows = np.unique(total, return_inverse=True)
    names: list[tuple[str, ...]] = []
    for code in distinct.tolist():
        parts = []
        for dictionary in reversed(dictionaries):
            code, place = divmod(code, len(dictionary))  # noqa: PLW2901 - digit by digit
            parts.append(dictionary[place])
        names.append(tuple(reversed(parts)))
    return names, rows.astype(np.int64)


def _arrays(
    metric: Metric,
    columns: Sequence[pa.ChunkedArray],
    places: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    shape: tuple[int, int],
) -> dict[Labels, Values]:
    if metric.is_map:
        return _of_maps(metric, columns[0], places, shape)
    found: dict[Labels, Values] = {}
    for label, column in zip(metric.labels or (None,), columns, strict=True):
        array = np.full(shape, np.nan)
        array[places] = column.cast(pa.float64()).to_numpy()
        array[~np.isfinite(array)] = np.nan
        if label is None:
            found[()] = array
        elif not np.isnan(array).all():
            found[(str(metric.label), label),] = array
    return found


def _of_maps(
    metric: Metric,
    column: pa.ChunkedArray,
    places: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    shape: tuple[int, int],
) -> dict[Labels, Values]:
    found: dict[str, Values] = {}
    rows, buckets = places
    for row, bucket, entries in zip(rows, buckets, column.to_pylist(), strict=True):
        # A server gives a map as a mapping.
        pairs = entries.items() if isinstance(entries, dict) else entries or ()
        for label, value in pairs:
            if value is None:
                continue
            array = found.setdefault(str(label), np.full(shape, np.nan))
            array[row, bucket] = value
    return {((str(metric.label), label),): found[label] for label in sorted(found)}


def _series(arrays: Mapping[Labels, Values], leaf: Leaf, row: int) -> tuple[Series, ...]:
    found = [Series(labels, array[row]) for labels, array in arrays.items()]
    if not leaf.metric.is_labelled:
        return tuple(found)
    return tuple(one for one in found if not np.isnan(one.values).all())
