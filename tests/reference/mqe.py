"""A slow evaluator of MQE, written from the rules of mqe.md; it shares no code with the product.

Values are floats or None. Numbers are read one by one, expressions by recursive descent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from reference.mqe_values import (
    COMPARISONS,
    Answer,
    FaultError,
    Labels,
    Number,
    Row,
    aggregate,
    aggregated,
    applied,
    each,
    finite,
    has_value,
    rounded,
    uncompared,
)

TOKENS = re.compile(
    r"""\s+|(?P<name>[0-9]*[A-Za-z_][A-Za-z0-9_]*)|(?P<number>[0-9]+\.[0-9]+|[0-9]+)"""
    r"""|(?P<text>'[^']*'|"[^"]*")|(?P<sign>==|!=|<=|>=|&&|\|\||[-+*/%<>(){},=])"""
)
AGGREGATIONS = ("avg", "count", "latest", "max", "min", "sum")
KEYWORDS = {
    *AGGREGATIONS,
    *("abs", "ceil", "floor", "round", "increase", "rate", "top_n", "top_n_of", "view_as_seq"),
    *("is_present", "relabels", "aggregate_labels", "sort_values", "sort_label_values"),
    *("baseline", "value", "upper", "lower", "attr0", "attr1", "attr2", "attr3", "attr4", "attr5"),
}
ANY_CASE = ("bool", "asc", "des")
MAYBE_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True)
class Data:
    """What is stored: series of metrics by entity, from `before` buckets before the first asked.

    `plain` and `labelled` are metric -> entity -> (labels ->) values; `start_ms` is that of the
    first bucket asked for.
    """

    plain: Mapping[str, Mapping[str, Sequence[Number]]]
    labelled: Mapping[str, Mapping[str, Mapping[Labels, Sequence[Number]]]]
    before: int
    count: int
    start_ms: int
    step_s: int = 60


