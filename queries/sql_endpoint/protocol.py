"""What both ends of the SQL endpoint share: words, answers, errors of a query."""

from __future__ import annotations

from typing import Final

INSTANCE_HEADER: Final = "framewalk-instance"

# Kinds of refusals: DuckDB's fault-finding, framewalk's own, a time limit, a missing token.
SQL_KIND: Final = "sql"
REFUSED_KIND: Final = "refused"
LATE_KIND: Final = "late"
TOKEN_KIND: Final = "token"  # noqa: S105 - the name of a kind
REQUEST_KIND: Final = "request"
