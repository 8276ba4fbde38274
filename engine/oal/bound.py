"""Bound definitions: every name of a definition resolved and typed (see binding.py).

After binding nothing is looked up by name again: a definition has become states, each of
which says which logs it counts, by which conditions, and what it keeps of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from framewalk.engine.oal.syntax import Operand

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from framewalk.engine.oal.catalogue import Column, Scope
    from framewalk.engine.oal.syntax import Cast, Definition, Operator

Scalar: TypeAlias = int | str | bool | None


@dataclass(frozen=True, slots=True)
class Value:
    """A column, converted or not."""

    column: Column
    cast: Cast | None = None

    def __str__(self) -> str:
        return f"{self.cast or ''}{self.column.name}"


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition on one column; `operand` is a tuple for `in`."""

    value: Value
    operator: Operator
    operand: Scalar | tuple[Scalar, ...]

    def __str__(self) -> str:
        return f"{self.value} {self.operator} {_show(self.operand)}"


class Band(StrEnum):
    """Which side of an Apdex threshold T a value is on."""

    SATISFIED = "<= T"
    TOLERATED = "in (T, 4T]"


@dataclass(frozen=True, slots=True)
class ApdexPredicate:
    """A condition on a value and the Apdex threshold of the service named in a peer column."""

    value: Value
    service: Column
    band: Band

    def __str__(self) -> str:
        return f"{self.value} {self.band}({self.service.name})"


BoundCondition: TypeAlias = Predicate | ApdexPredicate


class Keep(StrEnum):
    """What a state keeps of its logs; counts and sums merge by addition."""

    COUNT = "count"
    SUM = "sum"
    MAX = "max"
    MIN = "min"
    BITS = "bits"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A further key of a state: the value divided by `width`, at most `last`."""

    value: Value
    width: int
    last: int | None = None

    def __str__(self) -> str:
        top = "" if self.last is None else f" up to {self.last}"
        return f"{self.value} // {self.width}{top}"


@dataclass(frozen=True, slots=True)
class RelativeBucket:
    """A further key of a state: the number of the value's bucket in latency_buckets.py."""

    value: Value

    def __str__(self) -> str:
        return f"relative bucket of {self.value}"


@dataclass(frozen=True, slots=True)
class Label:
    """A further key of a state: a string, possibly the same for all logs of the operation."""

    value: Value | str

    def __str__(self) -> str:
        return str(self.value)


Key: TypeAlias = Bucket | RelativeBucket | Label


@dataclass(frozen=True, slots=True)
class Selection:
    """Which logs count: those of one operation that meet all conditions."""

    operation: str
    conditions: frozenset[BoundCondition] = frozenset()


@dataclass(frozen=True, slots=True)
class StatePart:
    """The share of one operation in a state."""

    keep: Keep
    selection: Selection
    value: Value | None = None
    key: Key | None = None

    def __str__(self) -> str:
        text = f"{self.selection.operation}.{self.keep}({self.value or ''})"
        if self.key is not None:
            text += f" by {self.key}"
        if self.selection.conditions:
            text += f" where {' and '.join(sorted(map(str, self.selection.conditions)))}"
        return text


@dataclass(frozen=True, slots=True)
class State:
    """What is kept of one entity and minute: the sum of its parts, one per operation."""

    parts: tuple[StatePart, ...]
    # A text that two states of a scope share only if they are the same; asked for often.
    name: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Write out the name."""
        name = " + ".join(sorted(str(part) for part in self.parts))
        object.__setattr__(self, "name", name)

    @property
    def keep(self) -> Keep:
        """How the state merges."""
        return self.parts[0].keep

    @property
    def keyed(self) -> bool:
        """Whether the state is split by a bucket or a label."""
        return self.parts[0].key is not None

    @property
    def has_bucket(self) -> bool:
        """Whether it is split by a bucket, whose number is the key."""
        return isinstance(self.parts[0].key, Bucket | RelativeBucket)


class Kind(Enum):
    """What may stand as a function's argument."""

    CONDITION = auto()
    SERVICE_NAME = auto()
    STRING = auto()
    BOOLEAN = auto()
    NUMBER = auto()
    INTEGER = auto()


