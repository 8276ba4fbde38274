"""Aggregations: series that share labels become one, step by step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from framewalk.queries.promql.functions import check_label
from framewalk.queries.promql.ranges import quantile
from framewalk.queries.promql.series import (
    MOST_SERIES,
    NAME,
    Bools,
    ExecutionError,
    Floats,
    Labels,
    Scalar,
    Vector,
    check_size,
    labels_of,
    nothing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from framewalk.queries.promql.series import Ints, Notes

_INT64_LARGEST: Final = 9.2e18


@dataclass(frozen=True, slots=True)
class Grouping:
    """By which labels series are grouped, or without which."""

    names: tuple[str, ...] = ()
    is_without: bool = False

    def keeps(self, name: str) -> bool:
        """Whether groups have a label."""
        if self.is_without:
            return name != NAME and name not in self.names
        return name in self.names

    def of(self, labels: Labels) -> Labels:
        """Return the labels of a series' group."""
        return tuple(pair for pair in labels if self.keeps(pair[0]))


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Series in the order of their groups; `starts` has the first of each group."""

    labels: tuple[Labels, ...]
    order: Ints
    starts: Ints

    @classmethod
    def of(cls, vector: Vector, grouping: Grouping) -> _Groups:
        numbers: dict[Labels, int] = {}
        groups = [numbers.setdefault(grouping.of(one), len(numbers)) for one in vector.labels]
        order = np.argsort(groups, kind="stable")
        starts = np.searchsorted(np.asarray(groups)[order], np.arange(len(numbers)))
        return cls(tuple(numbers), order.astype(np.int64), starts.astype(np.int64))

    def reduced(self, function: np.ufunc, values: Floats) -> Floats:
        """Return a function of the values of each group."""
        found: Floats = function.reduceat(values[self.order], self.starts, axis=0)
        return found

    def spread(self, values: Floats) -> Floats:
        """Return for each series the value of its group."""
        sizes = np.diff(self.starts, append=len(self.order))
        found = np.empty((len(self.order), values.shape[1]))
        found[self.order] = np.repeat(values, sizes, axis=0)
        return found

    @property
    def members(self) -> list[Ints]:
        """The series of each group."""
        return np.split(self.order, self.starts[1:])


def _filled(vector: Vector, empty: float) -> Floats:
    return np.where(vector.present, vector.values, empty)


def _sum(vector: Vector, groups: _Groups) -> Floats:
    return groups.reduced(np.add, _filled(vector, 0.0))


def _count(vector: Vector, groups: _Groups) -> Floats:
    return groups.reduced(np.add, vector.present.astype(np.float64))


def _average(vector: Vector, groups: _Groups) -> Floats:
    return _sum(vector, groups) / np.maximum(_count(vector, groups), 1)


def _variance(vector: Vector, groups: _Groups) -> Floats:
    away = vector.with_values(vector.values - groups.spread(_average(vector, groups)))
    return _average(away.with_values(away.values**2), groups)


# NaN is passed over where there are other values, as in Prometheus.
_PLAIN: Final[Mapping[str, Callable[[Vector, _Groups], Floats]]] = {
    "sum": _sum,
    "avg": _average,
    "count": _count,
    "min": lambda vector, groups: groups.reduced(np.fmin, _filled(vector, np.nan)),
    "max": lambda vector, groups: groups.reduced(np.fmax, _filled(vector, np.nan)),
    "group": lambda vector, groups: np.ones((len(groups.labels), vector.values.shape[1])),
    "stdvar": _variance,
    "stddev": lambda vector, groups: np.sqrt(_variance(vector, groups)),
}
_KEEPS_KIND: Final = frozenset({"avg", "min", "max"})
PLAIN: Final = frozenset(_PLAIN)


def plain(name: str, vector: Vector, grouping: Grouping, notes: Notes) -> Vector:
    """Return the aggregation of `PLAIN`; tells where a sum has no meaning."""
    if not vector.labels:
        return nothing(vector.values.shape[1])
    _tell(name, vector, notes)
    groups = _Groups.of(vector, grouping)
    with np.errstate(all="ignore"):
        values = _PLAIN[name](vector, groups)
    kept = vector.unsummable if name in _KEEPS_KIND else frozenset[str]()
    return Vector(groups.labels, values, _count(vector, groups) > 0, kept)


def _tell(name: str, vector: Vector, notes: Notes) -> None:
    kinds = ", ".join(sorted(vector.unsummable))
    if name == "sum" and kinds:
        notes.inform(
            f"sum adds up {kinds}, which has no meaning; weigh means by their counts: "
            "sum(mean * count) / sum(count)"
        )
    if name == "avg" and any("percentile" in one for one in vector.unsummable):
        notes.inform(f"avg of {kinds} is no percentile of all; max is a bound of it")


def of_quantile(vector: Vector, rank: Scalar, grouping: Grouping) -> Vector:
    """Return a quantile of each group."""
    if not vector.labels:
        return nothing(vector.values.shape[1])
    groups = _Groups.of(vector, grouping)
    rows = [
        quantile(vector.values[own], vector.present[own], rank.values) for own in groups.members
    ]
    return Vector(groups.labels, np.array(rows), _count(vector, groups) > 0, vector.unsummable)


def of_extremes(
    vector: Vector, count: Scalar, grouping: Grouping, *, largest: bool, is_instant: bool
) -> Vector:
    """Return the series with the largest or smallest values of each group, step by step.

    What is equal goes by the order of the series; NaN comes last.
    """
    if not vector.labels:
        return nothing(vector.values.shape[1])
    wanted = np.clip(np.nan_to_num(count.values, nan=0.0), 0, MOST_SERIES)
    present = np.zeros_like(vector.present)
    for own in _Groups.of(vector, grouping).members:
        present[own] = _first(vector.values[own], vector.present[own], wanted, largest=largest)
    found = vector.with_values(vector.values, present).without_empty()
    if not is_instant or not found.labels:
        return found
    return _in_order(found, grouping, largest=largest)


def _first(values: Floats, present: Bools, wanted: Floats, *, largest: bool) -> Bools:
    keys = -values if largest else values
    # Two keys: what is absent after NaN, and that after all numbers.
    last = np.where(present, np.isnan(values).astype(np.int8), np.int8(2))
    order = np.lexsort((np.nan_to_num(keys, nan=0.0), last), axis=0)
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(len(values))[:, np.newaxis], axis=0)
    found: Bools = (places < np.floor(wanted)) & present
    return found


def _in_order(vector: Vector, grouping: Grouping, *, largest: bool) -> Vector:
    last = vector.values[:, -1]
    values = np.where(np.isnan(last), np.inf, -last if largest else last)
    numbers: dict[Labels, int] = {}
    groups = [numbers.setdefault(grouping.of(one), len(numbers)) for one in vector.labels]
    return replace(vector.chosen(np.lexsort((values, np.asarray(groups)))), is_ordered=True)


def count_values(vector: Vector, label: str, grouping: Grouping) -> Vector:
    """Return for each value how many series of a group have it, with the value as a label."""
    check_label(label)
    if not vector.labels:
        return nothing(vector.values.shape[1])
    labels: list[Labels] = []
    rows: list[Floats] = []
    groups = _Groups.of(vector, grouping)
    for group, own in zip(groups.labels, groups.members, strict=True):
        values, present = vector.values[own], vector.present[own]
        for value in np.unique(values[present]).tolist():
            same = np.isnan(values) if np.isnan(value) else values == value
            kept = (pair for pair in group if pair[0] != label)
            labels.append(labels_of([*kept, (label, number_text(value))]))
            rows.append((same & present).sum(axis=0).astype(np.float64))
            check_size(len(rows), values.shape[1])
            if len(rows) > MOST_SERIES:
                problem = f"count_values gives more than {MOST_SERIES:,} series"
                raise ExecutionError(problem, "round the values first")
    if not rows:
        return nothing(vector.values.shape[1])
    counted = np.array(rows)
    return Vector(tuple(labels), counted, counted > 0)


def number_text(value: float) -> str:
    """Return a number as Prometheus writes it."""
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if float(value).is_integer() and abs(value) < _INT64_LARGEST:
        return str(int(value)) if value or not np.signbit(value) else "-0"
    return np.format_float_positional(value, trim="-")
