"""Table -> a store: all that engines have published, each commit of them once.

How far the store has the table is in the store, in the same transaction as the rows: the version,
and the last commit of each engine. New versions are read as what they add. Where the table does not
say that any more, all of it is read, without the commits that the store has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from framewalk.engine.errors import StoreError
from framewalk.engine.sharing.layout import (
    COMMIT,
    COUNTERS,
    ENGINE,
    LABEL,
    MADE_US,
    SCOPE,
    commits_of,
)
from framewalk.engine.sharing.table import SharedFile
from framewalk.engine.states import MINUTE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from framewalk.engine.sharing.table import SharedTable
    from framewalk.engine.store import Store

# `version` is that which the store has all of. `whole` is that of which all files are being read.
# `reached` is what the store has of an engine apart from such files, `seen` what it has in all.
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS internal.following "
    "(table_id VARCHAR NOT NULL, version BIGINT NOT NULL, whole BIGINT);"
    "CREATE TABLE IF NOT EXISTS internal.followed_engines (engine VARCHAR NOT NULL, "
    "reached BIGINT NOT NULL, seen BIGINT NOT NULL, label VARCHAR NOT NULL, "
    "made_us BIGINT NOT NULL, seen_us BIGINT NOT NULL);"
    "CREATE TABLE IF NOT EXISTS internal.followed_files (path VARCHAR NOT NULL, "
    "day VARCHAR NOT NULL, size_bytes BIGINT NOT NULL)"
)
# An engine gives a sign of life every minute.
SILENT_S: Final = 180
_VIEW: Final = (
    "CREATE OR REPLACE VIEW engines AS SELECT engine, label AS name, seen AS commits, "
    "make_timestamp(made_us) AS committed_time, make_timestamp(seen_us) AS seen_time, "
    f"to_seconds({SILENT_S}) < now() - make_timestamp(seen_us)::TIMESTAMPTZ AS is_silent "
    "FROM internal.followed_engines"
)
_ENGINES: Final = "FROM internal.followed_engines"
# Versions and small files that are merged at once, and the rows that are written at once.
_MOST_BYTES: Final = 8 * 2**20
_MOST_VERSIONS: Final = 500
_ROWS: Final = 32_768
# The view of the scope that is made again out of logs.
_RELATIONS: Final = "endpoint_relation"
_REMOVE: Final = "remove the store's file: it is made anew"


@dataclass(frozen=True, slots=True)
class Followed:
    """What one transaction has brought: `version` is reached, or is being read as a whole.

    Then `files_left` of it are still to be read.
    """

    version: int
    rows: int
    files_left: int = 0


@dataclass(slots=True)
class _Seen:
    """What is found in rows while they are written."""

    rows: int = 0
    commits: list[pl.DataFrame] = field(default_factory=list)
    minutes: set[int] = field(default_factory=set)


class Follower:
    """Brings a store to where a table is.

    The store is made for the table's definitions (`SharedTable.plan`), and follows this table only.
    `note_minutes` is called in each transaction with the minutes (since 1970) that get relations.

    Raises:
        StoreError: it follows another table, or has metrics of its own.
    """

    def __init__(
        self,
        store: Store,
        table: SharedTable,
        note_minutes: Callable[[Collection[int]], None] = lambda _: None,
    ) -> None:
        self._note_minutes = note_minutes
        self._store = store
        self._table = table
        with store.transaction():
            store.run(_TABLES)
            store.run(_VIEW)
        known = store.run("SELECT table_id FROM internal.following")
        if not known and store.newest():
            problem = "it has metrics of captures or of a server"
            raise StoreError(store.path, problem, "name another file, it is made")
        if known and known != [(table.id,)]:
            raise StoreError(store.path, f"it follows another table than {table.uri}", _REMOVE)

    def follow(self, now_us: int) -> Iterator[Followed]:
        """Merge what is new in the table as it is open, and yield after each transaction.

        Raises TableError where the storage does not answer: what is merged by then stays.
        """
        version, whole = self._place()
        if whole is None and version < 0:
            whole = self._begin_whole()
        while whole is None and version < self._table.version:
            versions = self._table.added_after(version, _MOST_VERSIONS, _MOST_BYTES)
            if versions is None:
                whole = self._begin_whole()
                break
            last, files = versions
            try:
                yield self._merge(files, now_us, last)
            except FileNotFoundError:
                whole = self._begin_whole()
                break
            version = last
        if whole is not None:
            yield from self._read_whole(whole, now_us)

    @property
    def version(self) -> int:
        """The version of the table that the store has all of; -1 before the first."""
        return self._place()[0]

    def _place(self) -> tuple[int, int | None]:
        rows = self._store.run("SELECT version, whole FROM internal.following")
        return rows[0] if rows else (-1, None)

    def _begin_whole(self) -> int:
        """Note all files of the version that is open."""
        whole, store = self._table.version, self._store
        names = ("path", "day", "size_bytes")
        files = [(one.path, one.day, one.size_bytes) for one in self._table.files()]
        with store.transaction():
            store.run("DELETE FROM internal.followed_files")
            store.insert("internal.followed_files", pl.DataFrame(files, names, orient="row"))
            version, _ = self._place()
            self._note(version, whole)
        return whole

    def _read_whole(self, whole: int, now_us: int) -> Iterator[Followed]:
        while files := self._some_files():
            try:
                yield self._merge(files, now_us, whole, is_whole=True)
            except FileNotFoundError as error:
                problem = f"the table was changed for longer than it keeps files ({error})"
                raise StoreError(self._store.path, problem, _REMOVE) from error
        with self._store.transaction():
            self._note(whole, None)
            every = self._store.run(_ENGINES)
            self._write_engines((engine, seen, seen, *rest) for engine, _, seen, *rest in every)
        yield Followed(whole, 0)

    def _some_files(self) -> list[SharedFile]:
        rows = self._store.run(
            "SELECT path, day, size_bytes FROM internal.followed_files ORDER BY rowid LIMIT 1000"
        )
        chosen: list[SharedFile] = []
        for row in rows:
            chosen.append(SharedFile(*row))
            if sum(one.size_bytes for one in chosen) > _MOST_BYTES:
                break
        return chosen

    def _merge(
        self, files: list[SharedFile], now_us: int, version: int, *, is_whole: bool = False
    ) -> Followed:
        """Write the rows of files in one transaction, with where the store is then."""
        seen = _Seen()

        def note() -> None:
            if is_whole:
                paths = [one.path for one in files]
                sql = "DELETE FROM internal.followed_files WHERE path IN (SELECT unnest(?))"
                self._store.run(sql, [paths])
            else:
                self._note(version, None)
            self._note_commits(seen, now_us, is_whole=is_whole)
            self._note_minutes(seen.minutes)

        self._store.add(self._new_rows(files, seen), note)
        if not is_whole:
            return Followed(version, seen.rows)
        ((files_left,),) = self._store.run("SELECT count(*) FROM internal.followed_files")
        return Followed(version, seen.rows, files_left)

    def _new_rows(
        self, files: Iterable[SharedFile], seen: _Seen
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        """Yield the rows of commits that the store does not have, as commits wrote them."""
        reached = self._store.run("SELECT engine, reached FROM internal.followed_engines")
        every = (rows for file in files for rows in self._table.rows(file))
        for new in new_rows(every, reached):
            seen.rows += new.height
            seen.commits.append(commits_of(new))
            seen.minutes |= set(new.filter(pl.col(SCOPE) == _RELATIONS)[MINUTE])
            yield from self._table.layout.stored(new)

    def _note(self, version: int, whole: int | None) -> None:
        store = self._store
        store.run("DELETE FROM internal.following")
        row = [self._table.id, version, whole]
        store.run("INSERT INTO internal.following VALUES (?, ?, ?)", row)

    def _note_commits(self, seen: _Seen, now_us: int, *, is_whole: bool) -> None:
        """Note how far engines are, and what their commits have counted."""
        commits = pl.concat(seen.commits) if seen.commits else pl.DataFrame()
        if commits.is_empty():
            return
        last = (
            commits.sort(COMMIT)
            .group_by(ENGINE)
            .agg(pl.col(COMMIT).max(), pl.col(LABEL).last(), pl.col(MADE_US).last())
        )
        counted = commits.select(pl.col(COUNTERS).explode()).drop_nulls().unnest(COUNTERS)
        sums = counted.group_by("kind", "name").agg(pl.col("count").sum())
        self._store.count([(kind, name, count) for kind, name, count in sums.iter_rows()])
        known = {row[0]: row for row in self._store.run(_ENGINES)}
        for engine, commit, label, made_us in last.iter_rows():
            _, reached, before, *rest = known.get(engine, (engine, 0, 0))
            # What is read for the first time may have been there for long.
            seen_us = min(now_us, made_us) if is_whole else now_us
            if commit >= before or not rest:
                rest = [label, made_us, seen_us]
            new_reached = reached if is_whole else commit
            known[engine] = (engine, new_reached, max(before, commit), *rest)
        self._write_engines(known.values())

    def _write_engines(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._store.run("DELETE FROM internal.followed_engines")
        for row in rows:
            sql = "INSERT INTO internal.followed_engines VALUES (?, ?, ?, ?, ?, ?)"
            self._store.run(sql, list(row))


def new_rows(
    frames: Iterable[pl.DataFrame], reached: Sequence[tuple[str, int]]
) -> Iterator[pl.DataFrame]:
    """Yield rows of a table, small frames together, without those of commits that were `reached`.

    That has the last commit of each engine.
    """
    known = pl.DataFrame(reached, {ENGINE: pl.String, "reached": pl.Int64}, orient="row")
    for rows in _together(frames):
        last = rows.select(ENGINE).join(known, on=ENGINE, how="left", maintain_order="left")
        yield rows.filter(rows[COMMIT] > last["reached"].fill_null(0))


def _together(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Put small frames together: each write has a price."""
    waiting: list[pl.DataFrame] = []
    for frame in frames:
        waiting.append(frame)
        if sum(one.height for one in waiting) >= _ROWS:
            yield pl.concat(waiting)
            waiting = []
    if waiting:
        yield pl.concat(waiting)
