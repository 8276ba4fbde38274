"""Table of logs -> an archive: what the archives of all engines got, each commit of them once.

How far the archive has the table is in its store, in the same transaction as the list of files. New
versions are read as what they add; where the table does not say that any more all of it is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.archive import (
    REQUESTS_ONLY,
    UNARCHIVED,
    Archive,
    note_requests_only,
    note_unarchived,
)
from framewalk.engine.errors import StoreError, TableError
from framewalk.engine.sharing.following import new_rows
from framewalk.engine.sharing.layout import COMMIT, ENGINE
from framewalk.engine.sharing.logs import LOGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from framewalk.engine.archive import ArchivedFile
    from framewalk.engine.sharing.logs import LogsTable
    from framewalk.engine.sharing.table import SharedFile
    from framewalk.engine.store import Store

# An engine's `number` sets the numbers of its requests apart from those of others.
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS internal.following_logs "
    "(table_id VARCHAR NOT NULL, version BIGINT NOT NULL);"
    "CREATE TABLE IF NOT EXISTS internal.followed_logs "
    "(engine VARCHAR NOT NULL, number BIGINT NOT NULL, reached BIGINT NOT NULL)"
)
_ENGINES: Final = {ENGINE: pl.String, "number": pl.Int64, "reached": pl.Int64}
# Of so many requests of one engine each has a number of its own.
_REQUESTS_BITS: Final = 40
_MOST_BYTES: Final = 16 * 2**20
_MOST_VERSIONS: Final = 100
_REMOVE: Final = "remove the store's file and its archive: they are made anew"


@dataclass(slots=True)
class _Read:
    """What was read and is not listed yet."""

    engines: pl.DataFrame
    files: list[ArchivedFile] = field(default_factory=list)
    requests_only: set[int] = field(default_factory=set)
    unarchived: set[int] = field(default_factory=set)


class LogsFollower:
    """Brings an archive to where a table of logs is, of a store that follows its table of states.

    Raises StoreError where it follows another table.
    """

    def __init__(self, store: Store, archive: Archive, table: LogsTable) -> None:
        self._store = store
        self._archive = archive
        self._table = table
        with store.transaction():
            store.run(_TABLES)
        known = store.run("SELECT table_id FROM internal.following_logs")
        if known and known != [(table.id,)]:
            raise StoreError(store.path, f"it follows other logs than {table.uri}", _REMOVE)

    def follow(self) -> Iterator[int]:
        """Archive what is new in the table as it is open, and yield versions as they are reached.

        A table that is read as a whole is one transaction. Raises TableError where the storage does
        not answer: what is archived by then stays.
        """
        while (version := self.version) < self._table.version:
            found = None
            if version >= 0:
                found = self._table.added_after(version, _MOST_VERSIONS, _MOST_BYTES)
            if found is None:
                yield self._read_whole()
                continue
            last, files = found
            try:
                self._merge(files, last)
            except FileNotFoundError:
                last = self._read_whole()
            yield last

    def lacking(self) -> list[str]:
        """Return the engines of which the store has states, and the table not all logs.

        There are none, but where a table of logs was restored to what it was before.
        """
        sql = "SELECT engine, seen, label FROM internal.followed_engines ORDER BY label"
        rows = self._store.run(sql)
        return [label for engine, seen, label in rows if self._table.published(engine)[0] < seen]

    @property
    def version(self) -> int:
        """The version of the table that is archived; -1 before the first."""
        rows = self._store.run("SELECT version FROM internal.following_logs")
        return int(rows[0][0]) if rows else -1

    def _read_whole(self) -> int:
        version = self._table.version
        try:
            self._merge(self._table.files(), version)
        except FileNotFoundError as error:
            problem = f"its logs were changed while they were read ({error})"
            raise TableError(self._table.uri, problem, "it is tried again") from error
        return version

    def _merge(self, files: Iterable[SharedFile], version: int) -> None:
        """Archive the rows of files, and list them in one transaction, with where that leads."""
        store, archive = self._store, self._archive
        known = store.run("SELECT engine, number, reached FROM internal.followed_logs")
        read = _Read(pl.DataFrame(known, _ENGINES, orient="row"))
        try:
            self._read((rows for file in files for rows in self._table.rows(file)), read)
            with store.transaction():
                note_requests_only(store, read.requests_only)
                note_unarchived(store, read.unarchived)
                archive.list_files(read.files)
                store.run("DELETE FROM internal.following_logs")
                row = [self._table.id, version]
                store.run("INSERT INTO internal.following_logs VALUES (?, ?)", row)
                store.run("DELETE FROM internal.followed_logs")
                for engine in read.engines.iter_rows():
                    sql = "INSERT INTO internal.followed_logs VALUES (?, ?, ?)"
                    store.run(sql, list(engine))
        except BaseException:
            archive.remove(read.files)
            raise

    def _read(self, rows: Iterable[pl.DataFrame], read: _Read) -> None:
        """Archive the rows of commits that the archive does not have."""
        reached = self._store.run("SELECT engine, reached FROM internal.followed_logs")
        for new in new_rows(rows, reached):
            read.engines = _with_commits(read.engines, new)
            read.requests_only |= LOGS.noted(new, REQUESTS_ONLY)
            read.unarchived |= LOGS.noted(new, UNARCHIVED)
            for kind, own in LOGS.archived(new):
                read.files += self._archive.write_rows(kind, _renumbered(own, read.engines))


def _with_commits(engines: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return engines with what they have reached by some rows; new ones get the next numbers."""
    last = rows.group_by(ENGINE).agg(last=pl.col(COMMIT).max())
    found = engines.join(last, on=ENGINE, how="full", coalesce=True).sort("number", ENGINE)
    numbers = pl.int_range(pl.len(), dtype=pl.Int64)
    return found.sort("number", nulls_last=True, maintain_order=True).select(
        ENGINE,
        pl.col("number").fill_null(numbers),
        reached=pl.max_horizontal("reached", "last"),
    )


def _renumbered(rows: pl.DataFrame, engines: pl.DataFrame) -> pl.DataFrame:
    """Return rows without ENGINE, with numbers of requests that no other engine's have."""
    numbered = rows.join(engines, on=ENGINE, how="left", maintain_order="left")
    request = (pl.col("number") * 2**_REQUESTS_BITS + pl.col("request")).alias("request")
    return numbered.with_columns(request).drop(ENGINE, "number", "reached")
