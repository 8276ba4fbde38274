"""The entities with the largest or smallest values of a metric: one grouped statement."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from framewalk.engine.views import quoted
from framewalk.queries.metrics.identifiers import KEYS, EntityName
from framewalk.queries.metrics.leaves import range_condition, rows_sql, source_of
from framewalk.queries.metrics.statements import Reader, Statement, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from framewalk.queries.metrics.buckets import Buckets
    from framewalk.queries.metrics.catalogue import Metric


class Order(Enum):
    """Which come first."""

    LARGEST = "DESC"
    SMALLEST = "ASC"


class Ranked(NamedTuple):
    """An entity with the average of its values."""

    entity: EntityName
    value: float


@dataclass(frozen=True, slots=True)
class Top:
    """Asks for the first `count` entities of a metric's scope by its values in buckets.

    With `service` for those of this service only: for metrics of instances and endpoints.
    """

    metric: Metric
    buckets: Buckets
    count: int
    order: Order = Order.LARGEST
    service: str | None = None


def top_list(cursor: Reader, top: Top) -> tuple[Ranked, ...]:
    """Return one list, as `top_lists`."""
    return top_lists(cursor, [top])[top]


def top_lists(cursor: Reader, tops: Iterable[Top]) -> dict[Top, tuple[Ranked, ...]]:
    """Return entities in order, by the plain average of their buckets that have values.

    Values of whole-number metrics are cut to whole numbers after they are sorted; ties go by name.
    A labelled metric, or one that no store has, gives none. One statement is run per scope, range
    and service. Raises duckdb.Error.
    """
    asked = list(dict.fromkeys(tops))
    found: dict[Top, list[Ranked]] = {top: [] for top in asked}
    for group in _groups(asked):
        scope = group[0].metric.scope
        for number, *names, value in rows_of(cursor, _sql(group, _source(cursor, group))):
            found[group[number]].append(Ranked(EntityName(scope, tuple(names)), value))
    return {top: tuple(ranked) for top, ranked in found.items()}


def top_statements(cursor: Reader, tops: Iterable[Top]) -> list[Statement]:
    """Return the statements that `top_lists` runs. Raises duckdb.Error."""
    return [_sql(group, _source(cursor, group)) for group in _groups(dict.fromkeys(tops))]


def _source(cursor: Reader, group: Sequence[Top]) -> str | None:
    return source_of(cursor, (top.metric for top in group), group[0].buckets)


def _groups(tops: Iterable[Top]) -> list[list[Top]]:
    groups: dict[tuple[str, Buckets, str | None], list[Top]] = {}
    for top in tops:
        metric = top.metric
        is_number = metric.is_stored and not metric.is_labelled and not metric.is_histogram
        if is_number and top.buckets.count and top.count > 0:
            groups.setdefault((metric.scope, top.buckets, top.service), []).append(top)
    return list(groups.values())


def _sql(group: Sequence[Top], source: str | None) -> Statement:
    """Return the statement of lists that share scope, range and service.

    It gives the number of the list, the names of the entity, and its value.
    """
    first = group[0]
    keys = KEYS[first.metric.scope]
    names = ", ".join(map(quoted, keys))
    where, parameters = range_condition(first.buckets)
    if first.service is not None:
        sides = [key for key in keys if key.endswith("service")]
        where = f"{where} AND ({' OR '.join(f'{quoted(side)} = ?' for side in sides)})"
        parameters += [first.service] * len(sides)
    columns = {metric: f"mean_{at}" for at, metric in enumerate({top.metric: 0 for top in group})}
    means = ", ".join(f"avg({quoted(one.column)}) AS {name}" for one, name in columns.items())
    lists = " UNION ALL ".join(
        f"(SELECT {number}, {names}, {_shown(top.metric, columns[top.metric])}::DOUBLE FROM means "
        f"WHERE {columns[top.metric]} IS NOT NULL "
        f"ORDER BY {columns[top.metric]} {top.order.value}, {names} LIMIT {int(top.count)})"
        for number, top in enumerate(group)
    )
    rows = rows_sql(columns, first.buckets, where, source)
    grouped = f"SELECT {names}, {means} FROM {rows} GROUP BY {names}"
    return Statement(f"WITH means AS MATERIALIZED ({grouped}) {lists}", parameters)


def _shown(metric: Metric, mean: str) -> str:
    return mean if metric.function == "doubleAvg" else f"trunc({mean})"
