"""From syntax trees to bound metrics: every name resolved and typed, every error found here.

Scopes and attributes come from the catalogue, functions from their table. A condition on a
constant of the operation (such as `type`) is decided here: it selects operations. What is left
are conditions on columns. Follows analysis.md, sections 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from framewalk.engine.oal import syntax
from framewalk.engine.oal.bound import (
    Bucket,
    Condition,
    Keep,
    Label,
    Metric,
    Predicate,
    Selection,
    State,
    StatePart,
    Value,
)
from framewalk.engine.oal.catalogue import ENUMERATIONS, SCOPES, Column, Level, ValueType
from framewalk.engine.oal.diagnostics import Severity, suggest
from framewalk.engine.oal.functions import FUNCTIONS, Call, Kind, Source
from framewalk.engine.oal.syntax import Cast, Definition, Disable, Operator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from framewalk.engine.oal.bound import Scalar
    from framewalk.engine.oal.catalogue import Scope
    from framewalk.engine.oal.diagnostics import Diagnostic, SourceText
    from framewalk.engine.oal.functions import MetricFunction, Parameter
    from framewalk.engine.oal.parser import Parsed
    from framewalk.engine.oal.syntax import Span

DECORATORS: Final = ("K8SServiceDecorator",)

_LARGEST_PARAMETER: Final = 1_000_000_000
_TO_LONG: Final = frozenset(Cast)
_OF_STRING: Final = frozenset({Cast.STRING_TO_LONG, Cast.STRING_TO_INT})
_EQUALITY: Final = frozenset({Operator.EQUAL, Operator.NOT_EQUAL})
_ORDER: Final = frozenset(
    {Operator.GREATER, Operator.LESS, Operator.GREATER_EQUAL, Operator.LESS_EQUAL}
)
_OPERATORS: Final = {
    ValueType.LONG: _EQUALITY | _ORDER | {Operator.IN},
    ValueType.STRING: _EQUALITY | {Operator.LIKE, Operator.IN},
    ValueType.BOOLEAN: _EQUALITY | {Operator.IN},
    ValueType.DETECT_POINT: _EQUALITY | {Operator.IN},
    ValueType.COMPONENTS: frozenset({Operator.CONTAIN, Operator.NOT_CONTAIN}),
}
_OPERANDS: Final[Mapping[ValueType, tuple[type, str]]] = {
    ValueType.LONG: (syntax.Integer, "a number"),
    ValueType.STRING: (syntax.String, "a string"),
    ValueType.BOOLEAN: (syntax.Boolean, "true or false"),
    ValueType.DETECT_POINT: (syntax.EnumValue, "a DetectPoint such as DetectPoint.SERVER"),
    ValueType.COMPONENTS: (syntax.Integer, "a number"),
}
_KINDS: Final = {
    Kind.CONDITION: "a condition such as protocol.success == true",
    Kind.SERVICE_NAME: "the name of a service, such as serviceName",
    Kind.STRING: "an attribute that is a string",
    Kind.BOOLEAN: "an attribute that is true or false, such as protocol.success",
    Kind.NUMBER: "an attribute that is a number",
    Kind.INTEGER: f"a number from 1 to {_LARGEST_PARAMETER:,}",
}
_ATTRIBUTE_KINDS: Final = {
    Kind.SERVICE_NAME: ValueType.STRING,
    Kind.STRING: ValueType.STRING,
    Kind.BOOLEAN: ValueType.BOOLEAN,
    Kind.NUMBER: ValueType.LONG,
}


@dataclass(frozen=True, slots=True)
class Bound:
    """The metrics of some files, and what was found wrong with the rest."""

    metrics: tuple[Metric, ...]
    diagnostics: tuple[Diagnostic, ...]


def bind(files: Sequence[Parsed], *, skip_unknown_scopes: bool = False) -> Bound:
    """Bind the statements of all files together; names are unique and disabled across files.

    The diagnostics include those of the parser. With `skip_unknown_scopes` a definition of
    another scope is left out with a warning.
    """
    found = [diagnostic for file in files for diagnostic in file.diagnostics]
    metrics: dict[str, Metric] = {}
    disabled: dict[str, Disable] = {}
    for file in files:
        for statement in file.script.statements:
            try:
                if isinstance(statement, Definition):
                    _define(metrics, statement, file.source)
                else:
                    disabled[statement.name] = statement
            except _RejectedError as error:
                skipped = skip_unknown_scopes and error.unknown_scope
                severity = Severity.WARNING if skipped else Severity.ERROR
                found.append(replace(error.diagnostic, severity=severity))
    found.extend(_unknown_disabled(files))
    kept = tuple(metric for name, metric in metrics.items() if name not in disabled)
    return Bound(kept, tuple(found))


def _define(metrics: dict[str, Metric], definition: Definition, source: SourceText) -> None:
    first = metrics.get(definition.name)
    if first is not None:
        span = first.definition.name_span
        raise _RejectedError(
            source.diagnostic(
                definition.name_span,
                f"metric {definition.name!r} is defined twice",
                hint=f"the first definition is at {span.path}:{span.line}",
            )
        )
    metrics[definition.name] = _Binder(source, definition).metric()


def _unknown_disabled(files: Sequence[Parsed]) -> Iterable[Diagnostic]:
    statements = [
        (statement, file.source) for file in files for statement in file.script.statements
    ]
    names = {statement.name for statement, _ in statements if isinstance(statement, Definition)}
    for statement, source in statements:
        if isinstance(statement, Disable) and statement.name not in names:
            yield source.diagnostic(
                statement.name_span,
                f"there is no metric {statement.name!r} to disable",
                hint=_did_you_mean(statement.name, names),
            )


def _did_you_mean(word: str, candidates: Iterable[str]) -> str:
    best = suggest(word, sorted(candidates))
    return f"did you mean {best}?" if best else ""


class _RejectedError(Exception):
    """A definition cannot be bound; carries what to tell about it."""

    def __init__(self, diagnostic: Diagnostic, *, unknown_scope: bool = False) -> None:
        self.diagnostic = diagnostic
        self.unknown_scope = unknown_scope
        super().__init__(str(diagnostic))


@dataclass(frozen=True, slots=True)
class _Typed:
    """An attribute with its cast: what it is in each operation that has it."""

    type: ValueType
    per_operation: Mapping[str, Value | str]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A condition whose attribute is resolved."""

    typed: _Typed
    operator: Operator
    operand: Scalar | tuple[Scalar, ...]

    def on(self, operation: str) -> Predicate | bool:
        """Return what is left to check on logs of an operation, or the answer."""
        value = self.typed.per_operation.get(operation)
        if isinstance(value, Value):
            return Predicate(value, self.operator, self.operand)
        return _holds(value, self.operator, self.operand)


