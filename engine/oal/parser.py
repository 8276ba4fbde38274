"""From the text of a definition file to its syntax tree (analysis.md, section 4).

Three steps: find comments and `;` (`_scan`), parse each statement by grammar.lark
(`_parse_statements`), give the comments back to the statements (`attach_comments`).
After an error parsing goes on at the next statement, so one run reports them all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from lark import Lark, TextSlice, Token, Transformer
from lark.exceptions import UnexpectedInput

from framewalk.engine.oal.diagnostics import (
    DefinitionError,
    Diagnostic,
    SourceText,
    SyntaxFailure,
    clip,
)
from framewalk.engine.oal.syntax import (
    Attribute,
    AttributePath,
    Boolean,
    Cast,
    Condition,
    Definition,
    Disable,
    EnumValue,
    Function,
    Integer,
    MapAttribute,
    Null,
    Operand,
    Operator,
    Script,
    Source,
    Star,
    Statement,
    String,
    Value,
    attach_comments,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from framewalk.engine.oal.syntax import Span

LARGEST_INTEGER: Final = 2**63 - 1

_Children: TypeAlias = list[Any]


@dataclass(frozen=True, slots=True)
class Parsed:
    """All that one text says: the statements without errors, and the errors of the others."""

    script: Script
    diagnostics: tuple[Diagnostic, ...]
    source: SourceText


def parse(text: str, path: str | PathLike[str] = "<text>") -> Parsed:
    """Parse a whole file; errors are in the result's `diagnostics`, in the order of the text."""
    source = SourceText(text, path)
    unreadable = _SURROGATE.search(source.text)
    if unreadable:
        return Parsed(Script(()), (_not_text(source, unreadable.start()),), source)
    scan = _scan(source)
    statements, errors = _parse_statements(source, scan)
    script = attach_comments(source.text, scan.code, scan.comments, statements)
    in_order = sorted(chain(scan.errors, errors), key=lambda error: (error.line, error.column))
    return Parsed(script, tuple(in_order), source)


def parse_bytes(data: bytes, path: str | PathLike[str] = "<text>") -> Parsed:
    """Parse a file as it lies on disk; bytes that are not UTF-8 are an error like any other."""
    return parse(data.decode("utf-8", errors="surrogateescape"), path)


def parse_script(text: str, path: str | PathLike[str] = "<text>") -> Script:
    """Parse a whole file that must be right.

    Raises:
        DefinitionError: the text has syntax errors; it holds all of them.
    """
    parsed = parse(text, path)
    if parsed.diagnostics:
        raise DefinitionError(parsed.diagnostics)
    return parsed.script


# --- comments and statement ends -----------------------------------------------------------

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_STRING: Final = r'"(?:[^"\\\n]|\\[^\n])*+'
_LANDMARK: Final = re.compile(rf'{_STRING}"?|//[^\n]*|/\*|;')
_COMMENT_MARK: Final = re.compile(r"/\*|\*/")
_VISIBLE: Final = re.compile(r"[^\n]")


@dataclass(frozen=True, slots=True)
class _Scan:
    """The text with comments blanked (`code`), where they were, and the offset of each `;`."""

    code: str
    comments: tuple[tuple[int, int], ...]
    ends: tuple[int, ...]
    errors: tuple[Diagnostic, ...]
    open_comment: float


def _scan(source: SourceText) -> _Scan:
    text = source.text
    comments: list[tuple[int, int]] = []
    ends: list[int] = []
    open_comment = inf
    at = 0
    while landmark := _LANDMARK.search(text, at):
        start, at = landmark.span()
        if landmark[0] == ";":
            ends.append(start)
        elif landmark[0] == "/*":
            at = _comment_end(text, start)
            open_comment = start if at < 0 else open_comment
            at = len(text) if at < 0 else at
            comments.append((start, at))
        elif landmark[0].startswith("//"):
            comments.append((start, at))
    errors = () if open_comment == inf else (_unended_comment(source, comments[-1][0]),)
    return _Scan(_blank(text, comments), tuple(comments), tuple(ends), errors, open_comment)


def _comment_end(text: str, start: int) -> int:
    """Return the offset after the `*/` that matches the `/*` at `start`, or -1."""
    depth = 0
    for mark in _COMMENT_MARK.finditer(text, start):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return -1


def _blank(text: str, comments: list[tuple[int, int]]) -> str:
    pieces = []
    at = 0
    for start, end in comments:
        pieces += [text[at:start], _VISIBLE.sub(" ", text[start:end])]
        at = end
    return "".join([*pieces, text[at:]])


def _unended_comment(source: SourceText, start: int) -> Diagnostic:
    hint = "comments nest: each /* needs a */ of its own"
    span = source.span(start, start + 2)
    return source.diagnostic(
        span, "the comment has no end", got="the end of the file", wanted="*/", hint=hint
    )


