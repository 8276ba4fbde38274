"""How `framewalk sql` prints rows: as a table, as CSV or as JSON."""

from __future__ import annotations

import csv
import re
import sys
from decimal import Decimal
from enum import StrEnum
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.cells import cell_len
from rich.text import Text

from framewalk.cli.console import say, stdout, warn
from framewalk.cli.ranges import shown
from framewalk.queries.reading import as_json, unique_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from framewalk.cli.asking import Query
    from framewalk.queries.reading import SqlAnswer

Rows = list[tuple[Any, ...]]

_CONTROL: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_GAP: Final = "   "
# A table that is too wide for the terminal is still read line by line, up to here.
_MOST_COLUMNS: Final = 12
_MOST_SCREENS: Final = 3


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        "-f",
        help="How to print the rows. Default: table in a terminal, csv in a pipe.",
        show_default=False,
    ),
]


def print_answer(query: Query, answer: SqlAnswer, output: Format | None) -> None:
    """Print the rows of a query, within its limit, and say what they are about."""
    rows = answer.rows if query.limit is None else answer.rows[: query.limit]
    is_page = len(rows) < len(answer.rows)
    if query.range is not None:
        say(str(query.range))
    if answer.truncated:
        remedy = "ask for less, or take a snapshot"
        warn(f"these are the first {len(rows):,} rows, the server gives no more; {remedy}")
    elif is_page:
        say(f"these are the first {len(rows):,} rows; --limit 0 prints all")
    form = output or (Format.TABLE if stdout.is_terminal else Format.CSV)
    print_rows(form, answer.columns, rows, _about(query, is_cut=is_page or answer.truncated))


def _about(query: Query, *, is_cut: bool) -> dict[str, object] | None:
    """Return what stands beside the rows in JSON: the range of a query that has one."""
    if query.range is None:
        return None
    return {"from": shown(query.range.since), "to": shown(query.range.until), "truncated": is_cut}


def print_rows(
    output: Format,
    columns: Sequence[str],
    rows: Rows,
    about: Mapping[str, object] | None = None,
) -> None:
    """Print rows to standard output; with `about` JSON is an object of it and the rows."""
    if output is Format.JSON:
        _print_json(columns, rows, about)
    else:
        _PRINTERS[output](columns, rows)


def _print_table(columns: Sequence[str], rows: Rows) -> None:
    names = [_as_text(column) for column in columns]
    cells = [[_as_text(value) for value in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(names, *cells, strict=True)]
    if rows and stdout.is_terminal and _is_too_wide(widths):
        _print_records(names, rows)
        return
    numeric = [any(map(_is_number, column)) for column in zip(*rows, strict=True)]
    right = numeric or [False] * len(names)
    sys.stdout.write("\n")
    for line in _table_lines(names, widths, right):
        stdout.print(Text(line, style="bold"))
    dash = "-" if stdout.options.ascii_only else "─"
    sys.stdout.write(f" {dash * (sum(widths) + len(_GAP) * (len(widths) - 1))}\n")
    for row in cells:
        _write_lines(_table_lines(row, widths, right))
    sys.stdout.write("\n")


def _is_too_wide(widths: Sequence[int]) -> bool:
    width = sum(widths) + len(_GAP) * len(widths)
    if width <= stdout.width:
        return False
    return len(widths) > _MOST_COLUMNS or width > _MOST_SCREENS * stdout.width


def _table_lines(
    cells: Iterable[str], widths: Sequence[int], right: Sequence[bool]
) -> Iterator[str]:
    """Give the lines of one row: more than one only where a value has several."""
    for parts in zip_longest(*map(_lines, cells), fillvalue=""):
        padded = map(_pad, parts, widths, right)
        yield f" {_GAP.join(padded)}".rstrip()


def _print_records(names: Sequence[str], rows: Rows) -> None:
    """Print each row as lines of a column and its value; what is NULL is left out."""
    width = max(map(_width, names))
    for number, row in enumerate(rows, 1):
        stdout.print(Text(f"row {number:,}", style="bold"))
        for name, value in zip(names, row, strict=True):
            if value is not None:
                _write_lines(_table_lines((name, _as_text(value)), (width, 0), (False, False)))
        sys.stdout.write("\n")


def _write_lines(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _CONTROL.sub(_visible, str(value))


def _visible(control: re.Match[str]) -> str:
    # A name that came over the network must not reach the terminal as a command to it.
    return f"\\x{ord(control[0]):02x}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _lines(text: str) -> list[str]:
    return text.split("\n")


def _width(text: str) -> int:
    return max(map(cell_len, _lines(text)))


def _pad(text: str, width: int, right: bool) -> str:  # noqa: FBT001 - one of three columns
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _print_csv(columns: Sequence[str], rows: Rows) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_as_field(value) for value in row] for row in rows)


def _as_field(value: object) -> object:
    if isinstance(value, dict | list | tuple):
        return as_json(value)
    return value.hex() if isinstance(value, bytes) else value


def _print_json(columns: Sequence[str], rows: Rows, about: Mapping[str, object] | None) -> None:
    names = unique_names(columns)
    records = [dict(zip(names, row, strict=True)) for row in rows]
    content = records if about is None else {**about, "rows": records}
    text = as_json(content, indent=2, ascii_only=stdout.options.ascii_only)
    sys.stdout.write(f"{text}\n")


_PRINTERS = {Format.TABLE: _print_table, Format.CSV: _print_csv}
