"""From the text of an expression to its syntax tree (mqe.md, sections 1 and 2)."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from framewalk.queries.metrics import Order
from framewalk.queries.mqe.syntax import (
    Aggregate,
    AggregateLabels,
    Aggregation,
    AttributeCondition,
    Baseline,
    IsPresent,
    Label,
    Mathematical,
    Mathematics,
    MetricName,
    Number,
    Operation,
    Operator,
    Prediction,
    Relabel,
    Round,
    SortLabelValues,
    SortValues,
    TopN,
    TopNOf,
    Trend,
    ViewAsSequence,
    parts_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from framewalk.queries.mqe.syntax import Node

# Far beyond what any dashboard asks; each level of an expression is some frames of a stack.
LONGEST_CHARACTERS: Final = 8_192
DEEPEST_LEVELS: Final = 100
# Expressions of dashboards repeat, and are short: a tree takes a hundred times its text.
_KEPT_EXPRESSIONS: Final = 1_024
_LONGEST_KEPT_CHARACTERS: Final = 400

_NO_TREE: Final = frozenset(
    {
        "round",
        "top_n",
        "top_n_of",
        "view_as_seq",
        "is_present",
        "relabels",
        "aggregate_labels",
        "sort_values",
        "sort_label_values",
        "baseline",
    }
)
_SPELT: Final = (
    *("avg", "count", "latest", "max", "min", "sum", "abs", "ceil", "floor", "increase", "rate"),
    *(f"attr{number}" for number in range(6)),
    *("value", "upper", "lower", *sorted(_NO_TREE)),
)
# In any case of letters.
_ANY_CASE: Final = {"bool": "_BOOL", "asc": "ASC", "des": "DES"}
_KEYWORDS: Final = {
    word: f"_{word.upper()}" if word in _NO_TREE else word.upper() for word in _SPELT
}
_SIGNS: Final = {
    "AND": "&&",
    "OR": "||",
    "EQUAL": "==",
    "UNEQUAL": "!=",
    "LESS_EQUAL": "<=",
    "LESS": "<",
    "GREATER_EQUAL": ">=",
    "GREATER": ">",
    "PLUS": "+",
    "MINUS": "-",
    "TIMES": "*",
    "DIVIDE": "/",
    "MODULO": "%",
    "_LPAR": "(",
    "_RPAR": ")",
    "_LBRACE": "{",
    "_RBRACE": "}",
    "_COMMA": ",",
    "_ASSIGN": "=",
    "NAME": "a name",
    "INTEGER": "a whole number",
    "DECIMAL": "a number",
    "TEXT": "a text in quotes",
}
_OPERAND: Final = frozenset({"NAME", "INTEGER", "DECIMAL", "_LPAR"})
_MOST_TOLD: Final = 6
_LONGEST_TOLD: Final = 30


class ExpressionError(Exception):
    """A text that is no expression; `offset` is where in it that shows."""

    def __init__(self, text: str, offset: int, problem: str) -> None:
        before = text[:offset]
        line, column = before.count("\n") + 1, offset - before.rfind("\n") - 1
        super().__init__(f"line {line}:{column} {problem}")
        self.offset = offset


class _Problem(NamedTuple):
    """What is wrong with a text, and where in it that shows."""

    offset: int
    words: str


def parse(text: str) -> Node:
    """Return the syntax tree of an expression; raises ExpressionError."""
    found = _parsed_once(text) if len(text) <= _LONGEST_KEPT_CHARACTERS else _parsed(text)
    if isinstance(found, _Problem):
        raise ExpressionError(text, *found)
    return found


def _parsed(text: str) -> Node | _Problem:
    if len(text) > LONGEST_CHARACTERS:
        words = f"an expression has at most {LONGEST_CHARACTERS:,} characters"
        return _Problem(LONGEST_CHARACTERS, words)
    try:
        with _one_at_a_time:
            tree: Any = _GRAMMAR.parse(text)
    except UnexpectedInput as error:
        return _explained(text, error)
    if _depth(tree) > DEEPEST_LEVELS:
        words = f"an expression has at most {DEEPEST_LEVELS} levels of operators and functions"
        return _Problem(0, words)
    node: Node = tree
    return node


_parsed_once: Final = lru_cache(maxsize=_KEPT_EXPRESSIONS)(_parsed)


def _depth(tree: Node) -> int:
    levels, deepest = [tree], 0
    while levels and deepest <= DEEPEST_LEVELS:
        levels = [part for node in levels for part in parts_of(node)]
        deepest += 1
    return deepest


def _explained(text: str, error: UnexpectedInput) -> _Problem:
    if isinstance(error, UnexpectedCharacters):
        at = error.pos_in_stream or 0
        return _Problem(at, _of_character(text[at]))
    assert isinstance(error, UnexpectedToken)  # noqa: S101 - a basic lexer raises no others
    token = error.token
    if token.type == "$END":
        offset, what = len(text), "the expression ends here"
    else:
        offset = token.start_pos or 0
        what = _clipped(text[offset : token.end_pos])
    expected = error.accepts or error.expected
    if "$END" in expected:
        problem = f"{what} does not belong to the expression, which is complete before it"
    elif token.type == "$END":
        problem = f"{what}, and {_wanted(expected)} is missing"
    else:
        problem = f"{what} cannot stand here; {_wanted(expected)} can"
    return _Problem(offset, problem)


def _of_character(character: str) -> str:
    if character in "'\"":
        return "a text begins here, and nothing ends it"
    return f"{character!r} has no meaning in an expression"


def _clipped(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_TOLD else f"{text[:_LONGEST_TOLD]}…")


def _wanted(expected: Iterable[str]) -> str:
    types = set(expected)
    if types >= _OPERAND:
        return "a metric, a number, a function or ("
    told = sorted(_SIGNS.get(one) or one.strip("_").lower() for one in types)
    if len(told) > _MOST_TOLD:
        told = [*told[:_MOST_TOLD], "…"]
    return " or ".join(told)


def _as_keyword(token: Token) -> Token:
    kind = _KEYWORDS.get(token) or _ANY_CASE.get(token.lower())
    return token if kind is None else token.update(type=kind)


def _order(token: Token) -> Order:
    return Order.LARGEST if token.type == "DES" else Order.SMALLEST


class _Builder(Transformer[Token, Any]):
    """Makes nodes of what the rules of the grammar found."""

    def number(self, children: list[Token]) -> Number:
        return Number(float(children[0]))

    def metric(self, children: list[Any]) -> MetricName:
        name, *labels = children
        return MetricName(str(name), tuple(labels))

    def label(self, children: list[Token]) -> Label:
        name, text = children
        return Label(str(name), str(text[1:-1]))

    def operation(self, children: list[Any]) -> Operation:
        left, operator, right = children
        return Operation(Operator(str(operator)), left, right)

    def aggregate(self, children: list[Any]) -> Aggregate:
        function, operand = children
        return Aggregate(Aggregation(str(function)), operand)

    def mathematics(self, children: list[Any]) -> Mathematical:
        function, operand = children
        return Mathematical(Mathematics(str(function)), operand)

    def round(self, children: list[Any]) -> Round:
        operand, places = children
        return Round(operand, _integer(places))

    def trend(self, children: list[Any]) -> Trend:
        function, metric, steps = children
        return Trend(metric, _integer(steps), is_rate=function.type == "RATE")

    def top_n(self, children: list[Any]) -> TopN:
        metric, count, order, *attributes = children
        return TopN(metric, _integer(count), _order(order), tuple(attributes))

    def attribute(self, children: list[Token]) -> AttributeCondition:
        name, *operator, text = children
        return AttributeCondition(int(name[-1]), not operator, str(text[1:-1]))

    def top_n_of(self, children: list[Any]) -> TopNOf:
        *lists, count, order = children
        return TopNOf(tuple(lists), _integer(count), _order(order))

    def view_as_seq(self, children: list[Any]) -> ViewAsSequence:
        return ViewAsSequence(tuple(children))

    def is_present(self, children: list[Any]) -> IsPresent:
        return IsPresent(tuple(children))

    def relabels(self, children: list[Any]) -> Relabel:
        operand, old, new = children
        return Relabel(operand, old, new)

    def names(self, children: list[Token]) -> tuple[str, ...]:
        return tuple(map(str, children))

    def aggregate_labels(self, children: list[Any]) -> AggregateLabels:
        operand, function, *names = children
        return AggregateLabels(operand, Aggregation(str(function)), *names)

    def sort_values(self, children: list[Any]) -> SortValues:
        operand, count, order, function = children
        return SortValues(operand, _integer(count), _order(order), Aggregation(str(function)))

    def sort_label_values(self, children: list[Any]) -> SortLabelValues:
        operand, order, *names = children
        return SortLabelValues(operand, _order(order), tuple(map(str, names)))

    def baseline(self, children: list[Any]) -> Baseline:
        metric, prediction = children
        return Baseline(metric, Prediction(str(prediction)))


_LARGEST_INTEGER: Final = 2**31 - 1


def _integer(token: Token) -> int:
    # Texts of thousands of digits are no numbers to Python; nothing counts beyond this.
    return int(token) if len(token) <= len(str(_LARGEST_INTEGER)) else _LARGEST_INTEGER


_GRAMMAR: Final = Lark(
    files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8"),
    parser="lalr",
    lexer="basic",
    transformer=_Builder(),
    lexer_callbacks={"NAME": _as_keyword},
    maybe_placeholders=False,
)
_one_at_a_time: Final = Lock()
