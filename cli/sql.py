"""`framewalk sql`: ask a store."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Annotated, Final

import duckdb
import typer

from framewalk.cli.console import stdout
from framewalk.cli.rows import Format, print_rows
from framewalk.engine import open_for_reading
from framewalk.engine.errors import InputError, LocatedError, StoreError
from framewalk.queries import shipped_queries

if TYPE_CHECKING:
    from framewalk.cli.rows import Rows

_QUERY: Final = "query"
_NO_COLUMN: Final = re.compile(r'column "?(\w+)"? not found')


def _query_help() -> str:
    names = ", ".join(shipped_queries())
    return f"SQL, a file with SQL (*.sql), a view, or the name of a shipped query: {names}."


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help=_query_help(), show_default=False)],
    store: Annotated[
        Path,
        typer.Option(
            "--store",
            "-s",
            metavar="FILE",
            help="The DuckDB file that framewalk replay made.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Format | None,
        typer.Option(
            "--format",
            "-f",
            help="How to print the rows. Default: table in a terminal, csv in a pipe.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Ask a store in SQL. The file is opened read-only.

    Of several statements (a; b) all are run and the rows of the last one are printed.

    Views: SCOPE_minute, SCOPE_hour and SCOPE_day of each scope; metrics, entities, metric_values.

    Scopes: service, service_instance and endpoint, and each with _relation.
    """
    text = _find_query(query)
    connection = open_for_reading(store)
    try:
        if _is_view(connection, text):
            text = f"FROM {text}"
        answer = _answer(connection, text)
    except duckdb.Error as error:
        raise _explained(query, store, error) from error
    finally:
        connection.close()
    if answer is None:
        raise InputError(_place(query), "there is no SQL in it", "write a query, or name one")
    print_rows(output or (Format.TABLE if stdout.is_terminal else Format.CSV), *answer)


def _find_query(query: str) -> str:
    shipped = shipped_queries()
    if query in shipped:
        return shipped[query]
    if not query.endswith(".sql"):
        return query
    try:
        return Path(query).read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(query, reason, "check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise InputError(query, "this is not UTF-8 text", "save it as such") from error


def _is_view(connection: duckdb.DuckDBPyConnection, text: str) -> bool:
    if not text.isidentifier():
        return False
    views = "SELECT 1 FROM duckdb_views() WHERE NOT internal AND view_name = lower(?)"
    return bool(connection.sql(views, params=[text]).fetchall())


def _answer(connection: duckdb.DuckDBPyConnection, text: str) -> tuple[list[str], Rows] | None:
    # DuckDB does not look for Ctrl-C while it works, so it works in another thread.
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(_ask, connection, text)
        try:
            # A wait without a limit would go on: polars' signal handler lets calls restart.
            return answer.result(TIMEOUT_MAX)
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def _ask(connection: duckdb.DuckDBPyConnection, text: str) -> tuple[list[str], Rows] | None:
    relation = connection.sql(text)
    return None if relation is None else (relation.columns, relation.fetchall())


def _place(query: str) -> str:
    named = query in shipped_queries() or query.endswith(".sql")
    return query if named else _QUERY


def _explained(query: str, store: Path, error: duckdb.Error) -> LocatedError:
    text = _one_line(str(error))
    if str(store.resolve()) in text:
        return StoreError(store, text, "check the file, or use a copy of it")
    if "read-only mode" in text:
        problem = "this would change the store, and framewalk sql only reads"
        return InputError(_place(query), problem, "ask with SELECT or FROM")
    shipped = shipped_queries()
    missing = _NO_COLUMN.search(text)
    if query in shipped and missing:
        problem = f"this store has no metric {missing[1]}; it was made with other definitions"
        return InputError(query, problem, "ask for what `FROM metrics` lists")
    if query not in shipped and query.replace("-", "_").isidentifier():
        names = ", ".join(shipped)
        problem = "there is no shipped query and no view of this name"
        return InputError(query, problem, f"there are {names}")
    return InputError(_place(query), text, "correct the query")


def _one_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line.strip("^"))
