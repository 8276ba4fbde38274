"""Answers that an agent can read whole: few rows, short texts, and the SQL that made them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from framewalk.queries.reading import as_json, unique_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_ROWS: Final = 200
_MOST_CHARACTERS: Final = 48_000
_MOST_OF_A_TEXT: Final = 1_000


class AnswerError(Exception):
    """What is asked cannot be answered; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: the name of a shipped query, or SQL, with what fills its places.

    `last`, `since` and `until` are the range as the command line has it. At most `limit` rows are
    wanted.
    """

    query: str
    limit: int
    values: Mapping[str, str] = field(default_factory=dict)
    last: str | None = None
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows, and what they are an answer to; there may be one more than was asked for."""

    sql: str
    range: str | None
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    is_cut: bool = False


class Answerer(Protocol):
    """A store, or a server that has one open."""

    def answer(self, asked: Asked) -> Answer:
        """Return an answer. Raises AnswerError."""
        ...


def told(answer: Answer, limit: int) -> dict[str, Any]:
    """Return an answer as JSON has it, cut to what can be read."""
    columns = unique_names(answer.columns)
    shown = [dict(zip(columns, map(_plain, row), strict=True)) for row in answer.rows[:limit]]
    whole = len(shown)
    while shown and len(json.dumps(shown)) > _MOST_CHARACTERS:
        shown = shown[: len(shown) // 2]
    is_cut = answer.is_cut or len(answer.rows) > limit or len(shown) < whole
    content: dict[str, Any] = {"rows": shown, "sql": answer.sql.strip()}
    if answer.range is not None:
        content["range"] = answer.range
    if is_cut:
        content["cut"] = f"there are more than these {len(shown)} rows; ask for less, or by a name"
    return content


def _plain(value: object) -> object:
    text = as_json(value)
    if len(text) > _MOST_OF_A_TEXT:
        return f"{text[:_MOST_OF_A_TEXT]}..."
    found: object = json.loads(text)
    return found
