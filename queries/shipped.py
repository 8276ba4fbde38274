"""The shipped queries: SQL as files, in `queries/sql/`."""

from __future__ import annotations

from importlib.resources import files


def shipped_queries() -> dict[str, str]:
    """Return the shipped queries by name. A query's first line says what it answers."""
    folder = files("framewalk.queries") / "sql"
    return {
        entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".sql")
    }
