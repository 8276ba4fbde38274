"""The 426 values as 426 Polars aggregations: filter, group and aggregate for each metric.

The peers' names are joined to the logs once per operation, not once per metric.
"""

from __future__ import annotations

from functools import reduce
from operator import and_, eq, ge, gt, le, lt
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.oal import PERCENTILES
from rivals.values import NS_PER_MINUTE, groups, long_form, peers_of, with_everything

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from framewalk.engine.oal import Plan
    from framewalk.engine.stages.resolving import ResolvedLogs
    from rivals.values import Aggregate, Check, Group, Wanted

_COMPARE: Final = {"==": eq, "<": lt, ">=": ge, ">": gt, "<=": le}


class NaivePolars:
    """Frames of logs, and an aggregation for each metric."""

    def __init__(self, logs: ResolvedLogs, plan: Plan) -> None:
        self._logs = with_everything(logs)
        self._peers = peers_of(logs)
        self._groups = groups(plan)

    def run(self) -> list[tuple[Group, pl.DataFrame]]:
        """Compute all values: a frame of `minute`, keys and one metric for each metric."""
        minute = (pl.col("time_ns") // NS_PER_MINUTE).alias("minute")
        named = {
            operation: frame.join(self._peers, on="peer").with_columns(minute)
            for operation, frame in self._logs.items()
        }
        return [
            (group, _of_metric(named[group.operation], group, metric))
            for group in self._groups
            for metric in group.metrics
        ]


def in_long_form(found: Sequence[tuple[Group, pl.DataFrame]]) -> list[pl.DataFrame]:
    """Return every value."""
    return [long_form(group.view, frame, list(group.keys)) for group, frame in found]


def _of_metric(logs: pl.DataFrame, group: Group, metric: Wanted) -> pl.DataFrame:
    counted = logs.filter(_of_scope(group) & _all(metric.common))
    keys = [_key(name, column) for name, column in group.keys.items()]
    if metric.width:
        return _percentiles(counted, keys, list(group.keys), metric)
    numbers = [_number(aggregate, metric.common) for aggregate in metric.aggregates]
    found = counted.group_by("minute", *keys).agg(
        number.alias(f"number {at}") for at, number in enumerate(numbers)
    )
    value = _value(metric.function).alias(metric.name)
    return found.select("minute", *group.keys, value)


def _of_scope(group: Group) -> pl.Expr:
    counts = pl.col("role").is_in(group.roles)
    if group.needs_local:
        counts &= pl.col("local_known")
    return reduce(and_, (pl.col(column).is_not_null() for column in group.needs), counts)


def _key(name: str, column: str) -> pl.Expr:
    constant = column.startswith("'")
    return (pl.lit(column.strip("'")) if constant else pl.col(column)).alias(name)


def _all(checks: Iterable[Check]) -> pl.Expr:
    found = (_COMPARE[one.operator](pl.col(one.column), one.operand) for one in checks)
    return reduce(and_, found, pl.lit(value=True))


def _number(aggregate: Aggregate, common: frozenset[Check]) -> pl.Expr:
    further = aggregate.checks - common
    if aggregate.kind == "count":
        return (_all(further).sum() if further else pl.len()).cast(pl.Int64)
    values = pl.col(str(aggregate.column))
    return values.filter(_all(further)).sum() if further else values.sum()


def _value(function: str) -> pl.Expr:
    first, second, third = (pl.col(f"number {at}") for at in range(3))
    match function:
        case "cpm" | "sum":
            return first
        case "longAvg":
            return first // second
        case "percent":
            return first * 10_000 // second
        case "apdex":
            return (second * 10_000 + third * 5_000) // first
    message = f"no shipped definition is a {function}"
    raise ValueError(message)


def _percentiles(
    logs: pl.DataFrame, keys: Sequence[pl.Expr], names: Sequence[str], metric: Wanted
) -> pl.DataFrame:
    entity = ["minute", *names]
    bucket = (pl.col(metric.bucket_of) // metric.width).alias("bucket")
    buckets = logs.group_by("minute", *keys, bucket).agg(logs=pl.len().cast(pl.Int64))
    ranked = buckets.sort("bucket").with_columns(
        running=pl.col("logs").cum_sum().over(entity), total=pl.col("logs").sum().over(entity)
    )
    fields = [_reached(percentile) * metric.width for percentile in PERCENTILES]
    named = [field.alias(f"p{p}") for field, p in zip(fields, PERCENTILES, strict=True)]
    return ranked.group_by(entity).agg(pl.struct(named).alias(metric.name))


def _reached(percentile: int) -> pl.Expr:
    rank = (pl.col("total") * percentile + 50) // 100
    return pl.col("bucket").filter(pl.col("running") >= rank).min()
