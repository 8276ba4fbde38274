"""What an expression amounts to: series of values, each with an identifier (mqe.md, section 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from framewalk.queries.metrics import EntityName, Labels, Values

Ids: TypeAlias = "tuple[str | None, ...]"
Owners: TypeAlias = "tuple[EntityName, ...]"


class ResultType(StrEnum):
    """The kinds of results, as GraphQL calls them."""

    UNKNOWN = "UNKNOWN"
    SINGLE_VALUE = "SINGLE_VALUE"
    TIME_SERIES_VALUES = "TIME_SERIES_VALUES"
    SORTED_LIST = "SORTED_LIST"


@dataclass(frozen=True, slots=True, eq=False)
class ResultSeries:
    """Values (float64, NaN where there is none) with their labels.

    `ids` are empty where no value has one: else there is one per value, the start of its bucket in
    ms, or the name of an entity; `owners` are the entities of a sorted list.
    """

    labels: Labels
    values: Values
    ids: Ids = ()
    owners: Owners = ()

    @property
    def texts(self) -> list[str | None]:
        """The values as clients get them: at most three decimals, None where there is none."""
        return [as_text(value) for value in self.values.tolist()]

    @property
    def has_value(self) -> bool:
        """Whether there is any value."""
        return not bool(np.isnan(self.values).all())


@dataclass(frozen=True, slots=True, eq=False)
class ExpressionResult:
    """The result of an expression, or what is wrong with it.

    `is_labelled` and `is_comparison` say what may be done with it.
    """

    type: ResultType
    series: tuple[ResultSeries, ...] = ()
    error: str | None = None
    is_labelled: bool = False
    is_comparison: bool = False

    @property
    def has_value(self) -> bool:
        """Whether there is any value."""
        return any(one.has_value for one in self.series)

    def with_series(self, series: Iterable[ResultSeries]) -> ExpressionResult:
        """Return it with other series; it is no comparison then."""
        return replace(self, series=tuple(series), is_comparison=False)

    def with_values(self, values: Sequence[Values]) -> ExpressionResult:
        """Return it with other values, one array per series."""
        pairs = zip(self.series, values, strict=True)
        return self.with_series(replace(one, values=two) for one, two in pairs)


def failed(problem: str) -> ExpressionResult:
    """Return the result of an expression that something is wrong with."""
    return ExpressionResult(ResultType.UNKNOWN, error=problem)


def single(value: float) -> ExpressionResult:
    """Return a number."""
    values = finite(np.array([value], dtype=np.float64))
    return ExpressionResult(ResultType.SINGLE_VALUE, (ResultSeries((), values),))


def finite(values: Values) -> Values:
    """Return values without infinities: these are empty."""
    return np.where(np.isfinite(values), values, np.nan)


def as_text(value: float) -> str | None:
    """Return a value as clients get it."""
    if value != value:  # noqa: PLR0124 - NaN, and cheap
        return None
    if value == int(value):
        return str(int(value))
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
