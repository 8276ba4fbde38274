"""Copies of a store, each as of one commit, whoever writes meanwhile."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import duckdb

from framewalk.engine.errors import InputError, StoreError
from framewalk.engine.store import literal, quoted

if TYPE_CHECKING:
    from pathlib import Path

_FULL: Final = "No space left"


def copy_database(connection: duckdb.DuckDBPyConnection, target: Path) -> None:
    """Copy a connection's database to a new file, tables and views, as of one commit.

    Writers go on meanwhile, and `connection.interrupt()` from another thread ends it.

    Raises:
        StoreError: the file cannot be written.
        duckdb.InterruptException: it was interrupted.
    """
    name = connection.execute("SELECT current_database()").fetchall()[0][0]
    # Another name than that of any store at this place.
    copy = quoted(f"{name} (copy)")
    try:
        _run(connection, f"ATTACH {literal(str(target.absolute()))} AS {copy} (READ_WRITE)")
        try:
            _run(connection, f"COPY FROM DATABASE {quoted(name)} TO {copy}")
        finally:
            _run(connection, f"DETACH {copy}")
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        raise explained(target, str(error).splitlines()[0]) from error


def remove_copy(target: Path) -> None:
    """Remove what an attempt to make a copy has left."""
    for path in (target, target.with_name(f"{target.name}.wal")):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _run(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    connection.execute(statement).fetchall()


def explained(target: Path, text: str) -> StoreError | InputError:
    """Return what to tell a person about an error of DuckDB while it writes a copy."""
    if _FULL in text:
        return StoreError(target, "no space left for a copy", "make room, or name another place")
    if not target.parent.is_dir():
        return InputError(target, "its folder does not exist", "make it, or check the path")
    return StoreError(target, f"the copy failed: {text}", "check the place and the store")
