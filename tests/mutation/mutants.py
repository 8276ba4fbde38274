"""Small changes of a module, each of which some test should notice."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeVar

# A node, what may stand in its place, and the line that a reader looks for the change at.
Change = tuple[Any, ast.AST, int]

Node = TypeVar("Node", bound=ast.AST)

COMPARISONS: dict[type, tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS: dict[type, type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "first": "last", "last": "first"}
# Calls of a frame's or a series' methods that narrow it: without one, all of it is left.
NARROWING = {"clip", "drop_nulls", "fill_null", "filter", "sort", "unique"}
WORDS = {("side", "right"): "left", ("how", "left"): "inner", ("how", "anti"): "semi"}
SQL = re.compile(r"\b(SELECT|FROM|WHERE|DELETE|UPDATE|INSERT|ORDER BY|FILTER|CASE)\b")
SQL_CHANGES = (
    (r" < ", " <= "),
    (r" <= ", " < "),
    (r" > ", " >= "),
    (r" >= ", " > "),
    (r" = ", " <> "),
    (r" <> ", " = "),
    (r"\bAND\b", "OR"),
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bIN\b", "NOT IN"),
    (r"\bDISTINCT ", ""),
    (r"\bDESC\b", "ASC"),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
)
CONTEXT = 24


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of one place of a file: the bytes from `start` to `end` become `new`."""

    path: str
    line: int
    change: str
    start: int
    end: int
    new: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.change}"

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """Return all mutants of a module."""
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = []
    for node in mutable(ast.parse(source)):
        for old, new, line in changes_of(node):
            start, end = place_of(old, starts)
            before = source[starts[old.lineno - 1] : start].decode()
            after = source[end : starts[old.end_lineno]].decode()
            change = described(old, new, (before, after))
            found.append(Mutant(path, line, change, start, end, code_of(new)))
        found += changes_of_sql(path, node, source, place_of(node, starts))
    return found


def place_of(node: ast.stmt | ast.expr, starts: Sequence[int]) -> tuple[int, int]:
    """Return where a node begins and ends, in bytes; `starts` are the beginnings of lines."""
    start = starts[node.lineno - 1] + node.col_offset
    return start, starts[node.end_lineno - 1] + node.end_col_offset


def mutable(node: ast.AST) -> Iterator[Any]:
    """Yield the statements and expressions that say what a module does."""
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "decorator_list"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or is_for_readers(child):
                continue
            if isinstance(child, (ast.stmt, ast.expr)):
                yield child
            # Before Python 3.12 nothing inside an f-string knows its place.
            if not isinstance(child, ast.JoinedStr):
                yield from mutable(child)


