"""What people read from a store, and how: shipped definitions and queries, and the SQL endpoint.

The endpoint, from the inside: `sandbox` is what a query may do, `running` its threads and limits,
`answers` the forms of an answer, `snapshots` the copies; `sql_http` puts them behind `sql_guard`,
`sql_server` serves it, `sql_client` asks it, found by `server_file`.
"""

from __future__ import annotations

from importlib.resources import files


def shipped_queries() -> dict[str, str]:
    """Return the shipped queries by name. A query's first line says what it answers."""
    folder = files(__name__) / "sql"
    return {
        entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".sql")
    }
