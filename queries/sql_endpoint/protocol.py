"""What both ends of the SQL endpoint share: words, answers, errors of a query."""

from __future__ import annotations

from typing import Final

INSTANCE_HEADER: Final = "framewalk-instance"

# The kind of refusal that is DuckDB's fault-finding; others are in serving.
SQL_KIND: Final = "sql"
