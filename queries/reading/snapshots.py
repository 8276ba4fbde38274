"""Copies of a store, each as of one commit, whoever writes meanwhile."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import duckdb

from framewalk.engine.errors import InputError, StoreError
from framewalk.engine.views import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL: Final = "No space left"


def copy_database(connection: duckdb.DuckDBPyConnection, target: Path) -> None:
    """Copy a connection's database to a new file, tables and views, as of one commit.

    Writers go on meanwhile, and `connection.interrupt()` from another thread ends it.

    Raises:
        StoreError: the file cannot be written.
        duckdb.InterruptException: it was interrupted.
    """
    with explaining(target), attached(connection, target, "copy") as copy:
        name = _database(connection)
        _run(connection, f"COPY FROM DATABASE {quoted(name)} TO {copy}")


@contextlib.contextmanager
def attached(
    connection: duckdb.DuckDBPyConnection, target: Path, word: str, options: str = "READ_WRITE"
) -> Iterator[str]:
    """Attach a file that is to be written; gives its name in SQL."""
    # Another name than that of any store at this place.
    name = quoted(f"{_database(connection)} ({word})")
    _run(connection, f"ATTACH {literal(str(target.absolute()))} AS {name} ({options})")
    try:
        yield name
    finally:
        _run(connection, f"DETACH {name}")


@contextlib.contextmanager
def explaining(target: Path) -> Iterator[None]:
    """Make of DuckDB's errors while a copy is written what to tell a person; not of interrupts."""
    try:
        yield
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        raise _explained(target, str(error).splitlines()[0]) from error


def remove_copy(target: Path) -> None:
    """Remove what an attempt to make a copy has left."""
    for path in (target, target.with_name(f"{target.name}.wal")):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _run(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    connection.execute(statement).fetchall()


def _database(connection: duckdb.DuckDBPyConnection) -> str:
    return str(connection.execute("SELECT current_database()").fetchall()[0][0])


def _explained(target: Path, text: str) -> StoreError | InputError:
    if _FULL in text:
        return StoreError(target, "no space left for a copy", "make room, or name another place")
    if not target.parent.is_dir():
        return InputError(target, "its folder does not exist", "make it, or check the path")
    return StoreError(target, f"the copy failed: {text}", "check the place and the store")
