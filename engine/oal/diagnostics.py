"""What is wrong with a definition file, said so that a person can mend it.

Serves every layer of OAL (analysis.md, section 4): each names a span of the text and what it
got and wanted, and all errors of all files are shown in one run.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache
from heapq import nlargest
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from framewalk.engine.errors import InputError
from framewalk.engine.oal.syntax import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

_INDENT: Final = "    "
_TAB_WIDTH: Final = 4
_SHOWN_BEFORE: Final = 70
_SHOWN_AFTER: Final = 90
_LONGEST_WORD: Final = 100
# To rate how alike two words are takes as long as to count the pairs of a hundred.
_RATED: Final = 16
_LONGEST_GOT: Final = 40


class Severity(StrEnum):
    """Whether the definitions can be used all the same."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding at one place; `str()` shows it with its source line underlined.

    Lines and columns count characters from 1. Texts that are empty are left out.
    """

    path: str
    line: int
    column: int
    length: int
    message: str
    got: str = ""
    wanted: str = ""
    hint: str = ""
    source_line: str = ""
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        lines = [f"{self.path}:{self.line}:{self.column}: {self.severity}: {self._summary()}"]
        if self.source_line.strip():
            lines += [f"{_INDENT}{line}" for line in self._underlined()]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)

    def _summary(self) -> str:
        facts = []
        if self.got:
            facts.append(f"got {self.got}")
        if self.wanted:
            facts.append(f"want {self.wanted}")
        return "; ".join(filter(None, (self.message, ", ".join(facts))))

    def _underlined(self) -> tuple[str, str]:
        start = self.column - 1
        end = start + max(self.length, 1)
        first, last = max(0, start - _SHOWN_BEFORE), start + _SHOWN_AFTER
        before = ("…" if first else "") + self.source_line[first:start]
        marked = self.source_line[start : min(end, last)]
        after = self.source_line[min(end, last) : last] + (
            "…" if len(self.source_line) > last else ""
        )
        shown_before = _show(before)
        shown_marked = _show(marked, _width(shown_before))
        shown_after = _show(after, _width(shown_before) + _width(shown_marked))
        marks = "^" * max(_width(shown_marked), 1)
        line = f"{shown_before}{shown_marked}{shown_after}".rstrip()
        return line, " " * _width(shown_before) + marks


class SourceText:
    """A file's text as diagnostics and spans count it: without BOM, lines ending in LF."""

    __slots__ = ("_line_starts", "path", "text")

    def __init__(self, text: str, path: str | PathLike[str] = "<text>") -> None:
        self.path: Final = str(path)
        self.text: Final = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        self._line_starts: Final = _line_starts(self.text)

    def span(self, start: int, end: int) -> Span:
        """Name the characters from offset `start` up to `end`."""
        line = bisect_right(self._line_starts, start)
        return Span(self.path, start, end, line, start - self._line_starts[line - 1] + 1)

    def line(self, number: int) -> str:
        """Return a line by its number, counted from 1, without its end."""
        start = self._line_starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start:] if end < 0 else self.text[start:end]

    def diagnostic(  # noqa: PLR0913 - the parts of a message
        self,
        span: Span,
        message: str,
        *,
        got: str = "",
        wanted: str = "",
        hint: str = "",
        severity: Severity = Severity.ERROR,
    ) -> Diagnostic:
        """Say something about a span of this text; only the span's first line is shown."""
        source_line = self.line(span.line)
        rest = len(source_line) - span.column + 1
        return Diagnostic(
            path=self.path,
            line=span.line,
            column=span.column,
            length=max(1, min(span.length, rest)),
            message=message,
            got=got,
            wanted=wanted,
            hint=hint,
            source_line=source_line,
            severity=severity,
        )