def _not_text(source: SourceText, at: int) -> Diagnostic:
    code = ord(source.text[at])
    # The range into which Python decodes bytes that are not UTF-8.
    is_byte = 0xDC80 <= code <= 0xDCFF  # noqa: PLR2004
    got = f"byte 0x{code - 0xDC00:02x}" if is_byte else f"half a character, U+{code:04X}"
    return source.diagnostic(
        source.span(at, at + 1), "this is no text", got=got, wanted="a file in UTF-8"
    )


# --- statements ----------------------------------------------------------------------------

_GRAMMAR_LOCK: Final = Lock()
_NEXT_STATEMENT: Final = re.compile(
    r"^[^\S\n]*(?=[^\W\d]\w*\s*=\s*from\b|disable\s*\()", re.MULTILINE
)
_NOT_SPACE: Final = re.compile(r"\S")


def _parse_statements(source: SourceText, scan: _Scan) -> tuple[list[Statement], list[Diagnostic]]:
    # The builder that Lark calls knows one text at a time.
    with _GRAMMAR_LOCK:
        grammar, builder = _grammar()
        builder.text, builder.errors = source, []
        statements = [
            statement
            for start, end in _chunks(scan)
            for statement in _parse_chunk(_Chunk(grammar, builder, scan, end), start)
        ]
        errors = builder.errors
        builder.text, builder.errors = _NO_TEXT, []
    return statements, errors


@cache
def _grammar() -> tuple[Lark, _Builder]:
    text = files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    builder = _Builder()
    lark = Lark(text, parser="lalr", transformer=builder, maybe_placeholders=False)
    return lark, builder


def _chunks(scan: _Scan) -> Iterator[tuple[int, int]]:
    """Cut at each `;`: from the first character of a statement to its `;` or the text's end."""
    at = 0
    for end in scan.ends:
        first = _NOT_SPACE.search(scan.code, at)
        yield first.start() if first else end, end
        at = end + 1
    first = _NOT_SPACE.search(scan.code, at)
    if first:
        yield first.start(), len(scan.code)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The text before one `;`, or before the text's end."""

    grammar: Lark
    builder: _Builder
    scan: _Scan
    end: int

    def parse(self, start: int, end: int) -> Iterator[Statement]:
        """Parse one statement and give it unless the builder finds fault with it.

        Raises:
            UnexpectedInput: the grammar does not allow it.
        """
        faults = len(self.builder.errors)
        # Lark says that it makes a tree; with a transformer it gives what that returns.
        statement: Any = self.grammar.parse(TextSlice(self.scan.code, start, end))
        if len(self.builder.errors) == faults:
            yield statement

    def failure(self, unexpected: UnexpectedInput) -> SyntaxFailure:
        """Read what Lark knows; its own words are for those who write grammars."""
        token = getattr(unexpected, "token", None)
        ended = isinstance(token, Token) and token.type == "$END"
        # Both kinds of `UnexpectedInput` that a parse raises have it; only one declares it.
        state = getattr(unexpected, "interactive_parser")  # noqa: B009
        stack = state.parser_state.value_stack
        return SyntaxFailure(
            source=self.builder.text,
            code=self.scan.code,
            at=self.end if ended else unexpected.pos_in_stream or 0,
            end=self.end,
            accepted=frozenset(state.accepts()),
            stack=tuple(entry.type for entry in stack if isinstance(entry, Token)),
            functions=tuple(entry.name for entry in stack if isinstance(entry, Function)),
        )


def _parse_chunk(chunk: _Chunk, start: int) -> Iterator[Statement]:
    """Parse the text before one `;`, which holds more than one statement if one is missing."""
    while start >= 0:
        faults = len(chunk.builder.errors)
        try:
            yield from chunk.parse(start, chunk.end)
        except UnexpectedInput as unexpected:
            failure = chunk.failure(unexpected)
        else:
            return
        if failure.misses_semicolon:
            del chunk.builder.errors[faults:]
            yield from chunk.parse(start, failure.at)
        if failure.at < chunk.scan.open_comment:
            chunk.builder.errors.append(failure.diagnostic())
        start = _next_statement(chunk, start, failure.at)


def _next_statement(chunk: _Chunk, start: int, failed_at: int) -> int:
    """Find the next line that begins like a statement, from where parsing failed, or -1."""
    line = max(chunk.scan.code.rfind("\n", start, failed_at) + 1, start + 1)
    match = _NEXT_STATEMENT.search(chunk.scan.code, line, chunk.end)
    return match.end() if match else -1


# --- syntax tree ---------------------------------------------------------------------------

_NO_TEXT: Final = SourceText("")
_DOT: Final = re.compile(r"\s*\.\s*")
_LONGEST_INTEGER: Final = len(str(LARGEST_INTEGER))
_OPERATORS: Final = {str(operator): operator for operator in Operator}
_ESCAPE: Final = re.compile(r"\\(?:u+([0-9a-fA-F]{4})|([0-3]?[0-7]{1,2})|(.))")
_ESCAPED: Final = {
    "b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "'": "'", "\\": "\\",
}  # fmt: skip


