"""Reading what an archive has: files, rows and requests of a range, and which minutes are whole.

A file whose inside is damaged is found when it is read. It is told, views and reading are without
it from then on, and whoever was reading begins anew: DamagedLogsError.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from framewalk.engine.archive import minutes
from framewalk.engine.archive.merging import is_readable
from framewalk.engine.archive.minutes import NS_PER_MINUTE
from framewalk.engine.archive.schema import (
    DICTIONARIES,
    HTTP,
    TABLES,
    being_served,
    select_rows,
)
from framewalk.engine.closing import Closing
from framewalk.engine.errors import DamagedLogsError, InputError, StoreError, StoreMemoryError
from framewalk.engine.schemas import LONGEST_SERVED_NS
from framewalk.engine.telling import tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import polars as pl

    from framewalk.engine.archive.files import ArchivedFile, ArchiveFolder
    from framewalk.engine.archive.manifest import Manifest
    from framewalk.engine.store import Store

# Rows of a file that are in memory at once.
_READ_ROWS: Final = 200_000


class Question(NamedTuple):
    """What is asked of archived logs, as SQL: columns of the view, a condition on those of files.

    `rest` is what may follow: GROUP BY.
    """

    columns: str
    condition: str
    rest: str = ""


class ArchivedLogs(Closing):
    """What is read of the archive of a store; DamagedLogsError is raised where that begins anew."""

    _store: Store
    _folder: ArchiveFolder
    _manifest: Manifest

    @property
    def folder(self) -> Path:
        """Where its files are: absolute, and without links."""
        return self._folder.path

    def whole_minutes(self, asked: Sequence[int], near: int = 0) -> list[int]:
        """Return those of some minutes of which each log is here, and of so many around them.

        The others have logs that were never archived, are deleted or in damaged files, or are
        sampled.
        """
        if not asked:
            return []
        first, last = min(asked) - near, max(asked) + near
        lost = minutes.unarchived(self._store, first, last) | self.sampled_minutes(first, last)
        gone_ns = self._manifest.gone_ns()
        readable = {file.number for file in self._manifest.readable(self._folder)}
        spans = [
            (file.first_ns // NS_PER_MINUTE, file.last_ns // NS_PER_MINUTE)
            for file in self._manifest.files()
            if file.number not in readable
        ]
        if gone_ns is not None:
            spans.append((0, gone_ns // NS_PER_MINUTE))
        return [
            minute
            for minute in asked
            if lost.isdisjoint(range(minute - near, minute + near + 1))
            and not any(begin <= minute + near and end >= minute - near for begin, end in spans)
        ]

    def requests_only_minutes(self, first: int, last: int) -> set[int]:
        """Return the minutes from one to another of which not each kind of logs is archived."""
        return minutes.requests_only(self._store, first, last)

    def sampled_minutes(self, first: int, last: int) -> set[int]:
        """Return the minutes from one to another of whose requests some stand for others."""
        return minutes.sampled(self._store, first, last)

    def files(self, kind: str, first_ns: int, end_ns: int) -> list[ArchivedFile]:
        """Return the files that may have logs of a kind that began in a range (ns since 1970)."""
        return [
            file
            for file in self._manifest.readable(self._folder)
            if file.kind == kind and file.first_ns < end_ns and file.last_ns >= first_ns
        ]

    def batches(self, file: ArchivedFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a file; texts that are often the same are dictionaries."""
        path = self.folder / file.name
        named = [column.name for column in TABLES[file.kind] if column.name in DICTIONARIES]
        with self._reading([file]), pq.ParquetFile(path, read_dictionary=named) as content:
            yield from content.iter_batches(_READ_ROWS, columns=list(columns), use_threads=False)

    def rows(self, kind: str, first_ns: int, end_ns: int, asked: Question) -> pl.DataFrame:
        """Return what is asked of the logs of a kind that began in a range."""
        files = self.files(kind, first_ns, end_ns)
        began = f'epoch_ns("time") >= {first_ns} AND epoch_ns("time") < {end_ns}'
        read = self._manifest.reading(self._folder, kind, files)
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
        files = [
            file
            for file in self._manifest.readable(self._folder)
            if file.kind == HTTP
            and (file.served_first_ns is None or file.served_first_ns < until_ns)
            and (file.served_last_ns or since_ns) >= since_ns - LONGEST_SERVED_NS
        ]
        read = self._manifest.reading(self._folder, HTTP, files)
        rows = select_rows(HTTP, read, being_served(since_ns, until_ns))
        return self._asked(f"SELECT {columns} FROM ({rows})", files)

    def _asked(self, sql: str, files: Sequence[ArchivedFile]) -> pl.DataFrame:
        with self._reading(files):
            found: pl.DataFrame = self._store.query(sql).pl()
        return found

    @contextmanager
    def _reading(self, files: Sequence[ArchivedFile]) -> Iterator[None]:
        """Look for damage where files cannot be read; what else is wrong goes on."""
        try:
            yield
        except (StoreMemoryError, duckdb.OutOfMemoryException) as error:
            remedy = "give it more, or wait until queries are over"
            raise StoreMemoryError(self.folder, "no memory to read its logs", remedy) from error
        except (duckdb.Error, OSError, pa.ArrowException, InputError, StoreError) as error:
            if not self._leave_out_damaged(files):
                raise
            remedy = "begin anew: minutes that they have logs of keep what they have"
            raise DamagedLogsError(self.folder, "some of its files are damaged", remedy) from error

    def _leave_out_damaged(self, files: Sequence[ArchivedFile]) -> bool:
        """Have views without those of some files that cannot be read; tells whether there were."""
        damaged = [file for file in files if not is_readable(file.kind, self.folder / file.name)]
        if damaged:
            with self._store.transaction():
                self._manifest.leave_out(self._folder, damaged)
            names = ", ".join(file.name for file in damaged)
            event = "archived logs cannot be read, they are left out"
            tell(logging.ERROR, event, folder=self.folder, files=names)
        return bool(damaged)
