"""Functions over ranges: a number per series and step, of the buckets that its range has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from framewalk.queries.promql.series import NAME, Bools, ExecutionError, Floats, Scalar, Vector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from framewalk.queries.promql.series import Notes, Windows

    _Function: TypeAlias = Callable[[Windows], tuple[Floats, Bools]]

_PER_MINUTE_S: Final = 60


def counts(windows: Windows) -> Floats:
    """Return how many values each range has (series x steps)."""
    running = np.zeros((windows.present.shape[0], windows.present.shape[1] + 1))
    np.cumsum(windows.present, axis=1, out=running[:, 1:])
    return running[:, windows.end] - running[:, windows.first]


def _reduced(windows: Windows, function: np.ufunc, values: Floats, empty: float) -> Floats:
    """Return a function of the values of each range; `empty` stands for what is not there."""
    steps = len(windows.first)
    held = np.full((values.shape[0], values.shape[1] + 1), empty)
    np.copyto(held[:, :-1], values, where=windows.present)
    # Pairs of a begin and an end; what lies between an end and the next begin is left out.
    bounds = np.empty(2 * steps, dtype=np.intp)
    bounds[::2], bounds[1::2] = windows.first, windows.end
    if not steps or not values.shape[0]:
        return np.full((values.shape[0], steps), empty)
    reduced = function.reduceat(held, bounds, axis=1)[:, ::2]
    # Where nothing is between the two, reduceat gives the value at the begin.
    reduced[:, windows.first >= windows.end] = empty
    return reduced


def _weights(windows: Windows) -> Floats:
    """Return by what a value counts in a total: the minutes of its bucket, if it is per minute."""
    return np.where(windows.is_rate[:, np.newaxis], windows.minutes, 1.0)


def _total(windows: Windows) -> tuple[Floats, Bools]:
    values = windows.values * _weights(windows)
    return _reduced(windows, np.add, values, 0.0), counts(windows) > 0


def _average(windows: Windows) -> tuple[Floats, Bools]:
    total, present = _total(windows)
    weight = _reduced(windows, np.add, _weights(windows) * windows.present, 0.0)
    return _divided(total, weight), present


def _least(windows: Windows) -> tuple[Floats, Bools]:
    return _reduced(windows, np.minimum, windows.values, np.inf), counts(windows) > 0


def _largest(windows: Windows) -> tuple[Floats, Bools]:
    return _reduced(windows, np.maximum, windows.values, -np.inf), counts(windows) > 0


def _count(windows: Windows) -> tuple[Floats, Bools]:
    count = counts(windows)
    return count, count > 0


def _there(windows: Windows) -> tuple[Floats, Bools]:
    present = counts(windows) > 0
    return present.astype(np.float64), present


def _variance(windows: Windows) -> tuple[Floats, Bools]:
    count = counts(windows)
    # Moved by the mean of the whole series, so that squares of large numbers lose nothing.
    held = np.maximum(windows.present.sum(axis=1), 1)
    centre = (windows.values * windows.present).sum(axis=1) / held
    moved = windows.values - centre[:, np.newaxis]
    mean = _divided(_reduced(windows, np.add, moved, 0.0), count)
    squares = _divided(_reduced(windows, np.add, moved**2, 0.0), count)
    return np.maximum(squares - mean**2, 0.0), count > 0


def _deviation(windows: Windows) -> tuple[Floats, Bools]:
    variance, present = _variance(windows)
    return np.sqrt(variance), present


def _last(windows: Windows) -> tuple[Floats, Bools]:
    return _edge(windows, last=True)


def _edge(windows: Windows, *, last: bool) -> tuple[Floats, Bools]:
    """Return the first or last value of each range."""
    at = edge_of(windows, last=last)
    present = counts(windows) > 0
    if not windows.values.shape[1]:
        return np.zeros(present.shape), present
    rows = np.arange(windows.values.shape[0])[:, np.newaxis]
    return windows.values[rows, np.where(present, at, 0)], present


def edge_of(windows: Windows, *, last: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """Return the bucket of the first or last value of each range; wrong where there is none."""
    series, buckets = windows.present.shape
    numbers = np.arange(buckets)
    if last:
        seen = np.maximum.accumulate(np.where(windows.present, numbers, 0), axis=1)
        at = np.clip(windows.end - 1, 0, max(0, buckets - 1))
    else:
        marked = np.where(windows.present, numbers, buckets - 1)
        seen = np.minimum.accumulate(marked[:, ::-1], axis=1)[:, ::-1]
        at = np.clip(windows.first, 0, max(0, buckets - 1))
    if not buckets:
        return np.zeros((series, len(at)), dtype=np.intp)
    found: np.ndarray[tuple[int, ...], np.dtype[np.intp]] = seen[:, at]
    return found


def _difference(windows: Windows) -> tuple[Floats, Bools]:
    newest, _ = _edge(windows, last=True)
    oldest, _ = _edge(windows, last=False)
    return newest - oldest, counts(windows) > 1


def _slope(windows: Windows) -> tuple[Floats, Bools]:
    """Return the slope of the line of least squares, per second."""
    if not len(windows.times_ms):
        return _count(windows)
    seconds = (windows.times_ms - windows.times_ms[0]) / 1_000
    at = np.broadcast_to(seconds, windows.values.shape)
    count = counts(windows)
    sum_x = _reduced(windows, np.add, at, 0.0)
    sum_y = _reduced(windows, np.add, windows.values, 0.0)
    sum_xy = _reduced(windows, np.add, at * windows.values, 0.0)
    sum_xx = _reduced(windows, np.add, at * at, 0.0)
    above = count * sum_xy - sum_x * sum_y
    return _divided(above, count * sum_xx - sum_x**2), count > 1


def _divided(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)


OVER_TIME: Final[Mapping[str, _Function]] = {
    "avg_over_time": _average,
    "sum_over_time": _total,
    "min_over_time": _least,
    "max_over_time": _largest,
    "count_over_time": _count,
    "last_over_time": _last,
    "present_over_time": _there,
    "stddev_over_time": _deviation,
    "stdvar_over_time": _variance,
    "delta": _difference,
    "deriv": _slope,
}
# What is asked of counters. A count per minute is none, but what is meant can be told.
OF_COUNTERS: Final = ("rate", "increase")
_KEEPS_NAME: Final = "last_over_time"
_KEEPS_KIND: Final = frozenset(
    {"avg_over_time", "min_over_time", "max_over_time", "last_over_time"}
)


def over_time(name: str, windows: Windows, notes: Notes) -> Vector:
    """Return what a function of `OVER_TIME` makes of ranges."""
    values, present = OVER_TIME[name](windows)
    kinds = windows.unsummable
    if name == "sum_over_time" and kinds:
        notes.inform(f"sum_over_time adds up {', '.join(sorted(kinds))}, which has no meaning")
    kept = kinds if name in _KEEPS_KIND else frozenset[str]()
    vector = Vector(windows.labels, values, present, kept)
    return vector if name == _KEEPS_NAME else vector.without_name()


def of_counters(name: str, windows: Windows, notes: Notes) -> Vector:
    """Return the total of counts per minute in ranges, per second for `rate`.

    Raises ExecutionError for what is no count.
    """
    if windows.unsummable:
        problem = f"{name} is for counts, and this is of {', '.join(sorted(windows.unsummable))}"
        raise ExecutionError(problem, "use avg_over_time, max_over_time, delta or deriv")
    names = sorted({dict(labels).get(NAME, "") for labels in windows.labels} - {""})
    shown = ", ".join(names[:3]) or "the metric"
    meaning = "divided by its seconds" if name == "rate" else "and nothing else"
    notes.inform(
        f"{shown} counts per minute and is no counter: {name} is its sum over the range, {meaning}"
    )
    total, present = _total(windows)
    values = total / windows.range_s if name == "rate" else total
    return Vector(windows.labels, values, present).without_name()


def quantile_over_time(windows: Windows, rank: Scalar) -> Vector:
    """Return a quantile of the values of each range."""
    series, steps = windows.values.shape[0], len(windows.first)
    values, present = np.zeros((series, steps)), counts(windows) > 0
    for step, (first, end) in enumerate(zip(windows.first, windows.end, strict=True)):
        if first >= end:
            continue
        own = windows.present[:, first:end]
        column = quantile(windows.values[:, first:end].T, own.T, rank.values[step : step + 1])
        values[:, step] = column
    return Vector(windows.labels, values, present, windows.unsummable).without_name()


def quantile(values: Floats, present: Bools, rank: Floats) -> Floats:
    """Return the quantile over the first axis; `rank` is one number, or one per column.

    Between two values it is on the line between them, as in Prometheus. Outside of 0 to 1 it is
    infinite. Where there are no values it is anything.
    """
    ordered = np.sort(np.where(present, values, np.inf), axis=0)
    count = present.sum(axis=0)
    place = np.clip(np.nan_to_num(rank), 0, 1) * np.maximum(count - 1, 0)
    lower = np.floor(place).astype(np.intp)
    upper = np.minimum(lower + 1, np.maximum(count - 1, 0)).astype(np.intp)
    columns = np.arange(values.shape[1])
    below, above = ordered[lower, columns], ordered[upper, columns]
    weight = place - lower
    with np.errstate(invalid="ignore"):
        inside = np.where(weight == 0, below, below * (1 - weight) + above * weight)
    found = np.where(rank < 0, -np.inf, np.where(rank > 1, np.inf, inside))
    return np.where(np.isnan(rank), np.nan, found)
