"""The functions of the definition language, as a table (analysis.md, section 4).

Each entry says what a function takes, which mergeable states it needs, and how the merged
states become the value. The finish is SQL, as values are finished when they are read: it
takes the merged columns and the minutes of the bucket (1, 60 or 1440). A merged count or sum
is a BIGINT, 0 where nothing contributed; an extreme is NULL there; a keyed state is a list of
{key, value}, in which a key may come more than once, or NULL.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from framewalk.engine.oal.bound import (
    ApdexPredicate,
    Band,
    Bucket,
    Keep,
    Kind,
    Label,
    MetricFunction,
    Notes,
    Parameter,
    Predicate,
    RelativeBucket,
    Source,
    Value,
)
from framewalk.engine.oal.finish import (
    DEFAULT_LABELS,
    PERCENTILES,
    finish_apdex,
    finish_count,
    finish_cpm,
    finish_double_avg,
    finish_extreme,
    finish_histogram,
    finish_label_avg,
    finish_label_count,
    finish_long_avg,
    finish_percentile,
    finish_ratio,
    finish_relative_percentile,
    finish_sum,
)
from framewalk.engine.oal.syntax import Operator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from framewalk.engine.oal.bound import Call, MakeState, States


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


def _relative_percentile_states(call: Call, make: MakeState) -> States:
    return (make(Keep.COUNT, key=RelativeBucket(_source(call))),)


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


_PERCENTILE_TYPE: Final = f"STRUCT({', '.join(f'p{p} BIGINT' for p in PERCENTILES)})"
_MOST_STEPS: Final = 10_000
_MOST_LABELS: Final = Parameter("most", Kind.INTEGER, optional=True)
_TEN_THOUSANDTHS: Final = "1/10000"

_CUT: Final = (
    "The division cuts toward zero, as integer division of Java does: values stay comparable "
    "with those of other backends to the last digit."
)
_SUM_ENDS: Final = (
    "A sum stops at 2^63 - 1: a wrong sign would be worse than a value that is known to be the "
    "largest."
)
_TOP_LABELS: Final = (
    f"At most `most` labels are shown, {DEFAULT_LABELS} if it is not given: those with the most "
    "logs, of equals the first by name. The state keeps all labels, so that which ones are "
    "shown does not depend on the order in which logs came."
)

_TABLE: Final = (
    MetricFunction(
        name="longAvg",
        source=Source.NUMBER,
        sql_type="BIGINT",
        state_count=2,
        states=_sum_states,
        finish=finish_long_avg,
        notes=Notes(
            "average of {source}", "sum and number of the values", "sum / number", differs=_CUT
        ),
    ),
    MetricFunction(
        name="doubleAvg",
        source=Source.NUMBER,
        sql_type="DOUBLE",
        state_count=2,
        states=_sum_states,
        finish=finish_double_avg,
        notes=Notes(
            "average of {source}",
            "sum and number of the values",
            "sum / number, with decimals",
            differs="The sum is of whole numbers and exact; only the quotient is rounded.",
        ),
    ),
    MetricFunction(
        name="sum",
        source=Source.NUMBER,
        sql_type="BIGINT",
        state_count=2,
        states=_sum_states,
        finish=finish_sum,
        notes=Notes(
            "total of {source}",
            "sum and number of the values",
            "sum",
            differs=f"{_SUM_ENDS} The number tells a sum of 0 from no values at all.",
        ),
    ),
    MetricFunction(
        name="max",
        source=Source.NUMBER,
        sql_type="BIGINT",
        state_count=1,
        states=_max_states,
        finish=finish_extreme,
        notes=Notes("largest {source}", "the largest value", "the largest value"),
    ),
    MetricFunction(
        name="min",
        source=Source.NUMBER,
        sql_type="BIGINT",
        state_count=1,
        states=_min_states,
        finish=finish_extreme,
        notes=Notes("smallest {source}", "the smallest value", "the smallest value"),
    ),
    MetricFunction(
        name="maxDouble",
        source=Source.NUMBER,
        sql_type="DOUBLE",
        state_count=1,
        states=_max_states,
        finish=finish_extreme,
        notes=Notes(
            "largest {source}",
            "the largest value",
            "the largest value, as DOUBLE",
            differs="No attribute has decimals: values over 2^53 are rounded to a DOUBLE.",
        ),
    ),
    MetricFunction(
        name="minDouble",
        source=Source.NUMBER,
        sql_type="DOUBLE",
        state_count=1,
        states=_min_states,
        finish=finish_extreme,
        notes=Notes(
            "smallest {source}",
            "the smallest value",
            "the smallest value, as DOUBLE",
            differs="No attribute has decimals: values over 2^53 are rounded to a DOUBLE.",
        ),
    ),
    MetricFunction(
        name="count",
        source=Source.ANY,
        sql_type="BIGINT",
        state_count=1,
        states=_count_states,
        finish=finish_count,
        unit="count",
        notes=Notes(
            "number of logs",
            "number of logs",
            "number",
            differs="Never 0: without logs there is no value, as for all functions.",
        ),
    ),
    MetricFunction(
        name="cpm",
        source=Source.ANY,
        sql_type="BIGINT",
        state_count=1,
        states=_count_states,
        finish=finish_cpm,
        unit="count",
        notes=Notes(
            "logs per minute",
            "number of logs",
            "number / minutes of the bucket (1, 60 or 1440)",
            differs=f"{_CUT} So an hour with 59 logs has 0, not NULL.",
        ),
    ),
    MetricFunction(
        name="percent",
        parameters=(Parameter("condition", Kind.CONDITION),),
        source=Source.ANY,
        sql_type="BIGINT",
        state_count=2,
        states=_percent_states,
        finish=finish_ratio,
        unit=_TEN_THOUSANDTHS,
        notes=Notes(
            "share of logs with {condition}",
            "number of logs that meet the condition, number of logs",
            "met * 10000 / all",
            differs=_CUT,
        ),
    ),
    MetricFunction(
        name="rate",
        parameters=(
            Parameter("numerator", Kind.CONDITION),
            Parameter("denominator", Kind.CONDITION),
        ),
        source=Source.ANY,
        sql_type="BIGINT",
        state_count=2,
        states=_rate_states,
        finish=finish_ratio,
        unit=_TEN_THOUSANDTHS,
        notes=Notes(
            "logs with {numerator} per log with {denominator}",
            "number of logs that meet each condition",
            "numerator * 10000 / denominator",
            missing="no log meets the denominator",
            differs="No value at a denominator of 0, where others may show 0: "
            f"0 would read as 'none of many'. {_CUT}",
        ),
    ),
    MetricFunction(
        name="apdex",
        parameters=(
            Parameter("service", Kind.SERVICE_NAME),
            Parameter("success", Kind.BOOLEAN),
        ),
        source=Source.NUMBER,
        sql_type="BIGINT",
        state_count=3,
        states=_apdex_states,
        finish=finish_apdex,
        unit=_TEN_THOUSANDTHS,
        notes=Notes(
            "Apdex of {source}",
            "number of logs, of satisfied and of tolerated ones",
            "(satisfied * 10000 + tolerated * 10000 / 2) / logs",
            differs="A log that did not succeed, or took more than 4T, is neither; one over T is "
            "tolerated, else it is satisfied. T is the threshold of the service in ms (500, or "
            "from the thresholds file) when the log is read: states keep what T made of a log, "
            "so a new T is for new logs.",
        ),
    ),
    MetricFunction(
        name="percentile2",
        parameters=(Parameter("precision", Kind.INTEGER),),
        source=Source.NUMBER,
        sql_type=_PERCENTILE_TYPE,
        state_count=1,
        states=_percentile_states,
        finish=finish_percentile,
        notes=Notes(
            "percentiles of {source}",
            "number of logs per bucket, which is value / precision",
            "for each p of 50, 75, 90, 95 and 99: the first bucket whose running number reaches "
            "the rank of p, times precision",
            differs="The rank of p is logs * p / 100 rounded half up, so with one log p50 is "
            "that log and with few logs p99 is the largest. Values are rounded down to the "
            "precision, and are one STRUCT. `percentile` is the same function.",
        ),
    ),
    MetricFunction(
        name="relativePercentile",
        source=Source.NANOSECONDS,
        sql_type=_PERCENTILE_TYPE,
        state_count=1,
        states=_relative_percentile_states,
        finish=finish_relative_percentile,
        notes=Notes(
            "percentiles of {source}, at most 1% off",
            "number of logs per bucket, of which a doubling has 36",
            "for each p of 50, 75, 90, 95 and 99: the first bucket whose running number reaches "
            "the rank of p, told as its start and a hundredth of that",
            differs="The rank is that of `percentile2`. What it finds is at most 1% off, from "
            "1 us to 10 minutes: shorter durations count as 1 us, longer ones as 10 minutes. "
            "Buckets are told as whole nanoseconds (semantics.md, Latencies).",
        ),
    ),
    MetricFunction(
        name="histogram",
        parameters=(
            Parameter("step", Kind.INTEGER),
            Parameter("steps", Kind.INTEGER, at_most=_MOST_STEPS),
        ),
        source=Source.NUMBER,
        sql_type="MAP(BIGINT, BIGINT)",
        state_count=1,
        states=_histogram_states,
        finish=finish_histogram,
        unit="count",
        notes=Notes(
            "histogram of {source}",
            "number of logs per bucket of `step`",
            "map of each bucket's start to its number of logs",
            differs="All steps + 1 buckets are there, empty ones with 0, so that rows can be "
            "compared; what is over the top is in the last. "
            f"At most {_MOST_STEPS:,} steps: every row has them all.",
        ),
    ),
    MetricFunction(
        name="labelCount",
        parameters=(Parameter("label", Kind.STRING), _MOST_LABELS),
        source=Source.ANY,
        sql_type="MAP(VARCHAR, BIGINT)",
        state_count=1,
        states=_label_count_states,
        finish=finish_label_count,
        unit="count",
        notes=Notes(
            "number of logs per {label}",
            "number of logs per label",
            "map of labels to their number of logs",
            missing="no log that counts has the label",
            differs=_TOP_LABELS,
        ),
    ),
    MetricFunction(
        name="labelAvg",
        parameters=(
            Parameter("label", Kind.STRING),
            Parameter("value", Kind.NUMBER),
            _MOST_LABELS,
        ),
        source=Source.ANY,
        sql_type="MAP(VARCHAR, BIGINT)",
        state_count=2,
        states=_label_avg_states,
        finish=finish_label_avg,
        notes=Notes(
            "average of {value} per {label}",
            "sum and number of the values per label",
            "map of labels to sum / number",
            missing="no log that counts has both",
            differs="Where the division gives 0 and the sum is not 0, the average is 1, to tell "
            f"little from nothing. {_CUT} {_TOP_LABELS}",
        ),
    ),
)

FUNCTIONS: Final[Mapping[str, MetricFunction]] = MappingProxyType(
    {function.name: function for function in _TABLE}
    | {"percentile": next(f for f in _TABLE if f.name == "percentile2")}
)
