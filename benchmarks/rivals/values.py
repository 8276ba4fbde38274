"""The shipped metrics as what a person would compute by hand: conditions, aggregates, a formula.

Each rival computes the same values from the same logs with peers, which it gets in the shape it
likes best and with all derived columns (`success`, `endpoint`, detect point) already made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl
from frame.contest import rows_answer

from framewalk.engine.oal import (
    PERCENTILES,
    ApdexPredicate,
    Band,
    Bucket,
    Column,
    make_plan,
)
from framewalk.engine.schemas import OPERATIONS
from framewalk.engine.stages.columns import with_derived, with_sides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frame.contest import Answer

    from framewalk.engine.oal import Condition, Metric, Plan, Scope, StatePart
    from framewalk.engine.stages.resolving import ResolvedLogs
    from framewalk.engine.store import Store

NS_PER_MINUTE: Final = 60_000_000_000
DERIVED: Final = ("success", "endpoint")

_OPERATORS: Final = {"==": "==", "<": "<", ">=": ">=", ">": ">", "<=": "<="}


@dataclass(frozen=True, slots=True)
class Check:
    """A comparison of one column with a constant."""

    column: str
    operator: str
    operand: int | str | bool


@dataclass(frozen=True, slots=True)
class Aggregate:
    """`kind` is "count" or "sum"; of the logs that pass all checks, the wanted ones included."""

    kind: str
    column: str | None
    checks: frozenset[Check]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A metric over the logs of one operation; `width` is the bucket of a percentile, or 0."""

    name: str
    function: str
    operation: str
    aggregates: tuple[Aggregate, ...]
    bucket_of: str
    width: int

    @property
    def common(self) -> frozenset[Check]:
        """The checks that all its aggregates share."""
        return frozenset.intersection(*(one.checks for one in self.aggregates))


@dataclass(frozen=True, slots=True)
class Group:
    """The metrics of one scope over one operation: one GROUP BY for a person who thinks.

    `keys` maps the names of the entity to columns, or to a constant in quotes.
    """

    view: str
    operation: str
    keys: dict[str, str]
    roles: tuple[str, ...]
    needs_local: bool
    needs: tuple[str, ...]
    metrics: tuple[Wanted, ...]


def comparable(plan: Plan) -> Plan:
    """Return the plan without the metrics that the rivals do not have: framewalk's own ones."""
    return make_plan(
        one
        for one in plan.metrics
        if one.function.name != "relativePercentile"
        and not str(one.definition.source.attribute).endswith("serving.duration")
    )


def groups(plan: Plan) -> list[Group]:
    """Return what the shipped metrics ask for; all of them are about one operation each."""
    found = []
    for scope_plan in plan.scopes:
        wanted = [_wanted(metric, plan.apdex_default_ms) for metric in scope_plan.metrics]
        for operation in OPERATIONS:
            own = tuple(one for one in wanted if one.operation == operation)
            if own:
                found.append(_group(scope_plan.scope, operation, own))
    assert sum(len(group.metrics) for group in found) == len(plan.metrics)
    return found


def _group(scope: Scope, operation: str, metrics: tuple[Wanted, ...]) -> Group:
    keys = {
        name: key.name if isinstance(key, Column) else f"'{key}'"
        for name, key in scope.keys.items()
    }
    return Group(
        scope.view,
        operation,
        keys,
        tuple(scope.roles),
        scope.needs_local,
        tuple(scope.needs),
        metrics,
    )


def _wanted(metric: Metric, threshold_ms: int) -> Wanted:
    (operation,) = {part.selection.operation for state in metric.states for part in state.parts}
    parts = [state.parts[0] for state in metric.states]
    key = parts[0].key
    bucket_of = key.value.column.name if isinstance(key, Bucket) else ""
    width = key.width if isinstance(key, Bucket) else 0
    aggregates = tuple(_aggregate(part, threshold_ms) for part in parts)
    return Wanted(metric.name, metric.function.name, operation, aggregates, bucket_of, width)


