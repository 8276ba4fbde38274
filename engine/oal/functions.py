"""The functions of the definition language, as a table (analysis.md, section 4).

Each entry says what a function takes, which mergeable states it needs, and how the merged
states become the value. The finish is SQL, as values are finished when they are read: it
takes the merged columns and the minutes of the bucket (1, 60 or 1440). A merged count or sum
is a BIGINT, 0 where nothing contributed; an extreme is NULL there; a keyed state is a list of
{key, value}, in which a key may come more than once, or NULL.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from framewalk.engine.oal.bound import (
    ApdexPredicate,
    Band,
    Bucket,
    Keep,
    Label,
    Predicate,
    Value,
)
from framewalk.engine.oal.syntax import Operator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from framewalk.engine.oal.bound import Condition, StatePart

DEFAULT_LABELS: Final = 50
PERCENTILES: Final = (50, 75, 90, 95, 99)


class Kind(Enum):
    """What may stand as a function's argument."""

    CONDITION = auto()
    SERVICE_NAME = auto()
    STRING = auto()
    BOOLEAN = auto()
    NUMBER = auto()
    INTEGER = auto()


class Source(Enum):
    """What a function takes from `from(...)`: a number, or nothing in particular."""

    NUMBER = auto()
    ANY = auto()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; the optional ones come last."""

    name: str
    kind: Kind
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A function's bound arguments, and the source (None for `*`)."""

    source: Value | None
    conditions: tuple[Condition | bool, ...] = ()
    values: tuple[Value | str, ...] = ()
    integers: tuple[int, ...] = ()


class MakeState(Protocol):
    """Makes a state of one operation's logs, narrowed by further conditions."""

    def __call__(
        self,
        keep: Keep,
        *conditions: Condition | bool,
        value: Value | None = None,
        key: Bucket | Label | None = None,
    ) -> StatePart | None:
        """Return the state, or None where a condition never holds."""


States: TypeAlias = "tuple[StatePart | None, ...]"


@dataclass(frozen=True, slots=True)
class MetricFunction:
    """One function: what it takes, what it keeps (`state_count` states) and how it finishes."""

    name: str
    parameters: tuple[Parameter, ...]
    source: Source
    sql_type: str
    state_count: int
    states: Callable[[Call, MakeState], States]
    finish: Callable[[Sequence[str], int, tuple[int, ...]], str]
    unit: str = ""


def _sum_states(call: Call, make: MakeState) -> States:
    return make(Keep.SUM, value=call.source), make(Keep.COUNT)


def _count_states(_call: Call, make: MakeState) -> States:
    return (make(Keep.COUNT),)


def _max_states(call: Call, make: MakeState) -> States:
    return (make(Keep.MAX, value=call.source),)


def _min_states(call: Call, make: MakeState) -> States:
    return (make(Keep.MIN, value=call.source),)


def _percent_states(call: Call, make: MakeState) -> States:
    return make(Keep.COUNT, *call.conditions), make(Keep.COUNT)


def _rate_states(call: Call, make: MakeState) -> States:
    numerator, denominator = call.conditions
    return make(Keep.COUNT, numerator), make(Keep.COUNT, denominator)


def _apdex_states(call: Call, make: MakeState) -> States:
    service, success = map(_column, call.values)
    succeeded = Predicate(success, Operator.EQUAL, operand=True)
    source = _source(call)
    satisfied = ApdexPredicate(source, service.column, Band.SATISFIED)
    tolerated = ApdexPredicate(source, service.column, Band.TOLERATED)
    return (
        make(Keep.COUNT),
        make(Keep.COUNT, succeeded, satisfied),
        make(Keep.COUNT, succeeded, tolerated),
    )


def _percentile_states(call: Call, make: MakeState) -> States:
    return (make(Keep.COUNT, key=Bucket(_source(call), call.integers[0])),)


def _histogram_states(call: Call, make: MakeState) -> States:
    step, steps = call.integers
    return (make(Keep.COUNT, key=Bucket(_source(call), step, steps)),)


def _label_count_states(call: Call, make: MakeState) -> States:
    return (make(Keep.COUNT, key=Label(call.values[0])),)


def _label_avg_states(call: Call, make: MakeState) -> States:
    label, value = call.values
    key = Label(label)
    return make(Keep.SUM, value=_column(value), key=key), make(Keep.COUNT, key=key)