_Argument: TypeAlias = _Comparison | _Typed | int


def _holds(value: str | None, operator: Operator, operand: Scalar | tuple[Scalar, ...]) -> bool:
    """Compare a constant; None stands for an attribute that the log does not have."""
    if operator in _EQUALITY:
        return (value == operand) is (operator is Operator.EQUAL)
    if value is None:
        return operator is Operator.NOT_CONTAIN
    if operator is Operator.IN and isinstance(operand, tuple):
        return value in operand
    return operator is Operator.LIKE and _is_like(value, str(operand))


def _is_like(value: str, pattern: str) -> bool:
    inner = pattern.removeprefix("%").removesuffix("%")
    if pattern.startswith("%") and pattern.endswith("%"):
        return inner in value
    return value.endswith(inner) if pattern.startswith("%") else value.startswith(inner)


class _Binder:
    """Binds one definition."""

    def __init__(self, source: SourceText, definition: Definition) -> None:
        self._source = source
        self._definition = definition
        self._scope = self._find_scope()
        self._function = self._find_function()

    def metric(self) -> Metric:
        """Bind the definition, or raise _RejectedError."""
        self._check_decorator()
        source = self._source_attribute()
        filters = [self._comparison(condition) for condition in self._definition.filters]
        arguments = self._arguments()
        operations = self._scope.operations if source is None else tuple(source.per_operation)
        parts = [
            _state_parts(self._function, selection, source, arguments)
            for operation in operations
            if (selection := _select(operation, filters)) is not None
        ]
        states = tuple(
            State(tuple(part for part in same if part is not None))
            for same in zip(*parts, strict=True)
        )
        if not states or not all(state.parts for state in states):
            self._refuse(
                self._definition.function.span,
                f"metric {self._definition.name!r} can never have a value",
                hint="no kind of log has all of its attributes and meets its filters on `type`",
            )
        integers = tuple(argument for argument in arguments if isinstance(argument, int))
        return Metric(self._definition, self._scope, self._function, states, integers)

    def _find_scope(self) -> Scope:
        source = self._definition.source
        if source.scope not in SCOPES:
            diagnostic = self._source.diagnostic(
                source.scope_span,
                f"unknown scope {source.scope!r}",
                wanted=f"one of {', '.join(SCOPES)}",
                hint=_did_you_mean(source.scope, SCOPES),
            )
            raise _RejectedError(diagnostic, unknown_scope=True)
        return SCOPES[source.scope]

    def _find_function(self) -> MetricFunction:
        function = self._definition.function
        if function.name not in FUNCTIONS:
            self._refuse(
                function.name_span,
                f"unknown function {function.name!r}",
                wanted=f"one of {', '.join(FUNCTIONS)}",
                hint=_did_you_mean(function.name, FUNCTIONS),
            )
        return FUNCTIONS[function.name]

    def _check_decorator(self) -> None:
        decorator = self._definition.decorator
        if decorator is not None and decorator.value not in DECORATORS:
            self._refuse(
                decorator.span,
                f"unknown decorator {decorator.value!r}",
                wanted=f"one of {', '.join(DECORATORS)}",
                hint=_did_you_mean(decorator.value, DECORATORS),
            )

    def _source_attribute(self) -> _Typed | None:
        source = self._definition.source
        needs_number = self._function.source is Source.NUMBER
        if isinstance(source.attribute, syntax.Star):
            if needs_number:
                self._refuse(
                    source.attribute.span,
                    f"{self._function.name}() needs a number",
                    got="*",
                    wanted="an attribute, as in from(K8SService.connect.duration)",
                )
            return None
        typed = self._attribute(source.attribute, source.cast)
        if needs_number and typed.type is not ValueType.LONG:
            self._refuse(
                source.attribute.span,
                f"{self._function.name}() needs a number",
                got=f"{source.attribute}, a {typed.type}",
            )
        return typed

    def _attribute(self, attribute: syntax.Attribute, cast: Cast | None) -> _Typed:
        path = str(attribute)
        if path not in self._scope.attributes:
            self._refuse(
                attribute.span,
                f"{self._scope.name} has no attribute {path!r}",
                hint=_did_you_mean(path, self._scope.attributes),
            )
        known = self._scope.attributes[path]
        castable = ValueType.STRING if cast in _OF_STRING else ValueType.LONG
        if cast is not None and known.type is not castable:
            self._refuse(
                attribute.span,
                f"{cast} converts a {castable}",
                got=f"{path}, a {known.type}",
            )
        per_operation = {
            operation: Value(column, cast) if isinstance(column, Column) else column
            for operation, column in known.columns.items()
        }
        return _Typed(known.type if cast is None else ValueType.LONG, per_operation)

    def _comparison(self, condition: syntax.Condition) -> _Comparison:
        typed = self._attribute(condition.attribute, condition.cast)
        if condition.operator not in _OPERATORS[typed.type]:
            self._refuse(
                condition.operator_span,
                f"a {typed.type} has no operator {condition.operator}",
                wanted=f"one of {' '.join(sorted(_OPERATORS[typed.type]))}",
            )
        if isinstance(condition.value, tuple):
            values = tuple(self._operand(value, typed, condition) for value in condition.value)
            return _Comparison(typed, condition.operator, values)
        operand = self._operand(condition.value, typed, condition)
        if condition.operator is Operator.LIKE and isinstance(operand, str):
            self._check_pattern(condition, operand)
        return _Comparison(typed, condition.operator, operand)

    def _operand(self, value: syntax.Value, typed: _Typed, condition: syntax.Condition) -> Scalar:
        if isinstance(value, syntax.Null):
            if condition.operator not in _EQUALITY:
                self._refuse(value.span, "null can be compared with == and != only")
            return None
        literal, words = _OPERANDS[typed.type]
        if not isinstance(value, literal):
            self._refuse(
                value.span,
                f"{condition.attribute} is a {typed.type}",
                got=str(value),
                wanted=words,
            )
        if isinstance(value, syntax.EnumValue):
            return self._enum_member(value)
        return value.value

    def _enum_member(self, value: syntax.EnumValue) -> str:
        members = ENUMERATIONS.get(value.enumeration, ())
        if value.member not in members:
            every = [f"{name}.{member}" for name, known in ENUMERATIONS.items() for member in known]
            self._refuse(
                value.span,
                f"there is no {value}",
                wanted=f"one of {', '.join(every)}",
                hint=_did_you_mean(str(value), every),
            )
        return value.member

    def _check_pattern(self, condition: syntax.Condition, pattern: str) -> None:
        inner = pattern.removeprefix("%").removesuffix("%")
        if inner == pattern or "%" in inner or not inner:
            self._refuse(
                condition.value_span,
                "like takes a text with % before it, after it or both",
                got=str(syntax.String(pattern)),
                wanted='"x%", "%x" or "%x%"',
            )

    def _arguments(self) -> list[_Argument]:
        given = self._definition.function.arguments
        parameters = self._function.parameters
        required = sum(not parameter.optional for parameter in parameters)
        if not required <= len(given) <= len(parameters):
            names = ", ".join(f"[{p.name}]" if p.optional else p.name for p in parameters)
            self._refuse(
                self._definition.function.span,
                f"wrong number of arguments to {self._function.name}()",
                got=str(len(given)),
                wanted=f"{self._function.name}({names})",
            )
        return [
            self._argument(argument, parameter)
            for argument, parameter in zip(given, parameters, strict=False)
        ]

    def _argument(self, argument: syntax.Argument, parameter: Parameter) -> _Argument:
        kind = parameter.kind
        if kind is Kind.CONDITION and isinstance(argument, syntax.Condition):
            return self._comparison(argument)
        if kind is Kind.INTEGER and isinstance(argument, syntax.Integer):
            if 0 < argument.value <= _LARGEST_PARAMETER:
                return argument.value
        elif kind in _ATTRIBUTE_KINDS and isinstance(argument, syntax.Operand):
            typed = self._attribute(argument.attribute, argument.cast)
            if typed.type is _ATTRIBUTE_KINDS[kind] and _suits(kind, typed):
                return typed
        return self._refuse(
            argument.span,
            f"this cannot be the {parameter.name} of {self._function.name}()",
            got=str(argument),
            wanted=_KINDS[kind],
        )

    def _refuse(
        self, span: Span, message: str, *, got: str = "", wanted: str = "", hint: str = ""
    ) -> NoReturn:
        raise _RejectedError(
            self._source.diagnostic(span, message, got=got, wanted=wanted, hint=hint)
        )