def _aggregate(part: StatePart, threshold_ms: int) -> Aggregate:
    checks = [
        check
        for condition in part.selection.conditions
        for check in _checks(condition, threshold_ms)
    ]
    column = part.value.column.name if part.value is not None else None
    return Aggregate(part.keep.value, column, frozenset(checks))


def _checks(condition: Condition, threshold_ms: int) -> list[Check]:
    column = condition.value.column.name
    if isinstance(condition, ApdexPredicate):
        if condition.band is Band.SATISFIED:
            return [Check(column, "<=", threshold_ms)]
        return [Check(column, ">", threshold_ms), Check(column, "<=", 4 * threshold_ms)]
    operand = condition.operand
    assert isinstance(operand, int | str), "the shipped definitions compare with one constant"
    return [Check(column, _OPERATORS[str(condition.operator.value)], operand)]


def finished(function: str, numbers: Sequence[int]) -> int | None:
    """Return the value that the aggregates of one entity and minute make; None for no value."""
    match function:
        case "cpm":
            return numbers[0] or None
        case "sum":
            return numbers[0] if numbers[1] else None
        case "longAvg":
            return numbers[0] // numbers[1] if numbers[1] else None
        case "percent":
            return numbers[0] * 10_000 // numbers[1] if numbers[1] else None
        case "apdex":
            total, satisfied, tolerated = numbers
            return (satisfied * 10_000 + tolerated * 5_000) // total if total else None
    message = f"no shipped definition is a {function}"
    raise ValueError(message)


def with_everything(logs: ResolvedLogs) -> dict[str, pl.DataFrame]:
    """Return the logs of each operation with all columns that a metric may need but the peers'."""
    return {
        operation: with_derived(frame, operation, DERIVED)
        for operation, frame in logs.operations.items()
    }


def peers_of(logs: ResolvedLogs) -> pl.DataFrame:
    """Return the peers with both names of their sides; `peer` is the number in the logs."""
    return with_sides(logs.peers).with_row_index("peer")


# Answers: every value in long form.

LONG_SCHEMA: Final = pl.Schema(
    {"view": pl.String, "minute": pl.Int64, "entity": pl.String, "metric": pl.String}
    | {"value": pl.Int64}
)


def long_form(view: str, frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return a row for each value of a frame with `minute`, keys and a column per metric."""
    entity = pl.concat_str(pl.col(keys), separator="|").alias("entity")
    rows = frame.select("minute", entity, pl.exclude("minute", *keys))
    for name, dtype in rows.schema.items():
        if isinstance(dtype, pl.Struct):
            fields = [pl.col(name).struct.field(f"p{p}").alias(f"{name} p{p}") for p in PERCENTILES]
            rows = rows.with_columns(fields).drop(name)
    values = [name for name in rows.columns if name not in {"minute", "entity"}]
    return (
        rows.cast(dict.fromkeys(values, pl.Int64))
        .unpivot(values, index=["minute", "entity"], variable_name="metric")
        .drop_nulls("value")
        .select(pl.lit(view).alias("view"), "minute", "entity", "metric", "value")
        .cast(LONG_SCHEMA)
    )


def values_answer(parts: Sequence[pl.DataFrame]) -> Answer:
    """Digest values in long form."""
    return rows_answer({"values": pl.concat(parts)})


def store_values(store: Store, plan: Plan) -> list[pl.DataFrame]:
    """Read all values of the views of a store in long form."""
    parts = []
    for scope in (one.scope for one in plan.scopes):
        keys = list(scope.keys)
        minute = "epoch(time_bucket)::BIGINT // 60 AS minute"
        columns = f"{minute}, * EXCLUDE (time_bucket, entity_id)"
        frame = store.query(f"SELECT {columns} FROM {scope.view}_minute").pl()  # noqa: S608 - views
        parts.append(long_form(scope.view, frame, keys))
    return parts
