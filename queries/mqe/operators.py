"""Operators between two results (mqe.md, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from framewalk.queries.mqe.results import (
    ExpressionResult,
    ResultSeries,
    ResultType,
    failed,
    finite,
)
from framewalk.queries.mqe.syntax import Operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from framewalk.queries.metrics import Values

_SINGLE: Final = ResultType.SINGLE_VALUE


def combine(
    operator: Operator, left: ExpressionResult, right: ExpressionResult
) -> ExpressionResult:
    """Return the result of an operator; an error on the left goes before one on the right."""
    if left.error is not None:
        return left
    if right.error is not None:
        return right
    if operator.is_logical:
        for side, result in (("left", left), ("right", right)):
            if not result.is_comparison:
                return failed(f"what is {side} of {operator} is no comparison")
    kind = _kind(left.type, right.type)
    if kind is None:
        return failed(
            f"Unsupported binary operation: {_NAMES[left.type]} {operator} {_NAMES[right.type]}"
        )
    compute = _FUNCTIONS[operator]
    return ExpressionResult(
        kind,
        tuple(_series(compute, left, right)),
        is_labelled=left.is_labelled or right.is_labelled,
        is_comparison=operator.is_comparison,
    )


_NAMES: Final = {
    ResultType.SINGLE_VALUE: "a single value",
    ResultType.TIME_SERIES_VALUES: "a time series",
    ResultType.SORTED_LIST: "a sorted list",
    ResultType.UNKNOWN: "nothing",
}


def _kind(left: ResultType, right: ResultType) -> ResultType | None:
    if right is _SINGLE:
        return left
    if left is _SINGLE or (left is right and left is ResultType.TIME_SERIES_VALUES):
        return right
    return None


def _series(
    compute: Callable[[Values, Values], Values], left: ExpressionResult, right: ExpressionResult
) -> Iterator[ResultSeries]:
    are_plain_singles = left.type is right.type is _SINGLE and not (
        left.is_labelled or right.is_labelled
    )
    for one, other in _pairs(left, right):
        labels = one.labels if left.is_labelled else other.labels
        with np.errstate(all="ignore"):
            values = finite(compute(one.values, other.values))
        if are_plain_singles:
            yield ResultSeries(labels, values)
            continue
        # A list that is empty has no ids, and is of many all the same.
        is_left = _is_of_many(left, right) or (bool(one.ids) and not _is_of_many(right, left))
        many = one if is_left else other
        yield ResultSeries(labels, values, many.ids, many.owners)


def _is_of_many(side: ExpressionResult, other: ExpressionResult) -> bool:
    """Tell whether one side has several values and the other single ones."""
    return side.type is not _SINGLE and other.type is _SINGLE


def _pairs(
    left: ExpressionResult, right: ExpressionResult
) -> Iterator[tuple[ResultSeries, ResultSeries]]:
    """Yield the series that belong together, in the order of those whose labels are kept.

    Of two labelled results these are the left ones, or the many beside single values.
    """
    if left.is_labelled and right.is_labelled:
        if _is_of_many(right, left):
            partners = _by_labels(left)
            yield from ((_partner(other, partners), other) for other in right.series)
        else:
            partners = _by_labels(right)
            yield from ((one, _partner(one, partners)) for one in left.series)
    elif right.is_labelled:
        yield from ((left.series[0], other) for other in right.series)
    else:
        yield from ((one, right.series[0]) for one in left.series)


_Partners: TypeAlias = "Mapping[frozenset[tuple[str, str]], ResultSeries]"


def _by_labels(result: ExpressionResult) -> _Partners:
    """Return the series by their labels, whose order does not count; the first of equal ones."""
    return {frozenset(one.labels): one for one in reversed(result.series)}


def _partner(series: ResultSeries, partners: _Partners) -> ResultSeries:
    """Return the series with the same labels; an empty one if there is none."""
    found = partners.get(frozenset(series.labels))
    return found or ResultSeries(series.labels, np.full(1, np.nan))


def _comparing(compare: Callable[[Values, Values], Values]) -> Callable[[Values, Values], Values]:
    def compute(left: Values, right: Values) -> Values:
        is_empty = np.isnan(left) | np.isnan(right)
        return np.where(is_empty, np.nan, compare(left, right))

    return compute


_FUNCTIONS: Final[Mapping[Operator, Callable[[Values, Values], Values]]] = {
    Operator.PLUS: np.add,
    Operator.MINUS: np.subtract,
    Operator.TIMES: np.multiply,
    Operator.DIVIDE: np.divide,
    # Keeps the sign of the dividend, as C does.
    Operator.MODULO: np.fmod,
    Operator.EQUAL: _comparing(np.equal),
    Operator.UNEQUAL: _comparing(np.not_equal),
    Operator.LESS: _comparing(np.less),
    Operator.LESS_EQUAL: _comparing(np.less_equal),
    Operator.GREATER: _comparing(np.greater),
    Operator.GREATER_EQUAL: _comparing(np.greater_equal),
    Operator.AND: _comparing(np.logical_and),
    Operator.OR: _comparing(np.logical_or),
}
