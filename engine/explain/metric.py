"""What becomes of a definition, in words and expressions (analysis.md, section 4).

Follows a metric through the plan: the states of the logs (phase 1), the states of its scope
(phase 2), the value that its views show, and one query that gives the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.explain.plain_sql import metric_sql
from framewalk.engine.oal import (
    Column,
    Keep,
    Star,
    Value,
    condition_expression,
    did_you_mean,
    key_expression,
    value_expression,
)
from framewalk.engine.schemas import OPERATIONS, ROLES
from framewalk.engine.states import KEY, VALUE, sum_expression
from framewalk.engine.views import RESOLUTIONS, quoted, view_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from framewalk.engine.oal import (
        BoundCondition,
        Metric,
        Plan,
        Scope,
        ScopePlan,
        Share,
        State,
        StatePart,
    )

_MERGED: Final = {
    Keep.COUNT: "added",
    Keep.SUM: "added",
    Keep.MAX: "the larger one stays",
    Keep.MIN: "the smaller one stays",
    Keep.BITS: "united",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the lines under it."""

    title: str
    lines: tuple[str, ...]


def find_metric(plan: Plan, name: str) -> Metric:
    """Return a metric by its name.

    Raises:
        LookupError: there is none; its text suggests another.
    """
    metrics = {metric.name: metric for metric in plan.metrics}
    if name in metrics:
        return metrics[name]
    raise LookupError(did_you_mean(name, sorted(metrics)))


def explain_plan(plan: Plan) -> list[Section]:
    """Tell how many definitions there are and how few states of the logs they need."""
    states = sum(map(len, plan.log_states.values()))
    scopes = [
        f"{scope.scope.name:<{_widest(plan)}}  {len(scope.metrics):>4} definitions"
        f"  {len(scope.states):>4} states"
        for scope in plan.scopes
    ]
    operations = [
        f"{operation:<{_widest(plan)}}  {len(plan.log_states[operation]):>4} states"
        for operation in OPERATIONS
    ]
    total = f"{_count(len(plan.metrics), 'definition')} need {_count(states, 'state')} of the logs"
    return [
        Section(total, ()),
        Section("Phase 1: each log is read once", tuple(operations)),
        Section("Phase 2: states of the logs are added up for each scope", tuple(scopes)),
    ]


def _widest(plan: Plan) -> int:
    return max(len(scope.scope.name) for scope in plan.scopes)


def explain_metric(plan: Plan, metric: Metric) -> list[Section]:
    """Follow one metric from its definition to its value."""
    scope = next(one for one in plan.scopes if metric.scope is one.scope)
    sections = [
        Section("Definition", (*str(metric.definition).splitlines(), "", _place(metric))),
        Section("Meaning", (f"{meaning(metric)}, of {_entity(metric.scope)}",)),
        Section("Column", tuple(_columns(metric))),
        Section("Phase 1: what is kept of the logs", tuple(_phase_1(plan, scope, metric))),
        Section("Phase 2: what is kept of each entity", tuple(_phase_2(scope, metric))),
        Section("Value", tuple(_value(metric))),
        Section(
            "The same as one query over the logs (DuckDB)", tuple(metric_sql(metric).splitlines())
        ),
    ]
    return [section for section in sections if section.lines]


def meaning(metric: Metric) -> str:
    """Say what a metric is: its function over its attribute, and which logs count."""
    definition = metric.definition
    words = {
        parameter.name: str(argument)
        for parameter, argument in zip(
            metric.function.parameters, definition.function.arguments, strict=False
        )
    }
    source = definition.source
    attribute = "logs" if isinstance(source.attribute, Star) else str(source.attribute)
    phrase = metric.function.notes.phrase.format(source=attribute, **words)
    conditions = " and ".join(map(str, definition.filters))
    return f"{phrase} where {conditions}" if conditions else phrase


def _place(metric: Metric) -> str:
    span = metric.definition.span
    return f"at {span.path}:{span.line}"


def _entity(scope: Scope) -> str:
    return f"each {scope.view.replace('_', ' ')} ({scope.name}: {', '.join(scope.keys)})"


def _columns(metric: Metric) -> Iterable[str]:
    for resolution in RESOLUTIONS:
        yield f"{view_name(metric.scope, resolution)}.{metric.name}"
    yield f"type {metric.function.sql_type}"
    if metric.unit:
        yield f"unit {metric.unit}"


# --- phase 1 -------------------------------------------------------------------------------


