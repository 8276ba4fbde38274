"""The syntax tree of OAL: what a definition file says, before names mean anything.

Follows section 4 of analysis.md. Nodes are frozen, compare without regard to where they
stood or what comments surrounded them, and print themselves in canonical form: parsing
`str(node)` gives an equal node.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LINE_WIDTH: Final = 100
INDENT: Final = "    "


class Span(NamedTuple):
    """Where a node stands: offsets into its `SourceText`, and line and column from 1."""

    path: str
    start: int
    end: int
    line: int
    column: int

    @property
    def length(self) -> int:
        """Number of characters."""
        return self.end - self.start


NOWHERE: Final = Span("<none>", 0, 0, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A piece of syntax; where it stands has no part in equality."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


class Cast(StrEnum):
    """A conversion in front of a scope or an attribute."""

    STRING_TO_LONG = "(str->long)"
    LONG = "(long)"
    STRING_TO_INT = "(str->int)"
    INT = "(int)"


class Operator(StrEnum):
    """What a condition compares with."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    GREATER = ">"
    LESS = "<"
    GREATER_EQUAL = ">="
    LESS_EQUAL = "<="
    LIKE = "like"
    IN = "in"
    CONTAIN = "contain"
    NOT_CONTAIN = "not contain"


@dataclass(frozen=True, slots=True)
class String(Node):
    """A string, unescaped."""

    value: str

    def __str__(self) -> str:
        return f'"{_UNPRINTABLE.sub(_escape, self.value)}"'


@dataclass(frozen=True, slots=True)
class Integer(Node):
    """A whole number, never negative."""

    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Boolean(Node):
    """`true` or `false`."""

    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


@dataclass(frozen=True, slots=True)
class Null(Node):
    """`null`."""

    def __str__(self) -> str:
        return "null"


@dataclass(frozen=True, slots=True)
class EnumValue(Node):
    """A member of an enumeration, such as `DetectPoint.SERVER`."""

    enumeration: str
    member: str

    def __str__(self) -> str:
        return f"{self.enumeration}.{self.member}"


@dataclass(frozen=True, slots=True)
class Star(Node):
    """The `*` of `from(SCOPE.*)`: the log itself, not one of its attributes."""

    def __str__(self) -> str:
        return "*"


@dataclass(frozen=True, slots=True)
class AttributePath(Node):
    """An attribute, such as `connect.duration`."""

    parts: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.parts)


@dataclass(frozen=True, slots=True)
class MapAttribute(Node):
    """One entry of an attribute that is a map, such as `tag["http.method"]`."""

    path: AttributePath
    key: String

    def __str__(self) -> str:
        return f"{self.path}[{self.key}]"


Literal: TypeAlias = String | Integer | Boolean | Null
Value: TypeAlias = Literal | EnumValue
Attribute: TypeAlias = AttributePath | MapAttribute


@dataclass(frozen=True, slots=True)
class Operand(Node):
    """An attribute, converted or not: an argument by itself."""

    cast: Cast | None
    attribute: Attribute

    def __str__(self) -> str:
        return f"{self.cast or ''}{self.attribute}"


@dataclass(frozen=True, slots=True)
class Condition(Node):
    """A comparison; `value` is a tuple with the operator `in` and with no other."""

    cast: Cast | None
    attribute: Attribute
    operator: Operator
    value: Value | tuple[Value, ...]
    operator_span: Span = field(default=NOWHERE, compare=False, repr=False)
    value_span: Span = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.cast or ''}{self.attribute} {self.operator} {_print_value(self.value)}"


Argument: TypeAlias = Literal | Operand | Condition


@dataclass(frozen=True, slots=True)
class Source(Node):
    """What stands in `from(...)`."""

    cast: Cast | None
    scope: str
    attribute: Attribute | Star
    scope_span: Span = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.cast or ''}{self.scope}.{self.attribute}"


