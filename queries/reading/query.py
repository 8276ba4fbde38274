"""A query as everybody knows it who asks or answers: its rows, and what may be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

# What an error is about that is about the query.
QUERY_PLACE: Final = "query"


@dataclass(frozen=True, slots=True)
class SqlAnswer:
    """Rows of Python values, as DuckDB gives them; `truncated` if some were left out."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    truncated: bool = False


class QueryError(Exception):
    """DuckDB found fault with a query; the message is DuckDB's, in one line."""


def one_line(text: str) -> str:
    """Return a message of DuckDB without the drawing of the place."""
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line.strip("^"))
