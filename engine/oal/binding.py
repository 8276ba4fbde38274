"""From syntax trees to bound metrics: every name resolved and typed, every error found here.

Scopes and attributes come from the catalogue, functions from their table. A condition on a
constant of the operation (such as `type`) is decided here: it selects operations. What is left
are conditions on columns. Follows analysis.md, sections 3 and 4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, ParamSpec, TypeAlias, TypeVar

from framewalk.engine.oal import syntax
from framewalk.engine.oal.bound import Kind, Metric, Source, State, Value
from framewalk.engine.oal.catalogue import ENUMERATIONS, SCOPES, Column, Level, ValueType
from framewalk.engine.oal.comparison import (
    EQUALITY,
    OF_STRING,
    Comparison,
    Typed,
    select,
    state_parts,
)
from framewalk.engine.oal.diagnostics import Severity, suggest
from framewalk.engine.oal.functions import FUNCTIONS
from framewalk.engine.oal.never import why_filtered_out, why_without_value
from framewalk.engine.oal.syntax import Definition, Disable, Operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from framewalk.engine.oal.bound import MetricFunction, Parameter, Scalar
    from framewalk.engine.oal.catalogue import Scope
    from framewalk.engine.oal.diagnostics import Diagnostic, SourceText
    from framewalk.engine.oal.never import Reason
    from framewalk.engine.oal.parser import Parsed
    from framewalk.engine.oal.syntax import Cast, Span

DECORATORS: Final = ("K8SServiceDecorator",)
RESERVED_NAMES: Final = frozenset({"time_bucket", "entity_id", "minutes"})

_ORDER: Final = frozenset(
    {Operator.GREATER, Operator.LESS, Operator.GREATER_EQUAL, Operator.LESS_EQUAL}
)
_OPERATORS: Final = {
    ValueType.LONG: EQUALITY | _ORDER | {Operator.IN},
    ValueType.STRING: EQUALITY | {Operator.LIKE, Operator.IN},
    ValueType.BOOLEAN: EQUALITY | {Operator.IN},
    ValueType.DETECT_POINT: EQUALITY | {Operator.IN},
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
    Kind.INTEGER: "a number",
}
_ATTRIBUTE_KINDS: Final[Mapping[Kind, ValueType]] = {
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

    The diagnostics include those of the parser, in the order of the files. With
    `skip_unknown_scopes` a definition of another scope is left out with a warning, and so is a
    disable of what no file defines: an OAP has metrics that are no definitions.
    """
    names = _Names(files)
    no_metric = Severity.WARNING if skip_unknown_scopes else Severity.ERROR
    found: list[Diagnostic] = []
    metrics: list[Metric] = []
    for file in files:
        in_file = list(file.diagnostics)
        for statement in file.script.statements:
            if isinstance(statement, Disable):
                in_file.extend(names.about_disable(statement, file.source, no_metric))
                continue
            binder = _Binder(file.source, statement)
            metric = binder.metric(skip_unknown_scopes=skip_unknown_scopes)
            if not binder.skipped:
                in_file.extend(names.about_name(statement, file.source, binder.scope))
            in_file.extend(binder.found)
            if metric is not None:
                metrics.append(metric)
        found.extend(sorted(in_file, key=lambda one: (one.line, one.column)))
    disabled = names.disabled
    kept = tuple(
        {metric.name: metric for metric in metrics if metric.name not in disabled}.values()
    )
    return Bound(kept, tuple(found))


