"""Connections to a store's file, and what DuckDB's errors mean to a person."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import duckdb

from framewalk.engine.errors import (
    StoreError,
    StoreLockedError,
    StoreMemoryError,
    StoreRoomError,
)
from framewalk.engine.paths import one_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import polars as pl

IN_MEMORY: Final = ":memory:"
# The schema of the tables that a store is made of.
_SCHEMA: Final = "internal"

# What DuckDB may hold for one that writes; what needs more goes to disk beside the store.
WRITER_MEMORY: Final = "384MiB"

# What is registered by a name stays in memory until its transaction ends. That is for few rows.
_FEW_ROWS: Final = 1_000

# What fills the places in a statement: by their order, or by their names.
Parameters: TypeAlias = "Sequence[Any] | Mapping[str, Any] | None"

_MORE_MEMORY: Final = "give it more memory, or ask fewer or smaller queries at a time"

_WITHOUT_LOG: Final = (
    "move the log aside (and keep it): its commits, the latest ones, are lost to the store, and "
    "computed again from what the spool still has of them, or by another replay"
)

# What the system says where a disk, or a user's share of it, is full.
_NO_ROOM: Final = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))

# What DuckDB raises when a file cannot be read or written, whatever is asked of it.
FAULTS: Final = (duckdb.OperationalError, duckdb.FatalException, duckdb.InternalError)


def connect(path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """Open a file, or ":memory:"; raises StoreError and its kinds.

    Its sessions are in UTC, as `time_bucket` is: comparing that with `now()` asks for their zone.
    """
    one_path(path, StoreError)
    if path.name.lstrip(".").partition(".")[0].casefold() == _SCHEMA:
        # DuckDB names the file's catalogue after it, and could not tell the two apart.
        raise StoreError(path, f"a store cannot be called {_SCHEMA!r}", "name it otherwise")
    try:
        # Absolute, as DuckDB takes some relative names for something else than a file.
        name = IN_MEMORY if str(path) == IN_MEMORY else str(path.absolute())
        connection = duckdb.connect(name, read_only=read_only)
        run(connection, "SET GLOBAL TimeZone = 'UTC'")
    except duckdb.Error as error:
        raise explained(path, error) from error
    except RuntimeError as error:
        # What DuckDB makes of a path that is not Unicode.
        raise StoreError(path, "its name is not UTF-8 text", "name it otherwise") from error
    return connection


def explained(path: Path, error: duckdb.Error) -> StoreError:
    """Return what to tell a person about an error of DuckDB."""
    text = str(error).splitlines()[0]
    if isinstance(error, duckdb.OutOfMemoryException):
        return StoreMemoryError(path, _no_memory(text), _MORE_MEMORY)
    if "lock on file" in text:
        return StoreLockedError(
            path, f"another process has it open ({_lock_holder(text)})", "stop it, or wait for it"
        )
    kind = StoreRoomError if any(words in text for words in _NO_ROOM) else StoreError
    return kind(path, *(_wrong_path(path) or _wrong_content(path, text)))


def _wrong_path(path: Path) -> tuple[str, str] | None:
    if path.is_dir():
        return "this is a folder", "name a file"
    if not path.parent.is_dir():
        return "its folder does not exist", "make it, or check the path"
    return None


def _wrong_content(path: Path, text: str) -> tuple[str, str]:
    if "replaying WAL" in text:
        log = path.with_name(f"{path.name}.wal")
        return f"its write-ahead log {log} is damaged", _WITHOUT_LOG
    if "Could not write" in text:
        reason = text.rpartition(": ")[2].lower()
        return f"cannot be written ({reason})", "make room and run this again, nothing is lost"
    if "Could not read" in text or "Corrupt" in text:
        return "the file is damaged or cut off", "use a copy of it, or replay into a new store"
    if "not a valid DuckDB database file" not in text:
        return text, "check the path, or name another file"
    if path.stat().st_size == 0:
        return "the file is empty", "remove it, or name another file"
    return "this is not a DuckDB file", "name another file"


def _no_memory(text: str) -> str:
    _, _, reason = text.partition("Error: ")
    return f"DuckDB has no memory left for this ({reason or text})"


def _lock_holder(text: str) -> str:
    _, found, holder = text.partition("Conflicting lock is held in ")
    return holder.split(". ")[0] if found else "unknown process"


def run(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Parameters = None
) -> list[tuple[Any, ...]]:
    """Run a statement and return all of its rows."""
    with _interruptible():
        # A result that is not read to its end keeps the connection busy.
        return connection.execute(sql, parameters).fetchall()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "interrupted" in str(error):
            # What DuckDB makes of Ctrl-C.
            raise KeyboardInterrupt from error
        raise


def insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pl.DataFrame) -> None:
    """Append rows to a table that has their columns; others are NULL."""
    if rows.is_empty():
        return
    if rows.height > _FEW_ROWS:
        columns = connection.table(table).columns
        values = ", ".join(_quoted(name) if name in rows.columns else "NULL" for name in columns)
        with _interruptible():
            connection.from_arrow(rows.to_arrow()).project(values).insert_into(table)
        return
    # BY NAME is the cheapest way for wide tables of few rows.
    connection.register("inserted", rows.to_arrow())
    try:
        run(connection, f"INSERT INTO {table} BY NAME FROM inserted")
    finally:
        # A transaction that an error has ended lets nothing more happen, and that error counts.
        with contextlib.suppress(duckdb.TransactionException):
            connection.unregister("inserted")


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


@contextlib.contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit what happens inside, or nothing of it if an error comes out."""
    run(connection, "BEGIN")
    try:
        yield
        run(connection, "COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    """Undo a transaction; a commit that failed has done so already."""
    with contextlib.suppress(duckdb.TransactionException):
        connection.rollback()


class Connected:
    """What has a file open for writing; errors of DuckDB are those of a store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = connect(path, read_only=False)

    def _insert(self, table: str, rows: pl.DataFrame) -> None:
        with self._explaining():
            insert(self._connection, table, rows)

    def run(self, sql: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
        """Run a statement in the transaction under way, or in one of its own; raises StoreError."""
        with self._explaining():
            return run(self._connection, sql, parameters)

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Append rows to a table that has their columns, as `run` does; raises StoreError."""
        self._insert(table, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is written inside with `run`, or nothing of it if an error comes out."""
        with self._explaining(), transaction(self._connection):
            yield

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except FAULTS as error:
            raise explained(self.path, error) from error
