"""The files of an archive as whoever sees their folder reads them: its store, and other processes.

logs = archive.logs()                # of the store's list, by the store's connection
logs = ArchivedLogs(listed)          # the same in a process that has no store

A file whose inside is damaged is found when it is read. Its store is told, whose views and lists
are without it from then on, and whoever was reading begins anew: DamagedLogsError.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import duckdb
import pyarrow as pa

from framewalk.engine.archive.files import empty_file, open_file
from framewalk.engine.archive.schema import (
    DICTIONARIES,
    HTTP,
    TABLES,
    being_served,
    read_files,
    select_rows,
)
from framewalk.engine.errors import DamagedLogsError, InputError, StoreError, StoreMemoryError
from framewalk.engine.schemas import LONGEST_SERVED_NS
from framewalk.engine.store import WRITER_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import polars as pl

    from framewalk.engine.archive.files import ArchivedFile

# Rows of a file that are in memory at once.
_READ_ROWS: Final = 200_000
_REMEDY: Final = "check that it is there, as it was written, and run this again"


class Question(NamedTuple):
    """What is asked of archived logs, as SQL: columns of the view, a condition on those of files.

    `rest` is what may follow: GROUP BY.
    """

    columns: str
    condition: str
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """Files of an archive that were listed, and could be read, at one time."""

    folder: Path
    files: tuple[ArchivedFile, ...]

    def between(self, first_ns: int, end_ns: int) -> Listed:
        """Return those with logs that began, or requests that were served, in a range."""
        near = [
            file
            for file in self.files
            if _began(file, first_ns, end_ns) or _was_served(file, first_ns, end_ns)
        ]
        return replace(self, files=tuple(near))


class ArchivedLogs:
    """Reads listed files: with the `query` of a store, or else by a connection of its own.

    For a file that cannot be read all of its methods raise StoreError, or DamagedLogsError if
    `leave_out` has found some of the files damaged, and lists them no more.
    """

    def __init__(
        self,
        listed: Listed,
        query: Callable[[str], duckdb.DuckDBPyRelation] | None = None,
        leave_out: Callable[[Sequence[ArchivedFile]], bool] = lambda _files: False,
    ) -> None:
        self.listed = listed
        self._query = query or _own_connection().sql
        self._leave_out = leave_out

    def files(self, kind: str, first_ns: int, end_ns: int) -> list[ArchivedFile]:
        """Return the files that may have logs of a kind that began in a range (ns since 1970)."""
        files = self.listed.files
        return [file for file in files if file.kind == kind and _began(file, first_ns, end_ns)]

    def batches(self, file: ArchivedFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a file; texts that are often the same are dictionaries."""
        path = self.listed.folder / file.name
        named = [column.name for column in TABLES[file.kind] if column.name in DICTIONARIES]
        with self.guarding([file]), open_file(path, named) as content:
            yield from content.iter_batches(_READ_ROWS, columns=list(columns), use_threads=False)

    def rows(self, kind: str, first_ns: int, end_ns: int, asked: Question) -> pl.DataFrame:
        """Return what is asked of the logs of a kind that began in a range."""
        began = f'epoch_ns("time") >= {first_ns} AND epoch_ns("time") < {end_ns}'
        files = self.files(kind, first_ns, end_ns)
        read = reading(self.listed.folder, kind, files)
        rows = select_rows(kind, read, f"{began} AND {asked.condition}")
        return self._asked(f"SELECT {asked.columns} FROM ({rows}) {asked.rest}", files)

    def count_requests(self, since_ns: int, until_ns: int) -> int:
        """Return how many requests were being served in a range (ns since 1970)."""
        return int(self.requests(since_ns, until_ns, "count(*)").item())

    def requests(self, since_ns: int, until_ns: int, columns: str) -> pl.DataFrame:
        """Return requests that were being served in a range: SQL of what the view shows.

        Beside its columns there is `components`. Of a request whose serving nothing tells the log
        itself counts; one that lasts longer than LONGEST_SERVED_NS counts as one that ends then.
        """
        files = [file for file in self.listed.files if _was_served(file, since_ns, until_ns)]
        read = reading(self.listed.folder, HTTP, files)
        rows = select_rows(HTTP, read, being_served(since_ns, until_ns))
        return self._asked(f"SELECT {columns} FROM ({rows})", files)

    @contextmanager
    def guarding(self, files: Sequence[ArchivedFile]) -> Iterator[None]:
        """Look for damage where reading files fails; raises what this class does."""
        folder = self.listed.folder
        try:
            yield
        except (StoreMemoryError, duckdb.OutOfMemoryException) as error:
            remedy = "give it more, or wait until queries are over"
            raise StoreMemoryError(folder, "no memory to read its logs", remedy) from error
        except (duckdb.Error, OSError, pa.ArrowException, InputError, StoreError) as error:
            if self._leave_out(files):
                raise damaged_logs(folder) from error
            if isinstance(error, (InputError, StoreError)):
                raise
            path = folder / files[0].name if len(files) == 1 else folder
            raise _unreadable(path, error) from error

    def _asked(self, sql: str, files: Sequence[ArchivedFile]) -> pl.DataFrame:
        with self.guarding(files):
            found: pl.DataFrame = self._query(sql).pl()
        return found


def reading(folder: Path, kind: str, files: Sequence[ArchivedFile]) -> str:
    """Return the SQL that reads files of a kind, and columns where there are none."""
    paths = [empty_file(folder, kind), *(folder / file.name for file in files)]
    # Requests alone got columns that files of an earlier version do not have.
    have_all = kind != HTTP or all(file.is_sampled is not None for file in files)
    return read_files([str(path) for path in paths], have_all_columns=have_all)


def damaged_logs(folder: Path) -> DamagedLogsError:
    """Return the error of whoever read files that are left out from now on."""
    remedy = "begin anew: minutes that they have logs of keep what they have"
    return DamagedLogsError(folder, "some of its files are damaged", remedy)


def _began(file: ArchivedFile, first_ns: int, end_ns: int) -> bool:
    return file.first_ns < end_ns and file.last_ns >= first_ns


def _was_served(file: ArchivedFile, since_ns: int, until_ns: int) -> bool:
    return (
        file.kind == HTTP
        and (file.served_first_ns is None or file.served_first_ns < until_ns)
        and (file.served_last_ns or since_ns) >= since_ns - LONGEST_SERVED_NS
    )


@lru_cache(maxsize=1)
def _own_connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1, "memory_limit": WRITER_MEMORY})


def _unreadable(path: Path, error: Exception) -> StoreError:
    said = (getattr(error, "strerror", None) or str(error)).splitlines() or [type(error).__name__]
    return StoreError(path, f"archived logs cannot be read ({said[0].lower()})", _REMEDY)
