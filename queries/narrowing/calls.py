"""The arguments of a function that stands in FROM, as they are written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import duckdb

from framewalk.queries.reading import all_objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from framewalk.queries.reading import Tree

_NAME: Final = re.compile(rb'\s*(?:\w+|"\w+")\s*(?::=|=>)')
# With these an argument may be another value where it stands than where it is written to.
_NOT_CONSTANT: Final = frozenset({"COLUMN_REF", "SUBQUERY", "LAMBDA", "WINDOW", "STAR"})
_NULL: Final = "NULL"
# The other parameters of macros have NULL where nothing is given.
_NEEDED: Final = ("since", "until", "of_metric")


class Argument(NamedTuple):
    """What is given for a parameter: SQL, and its tree; no tree where nothing is given."""

    sql: str
    node: Tree


class Call(NamedTuple):
    """The arguments of a call by the names of parameters, and how many bytes it is written in."""

    arguments: Mapping[str, Argument]
    length: int


def call_of(node: Tree, content: bytes, parameters: Sequence[str]) -> Call | None:
    """Return a call; `content` is the text from its name on. None where it is not understood."""
    given = node["function"].get("arguments", [])
    pieces = list(_pieces(content))
    if not pieces or len(pieces) != max(len(given), 1):
        return None
    arguments = {name: Argument(_NULL, {}) for name in parameters}
    for at, (one, (begin, end)) in enumerate(zip(given, pieces, strict=False)):
        text, name = content[begin:end], one.get("name", "")
        if name:
            text = _NAME.sub(b"", text, count=1)
        elif at < len(parameters):
            name = parameters[at]
        name = name.casefold()
        expression = one["expression"]
        # None is given twice.
        if name not in arguments or arguments[name].node or not _is_constant(expression):
            return None
        # A comment may be at its end.
        arguments[name] = Argument(f"({text.decode()}\n)", expression)
    if any(not arguments[name].node for name in _NEEDED if name in arguments):
        return None
    return Call(arguments, pieces[-1][1] + 1)


def _is_constant(expression: Tree) -> bool:
    return not any(one.get("class") in _NOT_CONSTANT for one in all_objects(expression))


def _pieces(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the places of arguments in brackets, and nothing after the last bracket."""
    depth = begin = 0
    for place, sign in _signs(content):
        if sign in b"([{":
            depth += 1
            if depth == 1:
                begin = place + 1
        elif sign in b")]}":
            depth -= 1
            if depth == 0:
                yield begin, place
                return
        elif sign == ord(",") and depth == 1:
            yield begin, place
            begin = place + 1


def _signs(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield what is neither in a word nor in a text or comment, a byte at a time."""
    tokens = [*duckdb.tokenize(content.decode()), (len(content), None)]
    for at, (begin, kind) in enumerate(tokens[:-1]):
        if kind == duckdb.token_type.operator:
            end = tokens[at + 1][0]
            yield from zip(range(begin, end), content[begin:end], strict=True)
