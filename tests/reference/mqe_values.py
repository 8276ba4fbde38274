"""Values of MQE, one by one: aggregates, operators (see mqe.py)."""

from __future__ import annotations

import decimal
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Labels = tuple[tuple[str, str], ...]
Number = float | None


class FaultError(Exception):
    """What is wrong with an expression."""


@dataclass
class Row:
    """A series."""

    labels: Labels
    values: list[Number]
    ids: list[str | None] = field(default_factory=list)


@dataclass
class Answer:
    """A result; `kind` is single, series or list."""

    kind: str
    rows: list[Row]
    labelled: bool = False
    compared: bool = False


def finite(value: float) -> Number:
    """Return a number, None for an infinite one."""
    return value if math.isfinite(value) else None


def has_value(operand: Callable[[], Answer]) -> bool:
    """Tell whether an operand has a value; one that is wrong has none."""
    try:
        rows = operand().rows
    except FaultError:
        return False
    return any(value is not None for row in rows for value in row.values)


def uncompared(answer: Answer) -> Answer:
    """Return what is no comparison any more."""
    answer.compared = False
    return answer


def each(answer: Answer, compute: Callable[[float], float]) -> Answer:
    """Return a function of each value."""
    for row in answer.rows:
        row.values = [None if value is None else compute(value) for value in row.values]
    return uncompared(answer)


def rounded(value: float, places: int) -> float:
    """Round half away from zero, by the shortest text of a number."""
    with decimal.localcontext() as context:
        context.prec = 1_000
        exact = decimal.Decimal(repr(value))
        step = decimal.Decimal(1).scaleb(-min(places, 400))
        return float(exact.quantize(step, rounding=decimal.ROUND_HALF_UP))


def aggregate(function: str, values: Sequence[Number]) -> Number:
    """Return an aggregate of the values that there are."""
    held = [value for value in values if value is not None]
    if function == "count":
        return float(len(held))
    if function == "sum":
        return finite(float(sum(held)))
    if not held:
        return None
    if function == "avg":
        return finite(sum(held) / len(held))
    return {"max": max(held), "min": min(held), "latest": held[-1]}[function]


def aggregated(function: str, answer: Answer) -> Answer:
    """Return one value of each series."""
    if function == "latest" and answer.kind != "series":
        raise FaultError
    rows = []
    for row in answer.rows:
        value = aggregate(function, row.values)
        chosen: str | None = None
        if function in {"max", "min", "latest"} and value is not None:
            places = [at for at, one in enumerate(row.values) if one == value]
            held = [at for at, one in enumerate(row.values) if one is not None]
            chosen = row.ids[held[-1] if function == "latest" else places[0]]
        rows.append(Row(row.labels, [value], [chosen]))
    return Answer("single", rows, answer.labelled)


COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _computed(sign: str, one: float, other: float) -> Number:
    if sign in COMPARISONS:
        return float(COMPARISONS[sign](one, other))
    if sign == "&&":
        return float(bool(one) and bool(other))
    if sign == "||":
        return float(bool(one) or bool(other))
    if sign in {"/", "%"} and other == 0:
        return None
    if sign == "%":
        return math.fmod(one, other)
    basic = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
    return finite(basic[sign](one, other))


def applied(
    sign: str, left: Callable[[], Answer], right: Callable[[], Answer]
) -> Callable[[], Answer]:
    def evaluate() -> Answer:
        one, other = left(), right()
        if sign in {"&&", "||"} and not (one.compared and other.compared):
            raise FaultError
        kinds = {one.kind, other.kind}
        if "list" in kinds and "single" not in kinds:
            raise FaultError
        kind = next((kind for kind in ("list", "series") if kind in kinds), "single")
        rows = _matched(sign, one, other, kind)
        compared = sign in COMPARISONS or sign in {"&&", "||"}
        return Answer(kind, rows, one.labelled or other.labelled, compared)

    return evaluate


def _matched(sign: str, one: Answer, other: Answer, kind: str) -> list[Row]:
    if one.labelled and other.labelled:
        if one.kind == "single" and kind != "single":
            return [
                _row(sign, (_partner(row, one), row), row, keeps=True, kind=kind)
                for row in other.rows
            ]
        return [
            _row(sign, (row, _partner(row, other)), row, keeps=True, kind=kind) for row in one.rows
        ]
    if other.labelled:
        return [_row(sign, (one.rows[0], row), row, keeps=True, kind=kind) for row in other.rows]
    return [
        _row(sign, (row, other.rows[0]), row, keeps=one.labelled, kind=kind) for row in one.rows
    ]


def _partner(row: Row, others: Answer) -> Row:
    for other in others.rows:
        if set(other.labels) == set(row.labels):
            return other
    return Row(row.labels, [None], [None])


def _row(sign: str, sides: tuple[Row, Row], named: Row, *, keeps: bool, kind: str) -> Row:
    one, other = sides
    count = max(len(one.values), len(other.values))
    if not (one.values and other.values):
        count = 0
    lefts = one.values * count if len(one.values) == 1 else one.values
    rights = other.values * count if len(other.values) == 1 else other.values
    values = [
        None if a is None or b is None else _computed(sign, a, b)
        for a, b in zip(lefts[:count], rights[:count], strict=True)
    ]
    if kind == "single":
        ids = named.ids if keeps else [None]
    else:
        ids = next((row.ids for row in (one, other) if len(row.ids) == count and any(row.ids)), [])
    return Row(named.labels if keeps else (), values, ids)
