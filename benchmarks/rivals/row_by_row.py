"""The 426 values row by row in plain Python: each log updates the metrics that it counts in.

This is how a backend does it that has an object per metric: for each log every scope makes its
entity, and each metric of that scope checks its conditions and adds to its numbers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from operator import eq, ge, gt, le, lt
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from framewalk.engine.oal import PERCENTILES
from rivals.values import (
    LONG_SCHEMA,
    NS_PER_MINUTE,
    finished,
    groups,
    peers_of,
    with_everything,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from framewalk.engine.oal import Plan
    from framewalk.engine.stages.resolving import ResolvedLogs
    from rivals.values import Check, Group, Wanted

_COMPARE: Final = {"==": eq, "<": lt, ">=": ge, ">": gt, "<=": le}

Row = dict[str, Any]
Entity = tuple[str, int, str]


class RowByRow:
    """Logs as dictionaries, and the numbers of all metrics."""

    def __init__(self, logs: ResolvedLogs, plan: Plan) -> None:
        self._peers = peers_of(logs).to_dicts()
        self._rows = {
            operation: frame.to_dicts() for operation, frame in with_everything(logs).items()
        }
        self._groups = groups(plan)

    def run(self) -> pl.DataFrame:
        """Compute all values in long form."""
        numbers: defaultdict[tuple[Entity, Wanted], list[int]] = defaultdict(lambda: [0, 0, 0])
        buckets: defaultdict[tuple[Entity, Wanted], Counter[int]] = defaultdict(Counter)
        for operation, rows in self._rows.items():
            own = [group for group in self._groups if group.operation == operation]
            for row in rows:
                log = row | self._peers[row["peer"]]
                for group in own:
                    if _counts(log, group):
                        _add(log, group, numbers, buckets)
        return _long_form(numbers, buckets)


def _counts(log: Row, group: Group) -> bool:
    return (
        log["role"] in group.roles
        and (log["local_known"] or not group.needs_local)
        and all(log[column] is not None for column in group.needs)
    )


def _add(
    log: Row,
    group: Group,
    numbers: defaultdict[tuple[Entity, Wanted], list[int]],
    buckets: defaultdict[tuple[Entity, Wanted], Counter[int]],
) -> None:
    names = [log.get(column, column.strip("'")) for column in group.keys.values()]
    entity = (group.view, log["time_ns"] // NS_PER_MINUTE, "|".join(names))
    for metric in group.metrics:
        if not _passes(log, metric.common):
            continue
        if metric.width:
            buckets[entity, metric][log[metric.bucket_of] // metric.width] += 1
            continue
        own = numbers[entity, metric]
        for at, aggregate in enumerate(metric.aggregates):
            if _passes(log, aggregate.checks):
                own[at] += 1 if aggregate.column is None else log[aggregate.column]


def _passes(log: Row, checks: Iterable[Check]) -> bool:
    return all(_COMPARE[one.operator](log[one.column], one.operand) for one in checks)


def _long_form(
    numbers: dict[tuple[Entity, Wanted], list[int]],
    buckets: dict[tuple[Entity, Wanted], Counter[int]],
) -> pl.DataFrame:
    rows: list[tuple[str, int, str, str, int | None]] = [
        (*entity, metric.name, finished(metric.function, own))
        for (entity, metric), own in numbers.items()
    ]
    for (entity, metric), counts in buckets.items():
        rows += [
            (*entity, f"{metric.name} p{p}", _percentile(counts, p) * metric.width)
            for p in PERCENTILES
        ]
    return pl.DataFrame(rows, schema=LONG_SCHEMA, orient="row").drop_nulls("value")


def _percentile(counts: Counter[int], percentile: int) -> int:
    rank = (counts.total() * percentile + 50) // 100
    running = 0
    for bucket in sorted(counts):
        running += counts[bucket]
        if running >= rank:
            return bucket
    message = "the rank is never above the total"
    raise AssertionError(message)
