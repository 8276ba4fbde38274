"""What expressions are while they are evaluated: arrays of a row per series, a column per step.

A value that is not there is told by `present`, not by NaN: that is a value, as 0/0 is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Names and values, sorted by names; no value is empty.
Labels: TypeAlias = tuple[tuple[str, str], ...]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]

NAME: Final = "__name__"
MOST_SERIES: Final = 10_000
MOST_POINTS: Final = 11_000
# A value takes 9 bytes; an expression holds a few arrays of so many at once.
MOST_VALUES: Final = 8_000_000
_MINUTE_MS: Final = 60_000
# The newest minute that is whole is one of these, whenever a dashboard asks for "now".
_INSTANT_LOOKS_BACK_MS: Final = 3 * _MINUTE_MS


class PromqlError(Exception):
    """A query that cannot be answered; `kind` is Prometheus' `errorType`."""

    kind = "bad_data"
    status = HTTPStatus.BAD_REQUEST

    def __init__(self, problem: str, remedy: str = "") -> None:
        """Keep what is wrong and what to do."""
        super().__init__(f"{problem}; {remedy}" if remedy else problem)


class ExecutionError(PromqlError):
    """It is a query, but evaluating it fails."""

    kind = "execution"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class UnknownError(PromqlError):
    """There is nothing under an address."""

    kind = "not_found"
    status = HTTPStatus.NOT_FOUND

    def __init__(self, path: str) -> None:
        """Name the address."""
        super().__init__(f"there is no {path[:100]}", "docs/promql.md lists what is answered")


@dataclass(frozen=True, slots=True)
class Timeline:
    """The times that a query is evaluated at: `count` of them, in ms since 1970.

    `step_ms` is None for an instant query. `looks_back_ms` is how old a value may be at a point.
    """

    start_ms: int
    step_ms: int | None
    count: int

    @classmethod
    def instant(cls, time_ms: int) -> Timeline:
        """Return one point."""
        return cls(time_ms, None, 1)

    @classmethod
    def between(cls, start_ms: int, end_ms: int, step_ms: int) -> Timeline:
        """Return the points from start to end. Raises PromqlError where there are too many."""
        if step_ms <= 0:
            problem = "zero or negative query resolution step widths are not accepted"
            raise PromqlError(
                problem,
                "give a step of a second or more",
            )
        if end_ms < start_ms:
            problem = "end timestamp must not be before start time"
            raise PromqlError(problem)
        count = (end_ms - start_ms) // step_ms + 1
        if count > MOST_POINTS:
            problem = f"exceeded maximum resolution of {MOST_POINTS:,} points per timeseries"
            raise PromqlError(
                problem,
                "decrease the range, or increase the step",
            )
        return cls(start_ms, step_ms, count)

    @property
    def is_instant(self) -> bool:
        """Whether it is a single point of an instant query."""
        return self.step_ms is None

    @property
    def looks_back_ms(self) -> int:
        """How old a value may be at a point."""
        return _INSTANT_LOOKS_BACK_MS if self.step_ms is None else max(self.step_ms, _MINUTE_MS)

    @property
    def times_ms(self) -> Ints:
        """The points."""
        return self.start_ms + (self.step_ms or 0) * np.arange(self.count, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """A number per step."""

    values: Floats


@dataclass(frozen=True, slots=True)
class Text:
    """A string literal."""

    value: str


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """Series: labels, and values (series x steps) where `present`.

    `unsummable` names the metrics that these values are of, if adding them up means nothing.
    `is_ordered` says that the order of the series is part of the answer.
    """

    labels: tuple[Labels, ...]
    values: Floats
    present: Bools
    unsummable: frozenset[str] = frozenset()
    is_ordered: bool = False

    def with_values(self, values: Floats, present: Bools | None = None) -> Vector:
        """Return the same series with other values."""
        own = self.present if present is None else present
        return replace(self, values=values, present=own)

    def without_name(self) -> Vector:
        """Return the series without the metric's name."""
        return replace(self, labels=tuple(map(without_name, self.labels)))

    def chosen(self, rows: npt.NDArray[np.intp] | Sequence[int]) -> Vector:
        """Return some of the series, in this order."""
        at = np.asarray(rows, dtype=np.intp)
        labels = tuple(self.labels[row] for row in at.tolist())
        return replace(self, labels=labels, values=self.values[at], present=self.present[at])

    def without_empty(self) -> Vector:
        """Return the series that have a value."""
        held = self.present.any(axis=1)
        return self if held.all() else self.chosen(np.flatnonzero(held))


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Series of buckets, and for each step the buckets of its range: from `first` to before `end`.

    `minutes` is how many minutes of each bucket have passed; values of `is_rate` series are per
    minute of these, so that their total is value times minutes. `range_s` is the length asked for.
    """

    labels: tuple[Labels, ...]
    values: Floats
    present: Bools
    times_ms: Ints
    minutes: Floats
    first: npt.NDArray[np.intp]
    end: npt.NDArray[np.intp]
    range_s: float
    is_rate: Bools
    unsummable: frozenset[str] = frozenset()


Value: TypeAlias = Scalar | Text | Vector | Windows


@dataclass(slots=True)
class Notes:
    """What is told beside an answer, each once."""

    warnings: dict[str, None] = field(default_factory=dict)
    infos: dict[str, None] = field(default_factory=dict)

    def warn(self, text: str) -> None:
        """Say that an answer is not whole."""
        self.warnings[text] = None

    def inform(self, text: str) -> None:
        """Say what an answer may be misread as."""
        self.infos[text] = None


def labels_of(pairs: Iterable[tuple[str, str]]) -> Labels:
    """Return labels in their order, without empty ones."""
    return tuple(sorted((name, value) for name, value in pairs if value))


def without_name(labels: Labels) -> Labels:
    """Return labels without the metric's name."""
    return tuple(pair for pair in labels if pair[0] != NAME)


def nothing(steps: int) -> Vector:
    """Return a vector without series."""
    return Vector((), np.empty((0, steps)), np.empty((0, steps), dtype=np.bool_))


def check_size(series: int, points: int) -> None:
    """Raise ExecutionError where so many values are more than a query may hold."""
    if series * points > MOST_VALUES:
        problem = (
            f"{series:,} series of {points:,} points are more than the {MOST_VALUES:,} values "
            "that a query may load"
        )
        raise ExecutionError(problem, "choose fewer series, a shorter range or a longer step")


def merged(vector: Vector) -> Vector:
    """Return a vector in which series of the same labels are one.

    Raises ExecutionError where two of them have a value at the same step.
    """
    rows: dict[Labels, int] = {}
    targets = np.array([rows.setdefault(one, len(rows)) for one in vector.labels], dtype=np.intp)
    if len(rows) == len(vector.labels):
        return vector
    shape = (len(rows), vector.values.shape[1])
    values, present = np.zeros(shape), np.zeros(shape, dtype=np.bool_)
    for row, target in enumerate(targets.tolist()):
        own = vector.present[row]
        if (own & present[target]).any():
            problem = (
                f"vector cannot contain metrics with the same labelset {shown(vector.labels[row])}"
            )
            raise ExecutionError(problem, "tell them apart with `by` or another name")
        np.copyto(values[target], vector.values[row], where=own)
        present[target] |= own
    return replace(vector, labels=tuple(rows), values=values, present=present)


def shown(labels: Labels) -> str:
    """Return labels as they are written."""
    name = dict(labels).get(NAME, "")
    pairs = ", ".join(f'{key}="{value}"' for key, value in labels if key != NAME)
    return f"{name}{{{pairs}}}"
