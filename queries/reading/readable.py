"""A statement that may run, and another with the same rows that runs first."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import duckdb

if TYPE_CHECKING:
    from collections.abc import Callable

    from framewalk.queries.reading.trees import Tree

_T = TypeVar("_T")


class Checked(NamedTuple):
    """One statement that only reads.

    It is a query with DuckDB's tree of it, and before it what asks for its explanation, if so.
    """

    statement: duckdb.Statement
    before: str
    query: str
    tree: Tree


class Readable(NamedTuple):
    """A statement, and perhaps one with the same rows that is bound faster."""

    statement: duckdb.Statement
    narrow: duckdb.Statement | None = None

    def run(
        self,
        cursor: duckdb.DuckDBPyConnection,
        function: Callable[[duckdb.Statement], _T],
    ) -> _T:
        """Return what a function makes of the narrow one; where that fails, of the statement.

        So errors are about what was asked. Raises what the function raises.
        """
        if self.narrow is not None:
            try:
                return function(self.narrow)
            except (duckdb.InterruptException, duckdb.OutOfMemoryException):
                raise
            except duckdb.Error:
                begin_again(cursor)
        return function(self.statement)


def begin_again(cursor: duckdb.DuckDBPyConnection) -> None:
    """Leave a transaction that an error has ended, if there is one."""
    with contextlib.suppress(duckdb.TransactionException):
        cursor.rollback()
        cursor.execute("BEGIN TRANSACTION READ ONLY").fetchall()