def _column(value: Value | str) -> Value:
    if isinstance(value, str):
        message = "the binder lets no constant through where a column is needed"
        raise TypeError(message)
    return value


def _source(call: Call) -> Value:
    if call.source is None:
        message = "the binder lets no '*' through to a function that needs a number"
        raise TypeError(message)
    return call.source


def _if_any(count: str, value: str) -> str:
    return f"CASE WHEN {count} > 0 THEN {value} END"


def _finish_long_avg(states: Sequence[str], _minutes: int, _parameters: tuple[int, ...]) -> str:
    # `//` of DuckDB and `/` of Java both cut toward zero; Polars' `//` does not.
    total, count = states
    return _if_any(count, f"{total} // {count}")


def _finish_double_avg(states: Sequence[str], _minutes: int, _parameters: tuple[int, ...]) -> str:
    total, count = states
    return _if_any(count, f"{total}::DOUBLE / {count}")


def _finish_sum(states: Sequence[str], _minutes: int, _parameters: tuple[int, ...]) -> str:
    total, count = states
    return _if_any(count, total)


def _finish_extreme(states: Sequence[str], _minutes: int, _parameters: tuple[int, ...]) -> str:
    return states[0]


def _finish_count(states: Sequence[str], _minutes: int, _parameters: tuple[int, ...]) -> str:
    return _if_any(states[0], states[0])


def _finish_cpm(states: Sequence[str], minutes: int, _parameters: tuple[int, ...]) -> str:
    return _if_any(states[0], f"{states[0]} // {minutes}")


def _finish_ratio(states: Sequence[str], _minutes: int, _parameters: tuple[int, ...]) -> str:
    # No value at a denominator of 0: the ecosystem would divide by it.
    numerator, denominator = states
    return _if_any(denominator, f"{numerator} * 10000 // {denominator}")


def _finish_apdex(states: Sequence[str], _minutes: int, _parameters: tuple[int, ...]) -> str:
    total, satisfied, tolerated = states
    return _if_any(total, f"({satisfied} * 10000 + {tolerated} * 10000 // 2) // {total}")


def _finish_percentile(states: Sequence[str], _minutes: int, parameters: tuple[int, ...]) -> str:
    # The rank is rounded half up; the first bucket whose running count reaches it counts.
    entries = states[0]
    total = f"list_sum(list_transform({entries}, lambda e: e.value))::BIGINT"
    values = []
    for percentile in PERCENTILES:
        rank = f"({total} * {percentile} + 50) // 100"
        reached = (
            f"list_reduce(list_sort({entries}), lambda a, e: CASE WHEN a.value >= {rank} THEN a "
            f"ELSE {{'key': e.key, 'value': a.value + e.value}} END).key"
        )
        values.append(f"'p{percentile}': {reached} * {parameters[0]}")
    return f"CASE WHEN {entries} IS NOT NULL THEN {{{', '.join(values)}}} END"


def _sum_of_key(entries: str, key: str) -> str:
    matching = f"list_filter({entries}, lambda e: e.key = {key})"
    return f"coalesce(list_sum(list_transform({matching}, lambda e: e.value)), 0)::BIGINT"


def _finish_histogram(states: Sequence[str], _minutes: int, parameters: tuple[int, ...]) -> str:
    step, steps = parameters
    entry = f"{{'k': i * {step}, 'v': {_sum_of_key(states[0], 'i')}}}"
    all_buckets = f"list_transform(range({steps + 1}), lambda i: {entry})"
    return f"CASE WHEN {states[0]} IS NOT NULL THEN map_from_entries({all_buckets}) END"


def _top_labels(counts: str, parameters: tuple[int, ...], value: str) -> str:
    """Return a map of the labels with the most logs; which ones does not depend on order."""
    most = parameters[0] if parameters else DEFAULT_LABELS
    labels = f"list_distinct(list_transform({counts}, lambda e: e.key))"
    ranked = (
        f"list_sort(list_transform({labels}, "
        f"lambda l: {{'rank': -{_sum_of_key(counts, 'l')}, 'label': l}}))[1:{most}]"
    )
    entries = f"list_transform({ranked}, lambda r: {{'k': r.label, 'v': {value}}})"
    return f"CASE WHEN {counts} IS NOT NULL THEN map_from_entries({entries}) END"


