"""`framewalk sql`: ask a store."""

from __future__ import annotations

import csv
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Annotated, Any, Final

import duckdb
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from framewalk.cli.console import stdout
from framewalk.engine import open_for_reading
from framewalk.engine.errors import InputError, StoreError
from framewalk.queries import shipped_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

Rows = list[tuple[Any, ...]]

_QUERY: Final = "query"
_CONTROL: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def _query_help() -> str:
    names = ", ".join(shipped_queries())
    return f"SQL, a file with SQL (*.sql), or the name of a shipped query: {names}."


def sql(
    query: Annotated[str, typer.Argument(help=_query_help(), show_default=False)],
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

    Views: service, service_instance, endpoint, service_relation, service_instance_relation and
    endpoint_relation, each with _minute, _hour and _day; and metrics, entities, metric_values.
    """
    text = _find_query(query)
    connection = open_for_reading(store)
    try:
        answer = _answer(connection, text)
    except duckdb.Error as error:
        raise _explained(query, store, error) from error
    finally:
        connection.close()
    if answer is None:
        raise InputError(_place(query), "there is no SQL in it", "write a query, or name one")
    chosen = output or (Format.TABLE if stdout.is_terminal else Format.CSV)
    _PRINTERS[chosen](*answer)


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


def _explained(query: str, store: Path, error: duckdb.Error) -> InputError:
    text = _one_line(str(error))
    if str(store.resolve()) in text:
        return StoreError(store, text, "check the file, or use a copy of it")
    if "read-only mode" in text:
        problem = "this would change the store, and framewalk sql only reads"
        return InputError(_place(query), problem, "ask with SELECT or FROM")
    shipped = shipped_queries()
    if query not in shipped and query.replace("-", "_").isidentifier():
        names = ", ".join(shipped)
        return InputError(query, "there is no shipped query of this name", f"there are {names}")
    return InputError(_place(query), text, "correct the query")


def _one_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line.strip("^"))


def _print_table(columns: Sequence[str], rows: Rows) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(
            Text(column), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold"
        )
    for row in rows:
        table.add_row(*map(_as_text, row))
    stdout.print(table)


def _as_text(value: object) -> Text:
    if value is None:
        return Text()
    grouped = isinstance(value, int) and not isinstance(value, bool)
    return Text(f"{value:,}" if grouped else _CONTROL.sub(_visible, str(value)))


def _visible(control: re.Match[str]) -> str:
    # A name that came over the network must not reach the terminal as a command to it.
    return f"\\x{ord(control[0]):02x}"


def _print_csv(columns: Sequence[str], rows: Rows) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(
        [_as_json(value) if isinstance(value, dict | list) else value for value in row]
        for row in rows
    )


def _print_json(columns: Sequence[str], rows: Rows) -> None:
    sys.stdout.write(_as_json([dict(zip(columns, row, strict=True)) for row in rows], indent=2))
    sys.stdout.write("\n")


def _as_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, default=str, ensure_ascii=False, indent=indent)


_PRINTERS = {Format.TABLE: _print_table, Format.CSV: _print_csv, Format.JSON: _print_json}