def is_for_readers(node: ast.AST) -> bool:
    """Tell whether a statement is a docstring, an import, or for type checkers only."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, (ast.Import, ast.ImportFrom))


def changed(node: Node, **fields: object) -> Node:
    return type(node)(**dict(ast.iter_fields(node)) | fields)


def changes_of(node: ast.AST) -> Iterator[Change]:
    """Yield what may stand in place of a node, or of a part of it."""
    find = CHANGES.get(type(node))
    return find(node) if find else iter(())


def compare(node: ast.Compare) -> Iterator[Change]:
    for at, operator in enumerate(node.ops):
        for other in COMPARISONS[type(operator)]:
            ops = [*node.ops[:at], other(), *node.ops[at + 1 :]]
            yield node, changed(node, ops=ops), node.comparators[at].lineno


def both_or_one(node: ast.BoolOp) -> Iterator[Change]:
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    yield node, changed(node, op=other), node.lineno
    for at, value in enumerate(node.values):
        values = [*node.values[:at], *node.values[at + 1 :]]
        yield node, changed(node, values=values) if len(values) > 1 else values[0], value.lineno


def calculate(node: ast.BinOp) -> Iterator[Change]:
    sides = (node.left, node.right)
    is_text = any(isinstance(side, ast.JoinedStr) or text_of(side) is not None for side in sides)
    if type(node.op) in OPERATORS and not is_text:
        yield node, changed(node, op=OPERATORS[type(node.op)]()), node.right.lineno
    # Conditions on columns are joined by these; each may be forgotten.
    if isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        yield from ((node, side, side.lineno) for side in sides)


def text_of(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def drop_sign(node: ast.UnaryOp) -> Iterator[Change]:
    yield node, node.operand, node.lineno


def constant(node: ast.Constant) -> Iterator[Change]:
    if isinstance(node.value, bool):
        yield node, ast.Constant(not node.value), node.lineno
    elif isinstance(node.value, int):
        yield node, ast.Constant(node.value + 1), node.lineno


def call(node: ast.Call) -> Iterator[Change]:
    function = node.func
    if isinstance(function, ast.Name) and function.id in NAMES:
        yield node, changed(node, func=ast.Name(NAMES[function.id])), node.lineno
    if isinstance(function, ast.Attribute):
        line = function.end_lineno or node.lineno
        if function.attr in NAMES:
            yield node, changed(node, func=changed(function, attr=NAMES[function.attr])), line
        if function.attr in NARROWING:
            yield node, function.value, line
    for at, keyword in enumerate(node.keywords):
        word = WORDS.get((str(keyword.arg), text_of(keyword.value) or ""))
        if word:
            other = changed(keyword, value=ast.Constant(word))
            keywords = [*node.keywords[:at], other, *node.keywords[at + 1 :]]
            yield node, changed(node, keywords=keywords), keyword.value.lineno


def choose(node: ast.If | ast.IfExp) -> Iterator[Change]:
    # Comparisons and the like are negated where they stand.
    if isinstance(node.test, (ast.Name, ast.Attribute, ast.Call)):
        yield node.test, ast.UnaryOp(ast.Not(), node.test), node.test.lineno


def comprehension(node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Iterator[Change]:
    for at, part in enumerate(node.generators):
        for condition in part.ifs:
            ifs = [one for one in part.ifs if one is not condition]
            parts = [*node.generators[:at], changed(part, ifs=ifs), *node.generators[at + 1 :]]
            yield node, changed(node, generators=parts), condition.lineno


def give_nothing(node: ast.FunctionDef) -> Iterator[Change]:
    # A function with one return would always give nothing: any test would see that.
    returns = [one for one in ast.walk(node) if isinstance(one, ast.Return)]
    for one in returns if len(returns) > 1 else ():
        if one.value is not None and ast.unparse(one.value) != "None":
            yield one, ast.Return(ast.Constant(None)), one.lineno


def do_nothing(node: ast.Expr) -> Iterator[Change]:
    if isinstance(node.value, ast.Call):
        yield node, ast.Pass(), node.lineno


def add_otherwise(node: ast.AugAssign) -> Iterator[Change]:
    if type(node.op) in OPERATORS and text_of(node.value) is None:
        yield node, changed(node, op=OPERATORS[type(node.op)]()), node.lineno


def go_on(node: ast.Break) -> Iterator[Change]:
    yield node, ast.Continue(), node.lineno


def stop(node: ast.Continue) -> Iterator[Change]:
    yield node, ast.Break(), node.lineno


CHANGES: dict[type, Callable[[Any], Iterator[Change]]] = {
    ast.AugAssign: add_otherwise,
    ast.BinOp: calculate,
    ast.BoolOp: both_or_one,
    ast.Break: go_on,
    ast.Call: call,
    ast.Compare: compare,
    ast.Constant: constant,
    ast.Continue: stop,
    ast.DictComp: comprehension,
    ast.Expr: do_nothing,
    ast.FunctionDef: give_nothing,
    ast.GeneratorExp: comprehension,
    ast.If: choose,
    ast.IfExp: choose,
    ast.ListComp: comprehension,
    ast.SetComp: comprehension,
    ast.UnaryOp: drop_sign,
}


def changes_of_sql(
    path: str, node: ast.AST, source: bytes, span: tuple[int, int]
) -> Iterator[Mutant]:
    """Yield mutants of a text that holds SQL."""
    if not isinstance(node, ast.JoinedStr) and text_of(node) is None:
        return
    text = source[slice(*span)].decode()
    if not SQL.search(text):
        return
    for pattern, new in SQL_CHANGES:
        for match in re.finditer(pattern, text):
            start = span[0] + len(text[: match.start()].encode())
            line = node.lineno + text[: match.start()].count("\n")
            before, after = text[: match.start()], text[match.end() :]
            change = shown(before, (match[0], new), after)
            yield Mutant(path, line, change, start, start + len(match[0].encode()), new)


def code_of(node: ast.AST) -> str:
    """Return the code of a changed node, with brackets that keep it together."""
    code = ast.unparse(node)
    is_one = isinstance(node, (ast.stmt, ast.Constant, ast.Name))
    return code if is_one else f"({code})"


def described(old: ast.AST, new: ast.AST, line: tuple[str, str]) -> str:
    """Return what differs, with a little of what stands around it; `line` is what is outside."""
    before, after = ast.unparse(old), ast.unparse(new) if type(old) is type(new) else code_of(new)
    start = same_length(before, after)
    rest = (before[start:], after[start:])
    end = same_length(rest[0][::-1], rest[1][::-1])
    words = [one[: len(one) - end] for one in rest]
    return shown(line[0] + before[:start], words, rest[0][len(words[0]) :] + line[1])


def same_length(one: str, other: str) -> int:
    """Return how many characters two texts have in common at the beginning."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def shown(before: str, words: Sequence[str], after: str) -> str:
    """Write a change on one line: what was, and what is."""
    around = (before[-CONTEXT:], after[:CONTEXT])
    old, new = (" ".join(f"{around[0]}{word}{around[1]}".split()) for word in words)
    return f"`{old}` -> `{new}`"