class Reference:
    """Evaluates one expression about one service; `entity` None asks of all."""

    def __init__(self, text: str, data: Data, entity: str | None) -> None:
        self.tokens = list(_tokens(text))
        self.at = 0
        self.data = data
        self.entity = entity

    def read_all(self) -> Callable[[], Answer]:
        """Read the text to its end; raises FaultError."""
        tree = self.either()
        if self.at != len(self.tokens):
            raise FaultError
        return tree

    def evaluate(self) -> Answer:
        """Return the result; raises FaultError. An error of the text goes before all others."""
        return self.read_all()()

    # -- reading -------------------------------------------------------------------------------

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        token = self.peek()
        lowered = token.lower() if token.lower() in ANY_CASE else token
        if wanted and lowered not in wanted:
            raise FaultError
        self.at += 1
        return lowered

    def chain(
        self, below: Callable[[], Callable[[], Answer]], signs: Sequence[str]
    ) -> Callable[[], Answer]:
        left = below()
        while self.peek() in signs:
            sign = self.take()
            if sign in COMPARISONS and self.peek().lower() == "bool":
                self.take()
            left = applied(sign, left, below())
        return left

    def either(self) -> Callable[[], Answer]:
        return self.chain(self.compared, ("&&", "||"))

    def compared(self) -> Callable[[], Answer]:
        return self.chain(self.added, tuple(COMPARISONS))

    def added(self) -> Callable[[], Answer]:
        return self.chain(self.multiplied, ("+", "-"))

    def multiplied(self) -> Callable[[], Answer]:
        return self.chain(self.unit, ("*", "/", "%"))

    def unit(self) -> Callable[[], Answer]:
        word = self.peek()
        if word == "(":
            self.take()
            inner = self.either()
            self.take(")")
            return inner
        if word[:1].isdigit() and not _is_name(word):
            number = float(self.take())
            return lambda: Answer("single", [Row((), [finite(number)], [None])])
        if word in KEYWORDS:
            return self.call(self.take())
        name, filters = self.metric()
        return lambda: self.read(name, filters, 0)

    def metric(self) -> tuple[str, list[tuple[str, str]]]:
        name = self.name()
        filters = []
        if self.peek() == "{":
            self.take()
            while self.peek() != "}":
                if filters:
                    self.take(",")
                filters.append(self.label())
            self.take("}")
        return name, filters

    def name(self) -> str:
        token = self.take()
        if not _is_name(token) or token in KEYWORDS or token in ANY_CASE:
            raise FaultError
        return token

    def label(self) -> tuple[str, str]:
        name = self.name()
        self.take("=")
        return name, self.text()

    def text(self) -> str:
        token = self.take()
        if token[:1] not in {"'", '"'}:
            raise FaultError
        return token[1:-1]

    def integer(self) -> int:
        token = self.take()
        if not token.isdigit():
            raise FaultError
        return int(token)

    def argument(self) -> Callable[[], Answer]:
        self.take("(")
        return self.either()

    def call(self, function: str) -> Callable[[], Answer]:
        if function in {"avg", "count", "latest", "max", "min", "sum"}:
            operand = self.argument()
            self.take(")")
            return lambda: aggregated(function, operand())
        if function in {"abs", "ceil", "floor"}:
            operand = self.argument()
            self.take(")")
            compute = {"abs": abs, "ceil": math.ceil, "floor": math.floor}[function]
            return lambda: each(operand(), lambda value: float(compute(value)))
        if function == "round":
            operand = self.argument()
            self.take(",")
            places = self.integer()
            self.take(")")
            return lambda: each(operand(), lambda value: rounded(value, places))
        own = getattr(self, f"call_{function}", None)
        if own is None:
            raise FaultError
        self.take("(")
        made: Callable[[], Answer] = own(function)
        self.take(")")
        return made

    def call_increase(self, function: str) -> Callable[[], Answer]:
        name, filters = self.metric()
        self.take(",")
        steps = self.integer()

        def evaluate() -> Answer:
            found = self.read(name, filters, steps)
            if steps < 1:
                raise FaultError
            seconds = steps * self.data.step_s if function == "rate" else 1
            for row in found.rows:
                row.values = [
                    None if now is None or then is None else finite((now - then) / seconds)
                    for then, now in zip(row.values, row.values[steps:], strict=False)
                ]
            return found

        return evaluate

    call_rate = call_increase

    def call_top_n(self, _function: str) -> Callable[[], Answer]:
        name, _ = self.metric()
        self.take(",")
        count = self.integer()
        self.take(",")
        order = self.take("asc", "des")
        holds = True
        while self.peek() == ",":
            self.take()
            attribute = self.take(*(f"attr{number}" for number in range(6)))
            sign = self.take("=", "!=")
            same = self.text() == "K8S_SERVICE"
            holds &= attribute == "attr0" and same is (sign == "=")
        return lambda: self.ranked(name, count, order, holds=holds)

    def ranked(self, name: str, count: int, order: str, *, holds: bool) -> Answer:
        if name not in self.data.plain:
            raise FaultError
        if count < 1:
            raise FaultError
        means = []
        for entity, values in self.data.plain[name].items():
            held = [value for value in values[self.data.before :] if value is not None]
            if held and holds and self.entity is None:
                means.append((sum(held) / len(held), entity))
        means.sort(key=lambda one: (one[0] if order == "asc" else -one[0], one[1]))
        first = means[:count]
        row = Row((), [float(math.trunc(mean)) for mean, _ in first], [name for _, name in first])
        return Answer("list", [row])

    def call_top_n_of(self, _function: str) -> Callable[[], Answer]:
        lists = []
        while not lists or self.peek() == "top_n":
            self.take("top_n")
            self.take("(")
            lists.append(self.call_top_n("top_n"))
            self.take(")")
            self.take(",")
        count = self.integer()
        self.take(",")
        order = self.take("asc", "des")

        def evaluate() -> Answer:
            entries = []
            for one in lists:
                row = one().rows[0]
                entries += list(zip(row.values, row.ids, strict=True))
            if count < 1:
                raise FaultError
            entries.sort(key=lambda one: one[0] or 0.0, reverse=order == "des")
            first = entries[:count]
            return Answer("list", [Row((), [one[0] for one in first], [one[1] for one in first])])

        return evaluate

    def operands(self) -> list[Callable[[], Answer]]:
        found = [self.either()]
        while self.peek() == ",":
            self.take()
            found.append(self.either())
        return found

    def call_view_as_seq(self, _function: str) -> Callable[[], Answer]:
        operands = self.operands()

        def evaluate() -> Answer:
            for operand in operands:
                if has_value(operand):
                    return operand()
            return operands[0]()

        return evaluate

    def call_is_present(self, _function: str) -> Callable[[], Answer]:
        operands = self.operands()
        return lambda: Answer("single", [Row((), [float(any(map(has_value, operands)))], [None])])

    def call_relabels(self, _function: str) -> Callable[[], Answer]:
        operand = self.either()
        self.take(",")
        old, before = self.label()
        self.take(",")
        new, after = self.label()

        def evaluate() -> Answer:
            found = operand()
            if not found.labelled or len(parts(before)) != len(parts(after)):
                raise FaultError
            changes = dict(zip(parts(before), parts(after), strict=True))
            for row in found.rows:
                row.labels = tuple(
                    (new, changes[value]) if name == old and value in changes else (name, value)
                    for name, value in row.labels
                )
            return uncompared(found)

        return evaluate

    def call_aggregate_labels(self, _function: str) -> Callable[[], Answer]:
        operand = self.either()
        self.take(",")
        function = self.take("avg", "sum", "max", "min")
        names: list[str] = []
        if self.peek() == "(":
            self.take()
            names.append(self.name())
            while self.peek() == ",":
                self.take()
                names.append(self.name())
            self.take(")")

        def evaluate() -> Answer:
            found = operand()
            if not found.labelled:
                raise FaultError
            groups: dict[Labels, list[Row]] = {}
            for row in found.rows:
                own = dict(row.labels)
                key = tuple((name, own[name]) for name in dict.fromkeys(names) if name in own)
                groups.setdefault(key, []).append(row)
            rows = []
            for key, group in groups.items():
                columns = zip(*(row.values for row in group), strict=True)
                values = [aggregate(function, list(column)) for column in columns]
                values = [
                    None if all(one is None for one in column) else value
                    for column, value in zip(
                        zip(*(row.values for row in group), strict=True), values, strict=True
                    )
                ]
                ids = [None] if found.kind == "single" else group[0].ids
                rows.append(Row(key, values, ids))
            labelled = not rows or any(row.labels for row in rows)
            return Answer(found.kind, rows, labelled)

        return evaluate

    def call_sort_values(self, _function: str) -> Callable[[], Answer]:
        operand = self.either()
        self.take(",")
        count = self.integer()
        self.take(",")
        order = self.take("asc", "des")
        self.take(",")
        function = self.take(*AGGREGATIONS)

        def evaluate() -> Answer:
            found = operand()
            if not found.labelled:
                return found
            sign = 1 if order == "asc" else -1
            full = [row for row in found.rows if any(one is not None for one in row.values)]
            empty = [row for row in found.rows if row not in full]
            full.sort(
                key=lambda row: (
                    sign * (aggregate(function, row.values) or 0.0),
                    sign * (aggregate("avg", row.values) or 0.0),
                )
            )
            return uncompared(Answer(found.kind, [*full, *empty][:count], labelled=True))

        return evaluate

    def call_sort_label_values(self, _function: str) -> Callable[[], Answer]:
        operand = self.either()
        self.take(",")
        order = self.take("asc", "des")
        names = []
        while self.peek() == ",":
            self.take()
            names.append(self.name())
        if not names:
            raise FaultError

        def evaluate() -> Answer:
            found = operand()
            # The last name first: each sort keeps the order of equals.
            for name in reversed(names):
                texts = [dict(row.labels).get(name, "") for row in found.rows]
                numeric = all(MAYBE_NUMBER.fullmatch(text) for text in texts)
                found.rows.sort(
                    key=lambda row, name=name, numeric=numeric: (  # type: ignore[misc]
                        float(dict(row.labels)[name]) if numeric else dict(row.labels).get(name, "")
                    ),
                    reverse=order == "des",
                )
            return uncompared(found)

        return evaluate

    def call_baseline(self, _function: str) -> Callable[[], Answer]:
        name, _ = self.metric()
        self.take(",")
        self.take("value", "upper", "lower")

        def evaluate() -> Answer:
            if name in self.data.labelled:
                return Answer("series", [], labelled=True)
            if name not in self.data.plain:
                raise FaultError
            return Answer("series", [self.row((), [None] * self.data.count)])

        return evaluate

    # -- what is stored ------------------------------------------------------------------------

    def read(self, name: str, filters: Iterable[tuple[str, str]], steps: int) -> Answer:
        if name not in self.data.plain and name not in self.data.labelled:
            raise FaultError
        if self.entity is None:
            raise FaultError
        first = self.data.before - steps
        if name in self.data.plain:
            stored = self.data.plain[name].get(self.entity, [None] * 10_000)
            values = list(stored[first : self.data.before + self.data.count])
            return Answer("series", [self.row((), values)])
        rows = []
        by_labels = self.data.labelled[name].get(self.entity, {})
        for labels in sorted(by_labels):
            values = list(by_labels[labels][first : self.data.before + self.data.count])
            if any(one is not None for one in values) and _asked(labels, filters):
                rows.append(self.row(labels, values))
        return Answer("series", rows, labelled=True)

    def row(self, labels: Labels, values: list[Number]) -> Row:
        step_ms = self.data.step_s * 1_000
        ids = [str(self.data.start_ms + at * step_ms) for at in range(self.data.count)]
        return Row(labels, values, list(ids))


def _tokens(text: str) -> Iterable[str]:
    at = 0
    while at < len(text):
        found = TOKENS.match(text, at)
        if found is None or (not found[0].strip() and found[0].strip(" \t\r\n")):
            raise FaultError
        at = found.end()
        if found.lastgroup:
            yield found[0]


def _is_name(token: str) -> bool:
    return re.fullmatch(r"[0-9]*[A-Za-z_][A-Za-z0-9_]*", token) is not None


def _asked(labels: Labels, filters: Iterable[tuple[str, str]]) -> bool:
    wanted: dict[str, list[str]] = {}
    for name, text in filters:
        wanted.setdefault(name, []).extend(parts(text))
    own = dict(labels)
    return all(not values or own.get(name) in values for name, values in wanted.items())


def parts(text: str) -> list[str]:
    """Return the values in the text of a label."""
    return [part.strip() for part in text.split(",") if part.strip()]
