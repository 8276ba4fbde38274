"""What both ends of the SQL endpoint share: words, answers, errors of a query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

# What an error is about that is about the query.
QUERY_PLACE: Final = "query"

INSTANCE_HEADER: Final = "framewalk-instance"

# Kinds of refusals: DuckDB's fault-finding, framewalk's own, a time limit, a missing token.
SQL_KIND: Final = "sql"
REFUSED_KIND: Final = "refused"
LATE_KIND: Final = "late"
TOKEN_KIND: Final = "token"  # noqa: S105 - the name of a kind
REQUEST_KIND: Final = "request"


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
