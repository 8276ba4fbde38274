"""The syntax tree of an expression (mqe.md, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from framewalk.queries.metrics import Order


class Operator(StrEnum):
    """What stands between two expressions."""

    PLUS = "+"
    MINUS = "-"
    TIMES = "*"
    DIVIDE = "/"
    MODULO = "%"
    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="
    AND = "&&"
    OR = "||"

    @property
    def is_comparison(self) -> bool:
        """Whether it gives 1 or 0."""
        return self in _COMPARISONS or self.is_logical

    @property
    def is_logical(self) -> bool:
        """Whether it takes comparisons only."""
        return self in {Operator.AND, Operator.OR}


_COMPARISONS = {
    Operator.EQUAL,
    Operator.UNEQUAL,
    Operator.LESS,
    Operator.LESS_EQUAL,
    Operator.GREATER,
    Operator.GREATER_EQUAL,
}


class Aggregation(StrEnum):
    """What makes one value of many."""

    AVG = "avg"
    COUNT = "count"
    LATEST = "latest"
    MAX = "max"
    MIN = "min"
    SUM = "sum"


class Mathematics(StrEnum):
    """What is done to each value."""

    ABS = "abs"
    CEIL = "ceil"
    FLOOR = "floor"


class Prediction(Enum):
    """Which prediction of a baseline."""

    VALUE = "value"
    UPPER = "upper"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Label:
    """A label's name with a text: values, with commas between."""

    name: str
    text: str

    @property
    def values(self) -> tuple[str, ...]:
        """The values in the text."""
        return tuple(part for part in map(str.strip, self.text.split(",")) if part)


@dataclass(frozen=True, slots=True)
class Number:
    """A number."""

    value: float


@dataclass(frozen=True, slots=True)
class MetricName:
    """A metric, and the labels that it is asked for with."""

    name: str
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """Two expressions and what stands between them."""

    operator: Operator
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One value of each series."""

    function: Aggregation
    operand: Node


@dataclass(frozen=True, slots=True)
class Mathematical:
    """A function of each value."""

    function: Mathematics
    operand: Node


@dataclass(frozen=True, slots=True)
class Round:
    """Each value with so many decimals."""

    operand: Node
    places: int


@dataclass(frozen=True, slots=True)
class Trend:
    """What a metric has gained in so many steps, for each second of them if `is_rate`."""

    metric: MetricName
    steps: int
    is_rate: bool


@dataclass(frozen=True, slots=True)
class AttributeCondition:
    """A condition on an attribute of the entities of a list."""

    number: int
    is_equal: bool
    text: str


@dataclass(frozen=True, slots=True)
class TopN:
    """The entities with the largest or smallest values of a metric."""

    metric: MetricName
    count: int
    order: Order
    attributes: tuple[AttributeCondition, ...] = ()


@dataclass(frozen=True, slots=True)
class TopNOf:
    """The largest or smallest of several lists."""

    lists: tuple[TopN, ...]
    count: int
    order: Order


@dataclass(frozen=True, slots=True)
class ViewAsSequence:
    """The first of these that has a value."""

    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class IsPresent:
    """Whether any of these has a value."""

    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Relabel:
    """Series with a label of another name, and other values."""

    operand: Node
    old: Label
    new: Label


@dataclass(frozen=True, slots=True)
class AggregateLabels:
    """One series of those that agree in the named labels."""

    operand: Node
    function: Aggregation
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SortValues:
    """The first series by a value of each."""

    operand: Node
    count: int
    order: Order
    function: Aggregation


@dataclass(frozen=True, slots=True)
class SortLabelValues:
    """Series by the values of their labels."""

    operand: Node
    order: Order
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was predicted of a metric."""

    metric: MetricName
    prediction: Prediction


Node: TypeAlias = (
    Number
    | MetricName
    | Operation
    | Aggregate
    | Mathematical
    | Round
    | Trend
    | TopN
    | TopNOf
    | ViewAsSequence
    | IsPresent
    | Relabel
    | AggregateLabels
    | SortValues
    | SortLabelValues
    | Baseline
)


def parts_of(node: Node) -> tuple[Node, ...]:
    """Return the expressions that a node is made of."""
    if isinstance(node, Operation):
        return node.left, node.right
    if isinstance(node, ViewAsSequence | IsPresent):
        return node.operands
    if isinstance(node, TopNOf):
        return node.lists
    if isinstance(node, Number | MetricName | Trend | TopN | Baseline):
        return ()
    return (node.operand,)


def nodes_of(node: Node) -> Iterator[Node]:
    """Yield a node and all that it is made of, the left before the right."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += reversed(parts_of(found))


def metric_names(node: Node) -> set[str]:
    """Return the names of the metrics that an expression asks for."""
    found: set[str] = set()
    for one in nodes_of(node):
        if isinstance(one, MetricName):
            found.add(one.name)
        elif isinstance(one, Trend | TopN | Baseline):
            found.add(one.metric.name)
    return found