@dataclass(frozen=True, slots=True)
class Function(Node):
    """The aggregation, such as `apdex(name, protocol.success)`."""

    name: str
    arguments: tuple[Argument, ...] = ()
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment with its marks, and whether a blank line stands before it."""

    text: str
    blank_before: bool = False


@dataclass(frozen=True, slots=True)
class Trivia:
    """What surrounds a statement and means nothing to the engine.

    `trailing` comments begin on the line where the statement ends; a comment from inside
    a statement is among the `leading` ones. `blank_before` is about the statement itself.
    """

    leading: tuple[Comment, ...] = ()
    trailing: tuple[Comment, ...] = ()
    blank_before: bool = False


_NO_TRIVIA: Final = Trivia()


@dataclass(frozen=True, slots=True)
class Definition(Node):
    """One metric: `name = from(...).filter(...).function(...).decorator("...");`."""

    name: str
    source: Source
    filters: tuple[Condition, ...]
    function: Function
    decorator: String | None = None
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)
    trivia: Trivia = field(default=_NO_TRIVIA, compare=False, repr=False)

    def __str__(self) -> str:
        head = f"{self.name} = from({self.source})"
        steps = [f".filter({condition})" for condition in self.filters]
        steps.append(f".{self.function}")
        if self.decorator is not None:
            steps.append(f".decorator({self.decorator})")
        line = f"{head}{''.join(steps)};"
        if len(line) <= LINE_WIDTH:
            return line
        return f"\n{INDENT}".join((head, *steps)) + ";"


@dataclass(frozen=True, slots=True)
class Disable(Node):
    """`disable(name);`: the metric is not made."""

    name: str
    name_span: Span = field(default=NOWHERE, compare=False, repr=False)
    trivia: Trivia = field(default=_NO_TRIVIA, compare=False, repr=False)

    def __str__(self) -> str:
        return f"disable({self.name});"


Statement: TypeAlias = Definition | Disable


@dataclass(frozen=True, slots=True)
class Script:
    """A file's statements; `footer` holds the comments after the last one."""

    statements: tuple[Statement, ...]
    footer: tuple[Comment, ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        return "".join(f"{statement}\n" for statement in self.statements)


def format_script(script: Script) -> str:
    """Print a script in canonical form with its comments and, at most one in a row, blank lines."""
    lines: list[str] = []
    for blank_before, text in _blocks(script):
        if blank_before and lines:
            lines.append("")
        lines.append(text)
    return "".join(f"{line}\n" for line in lines)


def _blocks(script: Script) -> Iterator[tuple[bool, str]]:
    for statement in script.statements:
        trivia = statement.trivia
        yield from ((comment.blank_before, comment.text) for comment in trivia.leading)
        texts = (str(statement), *(comment.text for comment in trivia.trailing))
        yield trivia.blank_before, " ".join(texts)
    yield from ((comment.blank_before, comment.text) for comment in script.footer)


def _print_value(value: Value | tuple[Value, ...]) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value)


_UNPRINTABLE: Final = re.compile(r'["\\]|[^\x20-\x7e]')
_NOT_SPACE: Final = re.compile(r"\S")
_ESCAPES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
}


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def attach_comments(
    text: str,
    code: str,
    comments: Sequence[tuple[int, int]],
    statements: Iterable[Statement],
) -> Script:
    """Give each comment to the statement that it is about, and note where blank lines stand.

    `comments` are start and end offsets in `text`; `code` is the text with them blanked.
    """
    margin = _Margin(text, code, comments)
    with_trivia = tuple(_with_trivia(node, margin.trivia(node)) for node in statements)
    return Script(with_trivia, margin.rest())


def _with_trivia(node: Statement, trivia: Trivia) -> Statement:
    return node if trivia == _NO_TRIVIA else replace(node, trivia=trivia)


class _Margin:
    """Walks down the text and hands out the comments around each statement in turn."""

    def __init__(self, text: str, code: str, comments: Sequence[tuple[int, int]]) -> None:
        self._text = text
        self._code = code
        self._comments = comments
        self._taken = 0
        self._at = 0

    def trivia(self, node: Statement) -> Trivia:
        """Take the comments before, in and right after a statement."""
        start, last = node.span.start, node.span.end
        before = self._take_until(start)
        blank_before = self._blank_line(start)
        self._at = start
        inside = self._take_until(self._after_semicolon(last))
        if inside:
            inside[0] = replace(inside[0], blank_before=blank_before)
        self._at = self._after_semicolon(last)
        trailing = self._take_trailing()
        return Trivia((*before, *inside), trailing, blank_before and not inside)

    def rest(self) -> tuple[Comment, ...]:
        """Take all that is left."""
        return tuple(self._take_until(len(self._text)))

    def _take_until(self, end: int) -> list[Comment]:
        taken = []
        while self._next_start() < end:
            taken.append(self._take())
        return taken

    def _take_trailing(self) -> tuple[Comment, ...]:
        taken = []
        while (start := self._next_start()) < len(self._text):
            gap = self._code[self._at : start]
            if gap.strip() or "\n" in gap:
                break
            taken.append(self._take())
        return tuple(taken)

    def _next_start(self) -> int:
        left = self._taken < len(self._comments)
        return self._comments[self._taken][0] if left else len(self._text)

    def _take(self) -> Comment:
        start, end = self._comments[self._taken]
        comment = Comment(_trim(self._text[start:end]), self._blank_line(start))
        self._taken += 1
        self._at = end
        return comment

    def _blank_line(self, end: int) -> bool:
        gap = self._code[self._at : end]
        return not gap.strip() and gap.count("\n") > 1

    def _after_semicolon(self, last: int) -> int:
        following = _NOT_SPACE.search(self._code, last)
        ended = following is not None and following[0] == ";"
        return following.end() if following is not None and ended else last


def _trim(comment: str) -> str:
    return "\n".join(line.rstrip() for line in comment.split("\n"))
