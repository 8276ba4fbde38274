"""A tree is evaluated: each node's arrays are made of those below it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import promql_parser as tree

from framewalk.queries.metrics import Step
from framewalk.queries.promql import aggregation, functions, matching, ranges
from framewalk.queries.promql.parsing import explained
from framewalk.queries.promql.reading import Span, kind_of, unsummable
from framewalk.queries.promql.selectors import SPECIAL, TOP_N, matchers_of
from framewalk.queries.promql.series import (
    Notes,
    PromqlError,
    Scalar,
    Text,
    Timeline,
    Vector,
    Windows,
    check_size,
    merged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from framewalk.queries.promql.reading import Buckets, Source
    from framewalk.queries.promql.selectors import Matcher
    from framewalk.queries.promql.series import Ints, Value

    TopLists = Callable[[Sequence[Matcher], Timeline], Vector]

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
# A thousand years.
_MOST_MS: Final = 1_000 * 366 * _DAY_MS
_PAUSE_EVERY_S: Final = 0.2
_DOC: Final = "docs/promql.md lists what is"
_HISTOGRAMS: Final = (
    'percentiles are labels: use the metric with p="99", or kubernetes_..._percentile'
)
_ABSENT: Final = "absent_over_time"
_QUANTILE: Final = "quantile_over_time"


def resolution(length_ms: int | None) -> Step:
    """Return the buckets that are read for steps, or ranges, of a length; None is an instant."""
    if length_ms is None or length_ms < _HOUR_MS:
        return Step.MINUTE
    return Step.HOUR if length_ms < _DAY_MS else Step.DAY


@dataclass(slots=True)
class Evaluation:
    """One query over a source of series."""

    source: Source
    timeline: Timeline
    top_lists: TopLists | None = None
    notes: Notes = field(default_factory=Notes)
    _paused_s: float = field(default_factory=time.monotonic)

    def of(self, node: tree.Expr) -> Value:
        """Return what a tree amounts to. Raises PromqlError, ExecutionError, duckdb.Error."""
        if time.monotonic() - self._paused_s > _PAUSE_EVERY_S:
            self.source.pause()
            self._paused_s = time.monotonic()
        name = type(node).__name__
        if name not in _NODES:
            problem = f"{_KINDS.get(name, name)} are not supported"
            raise PromqlError(problem, _DOC)
        return _NODES[name](self, node)

    def vector(self, node: tree.Expr) -> Vector:
        """Return what a tree amounts to, where only a vector will do."""
        value = self.of(node)
        if not isinstance(value, Vector):
            problem = "an instant vector is expected here"
            raise PromqlError(problem)
        return value

    def scalar(self, node: tree.Expr) -> Scalar:
        """Return what a tree amounts to, where only a number will do."""
        value = self.of(node)
        if not isinstance(value, Scalar):
            problem = "a scalar is expected here"
            raise PromqlError(problem)
        return value

    def text(self, node: tree.Expr) -> str:
        """Return what a tree amounts to, where only a text will do."""
        value = self.of(node)
        if not isinstance(value, Text):
            problem = "a string is expected here"
            raise PromqlError(problem)
        return value.value

    def number(self, value: float) -> Scalar:
        """Return the same number for each step."""
        return Scalar(np.full(self.timeline.count, value))

    def times_ms(self, selector: tree.VectorSelector) -> Ints:
        """Return the times that a selector is read for: moved, or held, as it says."""
        times = self.timeline.times_ms
        with explained():
            held_ms = None if selector.at is None else self._held_at(selector.at)
            offset = selector.offset
        if held_ms is not None:
            times = np.full_like(times, _bounded(held_ms))
        if offset is not None:
            times = times - _bounded(round(offset.total_seconds() * 1_000))
        return times

    def _held_at(self, at: tree.AtModifier) -> int:
        if at.type == tree.AtModifierType.Start:
            return int(self.timeline.times_ms[0])
        if at.type == tree.AtModifierType.End or at.at is None:
            return int(self.timeline.times_ms[-1])
        return round(at.at.timestamp() * 1_000)

    def buckets(
        self, matchers: Sequence[Matcher], times_ms: Ints, length_ms: int, step: Step
    ) -> Buckets:
        """Return the series of all buckets that times look back at."""
        first = int(times_ms.min()) - length_ms + 1
        return self.source.read(matchers, first, int(times_ms.max()), step, self.notes)

    def kinds(self, buckets: Buckets) -> frozenset[str]:
        """Return what of some series cannot be summed, as it is told."""
        metrics = {one.name: one for one in buckets.metrics}
        return frozenset(
            f"{kind_of(one)} ({one.name})" for one in metrics.values() if unsummable(one)
        )


def _bounded(time_ms: int) -> int:
    if abs(time_ms) > _MOST_MS:
        problem = "a time or an offset is out of range"
        raise PromqlError(problem)
    return time_ms


def evaluate(
    node: tree.Expr, source: Source, timeline: Timeline, top_lists: TopLists | None = None
) -> tuple[Value, Notes]:
    """Return what a query amounts to, and what is told beside it.

    A range of buckets is an answer of an instant query only. Raises PromqlError, ExecutionError,
    duckdb.Error.
    """
    evaluation = Evaluation(source, timeline, top_lists)
    value = evaluation.of(node)
    if isinstance(value, Windows) and not timeline.is_instant:
        problem = "a range vector is no answer of a range query"
        raise PromqlError(problem, "ask for an instant, or put a function such as avg_over_time")
    if isinstance(value, Text) and not timeline.is_instant:
        problem = "a string is no answer of a range query"
        raise PromqlError(problem, "ask for an instant")
    if isinstance(value, Vector):
        value = merged(value).without_empty()
    return value, evaluation.notes


def _number(evaluation: Evaluation, node: tree.NumberLiteral) -> Scalar:
    return evaluation.number(node.val)


def _string(_evaluation: Evaluation, node: tree.StringLiteral) -> Text:
    return Text(node.val)


def _parentheses(evaluation: Evaluation, node: tree.ParenExpr) -> Value:
    return evaluation.of(node.expr)


def _negated(evaluation: Evaluation, node: tree.UnaryExpr) -> Value:
    value = evaluation.of(node.expr)
    if isinstance(value, Scalar):
        return Scalar(-value.values)
    if isinstance(value, Vector):
        return merged(value.with_values(-value.values).without_name())
    problem = "only numbers and instant vectors can be negated"
    raise PromqlError(problem)


def _selected(evaluation: Evaluation, node: tree.VectorSelector) -> Vector:
    matchers = matchers_of(node)
    if any(one.name == TOP_N for one in matchers) and evaluation.top_lists is not None:
        return evaluation.top_lists(matchers, evaluation.timeline)
    vector, _ = _instants(evaluation, node, matchers)
    return vector


def _instants(
    evaluation: Evaluation, node: tree.VectorSelector, matchers: Sequence[Matcher]
) -> tuple[Vector, Vector]:
    """Return the newest value that each step looks back at, and when its bucket began (s)."""
    timeline, times_ms = evaluation.timeline, evaluation.times_ms(node)
    step = resolution(timeline.step_ms)
    buckets = evaluation.buckets(matchers, times_ms, timeline.looks_back_ms, step)
    return _newest(evaluation, buckets, times_ms)


def _newest(evaluation: Evaluation, buckets: Buckets, times_ms: Ints) -> tuple[Vector, Vector]:
    timeline = evaluation.timeline
    back_ms = timeline.looks_back_ms
    windows = _windows(buckets, times_ms, back_ms, frozenset())
    check_size(len(buckets.labels), timeline.count)
    values, present = ranges.OVER_TIME["last_over_time"](windows)
    vector = Vector(buckets.labels, values, present, evaluation.kinds(buckets))
    began = np.zeros_like(values)
    if len(buckets.times_ms):
        began = buckets.times_ms[ranges.edge_of(windows, last=True)] / 1_000
    return vector, vector.with_values(began)


def _windows(buckets: Buckets, times_ms: Ints, length_ms: int, kinds: frozenset[str]) -> Windows:
    count = len(buckets.times_ms)
    origin = int(buckets.times_ms[0]) if count else 0
    end = np.clip((times_ms - origin) // buckets.step_ms + 1, 0, count)
    first = np.clip((times_ms - length_ms - origin) // buckets.step_ms + 1, 0, count)
    is_rate = np.array([one.is_additive for one in buckets.metrics], dtype=np.bool_)
    return Windows(
        labels=buckets.labels,
        values=buckets.values,
        present=buckets.present,
        times_ms=buckets.times_ms,
        # A minute's value is what was in it, and needs no weight.
        minutes=buckets.minutes,
        first=first.astype(np.intp),
        end=end.astype(np.intp),
        range_s=length_ms / 1_000,
        is_rate=is_rate,
        unsummable=kinds,
    )


def _ranges(evaluation: Evaluation, node: tree.MatrixSelector) -> Windows:
    selector = node.vector_selector
    matchers = matchers_of(selector)
    for one in matchers:
        if one.name in SPECIAL:
            problem = f"the label {one.name} makes no range"
            raise PromqlError(problem, "leave [...] or it out")
    with explained():
        length_ms = _bounded(round(node.range.total_seconds() * 1_000))
    step_ms = evaluation.timeline.step_ms
    shortest = None if step_ms is None else min(step_ms, length_ms)
    times_ms = evaluation.times_ms(selector)
    buckets = evaluation.buckets(matchers, times_ms, length_ms, resolution(shortest))
    check_size(len(buckets.labels), evaluation.timeline.count)
    kinds = evaluation.kinds(buckets)
    if not kinds:
        # Also of what has no series now: a query is refused today as it will be tomorrow.
        chosen = evaluation.source.metrics(matchers, Notes())
        kinds = frozenset(f"{kind_of(one)} ({one.name})" for one in chosen if unsummable(one))
    return _windows(buckets, times_ms, length_ms, kinds)


def _aggregated(evaluation: Evaluation, node: tree.AggregateExpr) -> Vector:
    name = str(node.op)
    grouping = _grouping(node.modifier)
    if name == "avg" and (of_all := _of_all(evaluation, node.expr, grouping)) is not None:
        return of_all
    vector = evaluation.vector(node.expr)
    parameter: Any = node.param
    if name in aggregation.PLAIN:
        return aggregation.plain(name, vector, grouping, evaluation.notes)
    if name == "quantile":
        return aggregation.of_quantile(vector, evaluation.scalar(parameter), grouping)
    if name == "count_values":
        return aggregation.count_values(vector, evaluation.text(parameter), grouping)
    if name in {"topk", "bottomk"}:
        count = evaluation.scalar(parameter)
        return aggregation.of_extremes(
            vector,
            count,
            grouping,
            largest=name == "topk",
            is_instant=evaluation.timeline.is_instant,
        )
    problem = f"the aggregation {name} is not supported"
    raise PromqlError(problem, _DOC)


def _of_all(
    evaluation: Evaluation, node: tree.Expr, grouping: aggregation.Grouping
) -> Vector | None:
    """Return means or percentiles of groups by their states: each is that of all that was counted.

    None of what is no selector of such a metric; then values are averaged.
    """
    while isinstance(node, tree.ParenExpr):
        node = node.expr
    if not isinstance(node, tree.VectorSelector):
        return None
    matchers = matchers_of(node)
    if any(one.name in SPECIAL for one in matchers):
        return None
    timeline, times_ms = evaluation.timeline, evaluation.times_ms(node)
    first_ms = int(times_ms.min()) - timeline.looks_back_ms + 1
    span = Span(first_ms, int(times_ms.max()), resolution(timeline.step_ms))
    buckets = evaluation.source.read_groups(matchers, grouping, span, evaluation.notes)
    if buckets is None:
        return None
    vector, _ = _newest(evaluation, buckets, times_ms)
    for kind in sorted(vector.unsummable):
        evaluation.notes.inform(f"avg of {kind} is of all that each group has: states are merged")
    return vector


def _grouping(modifier: tree.AggModifier | None) -> aggregation.Grouping:
    if modifier is None:
        return aggregation.Grouping()
    is_without = modifier.type == tree.AggModifierType.Without
    return aggregation.Grouping(tuple(modifier.labels), is_without)


def _operated(evaluation: Evaluation, node: tree.BinaryExpr) -> Value:
    name = str(node.op)
    modifier = node.modifier
    left, right = evaluation.of(node.lhs), evaluation.of(node.rhs)
    if name in matching.SETS:
        if not isinstance(left, Vector) or not isinstance(right, Vector):
            problem = f"{name} is an operator of two vectors"
            raise PromqlError(problem)
        return matching.of_sets(name, left, right, _matching(modifier))
    if name not in matching.ARITHMETIC and name not in matching.COMPARISONS:
        problem = f"the operator {name} is not supported"
        raise PromqlError(problem, _DOC)
    operator = matching.Operator(name, modifier is not None and modifier.return_bool)
    if isinstance(left, Scalar) and isinstance(right, Scalar):
        return matching.of_scalars(operator, left, right)
    if isinstance(left, Vector) and isinstance(right, Scalar):
        return matching.with_scalar(operator, left, right, swapped=False)
    if isinstance(left, Scalar) and isinstance(right, Vector):
        return matching.with_scalar(operator, right, left, swapped=True)
    if isinstance(left, Vector) and isinstance(right, Vector):
        return matching.of_vectors(operator, left, right, _matching(modifier))
    problem = f"{name} is an operator of numbers and instant vectors"
    raise PromqlError(problem)


_MANY: Final = (
    (tree.VectorMatchCardinality.ManyToOne, "left"),
    (tree.VectorMatchCardinality.OneToMany, "right"),
)


def _matching(modifier: tree.BinModifier | None) -> matching.Matching:
    if modifier is None:
        return matching.Matching()
    fill = modifier.fill_values
    if fill is not None and (fill.lhs is not None or fill.rhs is not None):
        problem = "fill modifiers are not supported"
        raise PromqlError(problem, "use `or`")
    names: tuple[str, ...] = ()
    is_on = False
    if modifier.matching is not None:
        names = tuple(modifier.matching.labels)
        is_on = modifier.matching.type == tree.LabelModifierType.Include
    many = next((side for card, side in _MANY if card == modifier.card), "")
    return matching.Matching(names, is_on, many, tuple(modifier.group_labels or ()))


def _called(evaluation: Evaluation, node: tree.Call) -> Value:
    name, arguments = node.func.name, list(node.args)
    if name in ranges.OVER_TIME or name in ranges.OF_COUNTERS:
        return _over_time(evaluation, name, arguments[0])
    if name in functions.OF_VALUES:
        numbers = [evaluation.scalar(one) for one in arguments[1:]]
        return functions.of_values(name, evaluation.vector(arguments[0]), numbers)
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](evaluation, arguments)
    if name.startswith("histogram_"):
        problem = f"{name} is not supported"
        raise PromqlError(problem, _HISTOGRAMS)
    problem = f"the function {name} is not supported"
    raise PromqlError(problem, _DOC)


def _windows_of(evaluation: Evaluation, node: tree.Expr) -> Windows:
    value = evaluation.of(node)
    if not isinstance(value, Windows):
        problem = "a range vector is expected here"
        raise PromqlError(problem, "put [5m] behind the selector")
    return value


def _over_time(evaluation: Evaluation, name: str, argument: tree.Expr) -> Vector:
    windows = _windows_of(evaluation, argument)
    if name in ranges.OF_COUNTERS:
        return merged(ranges.of_counters(name, windows, evaluation.notes))
    return merged(ranges.over_time(name, windows, evaluation.notes))


def _quantile_over_time(evaluation: Evaluation, arguments: Sequence[tree.Expr]) -> Vector:
    rank = evaluation.scalar(arguments[0])
    return merged(ranges.quantile_over_time(_windows_of(evaluation, arguments[1]), rank))


def _asked_labels(node: tree.Expr) -> list[Matcher]:
    while isinstance(node, tree.ParenExpr):
        node = node.expr
    if isinstance(node, tree.MatrixSelector):
        node = node.vector_selector
    return matchers_of(node) if isinstance(node, tree.VectorSelector) else []


def _absent(evaluation: Evaluation, arguments: Sequence[tree.Expr]) -> Vector:
    vector = evaluation.vector(arguments[0])
    return functions.absent(vector, _asked_labels(arguments[0]), evaluation.timeline.count)


def _absent_over_time(evaluation: Evaluation, arguments: Sequence[tree.Expr]) -> Vector:
    windows = _windows_of(evaluation, arguments[0])
    there = ranges.over_time("present_over_time", windows, evaluation.notes)
    return functions.absent(there, _asked_labels(arguments[0]), evaluation.timeline.count)


def _timestamp(evaluation: Evaluation, arguments: Sequence[tree.Expr]) -> Vector:
    node = arguments[0]
    while isinstance(node, tree.ParenExpr):
        node = node.expr
    if isinstance(node, tree.VectorSelector):
        _, began = _instants(evaluation, node, matchers_of(node))
        return merged(began.without_name())
    vector = evaluation.vector(node)
    times = np.broadcast_to(evaluation.timeline.times_ms / 1_000, vector.values.shape)
    return merged(vector.with_values(times.copy()).without_name())


def _time(evaluation: Evaluation, _arguments: Sequence[tree.Expr]) -> Scalar:
    return Scalar(evaluation.timeline.times_ms / 1_000)


def _vector(evaluation: Evaluation, arguments: Sequence[tree.Expr]) -> Vector:
    values = evaluation.scalar(arguments[0]).values[np.newaxis, :]
    return Vector(((),), values, np.ones(values.shape, dtype=np.bool_))


def _scalar(evaluation: Evaluation, arguments: Sequence[tree.Expr]) -> Scalar:
    return functions.scalar(evaluation.vector(arguments[0]))


def _sorted(evaluation: Evaluation, arguments: Sequence[tree.Expr], *, descending: bool) -> Vector:
    vector = evaluation.vector(arguments[0])
    if not evaluation.timeline.is_instant or not vector.labels:
        return vector
    return functions.sorted_by_value(vector.without_empty(), descending=descending)


def _label_replace(evaluation: Evaluation, arguments: Sequence[tree.Expr]) -> Vector:
    target, replacement, source, pattern = map(evaluation.text, arguments[1:])
    wanted = functions.Replacement(target, replacement, source, pattern)
    vector = evaluation.vector(arguments[0])
    return functions.label_replace(vector, wanted, evaluation.source.regexes)


def _label_join(evaluation: Evaluation, arguments: Sequence[tree.Expr]) -> Vector:
    target, separator, *sources = map(evaluation.text, arguments[1:])
    return functions.label_join(evaluation.vector(arguments[0]), target, separator, sources)


_FUNCTIONS: Final[Mapping[str, Callable[[Evaluation, Sequence[tree.Expr]], Value]]] = {
    "absent": _absent,
    _ABSENT: _absent_over_time,
    "label_join": _label_join,
    "label_replace": _label_replace,
    _QUANTILE: _quantile_over_time,
    "scalar": _scalar,
    "sort": lambda evaluation, arguments: _sorted(evaluation, arguments, descending=False),
    "sort_desc": lambda evaluation, arguments: _sorted(evaluation, arguments, descending=True),
    "time": _time,
    "timestamp": _timestamp,
    "vector": _vector,
}
_NODES: Final[Mapping[str, Callable[[Evaluation, Any], Value]]] = {
    "AggregateExpr": _aggregated,
    "BinaryExpr": _operated,
    "Call": _called,
    "MatrixSelector": _ranges,
    "NumberLiteral": _number,
    "ParenExpr": _parentheses,
    "StringLiteral": _string,
    "UnaryExpr": _negated,
    "VectorSelector": _selected,
}
_KINDS: Final = {"SubqueryExpr": "subqueries"}