class Source(Enum):
    """What a function takes from `from(...)`: a number, one in ns, or nothing in particular."""

    NUMBER = auto()
    NANOSECONDS = auto()
    ANY = auto()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; the optional ones come last. `at_most` limits an integer."""

    name: str
    kind: Kind
    optional: bool = False
    at_most: int = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """A function's bound arguments, and the source (None for `*`)."""

    source: Value | None
    conditions: tuple[BoundCondition | bool, ...] = ()
    values: tuple[Value | str, ...] = ()
    integers: tuple[int, ...] = ()


class MakeState(Protocol):
    """Makes a state of one operation's logs, narrowed by further conditions."""

    def __call__(
        self,
        keep: Keep,
        *conditions: BoundCondition | bool,
        value: Value | None = None,
        key: Key | None = None,
    ) -> StatePart | None:
        """Return the state, or None where a condition never holds."""


States: TypeAlias = "tuple[StatePart | None, ...]"


@dataclass(frozen=True, slots=True)
class Notes:
    """What people read about a function, in its reference and when a metric is explained.

    `phrase` says what a metric is, with {source} and the arguments by their names. `missing`
    says where there is no value; `differs` what one might not expect, and why it is so.
    """

    phrase: str
    keeps: str
    value: str
    missing: str = "no log counts"
    differs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFunction:
    """One function: what it takes, what it keeps (`state_count` states) and how it finishes."""

    name: str
    parameters: tuple[Parameter, ...] = ()
    source: Source
    sql_type: str
    state_count: int
    states: Callable[[Call, MakeState], States]
    finish: Callable[[Sequence[str], str, tuple[int, ...]], str]
    notes: Notes
    unit: str = ""

    @property
    def signature(self) -> str:
        """The function with its parameters' names, the optional ones in brackets."""
        names = ", ".join(f"[{p.name}]" if p.optional else p.name for p in self.parameters)
        return f"{self.name}({names})"


@dataclass(frozen=True, slots=True)
class Metric:
    """A bound definition: its function finishes `states` into the value.

    `parameters` are the function's literal arguments.
    """

    definition: Definition
    scope: Scope
    function: MetricFunction
    states: tuple[State, ...]
    parameters: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The name of the metric, and of its column in the views."""
        return self.definition.name

    @property
    def meaning(self) -> tuple[str, str, tuple[str, ...], tuple[int, ...]]:
        """What its values depend on: equal for definitions that differ in writing only."""
        states = tuple(state.name for state in self.states)
        return self.scope.name, self.function.name, states, self.parameters

    @property
    def family(self) -> str:
        """Which kind of log it is about: connection, read, write or http; empty for several."""
        operations = {part.selection.operation for state in self.states for part in state.parts}
        families = {_FAMILIES.get(operation, operation) for operation in operations}
        return families.pop() if len(families) == 1 else ""

    @property
    def unit(self) -> str:
        """The unit of its values: that of what is measured, or of what its function counts."""
        if self.function.unit:
            return self.function.unit
        attribute = self.scope.attributes.get(self._measured)
        return attribute.unit if attribute is not None else ""

    @property
    def _measured(self) -> str:
        """The attribute whose values are used: the argument `value` if there is one."""
        call = self.definition.function
        for parameter, argument in zip(self.function.parameters, call.arguments, strict=False):
            if parameter.name == "value" and isinstance(argument, Operand):
                return str(argument.attribute)
        return str(self.definition.source.attribute)


@dataclass(frozen=True, slots=True)
class Former:
    """What a metric meant before a time (us since 1970): `metric`, or nothing where that is None.

    Meanings of one name are in order of `until_us`; each holds from the end of the one before it.
    """

    name: str
    until_us: int
    metric: Metric | None

    @property
    def own_name(self) -> str:
        """The name under which it is computed beside what the metric means now: see `is_former`."""
        return f"{self.name} before {self.until_us}"


def is_former(name: str) -> bool:
    """Tell whether a name is that of a former meaning: no metric has a space in its name."""
    return " " in name


_FAMILIES: Final = {"connect": "connection", "accept": "connection", "close": "connection"}


def _show(operand: Scalar | tuple[Scalar, ...]) -> str:
    if isinstance(operand, tuple):
        return f"[{', '.join(sorted(map(_show, operand)))}]"
    return repr(operand)
