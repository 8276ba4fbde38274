"""The 426 values as DuckDB SQL in the way a person would write it over tables of logs.

One query per scope and operation, all its metrics as aggregates with a FILTER in one GROUP BY
(26 queries), and one query per percentile (6), as that needs a group by bucket first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

from framewalk.engine.oal import PERCENTILES
from rivals.values import NS_PER_MINUTE, groups, long_form, peers_of, with_everything

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from framewalk.engine.oal import Plan
    from framewalk.engine.stages.resolving import ResolvedLogs
    from rivals.values import Aggregate, Check, Group, Wanted


class PlainSql:
    """Tables of logs in memory, and the queries over them."""

    def __init__(self, logs: ResolvedLogs, plan: Plan) -> None:
        self._connection = duckdb.connect()
        for operation, frame in with_everything(logs).items():
            self._create(f"logs_{operation}", frame)
        self._create("peers", peers_of(logs))
        self._queries = [
            (group, sql)
            for group in groups(plan)
            for sql in (_aggregates_sql(group), *_percentiles_sql(group))
        ]

    def run(self) -> list[tuple[Group, pl.DataFrame]]:
        """Compute all values: a frame of `minute`, keys and metrics for each query."""
        return [(group, self._connection.sql(sql).pl()) for group, sql in self._queries]

    def _create(self, table: str, frame: pl.DataFrame) -> None:
        self._connection.register("frame", frame)
        self._connection.execute(f"CREATE TABLE {table} AS FROM frame").fetchall()
        self._connection.unregister("frame")


def in_long_form(found: Sequence[tuple[Group, pl.DataFrame]]) -> list[pl.DataFrame]:
    """Return every value."""
    return [long_form(group.view, frame, list(group.keys)) for group, frame in found]


def _aggregates_sql(group: Group) -> str:
    values = [
        f"{_value_sql(metric)} AS {metric.name}" for metric in group.metrics if not metric.width
    ]
    columns = ",\n  ".join([*_keys(group), *values])
    return f"SELECT {columns}\n{_source(group)}\nGROUP BY ALL"


def _percentiles_sql(group: Group) -> list[str]:
    return [_percentile_sql(group, metric) for metric in group.metrics if metric.width]


def _percentile_sql(group: Group, metric: Wanted) -> str:
    keys = ", ".join(["minute", *group.keys])
    checks = "".join(f" AND {_check(check)}" for check in metric.common)
    fields = ", ".join(
        f"'p{p}': min(bucket) FILTER (running >= (total * {p} + 50) // 100) * {metric.width}"
        for p in PERCENTILES
    )
    buckets = (
        f"SELECT {', '.join(_keys(group))}, {metric.bucket_of} // {metric.width} AS bucket, "
        f"count(*) AS logs\n{_source(group)}{checks}\nGROUP BY ALL"
    )
    running = (
        f"SELECT *, sum(logs) OVER (PARTITION BY {keys} ORDER BY bucket) AS running, "  # noqa: S608 - column names
        f"sum(logs) OVER (PARTITION BY {keys}) AS total FROM ({buckets})"
    )
    return f"SELECT {keys}, {{{fields}}} AS {metric.name} FROM ({running}) GROUP BY ALL"  # noqa: S608 - as above


def _keys(group: Group) -> list[str]:
    keys = [f"{column} AS {name}" for name, column in group.keys.items()]
    return [f"time_ns // {NS_PER_MINUTE} AS minute", *keys]


def _source(group: Group) -> str:
    roles = ", ".join(f"'{role}'" for role in group.roles)
    conditions = [f"role IN ({roles})"]
    if group.needs_local:
        conditions.append("local_known")
    conditions += [f"{column} IS NOT NULL" for column in group.needs]
    return f"FROM logs_{group.operation} JOIN peers USING (peer)\nWHERE {' AND '.join(conditions)}"


def _value_sql(metric: Wanted) -> str:
    numbers = [_aggregate_sql(aggregate) for aggregate in metric.aggregates]
    match metric.function:
        case "cpm":
            return f"nullif({numbers[0]}, 0)"
        case "sum":
            return numbers[0]
        case "longAvg":
            return f"{numbers[0]} // nullif({numbers[1]}, 0)"
        case "percent":
            return f"{numbers[0]} * 10000 // nullif({numbers[1]}, 0)"
        case "apdex":
            total, satisfied, tolerated = numbers
            return f"({satisfied} * 10000 + {tolerated} * 5000) // nullif({total}, 0)"
    message = f"no shipped definition is a {metric.function}"
    raise ValueError(message)


def _aggregate_sql(aggregate: Aggregate) -> str:
    call = "count(*)" if aggregate.kind == "count" else f"sum({aggregate.column})"
    if not aggregate.checks:
        return call
    conditions = " AND ".join(sorted(map(_check, aggregate.checks)))
    return f"{call} FILTER ({conditions})"


def _check(check: Check) -> str:
    if isinstance(check.operand, bool):
        return check.column if check.operand else f"NOT {check.column}"
    operand = f"'{check.operand}'" if isinstance(check.operand, str) else check.operand
    return f"{check.column} {check.operator.replace('==', '=')} {operand}"
