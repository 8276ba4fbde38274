"""Attributes and conditions as the binder knows them, and what they are in one operation.

A comparison on a constant of an operation, such as `type`, has its answer here; one on a
column becomes a predicate (analysis.md, section 4).
"""

from __future__ import annotations

import operator as compare
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from framewalk.engine.oal.bound import Call, Predicate, Selection, StatePart, Value
from framewalk.engine.oal.syntax import Cast, Operator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from framewalk.engine.oal.bound import (
        BoundCondition,
        Keep,
        Key,
        MetricFunction,
        Scalar,
    )
    from framewalk.engine.oal.catalogue import ValueType

OF_STRING: Final = frozenset({Cast.STRING_TO_LONG, Cast.STRING_TO_INT})

EQUALITY: Final = frozenset({Operator.EQUAL, Operator.NOT_EQUAL})
_ORDER: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = {
    Operator.GREATER: compare.gt,
    Operator.LESS: compare.lt,
    Operator.GREATER_EQUAL: compare.ge,
    Operator.LESS_EQUAL: compare.le,
}


@dataclass(frozen=True, slots=True)
class Typed:
    """An attribute with its cast: what it is in each operation that has it."""

    type: ValueType
    per_operation: Mapping[str, Value | str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A condition whose attribute is resolved."""

    typed: Typed
    operator: Operator
    operand: Scalar | tuple[Scalar, ...]

    def on(self, operation: str) -> Predicate | bool:
        """Return what is left to check on logs of an operation, or the answer."""
        value = self.typed.per_operation.get(operation)
        if isinstance(value, Value):
            return Predicate(value, self.operator, self.operand)
        return holds(value, self.operator, self.operand)


def holds(value: Scalar, operator: Operator, operand: Scalar | tuple[Scalar, ...]) -> bool:
    """Compare a value; None stands for an attribute that the log does not have."""
    if operator in EQUALITY:
        return (value == operand) is (operator is Operator.EQUAL)
    if value is None:
        return operator is Operator.NOT_CONTAIN
    if isinstance(operand, tuple):
        return operator is Operator.IN and value in operand
    if operator is Operator.LIKE:
        return is_like(str(value), str(operand))
    return _is_ordered(value, operator, operand)


def _is_ordered(value: Scalar, order: Operator, operand: Scalar) -> bool:
    numbers = isinstance(value, int) and isinstance(operand, int)
    return numbers and order in _ORDER and _ORDER[order](value, operand)


def is_like(value: str, pattern: str) -> bool:
    """Compare with a text that has % before it, after it or both."""
    inner = pattern.removeprefix("%").removesuffix("%")
    if pattern.startswith("%") and pattern.endswith("%"):
        return inner in value
    return value.endswith(inner) if pattern.startswith("%") else value.startswith(inner)


def select(operation: str, filters: Sequence[Comparison]) -> Selection | None:
    """Return which logs of an operation meet the filters; None where none can."""
    conditions = [comparison.on(operation) for comparison in filters]
    if False in conditions:
        return None
    return Selection(operation, frozenset(c for c in conditions if not isinstance(c, bool)))


def state_parts(
    function: MetricFunction,
    selection: Selection,
    source: Typed | None,
    arguments: Sequence[Comparison | Typed | int],
) -> tuple[StatePart | None, ...]:
    """Return what the function keeps of one operation; None where no log can contribute."""
    operation = selection.operation
    value = source.per_operation.get(operation) if source is not None else None
    number = value if isinstance(value, Value) else None
    values = [
        argument.per_operation.get(operation)
        for argument in arguments
        if isinstance(argument, Typed)
    ]
    if None in values or (source is not None and value is None):
        return (None,) * function.state_count
    is_there = {
        Predicate(each, Operator.NOT_EQUAL, None)
        for each in (number, *values)
        if isinstance(each, Value) and (each.cast in OF_STRING or each.column.nullable)
    }
    selection = Selection(operation, selection.conditions | is_there)

    def make(
        keep: Keep,
        *conditions: BoundCondition | bool,
        value: Value | None = None,
        key: Key | None = None,
    ) -> StatePart | None:
        if False in conditions:
            return None
        further = {condition for condition in conditions if not isinstance(condition, bool)}
        narrowed = Selection(operation, selection.conditions | further)
        return StatePart(keep, narrowed, value, key)

    call = Call(
        number,
        tuple(argument.on(operation) for argument in arguments if isinstance(argument, Comparison)),
        tuple(value for value in values if value is not None),
        tuple(argument for argument in arguments if isinstance(argument, int)),
    )
    return function.states(call, make)
