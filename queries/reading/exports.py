"""What the views of a store show, in forms that other tools read: Parquet, an older DuckDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import duckdb

from framewalk.engine.store import literal, quoted
from framewalk.queries.reading.snapshots import explained

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The oldest form of a file that DuckDB writes: every DuckDB since 1.0.0 reads it.
_STORAGE_VERSION: Final = "v1.0.0"
# The same values once more, a row for each: many times the rest.
_LEFT_OUT: Final = "metric_values"


def export_parquet(connection: duckdb.DuckDBPyConnection, folder: Path) -> int:
    """Write each view as a file of a new folder, VIEW.parquet; return how many there are.

    Raises:
        StoreError: a file cannot be written.
        InputError: the folder cannot be made.
        duckdb.InterruptException: it was interrupted.
    """
    folder.mkdir()
    return _export(
        connection,
        folder,
        lambda view: (
            f"COPY (FROM {quoted(view)}) TO {literal(str(folder.absolute() / f'{view}.parquet'))} "
            "(FORMAT parquet, COMPRESSION zstd)"
        ),
    )


def export_duckdb_1(connection: duckdb.DuckDBPyConnection, target: Path) -> int:
    """Write each view as a table of a new file that DuckDB 1 reads; return how many there are.

    Tables, as views would need functions that older DuckDBs do not have. Raises as export_parquet.
    """
    place = literal(str(target.absolute()))
    name = connection.execute("SELECT current_database()").fetchall()[0][0]
    # Another name than that of any store at this place.
    copy = quoted(f"{name} (export)")
    try:
        connection.execute(
            f"ATTACH {place} AS {copy} (READ_WRITE, STORAGE_VERSION '{_STORAGE_VERSION}')"
        ).fetchall()
    except duckdb.Error as error:
        raise explained(target, str(error).splitlines()[0]) from error
    try:
        return _export(
            connection,
            target,
            lambda view: f"CREATE TABLE {copy}.main.{quoted(view)} AS FROM {quoted(view)}",
        )
    finally:
        connection.execute(f"DETACH {copy}").fetchall()


def _export(
    connection: duckdb.DuckDBPyConnection, target: Path, statement: Callable[[str], str]
) -> int:
    views = connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE NOT internal AND schema_name = 'main' "
        "AND database_name = current_database() AND view_name <> ? ORDER BY ALL",
        [_LEFT_OUT],
    ).fetchall()
    try:
        for (view,) in views:
            connection.execute(statement(view)).fetchall()
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        raise explained(target, str(error).splitlines()[0]) from error
    return len(views)