class DefinitionError(InputError):
    """Definition files hold errors; `diagnostics` has all findings, warnings included.

    `str()` is all of them as a person reads them, and a last line with their number.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: Final = tuple(diagnostics)
        paths = ", ".join(dict.fromkeys(finding.path for finding in self.diagnostics))
        super().__init__(paths, tally(self.diagnostics), "mend the definitions")

    def __reduce__(self) -> tuple[type[DefinitionError], tuple[object, ...]]:
        return type(self), (self.diagnostics,)

    def __str__(self) -> str:
        return render(self.diagnostics)


# What the parser waits for, in the language's words, in the order of telling.
_WORDS: Final = {
    "METRIC": "the name of a metric",
    "DISABLE": "'disable(...)'",
    "EQUAL": "'='",
    "FROM": "'from(...)'",
    "CAST": "a cast such as (str->long)",
    "SCOPE": "a scope such as K8SService",
    "_SCOPE_DOT": "'.' and an attribute or *",
    "STAR": "*",
    "PATH": "an attribute such as connect.duration",
    "FILTER": "'filter(...)'",
    "FUNCTION": "a function such as longAvg()",
    "_STEP": "'.filter(...)' or a function such as .longAvg()",
    "EQUALITY": "an operator such as ==",
    "ORDER": "an operator such as ==",
    "LIKE": "an operator such as ==",
    "IN": "an operator such as ==",
    "CONTAIN": "an operator such as ==",
    "LSQB": "'['",
    "STRING": "a string",
    "INTEGER": "a number",
    "BOOLEAN": "true, false",
    "NULL": "null",
    "ENUM": "an enum value such as DetectPoint.SERVER",
    "LPAR": "'('",
    "COMMA": "','",
    "RSQB": "']'",
    "RPAR": "')'",
    "DECORATOR": "'decorator(...)'",
    "$END": "';'",
    "_DECORATE": "'.decorator(...)'",
}
_PARTS: Final = {
    "FROM": "cannot read from(...)",
    "FILTER": "cannot read this filter",
    "FUNCTION": "cannot read the arguments of this function",
    "DECORATOR": "cannot read this decorator",
    "DISABLE": "cannot read this disable(...)",
    "RPAR": "cannot read this statement",
}
_GOT: Final = re.compile(
    r"""
    "(?:[^"\\\n]|\\[^\n])*+"?       # a string, ended or not
    | '[^'\n]*'?
    | \(\s*\w+\s*(?:->\s*\w+\s*)?\)  # a cast
    | -?[0-9]\w*(?:\.\w+)?
    | \w+
    | && | \|\| | [=!<>]=? | -> | \*/
    | \S
    """,
    re.VERBOSE,
)
_IN_ROUND_BRACKETS: Final = re.compile(r"""\(((?:"(?:[^"\\\n]|\\[^\n])*+"|[^()"\n])++)\)""")
_KEYWORDS: Final = {"FROM": "from", "DECORATOR": "decorator", "METRIC": "disable"}
_AND: Final = "give each condition its own .filter(...): all of them must hold"
_OR: Final = "there is no 'or': use in [...], or two metrics"
_JOINED: Final = {"&&": _AND, "and": _AND, ",": _AND, "||": _OR, "or": _OR}


@dataclass(frozen=True, slots=True)
class SyntaxFailure:
    """Where the grammar gave up on a statement, and what it would have accepted there.

    `code` is the text with comments blanked, `end` the statement's end in it. `accepted` and
    `stack` hold names of grammar.lark's terminals, `functions` the names of functions read.
    """

    source: SourceText
    code: str
    at: int
    end: int
    accepted: frozenset[str]
    stack: tuple[str, ...]
    functions: tuple[str, ...]

    @property
    def got(self) -> str:
        """What stands at the place, empty at the statement's end."""
        found = _GOT.match(self.code, self.at, self.end)
        return found[0] if found else ""

    @property
    def misses_semicolon(self) -> bool:
        """Whether the statement was complete and something follows on another line."""
        if "$END" not in self.accepted or not self.got:
            return False
        return "\n" in self.code[self._last() : self.at]

    def diagnostic(self) -> Diagnostic:
        """Say it in the language's words."""
        if self.misses_semicolon:
            span = self.source.span(self._last(), self._last() + 1)
            return self.source.diagnostic(
                span, "the statement has no end", got=self._shown(), wanted="';'"
            )
        span = self.source.span(self.at, self.at + max(1, len(self.got)))
        return self.source.diagnostic(
            span, self._message(), got=self._shown(), wanted=self._wanted(), hint=self._hint()
        )

    def _last(self) -> int:
        """Return the offset after what was read."""
        return len(self.code[: self.at].rstrip())

    def _shown(self) -> str:
        if not self.got:
            return "';'" if self.at < len(self.code) else "the end of the file"
        text = clip(self.got if self.got.isprintable() else ascii(self.got)[1:-1])
        return text if text[0].isalnum() or text[0] in "_\"'-" else f"'{text}'"

    def _wanted(self) -> str:
        if self._is_open_string():
            return '"'
        # After an attribute a `[` is always possible and seldom meant.
        accepted = self.accepted - {"LSQB"} or self.accepted
        words = list(dict.fromkeys(_WORDS[name] for name in _WORDS if name in accepted))
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"

    def _message(self) -> str:
        if self._is_open_string():
            return "the string has no end on its line"
        for name in reversed(self.stack):
            if name in _PARTS:
                return _PARTS[name]
        return "cannot read this statement"

    def _is_open_string(self) -> bool:
        return self.got.startswith('"') and (len(self.got) == 1 or not self.got.endswith('"'))

    def _hint(self) -> str:
        return (
            self._hint_about_value()
            or self._hint_about_operator()
            or self._hint_about_order()
            or self._hint_about_keyword()
        )

    def _hint_about_value(self) -> str:
        if self.got.startswith("'"):
            return "strings stand in double quotes"
        if self._is_odd_number():
            return "numbers are whole and have no sign"
        if "STRING" in self.accepted and self.got[:1].isalpha():
            return f'a string stands in double quotes: "{clip(self.got)}"'
        in_list = "LSQB" in self.accepted and "IN" in self.stack
        return f"write a list: [{clip(self._members())}]" if in_list else ""

    def _members(self) -> str:
        """Return what a list holds that stands in round brackets or in none."""
        if self.got != "(":
            return self.got
        inside = _IN_ROUND_BRACKETS.match(self.code, self.at, self.end)
        return inside[1].strip() if inside else '"a", "b"'

    def _is_odd_number(self) -> bool:
        if "INTEGER" in self.accepted:
            return self.got[:1].isdecimal() or self.got[:1] == "-"
        around = self.code[max(self.at - 1, 0) : self.at + 2]
        return self.got == "." and around.replace(".", "0").isdecimal() and len(around) > 1

    def _hint_about_operator(self) -> str:
        if "EQUALITY" in self.accepted and self.got in ("=", ")"):
            return "compare with == or !="
        ends_filter = "RPAR" in self.accepted and "FILTER" in self.stack
        return _JOINED.get(self.got, "") if ends_filter else ""

    def _hint_about_order(self) -> str:
        if self.got == "*/":
            return "no comment is open here"
        if "DECORATOR" not in self.accepted:
            return ""
        misspelt = did_you_mean(self.functions[-1] if self.functions else "", ["filter"])
        return misspelt or "the function comes last: only .decorator(...) may follow it"

    def _hint_about_keyword(self) -> str:
        expected = [word for name, word in _KEYWORDS.items() if name in self.accepted]
        return did_you_mean(self.got, expected)


