"""How commands print rows: as a table, as CSV or as JSON."""

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
from framewalk.cli.fitting import Column, fitted, text_width
from framewalk.cli.ranges import shown
from framewalk.queries.reading import as_json, unique_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from framewalk.cli.asking import Query
    from framewalk.queries.reading import SqlAnswer

Rows = list[tuple[Any, ...]]

_CONTROL: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")
# Between columns; the narrower ones where a table would not fit otherwise.
_GAPS: Final = (3, 2, 1)


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    WIDE = "wide"
    CSV = "csv"
    JSON = "json"


FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        "-f",
        help="How to print the rows. A table is made to fit the terminal, a wide one is not. "
        "Default: table in a terminal, csv in a pipe.",
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
    whole = _columns(columns, rows)
    # A console that is no terminal has room for everything.
    if not rows or not stdout.is_terminal or _room(whole, _GAPS[0]) >= sum(map(_width, whole)):
        _write_table(whole)
        return
    mark = "..." if stdout.options.ascii_only else "…"
    tried = [(gap, fitted(whole, _room(whole, gap), mark)) for gap in _GAPS]
    able = [(found.is_cut, gap, found) for gap, found in tried if found is not None]
    if able:
        is_cut, gap, found = min(able, key=lambda one: (one[0], -one[1]))
        _write_table(found.columns, gap)
        if is_cut:
            say("some texts are shortened; --format wide prints them whole")
        return
    _print_records([column.name for column in whole], rows)


def _room(columns: Sequence[Column], gap: int) -> int:
    """Return how many cells of a terminal's line columns may have, beside what is between them."""
    return stdout.width - 1 - gap * (len(columns) - 1)


def _width(column: Column) -> int:
    return column.width


def _print_wide(columns: Sequence[str], rows: Rows) -> None:
    _write_table(_columns(columns, rows))


def _columns(names: Sequence[str], rows: Rows) -> list[Column]:
    values = list(zip(*rows, strict=True)) or [()] * len(names)
    return [
        Column(_as_text(name), [_as_text(value) for value in column], any(map(_is_number, column)))
        for name, column in zip(names, values, strict=True)
    ]


def _write_table(columns: Sequence[Column], gap: int = _GAPS[0]) -> None:
    widths = [column.width for column in columns]
    right = [column.is_number for column in columns]
    sys.stdout.write("\n")
    for line in _table_lines([column.name for column in columns], widths, right, gap):
        stdout.print(Text(line, style="bold"))
    dash = "-" if stdout.options.ascii_only else "─"
    sys.stdout.write(f" {dash * (sum(widths) + gap * (len(widths) - 1))}\n")
    for row in zip(*(column.cells for column in columns), strict=True):
        _write_lines(_table_lines(row, widths, right, gap))
    sys.stdout.write("\n")


def _table_lines(
    cells: Iterable[str], widths: Sequence[int], right: Sequence[bool], gap: int
) -> Iterator[str]:
    """Give the lines of one row: more than one only where a value has several."""
    for parts in zip_longest(*(cell.split("\n") for cell in cells), fillvalue=""):
        padded = map(_pad, parts, widths, right)
        yield f" {(' ' * gap).join(padded)}".rstrip()


def _print_records(names: Sequence[str], rows: Rows) -> None:
    """Print each row as lines of a column and its value; what is NULL is left out."""
    widths, right = (max(map(text_width, names)), 0), (False, False)
    for number, row in enumerate(rows, 1):
        stdout.print(Text(f"row {number:,}", style="bold"))
        for name, value in zip(names, row, strict=True):
            if value is not None:
                _write_lines(_table_lines((name, _as_text(value)), widths, right, _GAPS[0]))
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


_PRINTERS = {Format.TABLE: _print_table, Format.WIDE: _print_wide, Format.CSV: _print_csv}
