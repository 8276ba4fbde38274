"""Functions of one result (mqe.md, section 5)."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, Final

import numpy as np

from framewalk.queries.metrics import Order
from framewalk.queries.mqe.results import (
    ExpressionResult,
    ResultSeries,
    ResultType,
    failed,
    finite,
)
from framewalk.queries.mqe.syntax import Aggregation, Mathematics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from framewalk.queries.metrics import Labels, Values
    from framewalk.queries.mqe.syntax import Label


def aggregate(function: Aggregation, result: ExpressionResult) -> ExpressionResult:
    """Return one value of each series, of those of its values that are not empty."""
    if function is Aggregation.LATEST and result.type is not ResultType.TIME_SERIES_VALUES:
        return failed("latest takes a time series, and this is none")
    return ExpressionResult(
        ResultType.SINGLE_VALUE,
        tuple(_aggregated(function, one) for one in result.series),
        is_labelled=result.is_labelled,
    )


def _aggregated(function: Aggregation, series: ResultSeries) -> ResultSeries:
    place = _PLACES.get(function)
    if place is None:
        value = _value(function, series.values)
        return ResultSeries(series.labels, finite(np.array([value], dtype=np.float64)))
    at = place(series.values)
    if at is None:
        return ResultSeries(series.labels, np.full(1, np.nan))
    chosen = slice(at, at + 1)
    return ResultSeries(
        series.labels, series.values[chosen], series.ids[chosen], series.owners[chosen]
    )


def _value(function: Aggregation, values: Values) -> float:
    """Return an aggregate of values; of none NaN, but for a sum or a count."""
    held = values[~np.isnan(values)]
    if function is Aggregation.COUNT:
        return held.size
    with np.errstate(all="ignore"):
        if function is Aggregation.SUM:
            return float(held.sum())
        if not held.size:
            return float("nan")
        if function is Aggregation.AVG:
            return float(held.sum()) / held.size
    place = _PLACES[function](values)
    return float("nan") if place is None else float(values[place])


def _first_of(extreme: Callable[[Values], np.intp]) -> Callable[[Values], int | None]:
    def place(values: Values) -> int | None:
        return None if np.isnan(values).all() else int(extreme(values))

    return place


def _last(values: Values) -> int | None:
    held = np.flatnonzero(~np.isnan(values))
    return int(held[-1]) if held.size else None


# Where the value stands that is chosen: the first of equal ones.
_PLACES: Final[Mapping[Aggregation, Callable[[Values], int | None]]] = {
    Aggregation.MAX: _first_of(np.nanargmax),
    Aggregation.MIN: _first_of(np.nanargmin),
    Aggregation.LATEST: _last,
}


def mathematical(function: Mathematics, result: ExpressionResult) -> ExpressionResult:
    """Return a function of each value."""
    compute = _MATHEMATICS[function]
    return result.with_values([compute(one.values) for one in result.series])


_MATHEMATICS: Final[Mapping[Mathematics, Callable[[Values], Values]]] = {
    Mathematics.ABS: np.abs,
    Mathematics.CEIL: np.ceil,
    Mathematics.FLOOR: np.floor,
}


def rounded(result: ExpressionResult, places: int) -> ExpressionResult:
    """Return values with so many decimals: half away from zero, of their shortest decimal text."""
    values = [
        np.array([_round(value, places) for value in one.values.tolist()], dtype=np.float64)
        for one in result.series
    ]
    return result.with_values(values)


# The digits of the largest double, and more decimals than the shortest text of any has.
_EXACT: Final = Context(prec=400, rounding=ROUND_HALF_UP)
# Beyond this many decimals a double is what it is; values as large have none that count.
_MOST_PLACES: Final = 330
_NEAR_HALF: Final = 1e-6
_MOST_SCALED: Final = 1e9


def _round(value: float, places: int) -> float:
    if value != value or places > _MOST_PLACES:  # noqa: PLR0124 - NaN, and cheap
        return value
    if places <= sys.float_info.dig:
        scaled = abs(value) * 10.0**places
        if scaled < _MOST_SCALED and abs(scaled % 1 - 0.5) > _NEAR_HALF:
            return round(value, places)
    number = Decimal(repr(value))
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or -exponent <= places:
        return value
    return float(number.quantize(Decimal(1).scaleb(-places), context=_EXACT))


def relabelled(result: ExpressionResult, old: Label, new: Label) -> ExpressionResult:
    """Return series with label `old` under the name of `new`, its values replaced by position."""
    if not result.is_labelled:
        return replace(result, error=_NOT_LABELLED.format("relabels"))
    if len(old.values) != len(new.values):
        problem = (
            f"relabels: label {old.name} has {len(old.values)} values and {new.name} has "
            f"{len(new.values)}; each needs its own"
        )
        return replace(result, error=problem)
    values = dict(zip(old.values, new.values, strict=True))

    def changed(name: str, value: str) -> tuple[str, str]:
        is_named = name == old.name and value in values
        return (new.name, values[value]) if is_named else (name, value)

    return result.with_series(
        replace(one, labels=tuple(changed(*label) for label in one.labels)) for one in result.series
    )


_NOT_LABELLED: Final = "{} takes series with labels, and these have none"


def aggregate_labels(
    result: ExpressionResult, function: Aggregation, names: Sequence[str]
) -> ExpressionResult:
    """Return one series of those that agree in the named labels, value by value."""
    if not result.is_labelled:
        return replace(result, error=_NOT_LABELLED.format("aggregate_labels"))
    groups: dict[Labels, list[ResultSeries]] = {}
    for one in result.series:
        own = dict(one.labels)
        labels = tuple((name, own[name]) for name in dict.fromkeys(names) if name in own)
        groups.setdefault(labels, []).append(one)
    is_single = result.type is ResultType.SINGLE_VALUE
    merged = tuple(
        ResultSeries(
            labels, _by_place(function, group), () if is_single else group[0].ids, group[0].owners
        )
        for labels, group in groups.items()
    )
    is_labelled = not merged or any(one.labels for one in merged)
    return replace(result, series=merged, is_labelled=is_labelled, is_comparison=False)


def _by_place(function: Aggregation, group: Sequence[ResultSeries]) -> Values:
    rows = np.stack([one.values for one in group])
    is_held = ~np.isnan(rows)
    count = is_held.sum(axis=0)
    with np.errstate(all="ignore"):
        if function is Aggregation.MAX:
            merged = np.where(is_held, rows, -np.inf).max(axis=0)
        elif function is Aggregation.MIN:
            merged = np.where(is_held, rows, np.inf).min(axis=0)
        else:
            merged = np.where(is_held, rows, 0.0).sum(axis=0)
        if function is Aggregation.AVG:
            merged = merged / count
    return finite(np.where(count > 0, merged, np.nan))


def sorted_by_values(
    result: ExpressionResult, function: Aggregation, order: Order, count: int
) -> ExpressionResult:
    """Return the first series by a value of each; ties go by the average, empty ones come last."""
    if not result.is_labelled:
        return result
    sign = -1.0 if order is Order.LARGEST else 1.0

    def place(series: ResultSeries) -> tuple[bool, float, float]:
        if not series.has_value:
            return True, 0.0, 0.0
        value = _value(function, series.values)
        return False, sign * value, sign * _value(Aggregation.AVG, series.values)

    return result.with_series(sorted(result.series, key=place)[:count])


def sorted_by_labels(
    result: ExpressionResult, order: Order, names: Sequence[str]
) -> ExpressionResult:
    """Return series by the values of their labels, as numbers where all of a label are such."""
    texts = [[dict(one.labels).get(name, "") for one in result.series] for name in names]
    keys = [
        [float(text) for text in column] if all(map(_NUMBER.fullmatch, column)) else column
        for column in texts
    ]
    places = sorted(
        range(len(result.series)),
        key=lambda at: [column[at] for column in keys],
        reverse=order is Order.LARGEST,
    )
    return result.with_series(result.series[at] for at in places)


_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