def _phase_1(plan: Plan, scope: ScopePlan, metric: Metric) -> Iterable[str]:
    log_states = {
        str(share.log_state): share.log_state
        for state in metric.states
        for share in _shares(scope, state)
    }
    users = _users(plan)
    for number, (name, state) in enumerate(log_states.items()):
        if number:
            yield ""
        yield f"{_operation_logs(state)}: {_kept(state)}, by peers and minute"
        conditions = sorted(state.selection.conditions, key=str)
        if conditions:
            yield f"of logs with {' and '.join(map(str, conditions))}"
        others = users[name] - 1
        yield f"shared with {_count(others, 'other metric')}" if others else "for this metric only"
        yield str(aggregation(state))


def _operation_logs(state: StatePart) -> str:
    return f"{state.selection.operation} logs"


def _kept(state: StatePart) -> str:
    words = {Keep.COUNT: "number of logs", Keep.MAX: "largest", Keep.MIN: "smallest"}
    text = words.get(state.keep, "sum of")
    if state.value is not None:
        text = f"{text} {state.value}"
    return f"{text}, per {state.key}" if state.key is not None else text


def _users(plan: Plan) -> Counter[str]:
    """Count the metrics that need each state of the logs."""
    users: Counter[str] = Counter()
    for scope in plan.scopes:
        log_states: defaultdict[str, set[str]] = defaultdict(set)
        for share in scope.shares:
            log_states[share.state.name].add(str(share.log_state))
        for metric in scope.metrics:
            users.update(set().union(*(log_states[state.name] for state in metric.states)))
    return users


def _shares(scope: ScopePlan, state: State) -> list[Share]:
    return [share for share in scope.shares if share.state.name == state.name]


def aggregation(state: StatePart) -> pl.Expr | str:
    """Return what phase 1 aggregates; for a state that is split by a key, the steps as text."""
    conditions = [condition_expression(one) for one in _in_order(state.selection.conditions)]
    condition = pl.all_horizontal(conditions) if conditions else None
    if state.key is not None:
        chosen = "" if condition is None else f"filter({condition})."
        value = pl.len().cast(pl.Int64) if state.value is None else _sum(state.value)
        by = key_expression(state.key).alias(KEY)
        return f"{chosen}group_by(peer, minute, {by}).agg({value.alias(VALUE)})"
    if state.value is None:
        return (pl.len() if condition is None else condition.sum()).cast(pl.Int64)
    if state.keep is Keep.SUM:
        return _sum(state.value, condition)
    values = value_expression(state.value)
    values = values if condition is None else values.filter(condition)
    return values.max() if state.keep is Keep.MAX else values.min()


def _sum(value: Value, condition: pl.Expr | None = None) -> pl.Expr:
    added = value_expression(value)
    if condition is not None:
        added = pl.when(condition).then(added).otherwise(0)
    return sum_expression(added, exact=True)


def _in_order(conditions: Iterable[BoundCondition]) -> list[BoundCondition]:
    return sorted(conditions, key=str)


# --- phase 2 and the value -----------------------------------------------------------------


def _phase_2(scope: ScopePlan, metric: Metric) -> Iterable[str]:
    yield f"grouped by {', '.join(_key(*item) for item in metric.scope.keys.items())}, minute"
    needs = _needs(metric.scope)
    if needs:
        yield f"only peers with {' and '.join(needs)}"
    for number, state in enumerate(metric.states, start=1):
        shares = _shares(scope, state)
        operations = " and ".join(_operation_logs(share.log_state) for share in shares)
        yield f"state {number}, from {operations}: {_kept(shares[0].log_state)}; {_merge(state)}"
        yield from _peer_conditions(shares)


def _key(name: str, held: Column | str) -> str:
    if not isinstance(held, Column):
        return f"{name} ('{held}')"
    return name if name == held.name else f"{name} ({held.name})"


def _needs(scope: Scope) -> list[str]:
    needs = [f"role {' or '.join(scope.roles)}"] if scope.roles != ROLES else []
    if scope.needs_local:
        needs.append("a local service that is known")
    return needs + [f"{name} that is not null" for name in scope.needs]


def _merge(state: State) -> str:
    return f"when merged, {_MERGED[state.keep]}"


def _peer_conditions(shares: Sequence[Share]) -> Iterable[str]:
    conditions = {one for share in shares for one in share.conditions}
    for condition in _in_order(conditions):
        yield f"  only peers with {condition}: {condition_expression(condition)}"


def _value(metric: Metric) -> Iterable[str]:
    yield metric.function.notes.value
    yield f"NULL where {metric.function.notes.missing}"
    names = [f"state_{number}" for number, _ in enumerate(metric.states, start=1)]
    sql = metric.function.finish([quoted(name) for name in names], "1", metric.parameters)
    yield sql.replace('"', "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