def render(diagnostics: Sequence[Diagnostic]) -> str:
    """Show all findings, each followed by an empty line, and their number."""
    return "\n\n".join([*map(str, diagnostics), tally(diagnostics)])


def tally(diagnostics: Sequence[Diagnostic]) -> str:
    """Count, as in `2 errors and 1 warning in 1 file`."""
    errors = sum(finding.severity is Severity.ERROR for finding in diagnostics)
    warnings = len(diagnostics) - errors
    counts = [_count(errors, "error")] if errors or not warnings else []
    if warnings:
        counts.append(_count(warnings, "warning"))
    files = len({finding.path for finding in diagnostics})
    return f"{' and '.join(counts)} in {_count(files, 'file')}"


def suggest(word: str, candidates: Iterable[str]) -> str | None:
    """Find the candidate that a misspelt word most likely stands for, whatever its case."""
    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    folded = word[:_LONGEST_WORD].casefold()
    pairs = _pairs(folded)
    likely = nlargest(_RATED, by_folded, lambda one: _likeness(pairs, _pairs(one)))
    matches = get_close_matches(folded, likely, n=1)
    return by_folded[matches[0]] if matches else None


@lru_cache(maxsize=4_096)
def _pairs(word: str) -> frozenset[str]:
    """Return the characters that follow each other, also those at both ends."""
    return frozenset(map("".join, pairwise(f" {word} ")))


def _likeness(some: frozenset[str], others: frozenset[str]) -> float:
    return len(some & others) / (len(some) + len(others))


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Word the suggestion as a hint, empty if there is none."""
    match = suggest(word, candidates)
    return f"did you mean {match}?" if match else ""


def clip(text: str) -> str:
    """Shorten what a person needs only to recognise."""
    return text if len(text) <= _LONGEST_GOT else f"{text[:_LONGEST_GOT]}…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _line_starts(text: str) -> list[int]:
    starts = [0]
    at = text.find("\n")
    while at >= 0:
        starts.append(at + 1)
        at = text.find("\n", at + 1)
    return starts


def _show(text: str, width_before: int = 0) -> str:
    """Make each character visible; a tab depends on how much stands before it."""
    shown: list[str] = []
    width = width_before
    for character in text:
        visible = _visible(character, width)
        shown.append(visible)
        width += _width(visible)
    return "".join(shown)


def _visible(character: str, width_before: int) -> str:
    if character == "\t":
        return " " * (_TAB_WIDTH - width_before % _TAB_WIDTH)
    if character.isprintable():
        return character
    return " " if character.isspace() else "\ufffd"


def _width(text: str) -> int:
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
