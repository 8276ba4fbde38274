"""`framewalk sql`: ask a store."""

from __future__ import annotations

import csv
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import duckdb
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from framewalk.cli.console import stdout
from framewalk.engine import open_for_reading
from framewalk.engine.errors import InputError
from framewalk.queries import shipped_queries

if TYPE_CHECKING:
    from collections.abc import Sequence

Rows = list[tuple[Any, ...]]

_QUERY: Final = "query"


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

    Views: service, service_instance, endpoint, service_relation, service_instance_relation and
    endpoint_relation, each with _minute, _hour and _day; and metrics, entities, metric_values.
    """
    text = _find_query(query)
    connection = open_for_reading(store)
    try:
        relation = connection.sql(text)
        columns, rows = relation.columns, relation.fetchall()
    except duckdb.Error as error:
        raise InputError(_QUERY, str(error).rstrip(), "mend the query") from error
    finally:
        connection.close()
    chosen = output or (Format.TABLE if stdout.is_terminal else Format.CSV)
    _PRINTERS[chosen](columns, rows)


def _find_query(query: str) -> str:
    shipped = shipped_queries()
    if query in shipped:
        return shipped[query]
    if not query.endswith(".sql"):
        return query
    try:
        return Path(query).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(query, str(reason).lower(), "check the path") from error


def _print_table(columns: Sequence[str], rows: Rows) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(
            column, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold"
        )
    for row in rows:
        table.add_row(*map(_as_text, row))
    stdout.print(table)


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


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
