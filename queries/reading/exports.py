"""What the views of a store show, in forms that other tools read: Parquet, an older DuckDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from framewalk.engine.archive import KINDS, view_name
from framewalk.engine.views import literal, quoted
from framewalk.queries.reading.snapshots import attached, explaining

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import duckdb

# The oldest form of a file that DuckDB writes: every DuckDB since 1.0.0 reads it.
_STORAGE_VERSION: Final = "v1.0.0"
# The same values once more, a row for each: many times the rest. Logs are Parquet already.
_LEFT_OUT: Final = ("metric_values", *map(view_name, KINDS))


def export_parquet(connection: duckdb.DuckDBPyConnection, folder: Path) -> int:
    """Write each view as a file of a new folder, VIEW.parquet; return how many there are.

    Raises:
        StoreError: a file cannot be written.
        InputError: the folder cannot be made.
        duckdb.InterruptException: it was interrupted.
    """
    folder.mkdir()
    with explaining(folder):
        return _export(
            connection,
            lambda view: (
                f"COPY (FROM {quoted(view)}) "
                f"TO {literal(str(folder.absolute() / f'{view}.parquet'))} "
                "(FORMAT parquet, COMPRESSION zstd)"
            ),
        )


def export_duckdb_1(connection: duckdb.DuckDBPyConnection, target: Path) -> int:
    """Write each view as a table of a new file that DuckDB 1 reads; return how many there are.

    Tables, as views would need functions that older DuckDBs do not have. Raises as export_parquet.
    """
    options = f"READ_WRITE, STORAGE_VERSION '{_STORAGE_VERSION}'"
    with explaining(target), attached(connection, target, "export", options) as copy:
        return _export(
            connection,
            lambda view: f"CREATE TABLE {copy}.main.{quoted(view)} AS FROM {quoted(view)}",
        )


def _export(connection: duckdb.DuckDBPyConnection, statement: Callable[[str], str]) -> int:
    views = connection.execute(
        "SELECT view_name FROM duckdb_views() WHERE NOT internal AND schema_name = 'main' "
        "AND database_name = current_database() AND view_name NOT IN (SELECT unnest(?::VARCHAR[])) "
        "ORDER BY ALL",
        [list(_LEFT_OUT)],
    ).fetchall()
    for (view,) in views:
        connection.execute(statement(view)).fetchall()
    return len(views)