class _Builder(Transformer[Token, Any]):
    """Makes a node for each rule of the grammar; children come in the rule's order."""

    def __init__(self) -> None:
        super().__init__()
        self.text = _NO_TEXT
        self.errors: list[Diagnostic] = []

    def definition(self, children: _Children) -> Definition:
        metric, source, *filters = children
        decorator, closing = filters.pop() if isinstance(filters[-1], tuple) else (None, None)
        function = filters.pop()
        end = closing.end_pos if closing else function.span.end
        span = self.text.span(metric.start_pos, end)
        name_span = self._span(metric)
        return Definition(
            str(metric), source, tuple(filters), function, decorator, span=span, name_span=name_span
        )

    def disable(self, children: _Children) -> Disable:
        keyword, metric, closing = children
        return Disable(str(metric), span=self._span(keyword, closing), name_span=self._span(metric))

    def source(self, children: _Children) -> Source:
        cast, (scope, attribute) = _split_cast(children)
        start = children[0].start_pos
        span = self.text.span(start, attribute.span.end)
        return Source(cast, str(scope), attribute, span=span, scope_span=self._span(scope))

    def attribute(self, children: _Children) -> Attribute:
        token, *entry = children
        path = AttributePath(tuple(_DOT.split(token)), span=self._span(token))
        if not entry:
            return path
        key, closing = entry
        return MapAttribute(path, key, span=self._span(token, closing))

    def operand(self, children: _Children) -> Operand:
        cast, (attribute,) = _split_cast(children)
        if cast is None:
            return Operand(None, attribute, span=attribute.span)
        start = children[0].start_pos
        return Operand(cast, attribute, span=self.text.span(start, attribute.span.end))

    def condition(self, children: _Children) -> Condition:
        operand, token, value = children
        value, value_span = value if isinstance(value, tuple) else (value, value.span)
        return Condition(
            cast=operand.cast,
            attribute=operand.attribute,
            operator=_OPERATORS[" ".join(token.split())],
            value=value,
            span=self.text.span(operand.span.start, value_span.end),
            operator_span=self._span(token),
            value_span=value_span,
        )

    def items(self, children: _Children) -> tuple[tuple[Value, ...], Span]:
        opening, *values, closing = children
        return tuple(values), self._span(opening, closing)

    def function(self, children: _Children) -> Function:
        name, *arguments, closing = children
        return Function(
            str(name),
            tuple(arguments),
            span=self._span(name, closing),
            name_span=self._span(name),
        )

    def decorator(self, children: _Children) -> tuple[String, Token]:
        name, closing = children
        return name, closing

    def star(self, children: _Children) -> Star:
        return Star(span=self._span(children[0]))

    def string(self, children: _Children) -> String:
        token = children[0]
        inner = str(token[1:-1])
        value = self._unescape(inner, token.start_pos + 1) if "\\" in inner else inner
        return String(value, span=self._span(token))

    def number(self, children: _Children) -> Integer:
        token = children[0]
        digits = token.rstrip("lL").replace("_", "").lstrip("0") or "0"
        # Python refuses to convert thousands of digits.
        fits = len(digits) <= _LONGEST_INTEGER and int(digits) <= LARGEST_INTEGER
        if not fits:
            self._report_large_number(token)
        return Integer(int(digits) if fits else 0, span=self._span(token))

    def boolean(self, children: _Children) -> Boolean:
        return Boolean(children[0] == "true", span=self._span(children[0]))

    def null(self, children: _Children) -> Null:
        return Null(span=self._span(children[0]))

    def enum(self, children: _Children) -> EnumValue:
        enumeration, member = _DOT.split(children[0])
        return EnumValue(enumeration, member, span=self._span(children[0]))

    def _span(self, first: Token, last: Token | None = None) -> Span:
        # Lark leaves the offsets empty only in tokens that a program makes.
        start: Any = first.start_pos
        end: Any = (last or first).end_pos
        return self.text.span(start, end)

    def _unescape(self, inner: str, start: int) -> str:
        def decode(match: re.Match[str]) -> str:
            code, octal, letter = match.groups()
            if code or octal:
                return chr(int(code, 16) if code else int(octal, 8))
            if letter not in _ESCAPED:
                self._report_escape(match[0], start + match.start())
            return _ESCAPED.get(letter, "")

        value = _ESCAPE.sub(decode, inner)
        # Characters beyond U+FFFF are written as two halves.
        try:
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._report_escape(inner, start)
            return ""

    def _report_escape(self, text: str, start: int) -> None:
        error = self.text.diagnostic(
            self.text.span(start, start + len(text)),
            "the string has an escape that means nothing",
            got=clip(text),
            wanted="one of \\b \\t \\n \\f \\r \\\" \\' \\\\, octal digits, \\uXXXX",
            hint="write \\\\ for a backslash",
        )
        self.errors.append(error)

    def _report_large_number(self, token: Token) -> None:
        error = self.text.diagnostic(
            self._span(token),
            "the number is too large",
            got=clip(token),
            wanted=f"at most {LARGEST_INTEGER}",
        )
        self.errors.append(error)


def _split_cast(children: _Children) -> tuple[Cast | None, _Children]:
    first, *rest = children
    if isinstance(first, Token) and first.type == "CAST":
        return Cast("".join(first.split())), rest
    return None, children