class _Names:
    """What is defined and disabled in all files; case does not count, as in SQL."""

    def __init__(self, files: Sequence[Parsed]) -> None:
        statements = [statement for file in files for statement in file.script.statements]
        self._defined: Final = [one.name for one in statements if isinstance(one, Definition)]
        self.disabled: Final = {one.name for one in statements if isinstance(one, Disable)}
        self._unread: Final = [file.source.text for file in files if file.diagnostics]
        self._first: Final[dict[str, Definition]] = {}

    def about_name(
        self, definition: Definition, source: SourceText, scope: Scope | None
    ) -> Iterator[Diagnostic]:
        """Tell whether a definition's name is taken by one before it, or by a view's column."""
        name = definition.name.casefold()
        first = self._first.setdefault(name, definition)
        if first is not definition:
            as_what = "" if first.name == definition.name else f", as {first.name}: case is ignored"
            yield source.diagnostic(
                definition.name_span,
                f"metric {definition.name!r} is defined twice",
                hint=f"the first definition is at {_place(first.name_span)}{as_what}",
            )
        if name in RESERVED_NAMES or (scope is not None and name in scope.keys):
            yield source.diagnostic(
                definition.name_span,
                f"a metric cannot have the name {definition.name!r}",
                hint="the views have a column of that name already",
            )

    def about_disable(
        self, statement: Disable, source: SourceText, severity: Severity
    ) -> Iterator[Diagnostic]:
        """Tell, with this severity, whether there is nothing of that name to disable."""
        if statement.name in self._defined or self._may_be_unread(statement.name):
            return
        yield source.diagnostic(
            statement.name_span,
            f"there is no metric {statement.name!r} to disable",
            hint=_did_you_mean(statement.name, self._defined),
            severity=severity,
        )

    def _may_be_unread(self, name: str) -> bool:
        """Tell whether a file with syntax errors seems to define the name."""
        definition = re.compile(rf"\b{re.escape(name)}\s*=")
        return any(definition.search(text) for text in self._unread)


def _place(span: Span) -> str:
    return f"{span.path}:{span.line}:{span.column}"


def _did_you_mean(word: str, candidates: Iterable[str]) -> str:
    best = suggest(word, sorted(candidates))
    return f"did you mean {best}?" if best else ""


