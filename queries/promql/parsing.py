"""Texts of requests: parameters and times, and the tree of a query, within bounds first."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

import promql_parser

from framewalk.queries.promql.series import PromqlError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from promql_parser import Expr

_DURATION: Final = re.compile(
    "".join(rf"(?:([0-9]{{1,9}}){unit})?" for unit in ("y", "w", "d", "h", "m", "s", "ms"))
)
_DAY_MS: Final = 86_400_000
_UNITS_MS: Final = (365 * _DAY_MS, 7 * _DAY_MS, _DAY_MS, 3_600_000, 60_000, 1_000, 1)
_MOST_CHARACTERS: Final = 1 << 18
# A tree of a thousand operators on top of each other takes 165 MB, one of five thousand ends the
# process.
_MOST_NESTED: Final = 300
_HIDDEN: Final = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`""", re.DOTALL)
_BRACES: Final = re.compile(r"\{[^{}]*\}")
_NESTING: Final = re.compile(r"[-+*/%^=<>!(\[]|\b(?:and|or|unless|atan2)\b", re.IGNORECASE)


def parse(text: str) -> Expr:
    """Return the tree of a query. Raises PromqlError."""
    if len(text) > _MOST_CHARACTERS:
        problem = f"the query is longer than {_MOST_CHARACTERS:,} characters"
        raise PromqlError(problem, "ask a shorter one")
    bare = _BRACES.sub(" ", _HIDDEN.sub(" ", text))
    if sum(1 for _ in _NESTING.finditer(bare)) > _MOST_NESTED:
        problem = f"the query has more than {_MOST_NESTED} operators and parentheses"
        raise PromqlError(problem, "ask it in parts")
    with explained():
        return promql_parser.parse(text)


def duration_ms(text: str) -> int:
    """Return how long a duration such as 1h30m is. Raises PromqlError."""
    parts = _DURATION.fullmatch(text)
    if parts is None or not text:
        problem = f"{text[:40]!r} is no duration"
        raise PromqlError(problem, "give seconds, or such as 1m30s")
    units = zip(parts.groups(), _UNITS_MS, strict=True)
    return sum(int(number) * unit_ms for number, unit_ms in units if number)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise PromqlError for what the parser, or the tree that it gave, cannot tell."""
    try:
        yield
    except ValueError as error:
        problem = f"invalid PromQL: {error}"
        raise PromqlError(problem) from error
    except OverflowError as error:
        problem = "invalid PromQL: a duration is longer than can be told"
        raise PromqlError(problem) from error
    except BaseException as error:
        # What the parser's language calls a panic is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        problem = "invalid PromQL: the parser cannot read it"
        raise PromqlError(problem) from error


FORM: Final = "application/x-www-form-urlencoded"
_MOST_FIELDS: Final = 1_000
# DuckDB's times end far before the largest number does.
_LATEST_S: Final = 32_503_680_000.0
_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\Z")
_FRACTION: Final = re.compile(r"(\.\d{6})\d+")


@dataclass(frozen=True, slots=True)
class Parameters:
    """Values by name, those of the address before those of the form."""

    values: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, query: bytes, form: bytes) -> Parameters:
        """Read both. Raises PromqlError."""
        values: dict[str, list[str]] = {}
        for encoded in (query, form):
            try:
                read = parse_qs(
                    encoded.decode("utf-8", "replace"),
                    keep_blank_values=True,
                    max_num_fields=_MOST_FIELDS,
                )
            except ValueError as error:
                problem = f"there are more than {_MOST_FIELDS:,} parameters"
                raise PromqlError(problem) from error
            for name, given in read.items():
                values.setdefault(name, []).extend(given)
        return cls(values)

    def first(self, name: str) -> str:
        """Return the first value, '' where there is none."""
        return next(iter(self.values.get(name, ())), "")

    def needed(self, name: str) -> str:
        """Return the first value. Raises PromqlError where there is none."""
        value = self.first(name)
        if not value:
            problem = f"invalid parameter {name!r}: it is missing or empty"
            raise PromqlError(problem)
        return value

    def time_ms(self, name: str) -> int | None:
        """Return a time in ms since 1970; None where it is not given. Raises PromqlError."""
        text = self.first(name)
        return None if not text else _time_ms(name, text)

    def needed_time_ms(self, name: str) -> int:
        """Return a time in ms since 1970. Raises PromqlError where it is not given."""
        return _time_ms(name, self.needed(name))

    def length_ms(self, name: str) -> int:
        """Return a duration: seconds, or such as 1m30s. Raises PromqlError."""
        text = self.needed(name)
        if _NUMBER.match(text):
            return _ms(name, float(text))
        try:
            return duration_ms(text)
        except PromqlError as error:
            problem = f"invalid parameter {name!r}: {text[:40]!r} is no duration"
            raise PromqlError(problem) from error


def _time_ms(name: str, text: str) -> int:
    if _NUMBER.match(text):
        return _ms(name, float(text))
    try:
        time = dt.datetime.fromisoformat(_FRACTION.sub(r"\1", text))
    except ValueError as error:
        problem = f"invalid parameter {name!r}: {text[:40]!r} is no time"
        raise PromqlError(problem, "give seconds since 1970, or 2026-01-31T12:00:00Z") from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=dt.UTC)
    return _ms(name, time.timestamp())


def _ms(name: str, seconds: float) -> int:
    if not math.isfinite(seconds) or abs(seconds) > _LATEST_S:
        problem = f"invalid parameter {name!r}: it is out of range"
        raise PromqlError(problem)
    return round(seconds * 1_000)
