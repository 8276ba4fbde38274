"""Values of metrics out of merged states, as columns of selections inside of each other.

A metric has the meaning that its definition had at the time of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from framewalk.engine.oal import Keep
from framewalk.engine.views.names import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from framewalk.engine.oal import Former, Metric, State


class Values(NamedTuple):
    """The columns of three selections inside of each other, from the outer one in."""

    shown: list[str]
    bounded: list[str]
    aggregated: list[str]


class Span(NamedTuple):
    """The time that a row is of, as SQL: its begin, its end, and the minutes of a rate."""

    begins: str
    ends: str
    minutes: str


def finished_values(
    metrics: Sequence[Metric],
    columns: Mapping[str, str],
    span: Span,
    formers: Sequence[Former],
) -> Values:
    """Return the columns with the values of metrics of rows of a span of time.

    `columns` maps the names of states to columns of the states table.
    """
    merged = _Merged(columns)
    shown = []
    for metric in metrics:
        value = _finished(metric, merged, span.minutes)
        own = [one for one in formers if one.name == metric.name]
        befores = [
            "NULL" if one.metric is None else _finished(one.metric, merged, span.minutes)
            for one in own
        ]
        value = of_its_time(value, own, befores, span)
        shown.append(f"({value})::{metric.function.sql_type} AS {quoted(metric.name)}")
    return Values(shown, merged.bounded(), merged.aggregated())


def of_its_time(value: str, formers: Sequence[Former], befores: Sequence[str], span: Span) -> str:
    """Return the value by the meaning of its time; none where a span has two of them."""
    if not formers:
        return value
    cases = []
    for one, before in zip(formers, befores, strict=True):
        until = f"make_timestamp({one.until_us})"
        cases.append(f"WHEN {span.ends} <= {until} THEN {before} WHEN {span.begins} < {until} ")
        cases.append("THEN NULL ")
    return f"CASE {''.join(cases)}ELSE {value} END"


class _Merged:
    """The merged states that the metrics of a view need, each with a name of its own.

    A metric's states are merged over the rows that hold all of them. Rows that were written
    with other definitions may hold some: a count without its sum would make a wrong average.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._names: dict[_Aggregate, str] = {}

    def of_metric(self, metric: Metric) -> list[str]:
        """Return the names of the merged states of a metric."""
        additive = [state for state in metric.states if state.keep not in _EXTREMES]
        columns = sorted({quoted(self._columns[state.name]) for state in additive})
        return [self._name(state, columns) for state in metric.states]

    def aggregated(self) -> list[str]:
        """Return the aggregations with their names."""
        return [f"{one.sql} AS {name}" for one, name in self._names.items()]

    def bounded(self) -> list[str]:
        """Return the merged states by name; sums stop at the ends of 64-bit numbers."""
        return [
            f"{one.bounded.format(name)} AS {name}" if one.bounded else name
            for one, name in self._names.items()
        ]

    def _name(self, state: State, needed: Sequence[str]) -> str:
        aggregate = _aggregate(state, quoted(self._columns[state.name]), needed)
        return self._names.setdefault(aggregate, f"merged_{len(self._names)}")


_EXTREMES: Final = {Keep.MAX: "max", Keep.MIN: "min"}
# least and greatest pass over NULL: without the condition no sum would be the smallest one.
_BOUNDED: Final = "internal.bounded({})"


def bounded_macro() -> str:
    """Return the statement that makes the function by which sums stop."""
    name = _BOUNDED.format("total")
    bounded = f"least(greatest(total, {-(2**63)}), {2**63 - 1})"
    return (
        f"CREATE OR REPLACE MACRO {name} AS "
        f"(CASE WHEN total IS NOT NULL THEN {bounded} END)::BIGINT"
    )


class _Aggregate(NamedTuple):
    """An aggregation of a column of states, and what brings a sum back to 64 bits, if it is one."""

    sql: str
    bounded: str = ""


def _aggregate(state: State, column: str, needed: Sequence[str]) -> _Aggregate:
    if state.keep in _EXTREMES:
        return _Aggregate(f"{_EXTREMES[state.keep]}({column})")
    # Aggregations pass over NULL. A FILTER would cost the square of their number: DuckDB keeps a
    # vector of every column for each of them.
    others = [f"{one} IS NOT NULL" for one in needed if one != column]
    held = f"CASE WHEN {' AND '.join(others)} THEN {column} END" if others else column
    if state.keyed:
        return _Aggregate(f"nullif(flatten(list({held})), [])")
    # No logs are so many that their count would have to stop.
    bounded = "{}::BIGINT" if state.keep is Keep.COUNT else _BOUNDED
    return _Aggregate(f"sum({held})", bounded)


def _finished(metric: Metric, merged: _Merged, minutes: str) -> str:
    states = merged.of_metric(metric)
    return metric.function.finish(states, minutes, metric.parameters)


def listed(columns: Iterable[str]) -> str:
    """Return columns as they stand in a selection."""
    return ",\n  ".join(columns)
