"""Bound values and conditions as Polars expressions (analysis.md, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from framewalk.engine.latency_buckets import STARTS_NS
from framewalk.engine.oal.bound import (
    ApdexPredicate,
    Band,
    BoundCondition,
    Bucket,
    Key,
    Predicate,
    RelativeBucket,
    Scalar,
    Value,
)
from framewalk.engine.oal.catalogue import Level, ValueType
from framewalk.engine.oal.syntax import Cast, Operator
from framewalk.engine.schemas import COMPONENT_IDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_INT32: Final = 2**32
_STARTS_NS: Final = pl.Series("starts_ns", STARTS_NS, dtype=pl.Int64)
# As schemas.py says of these columns.
_NEVER_NEGATIVE: Final = ("_ns", "_ms", "_bytes", "_count")


def threshold_column(service_column: str) -> str:
    """Name the column of Apdex thresholds (ms) of the service in a peer column."""
    return f"apdex threshold of {service_column}"


def value_expression(value: Value) -> pl.Expr:
    """Return the value as Int64, String or Boolean; null where a cast finds no number."""
    column = pl.col(value.column.name)
    if value.cast in {Cast.STRING_TO_LONG, Cast.STRING_TO_INT}:
        column = column.cast(pl.Int64, strict=False)
    elif value.column.type is ValueType.LONG:
        column = column.cast(pl.Int64)
    if value.cast in {Cast.INT, Cast.STRING_TO_INT}:
        # As a Java (int) does: the low 32 bits, read as a signed number.
        return (column + _INT32 // 2) % _INT32 - _INT32 // 2
    return column


def key_expression(key: Key) -> pl.Expr:
    """Return the key that splits a state: Int64 for a bucket, String for a label."""
    if isinstance(key, RelativeBucket):
        value = value_expression(key.value)
        reached = pl.lit(_STARTS_NS).search_sorted(value, side="right").cast(pl.Int64)
        # A search finds a place for null, too.
        return pl.when(value.is_not_null()).then((reached - 1).clip(0))
    if isinstance(key, Bucket):
        value = value_expression(key.value)
        if key.last is not None:
            return (value // key.width).clip(0, key.last)
        may_be_negative = key.value.cast or not key.value.column.name.endswith(_NEVER_NEGATIVE)
        return _cut(value, key.width) if may_be_negative else value // key.width
    return pl.lit(key.value) if isinstance(key.value, str) else value_expression(key.value)


def _cut(value: pl.Expr, width: int) -> pl.Expr:
    """Divide toward zero, as `//` of Polars does not."""
    whole = value // width
    return whole + ((whole < 0) & (value % width != 0)).cast(pl.Int64)


def condition_level(condition: BoundCondition) -> Level:
    """Tell which frame a condition can be checked on."""
    return Level.LOG if isinstance(condition, ApdexPredicate) else condition.value.column.level


def condition_expression(condition: BoundCondition) -> pl.Expr:
    """Return the condition as a Boolean that is never null."""
    if isinstance(condition, ApdexPredicate):
        return _apdex_expression(condition)
    if condition.value.column.type is ValueType.COMPONENTS:
        return _contains_expression(condition)
    return _COMPARE[condition.operator](
        value_expression(condition.value), condition.operand
    ).fill_null(condition.operator is Operator.NOT_EQUAL and condition.operand is not None)


def _apdex_expression(condition: ApdexPredicate) -> pl.Expr:
    value = value_expression(condition.value)
    threshold_ms = pl.col(threshold_column(condition.service.name))
    if condition.band is Band.SATISFIED:
        return (value <= threshold_ms).fill_null(value=False)
    return ((value > threshold_ms) & (value <= 4 * threshold_ms)).fill_null(value=False)


def _contains_expression(condition: Predicate) -> pl.Expr:
    wanted = condition.operand
    known = wanted in COMPONENT_IDS and not isinstance(wanted, bool)
    bit = 1 << COMPONENT_IDS.index(wanted) if known and isinstance(wanted, int) else 0
    contains = (pl.col(condition.value.column.name) & bit) != 0
    return ~contains if condition.operator is Operator.NOT_CONTAIN else contains


def _equal(value: pl.Expr, operand: Scalar | tuple[Scalar, ...]) -> pl.Expr:
    return value.is_null() if operand is None else value.eq(operand)


def _not_equal(value: pl.Expr, operand: Scalar | tuple[Scalar, ...]) -> pl.Expr:
    return value.is_not_null() if operand is None else value.ne(operand)


def _in(value: pl.Expr, operand: Scalar | tuple[Scalar, ...]) -> pl.Expr:
    return value.is_in(list(operand) if isinstance(operand, tuple) else [operand])


def _like(value: pl.Expr, operand: Scalar | tuple[Scalar, ...]) -> pl.Expr:
    pattern = str(operand)
    text = pattern.removeprefix("%").removesuffix("%")
    if pattern.startswith("%") and pattern.endswith("%"):
        return value.str.contains(text, literal=True)
    return value.str.ends_with(text) if pattern.startswith("%") else value.str.starts_with(text)


_COMPARE: Final[Mapping[Operator, Callable[[pl.Expr, Any], pl.Expr]]] = {
    Operator.EQUAL: _equal,
    Operator.NOT_EQUAL: _not_equal,
    Operator.GREATER: lambda value, operand: value > operand,
    Operator.LESS: lambda value, operand: value < operand,
    Operator.GREATER_EQUAL: lambda value, operand: value >= operand,
    Operator.LESS_EQUAL: lambda value, operand: value <= operand,
    Operator.IN: _in,
    Operator.LIKE: _like,
}