class _RejectedError(Exception):
    """A part of a definition cannot be bound; carries what to tell about it."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(str(diagnostic))


_NANOSECONDS: Final = "ns"


def _needs_nanoseconds(function: MetricFunction | None) -> bool:
    return function is not None and function.source is Source.NANOSECONDS


_Argument: TypeAlias = Comparison | Typed | int
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class _Binder:
    """Binds one definition; `found` has everything that is wrong with it."""

    def __init__(self, source: SourceText, definition: Definition) -> None:
        self._source = source
        self._definition = definition
        self.found: list[Diagnostic] = []
        self.skipped = False
        self.scope = SCOPES.get(definition.source.scope)

    def metric(self, *, skip_unknown_scopes: bool) -> Metric | None:
        """Bind the definition; None if it has errors or is skipped."""
        scope = self.scope
        if scope is None:
            self.skipped = skip_unknown_scopes
            self.found.append(self._unknown_scope())
            return None
        self._check_decorator()
        function = self._attempt(self._find_function)
        source = self._attempt(self._source_attribute, scope, function)
        filters = [
            comparison
            for condition in self._definition.filters
            if (comparison := self._attempt(self._comparison, scope, condition)) is not None
        ]
        arguments = self._arguments(scope, function) if function is not None else []
        if function is None or self._is_wrong():
            return None
        return self._attempt(self._with_states, scope, function, source, filters, arguments)

    def _attempt(
        self,
        bind_part: Callable[_Parameters, _Result],
        *arguments: _Parameters.args,
        **options: _Parameters.kwargs,
    ) -> _Result | None:
        """Bind one part, so that its error does not hide those of the other parts."""
        try:
            return bind_part(*arguments, **options)
        except _RejectedError as error:
            self.found.append(error.diagnostic)
            return None

    def _is_wrong(self) -> bool:
        return any(diagnostic.severity is Severity.ERROR for diagnostic in self.found)

    def _with_states(
        self,
        scope: Scope,
        function: MetricFunction,
        source: Typed | None,
        filters: list[Comparison],
        arguments: list[_Argument],
    ) -> Metric:
        filtered_out = why_filtered_out(scope, self._definition, filters)
        if filtered_out is not None:
            self._refuse_for(filtered_out)
        operations = scope.operations if source is None else tuple(source.per_operation)
        parts = [
            state_parts(function, selection, source, arguments)
            for operation in operations
            if (selection := select(operation, filters)) is not None
        ]
        states = tuple(
            State(tuple(part for part in same if part is not None))
            for same in zip(*parts, strict=True)
        )
        if not states or not all(state.parts for state in states):
            self._refuse_for(why_without_value(scope, self._definition, filters, source, arguments))
        integers = tuple(argument for argument in arguments if isinstance(argument, int))
        return Metric(self._definition, scope, function, states, integers)

    def _unknown_scope(self) -> Diagnostic:
        source = self._definition.source
        return self._source.diagnostic(
            source.scope_span,
            f"unknown scope {source.scope!r}",
            wanted=f"one of {', '.join(SCOPES)}",
            hint=_did_you_mean(source.scope, SCOPES),
            severity=Severity.WARNING if self.skipped else Severity.ERROR,
        )

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
            self.found.append(
                self._source.diagnostic(
                    decorator.span,
                    f"unknown decorator {decorator.value!r}: it changes nothing",
                    wanted=f"one of {', '.join(DECORATORS)}",
                    hint=_did_you_mean(decorator.value, DECORATORS),
                    severity=Severity.WARNING,
                )
            )

    def _source_attribute(self, scope: Scope, function: MetricFunction | None) -> Typed | None:
        source = self._definition.source
        needs_number = function is not None and function.source is not Source.ANY
        message = f"{self._definition.function.name}() needs a number"
        if isinstance(source.attribute, syntax.Star):
            if source.cast is not None:
                self._refuse(source.span, f"{source.cast} converts an attribute", got="*")
            if needs_number:
                self._refuse(
                    source.attribute.span,
                    message,
                    got="*",
                    wanted=f"an attribute, as in from({self._some_number(scope, function)})",
                )
            return None
        typed = self._attribute(scope, source.attribute, source.cast)
        if needs_number and typed.type is not ValueType.LONG:
            self._refuse(
                source.attribute.span,
                message,
                got=f"{source.attribute}, a {typed.type}",
                hint=f"(str->long){scope.name}.{source.attribute} is the number that it spells"
                if typed.type is ValueType.STRING
                else "",
            )
        unit = scope.attributes[str(source.attribute)].unit
        if _needs_nanoseconds(function) and unit != _NANOSECONDS:
            self._refuse(
                source.attribute.span,
                f"{self._definition.function.name}() needs a number in ns",
                got=f"{source.attribute}, {f'in {unit}' if unit else 'which has no unit'}",
                wanted=f"an attribute in ns, as in from({self._some_number(scope, function)})",
            )
        return typed

    @staticmethod
    def _some_number(scope: Scope, function: MetricFunction | None) -> str:
        numbers = (
            one.path
            for one in scope.attributes.values()
            if one.type is ValueType.LONG
            and (one.unit == _NANOSECONDS or not _needs_nanoseconds(function))
        )
        return f"{scope.name}.{next(numbers)}"

    def _attribute(self, scope: Scope, attribute: syntax.Attribute, cast: Cast | None) -> Typed:
        path = str(attribute)
        if path not in scope.attributes:
            is_map = isinstance(attribute, syntax.MapAttribute)
            self._refuse(
                attribute.span,
                f"{scope.name} has no attribute {path!r}",
                hint="none of its attributes is a map"
                if is_map
                else _did_you_mean(path, scope.attributes),
            )
        known = scope.attributes[path]
        castable = ValueType.STRING if cast in OF_STRING else ValueType.LONG
        if cast is not None and known.type is not castable:
            self._refuse(
                attribute.span,
                f"{cast} converts a {castable}",
                got=f"{path}, a {known.type}",
            )
        per_operation = {
            operation: Value(column, cast) if isinstance(column, Column) else column
            for operation, column in known.columns.items()
            # A constant is a word: where a number is wanted, that operation has none.
            if cast is None or isinstance(column, Column)
        }
        return Typed(known.type if cast is None else ValueType.LONG, per_operation)

    def _comparison(self, scope: Scope, condition: syntax.Condition) -> Comparison:
        typed = self._attribute(scope, condition.attribute, condition.cast)
        if condition.operator not in _OPERATORS[typed.type]:
            self._refuse(
                condition.operator_span,
                f"a {typed.type} has no operator {condition.operator}",
                wanted=f"one of {', '.join(o for o in Operator if o in _OPERATORS[typed.type])}",
            )
        if isinstance(condition.value, tuple):
            values = tuple(self._operand(value, typed, condition) for value in condition.value)
            return Comparison(typed, condition.operator, values)
        operand = self._operand(condition.value, typed, condition)
        if condition.operator is Operator.LIKE and isinstance(operand, str):
            self._check_pattern(condition, operand)
        return Comparison(typed, condition.operator, operand)

    def _operand(self, value: syntax.Value, typed: Typed, condition: syntax.Condition) -> Scalar:
        if isinstance(value, syntax.Null):
            if condition.operator not in EQUALITY:
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

    def _arguments(self, scope: Scope, function: MetricFunction) -> list[_Argument]:
        given = self._definition.function.arguments
        parameters = function.parameters
        required = sum(not parameter.optional for parameter in parameters)
        if not required <= len(given) <= len(parameters):
            self.found.append(
                self._source.diagnostic(
                    self._definition.function.span,
                    f"wrong number of arguments to {self._definition.function.name}()",
                    got=f"{len(given)} argument{'s' * (len(given) != 1)}",
                    wanted=function.signature,
                )
            )
        return [
            bound
            for argument, parameter in zip(given, parameters, strict=False)
            if (bound := self._attempt(self._argument, scope, argument, parameter)) is not None
        ]

    def _argument(self, scope: Scope, argument: syntax.Argument, parameter: Parameter) -> _Argument:
        kind = parameter.kind
        wanted = _KINDS[kind]
        if kind is Kind.CONDITION and isinstance(argument, syntax.Condition):
            return self._comparison(scope, argument)
        if kind is Kind.INTEGER:
            wanted = f"a number from 1 to {parameter.at_most:,}"
            if isinstance(argument, syntax.Integer) and 0 < argument.value <= parameter.at_most:
                return argument.value
        elif kind in _ATTRIBUTE_KINDS and isinstance(argument, syntax.Operand):
            typed = self._attribute(scope, argument.attribute, argument.cast)
            if typed.type is _ATTRIBUTE_KINDS[kind] and _suits(kind, typed):
                return typed
        return self._refuse(
            argument.span,
            f"this cannot be the {parameter.name} of {self._definition.function.name}()",
            got=str(argument),
            wanted=wanted,
        )

    def _refuse_for(self, reason: Reason) -> NoReturn:
        self._refuse(
            reason.span,
            reason.message,
            got=reason.got,
            wanted=reason.wanted,
            hint=reason.hint,
        )

    def _refuse(
        self, span: Span, message: str, *, got: str = "", wanted: str = "", hint: str = ""
    ) -> NoReturn:
        raise _RejectedError(
            self._source.diagnostic(span, message, got=got, wanted=wanted, hint=hint)
        )


def _suits(kind: Kind, typed: Typed) -> bool:
    """Tell whether a service name is one: a peer's, as thresholds belong to services."""
    if kind is not Kind.SERVICE_NAME:
        return True
    return all(
        isinstance(value, Value)
        and value.column.level is Level.PEER
        and value.column.name.endswith("_service")
        for value in typed.per_operation.values()
    )
