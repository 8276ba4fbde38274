"""A syntax tree is evaluated on what was read for it (mqe.md, sections 3 to 6)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from framewalk.queries.metrics import ENDPOINT, INSTANCE, Order
from framewalk.queries.mqe import functions
from framewalk.queries.mqe.operators import combine
from framewalk.queries.mqe.results import (
    ExpressionResult,
    ResultSeries,
    ResultType,
    failed,
    finite,
    single,
)
from framewalk.queries.mqe.subjects import LONGEST_LIST, MOST_STEPS
from framewalk.queries.mqe.syntax import (
    Aggregate,
    AggregateLabels,
    Baseline,
    IsPresent,
    Mathematical,
    MetricName,
    Number,
    Operation,
    Relabel,
    Round,
    SortLabelValues,
    SortValues,
    TopN,
    TopNOf,
    Trend,
    ViewAsSequence,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from framewalk.queries.metrics import (
        Buckets,
        EntityName,
        Labels,
        Leaf,
        Ranked,
        Series,
        Top,
        Values,
    )
    from framewalk.queries.mqe.subjects import Subject
    from framewalk.queries.mqe.syntax import Node


@lru_cache(maxsize=256)
def bucket_ids(buckets: Buckets) -> tuple[str, ...]:
    """Return the identifiers of the values of a time series."""
    return tuple(map(str, buckets.epoch_ms.tolist()))


class Evaluator:
    """Evaluates trees about one subject."""

    def __init__(
        self,
        subject: Subject,
        leaves: Mapping[Leaf, tuple[Series, ...]],
        tops: Mapping[Top, tuple[Ranked, ...]],
    ) -> None:
        self.subject = subject
        self.leaves = leaves
        self.tops = tops

    def evaluate(self, node: Node) -> ExpressionResult:
        """Return the result of a node; what is wrong with it is in there."""
        return _EVALUATIONS[type(node)](self, node)


def _number(_own: Evaluator, node: Number) -> ExpressionResult:
    return single(node.value)


def _metric(own: Evaluator, node: MetricName) -> ExpressionResult:
    problem = own.subject.problem(node)
    if problem is not None:
        return failed(problem)
    leaf = own.subject.leaf(node, 0)
    series = own.subject.empty(node) if leaf is None else own.leaves[leaf]
    return _time_series(own, node, ((one.labels, one.values) for one in series))


def _time_series(
    own: Evaluator, name: MetricName, series: Iterable[tuple[Labels, Values]]
) -> ExpressionResult:
    metric = own.subject.catalogue.metrics[name.name]
    ids = bucket_ids(own.subject.buckets)
    return ExpressionResult(
        ResultType.TIME_SERIES_VALUES,
        tuple(
            ResultSeries(labels, values, ids)
            for labels, values in series
            if not metric.is_labelled or _is_asked(labels, name)
        ),
        is_labelled=metric.is_labelled,
    )


def _operation(own: Evaluator, node: Operation) -> ExpressionResult:
    left = own.evaluate(node.left)
    if left.error is not None:
        return left
    return combine(node.operator, left, own.evaluate(node.right))


def _aggregate(own: Evaluator, node: Aggregate) -> ExpressionResult:
    found = own.evaluate(node.operand)
    return found if found.error else functions.aggregate(node.function, found)


def _mathematical(own: Evaluator, node: Mathematical) -> ExpressionResult:
    found = own.evaluate(node.operand)
    return found if found.error else functions.mathematical(node.function, found)


def _round(own: Evaluator, node: Round) -> ExpressionResult:
    found = own.evaluate(node.operand)
    return found if found.error else functions.rounded(found, node.places)


def _trend(own: Evaluator, node: Trend) -> ExpressionResult:
    problem = own.subject.problem(node.metric)
    if problem is None and node.steps == 0:
        problem = "The trend range must be greater than 0."
    if problem is None and node.steps > MOST_STEPS:
        problem = f"a trend goes over at most {MOST_STEPS:,} steps"
    if problem is not None:
        return failed(problem)
    leaf = own.subject.leaf(node.metric, node.steps)
    if leaf is None:
        series = own.subject.empty(node.metric)
        return _time_series(own, node.metric, ((one.labels, one.values) for one in series))
    seconds = node.steps * own.subject.buckets.step.seconds if node.is_rate else 1
    return _time_series(
        own,
        node.metric,
        (
            (
                one.labels,
                finite((one.values[node.steps :] - one.values[: -node.steps]) / seconds),
            )
            for one in own.leaves[leaf]
        ),
    )


def _top_n(own: Evaluator, node: TopN) -> ExpressionResult:
    problem = own.subject.problem(node.metric, is_list=True)
    if problem is None and node.count == 0:
        problem = "TopN value must be > 0."
    if problem is None and node.count > LONGEST_LIST:
        problem = f"top_n gives at most {LONGEST_LIST:,} entities"
    if problem is not None:
        return failed(problem)
    top = own.subject.top(node)
    ranked = () if top is None else own.tops[top]
    series = ResultSeries(
        (),
        np.array([one.value for one in ranked], dtype=np.float64),
        tuple(_shown(one.entity, is_global=own.subject.is_global) for one in ranked),
        tuple(one.entity for one in ranked),
    )
    return ExpressionResult(ResultType.SORTED_LIST, (series,))


def _top_n_of(own: Evaluator, node: TopNOf) -> ExpressionResult:
    values: list[float] = []
    ids: list[str | None] = []
    owners: list[EntityName] = []
    for one in node.lists:
        found = own.evaluate(one)
        if found.error is not None:
            return found
        values += found.series[0].values.tolist()
        ids += found.series[0].ids
        owners += found.series[0].owners
    if node.count == 0:
        return failed("TopN value must be > 0.")
    sign = -1 if node.order is Order.LARGEST else 1
    places = sorted(range(len(values)), key=lambda at: sign * values[at])[: node.count]
    series = ResultSeries(
        (),
        np.array([values[at] for at in places], dtype=np.float64),
        tuple(ids[at] for at in places),
        tuple(owners[at] for at in places),
    )
    return ExpressionResult(ResultType.SORTED_LIST, (series,))


def _view_as_seq(own: Evaluator, node: ViewAsSequence) -> ExpressionResult:
    first = None
    for operand in node.operands:
        found = own.evaluate(operand)
        if found.error is None and found.has_value:
            return found
        first = first or found
    return first or failed("there is nothing to view")


def _is_present(own: Evaluator, node: IsPresent) -> ExpressionResult:
    found = map(own.evaluate, node.operands)
    return single(any(one.error is None and one.has_value for one in found))


def _relabel(own: Evaluator, node: Relabel) -> ExpressionResult:
    found = own.evaluate(node.operand)
    return found if found.error else functions.relabelled(found, node.old, node.new)


def _aggregate_labels(own: Evaluator, node: AggregateLabels) -> ExpressionResult:
    found = own.evaluate(node.operand)
    if found.error is not None:
        return found
    return functions.aggregate_labels(found, node.function, node.labels)


def _sort_values(own: Evaluator, node: SortValues) -> ExpressionResult:
    found = own.evaluate(node.operand)
    if found.error is not None:
        return found
    return functions.sorted_by_values(found, node.function, node.order, node.count)


def _sort_label_values(own: Evaluator, node: SortLabelValues) -> ExpressionResult:
    found = own.evaluate(node.operand)
    return found if found.error else functions.sorted_by_labels(found, node.order, node.labels)


def _baseline(own: Evaluator, node: Baseline) -> ExpressionResult:
    metric = own.subject.catalogue.get(node.metric.name)
    if metric is None or metric.is_histogram:
        return failed(own.subject.problem(node.metric) or "")
    series = own.subject.empty(node.metric)
    return _time_series(own, node.metric, ((one.labels, one.values) for one in series))


_EVALUATIONS: Final[Mapping[type, Callable[[Evaluator, Any], ExpressionResult]]] = {
    Number: _number,
    MetricName: _metric,
    Operation: _operation,
    Aggregate: _aggregate,
    Mathematical: _mathematical,
    Round: _round,
    Trend: _trend,
    TopN: _top_n,
    TopNOf: _top_n_of,
    ViewAsSequence: _view_as_seq,
    IsPresent: _is_present,
    Relabel: _relabel,
    AggregateLabels: _aggregate_labels,
    SortValues: _sort_values,
    SortLabelValues: _sort_label_values,
    Baseline: _baseline,
}


def _is_asked(labels: Labels, name: MetricName) -> bool:
    """Tell whether a series is one of those that labels are asked for: values OR, labels AND."""
    wanted: dict[str, set[str]] = {}
    for label in name.labels:
        wanted.setdefault(label.name, set()).update(label.values)
    own = dict(labels)
    return all(own.get(label) in values for label, values in wanted.items() if values)


def _shown(entity: EntityName, *, is_global: bool) -> str:
    """Return the name of an entity in a list."""
    if entity.is_relation:
        return f"{' - '.join(entity.source.names)} -> {' - '.join(entity.dest.names)}"
    is_part = entity.scope in {INSTANCE, ENDPOINT}
    return " - ".join(entity.names) if is_global and is_part else entity.own_name
