"""`framewalk export`: what a store shows, for tools that cannot read its file."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from framewalk.cli.console import print_summary
from framewalk.cli.sources import DEFAULT_STORE, StoreOption, open_store
from framewalk.engine.errors import InputError, StoreLockedError
from framewalk.engine.paths import keep_files_private
from framewalk.queries.reading import export_duckdb_1, export_parquet, remove_copy


class _Format(StrEnum):
    PARQUET = "parquet"
    DUCKDB_1 = "duckdb-1"


def export(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            help="What to make: a folder of Parquet files, or a DuckDB file.",
            show_default=False,
        ),
    ],
    form: Annotated[
        _Format,
        typer.Option(
            "--format",
            "-f",
            help="parquet: a file for each view; duckdb-1: a file that every DuckDB since 1.0.0 "
            "reads, with a table for each view.",
            show_default=False,
        ),
    ],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write what the views of a store show, for tools that cannot read its file.

    All views but metric_values, which has the same once more. Beside a running server export a
    snapshot.
    """
    if target.exists():
        raise InputError(target, "this is there already", "name another place, or remove it")
    if not target.absolute().parent.is_dir():
        raise InputError(target, "its folder does not exist", "make it, or check the path")
    keep_files_private()
    partial = target.with_name(f"{target.name}.partial")
    _remove(partial)
    write = export_parquet if form is _Format.PARQUET else export_duckdb_1
    try:
        with open_store(store) as source:
            views = source.interruptible(lambda connection: write(connection, partial))
        partial.rename(target)
    except StoreLockedError as error:
        remedy = "export a copy of it (`framewalk snapshot`)"
        raise StoreLockedError(store, error.problem, remedy) from error
    finally:
        _remove(partial)
    print_summary([("export", str(target)), ("of", str(store)), ("views", str(views))])


def _remove(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        remove_copy(partial)
