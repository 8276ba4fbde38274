"""The shipped queries, in `queries/sql/`, and values for the places that a query has."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, TypeAlias

from framewalk.engine.questions import Question, filled, shipped_questions
from framewalk.engine.views import literal

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a place can stand for: a time in UTC, a text, a number, or nothing. A number may be a text,
# too: DuckDB takes a quoted one for what it stands beside.
Value: TypeAlias = dt.datetime | str | bool | int | float | None


def shipped_queries() -> dict[str, Question]:
    """Return the shipped queries by name."""
    return shipped_questions()


def with_values(text: str, values: Mapping[str, Value]) -> str:
    """Return SQL with the places of it filled; KeyError for one without a value."""
    return filled(text, {name: _as_sql(value) for name, value in values.items()})


def asked(question: Question, values: Mapping[str, Value], limit: int | None = None) -> str:
    """Return the SQL of a shipped query; what has no value in `values` is left out of it."""
    query = with_values(question.query, {**dict.fromkeys(question.places), **values})
    return query if limit is None else f"{query}\nLIMIT {limit}"


def _as_sql(value: Value) -> str:
    if isinstance(value, dt.datetime):
        return f"TIMESTAMP '{value:%Y-%m-%d %H:%M:%S.%f}'"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return "NULL" if value is None else literal(value)
