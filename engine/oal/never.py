"""Why a metric could never have a value, whatever the logs (analysis.md, section 4).

Filters may contradict each other, or leave only operations that lack an attribute. Told per
part of the definition, so that the message points at what to change.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from framewalk.engine.oal import syntax
from framewalk.engine.oal.bound import Predicate, Value
from framewalk.engine.oal.catalogue import DETECT_POINTS, ValueType
from framewalk.engine.oal.comparison import Comparison, Typed, holds
from framewalk.engine.oal.diagnostics import did_you_mean
from framewalk.engine.oal.syntax import Operator
from framewalk.engine.schemas import COMPONENT_IDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from framewalk.engine.oal.bound import Scalar
    from framewalk.engine.oal.catalogue import Scope
    from framewalk.engine.oal.syntax import Definition, Span

_DOMAINS: Final[dict[ValueType, tuple[Scalar, ...]]] = {
    ValueType.BOOLEAN: (True, False, None),
    ValueType.DETECT_POINT: DETECT_POINTS,
}


@dataclass(frozen=True, slots=True)
class Reason:
    """The part of a definition that leaves it without values, in the words of a diagnostic."""

    span: Span
    message: str
    got: str = ""
    wanted: str = ""
    hint: str = ""


def why_filtered_out(
    scope: Scope, definition: Definition, filters: Sequence[Comparison]
) -> Reason | None:
    """Return the first filter that leaves no logs, alone or after those before it."""
    if _possible(scope.operations, filters):
        return None
    left: Sequence[str] = scope.operations
    for number, condition in enumerate(definition.filters):
        one = filters[number]
        if not _possible(scope.operations, [one]):
            return _never_holds(definition, condition, one)
        still = _possible(scope.operations, filters[: number + 1])
        if not still:
            return _no_value(
                definition,
                condition.span,
                "this filter contradicts the ones before it",
                hint=_about(condition, one, left),
            )
        left = still
    return None


def why_without_value(
    scope: Scope,
    definition: Definition,
    filters: Sequence[Comparison],
    source: Typed | None,
    arguments: Sequence[Comparison | Typed | int],
) -> Reason:
    """Return the attribute that the logs left by the filters lack."""
    left = _possible(scope.operations, filters)
    if source is not None:
        with_source = [operation for operation in left if operation in source.per_operation]
        if not with_source:
            attribute = definition.source.attribute
            return _lacking(definition, attribute.span, str(attribute), source, left)
        left = with_source
    for given, argument in zip(definition.function.arguments, arguments, strict=False):
        lacking = _argument_lacking(definition, given, argument, left)
        if lacking is not None:
            return lacking
    where = definition.function.span
    return _no_value(definition, where, "no log has all the attributes that it needs")


def _argument_lacking(
    definition: Definition,
    given: syntax.Argument,
    argument: Comparison | Typed | int,
    left: Sequence[str],
) -> Reason | None:
    if isinstance(argument, Typed) and isinstance(given, syntax.Operand):
        if not set(left) & argument.per_operation.keys():
            return _lacking(definition, given.span, str(given.attribute), argument, left)
    elif (
        isinstance(argument, Comparison)
        and isinstance(given, syntax.Condition)
        and not _possible(left, [argument])
    ):
        none_of = f"{given} holds for none of the {_logs(left)}"
        return _no_value(definition, given.span, none_of)
    return None


def _lacking(
    definition: Definition, span: Span, path: str, typed: Typed, left: Sequence[str]
) -> Reason:
    if not typed.per_operation:
        return _no_value(definition, span, f"{path} is never a number")
    having = f"only {_logs(typed.per_operation)} have {path}"
    return _no_value(definition, span, having, hint=f"only {_logs(left)} count here")


def _no_value(definition: Definition, span: Span, why: str, **words: str) -> Reason:
    message = f"metric {definition.name!r} can never have a value: {why}"
    return Reason(span, message, **words)


def _never_holds(
    definition: Definition, condition: syntax.Condition, comparison: Comparison
) -> Reason:
    typed = comparison.typed
    span, path = condition.value_span, str(condition.attribute)
    if not typed.per_operation:
        return _no_value(definition, condition.span, f"{path} is never a number")
    known = _known_values(typed)
    if not known:
        return _no_value(definition, condition.span, "no log can meet this filter")
    got = "none of them" if isinstance(condition.value, tuple) else str(condition.value)
    return _no_value(
        definition,
        span,
        f"{path} never is that",
        got=got,
        wanted=f"one of {', '.join(known)}" if len(known) > 1 else known[0],
        hint=did_you_mean(got, known),
    )


def _known_values(typed: Typed) -> list[str]:
    """Return all values that an attribute can have, as OAL; empty if there is no telling."""
    if typed.type is ValueType.COMPONENTS:
        return list(map(str, COMPONENT_IDS))
    values = dict.fromkeys(typed.per_operation.values())
    columns = [value.column for value in values if isinstance(value, Value)]
    if columns and all(column.members for column in columns):
        members = dict.fromkeys(member for column in columns for member in column.members)
        return [str(syntax.String(member)) for member in members]
    constants = [value for value in values if isinstance(value, str)]
    if len(constants) < len(values):
        return []
    if typed.type is ValueType.DETECT_POINT:
        return [f"{typed.type}.{value}" for value in constants]
    return [str(syntax.String(value)) for value in constants]


def _about(condition: syntax.Condition, comparison: Comparison, left: Sequence[str]) -> str:
    having = comparison.typed.per_operation
    if not set(left) & having.keys():
        return (
            f"{condition.attribute} is of {_logs(having)}, the filters before leave {_logs(left)}"
        )
    constant = all(isinstance(value, str) for value in having.values())
    return f"the filters before leave {_logs(left)}" if constant else ""


def _logs(operations: Iterable[str]) -> str:
    *first, last = operations
    return f"{', '.join(first)} and {last} logs" if first else f"{last} logs"


def _possible(operations: Iterable[str], filters: Sequence[Comparison]) -> list[str]:
    """Return the operations that have logs which could meet all filters."""
    return [operation for operation in operations if _may_meet(operation, filters)]


def _may_meet(operation: str, filters: Sequence[Comparison]) -> bool:
    conditions = [comparison.on(operation) for comparison in filters]
    if False in conditions:
        return False
    by_column: defaultdict[str, list[Predicate]] = defaultdict(list)
    for condition in conditions:
        if isinstance(condition, Predicate):
            by_column[str(condition.value)].append(condition)
    return all(map(_satisfiable, by_column.values()))


def _satisfiable(predicates: list[Predicate]) -> bool:
    """Tell whether some value of a column meets all predicates; if in doubt, it does."""
    value = predicates[0].value
    if value.column.type is ValueType.COMPONENTS:
        return _components_satisfiable(predicates)
    members = value.column.members if value.cast is None else ()
    candidates = members or _candidates(value.column.type, predicates)
    return candidates is None or any(
        all(holds(candidate, each.operator, each.operand) for each in predicates)
        for candidate in candidates
    )


def _candidates(column_type: ValueType, predicates: list[Predicate]) -> Iterable[Scalar] | None:
    """Return values of which one meets the predicates if any does; None if there is no telling."""
    for each in predicates:
        if each.operator is Operator.EQUAL and not isinstance(each.operand, tuple):
            return [each.operand]
        if each.operator is Operator.IN and isinstance(each.operand, tuple):
            return each.operand
    if column_type in _DOMAINS:
        return _DOMAINS[column_type]
    numbers = [each.operand for each in predicates if isinstance(each.operand, int)]
    # The ranges that meet the predicates begin and end next to the numbers compared with.
    near = {number + step for number in numbers for step in (-1, 0, 1)}
    return near or None


def _components_satisfiable(predicates: list[Predicate]) -> bool:
    contained = {each.operand for each in predicates if each.operator is Operator.CONTAIN}
    excluded = {each.operand for each in predicates if each.operator is Operator.NOT_CONTAIN}
    return contained <= set(COMPONENT_IDS) and not contained & excluded