def _finish_label_count(states: Sequence[str], _minutes: int, parameters: tuple[int, ...]) -> str:
    return _top_labels(states[0], parameters, "-r.rank")


def _finish_label_avg(states: Sequence[str], _minutes: int, parameters: tuple[int, ...]) -> str:
    sums, counts = states
    total = _sum_of_key(sums, "r.label")
    # An average that integer division makes 0 shows as 1, so that it is told from "none".
    average = f"CASE WHEN {total} <> 0 THEN greatest({total} // -r.rank, 1) ELSE 0 END"
    return _top_labels(counts, parameters, average)


_CONDITION: Final = Parameter("condition", Kind.CONDITION)
_PERCENTILE_TYPE: Final = f"STRUCT({', '.join(f'p{p} BIGINT' for p in PERCENTILES)})"
_LABELS: Final = (
    Parameter("label", Kind.STRING),
    Parameter("most", Kind.INTEGER, optional=True),
)
_AVERAGE_LABELS: Final = (_LABELS[0], Parameter("value", Kind.NUMBER), _LABELS[1])

_TABLE: Final = (
    MetricFunction("longAvg", (), Source.NUMBER, "BIGINT", 2, _sum_states, _finish_long_avg),
    MetricFunction("doubleAvg", (), Source.NUMBER, "DOUBLE", 2, _sum_states, _finish_double_avg),
    MetricFunction("sum", (), Source.NUMBER, "BIGINT", 2, _sum_states, _finish_sum),
    MetricFunction("max", (), Source.NUMBER, "BIGINT", 1, _max_states, _finish_extreme),
    MetricFunction("min", (), Source.NUMBER, "BIGINT", 1, _min_states, _finish_extreme),
    MetricFunction("maxDouble", (), Source.NUMBER, "DOUBLE", 1, _max_states, _finish_extreme),
    MetricFunction("minDouble", (), Source.NUMBER, "DOUBLE", 1, _min_states, _finish_extreme),
    MetricFunction("count", (), Source.ANY, "BIGINT", 1, _count_states, _finish_count, "count"),
    MetricFunction("cpm", (), Source.ANY, "BIGINT", 1, _count_states, _finish_cpm, "count"),
    MetricFunction(
        "percent", (_CONDITION,), Source.ANY, "BIGINT", 2, _percent_states, _finish_ratio
    ),
    MetricFunction(
        "rate",
        (
            Parameter("numerator", Kind.CONDITION),
            Parameter("denominator", Kind.CONDITION),
        ),
        Source.ANY,
        "BIGINT",
        2,
        _rate_states,
        _finish_ratio,
        "1/10000",
    ),
    MetricFunction(
        "apdex",
        (Parameter("service", Kind.SERVICE_NAME), Parameter("success", Kind.BOOLEAN)),
        Source.NUMBER,
        "BIGINT",
        3,
        _apdex_states,
        _finish_apdex,
        "1/10000",
    ),
    MetricFunction(
        "percentile2",
        (Parameter("precision", Kind.INTEGER),),
        Source.NUMBER,
        _PERCENTILE_TYPE,
        1,
        _percentile_states,
        _finish_percentile,
    ),
    MetricFunction(
        "histogram",
        (Parameter("step", Kind.INTEGER), Parameter("steps", Kind.INTEGER)),
        Source.NUMBER,
        "MAP(BIGINT, BIGINT)",
        1,
        _histogram_states,
        _finish_histogram,
        "count",
    ),
    MetricFunction(
        "labelCount",
        _LABELS,
        Source.ANY,
        "MAP(VARCHAR, BIGINT)",
        1,
        _label_count_states,
        _finish_label_count,
        "count",
    ),
    MetricFunction(
        "labelAvg",
        _AVERAGE_LABELS,
        Source.ANY,
        "MAP(VARCHAR, BIGINT)",
        2,
        _label_avg_states,
        _finish_label_avg,
    ),
)

FUNCTIONS: Final[Mapping[str, MetricFunction]] = MappingProxyType(
    {function.name: function for function in _TABLE}
    | {"percentile": next(f for f in _TABLE if f.name == "percentile2")}
)