def _suits(kind: Kind, typed: _Typed) -> bool:
    """Tell whether a service name is one: a peer's, as thresholds belong to services."""
    if kind is not Kind.SERVICE_NAME:
        return True
    return all(
        isinstance(value, Value)
        and value.column.level is Level.PEER
        and value.column.name.endswith("_service")
        for value in typed.per_operation.values()
    )


def _select(operation: str, filters: Sequence[_Comparison]) -> Selection | None:
    """Return which logs of an operation meet the filters; None where none can."""
    conditions = [comparison.on(operation) for comparison in filters]
    if False in conditions:
        return None
    return Selection(operation, frozenset(c for c in conditions if not isinstance(c, bool)))


def _state_parts(
    function: MetricFunction,
    selection: Selection,
    source: _Typed | None,
    arguments: Sequence[_Argument],
) -> tuple[StatePart | None, ...]:
    """Return what the function keeps of one operation; None where no log can contribute."""
    operation = selection.operation
    value = source.per_operation[operation] if source is not None else None
    number = value if isinstance(value, Value) else None
    if number is not None and number.cast in _OF_STRING:
        is_number = Predicate(number, Operator.NOT_EQUAL, None)
        selection = Selection(operation, selection.conditions | {is_number})

    def make(
        keep: Keep,
        *conditions: Condition | bool,
        value: Value | None = None,
        key: Bucket | Label | None = None,
    ) -> StatePart | None:
        if False in conditions:
            return None
        further = {condition for condition in conditions if not isinstance(condition, bool)}
        narrowed = Selection(operation, selection.conditions | further)
        return StatePart(keep, narrowed, value, key)

    values = [
        argument.per_operation.get(operation)
        for argument in arguments
        if isinstance(argument, _Typed)
    ]
    if None in values:
        return (None,) * function.state_count
    call = Call(
        number,
        tuple(
            argument.on(operation) for argument in arguments if isinstance(argument, _Comparison)
        ),
        tuple(value for value in values if value is not None),
        tuple(argument for argument in arguments if isinstance(argument, int)),
    )
    return function.states(call, make)
