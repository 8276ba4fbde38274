"""Which files are the archive: a table of the store, written in the transactions of its commits.

So each log that is counted is in a listed file, and in one. The views are made again with every
change of the list, in the same transaction: a reader sees one list or the other.

After an older copy of a store was put back, files that were merged since are listed again. A
merged file says which files its rows are of, and those before them. Where a store lists files that
are gone, and one that is there has the rows of these and no others, it takes their place. What has
other rows beside is of logs that the store does not know: they come again, from the spool or
another replay, and would be there twice.
"""

from __future__ import annotations

import logging
import uuid
from contextlib import suppress
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from framewalk.engine.archive.files import ArchivedFile, Origin, origin_of
from framewalk.engine.archive.minutes import NS_PER_MINUTE
from framewalk.engine.archive.reading import reading
from framewalk.engine.archive.schema import KINDS, view_name, view_select
from framewalk.engine.schemas import LONGEST_SERVED_NS
from framewalk.engine.telling import tell

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from framewalk.engine.archive.files import ArchiveFolder
    from framewalk.engine.store import Store

_TABLES: Final = (
    """
    CREATE TABLE IF NOT EXISTS internal.archive (
      identity VARCHAR NOT NULL,
      folder VARCHAR NOT NULL,
      next_file BIGINT NOT NULL,
      next_request BIGINT NOT NULL,
      gone_ns BIGINT,
      passing_from BIGINT
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS internal.archived (
      file BIGINT NOT NULL,
      kind VARCHAR NOT NULL,
      hour BIGINT,
      rows BIGINT NOT NULL,
      size_bytes BIGINT NOT NULL,
      first_ns BIGINT NOT NULL,
      last_ns BIGINT NOT NULL,
      served_first_ns BIGINT,
      served_last_ns BIGINT,
      is_sampled BOOLEAN
    )
    """,
)
# Of tables that an earlier version made.
_ADDED: Final = (
    "ALTER TABLE internal.archive ADD COLUMN IF NOT EXISTS gone_ns BIGINT",
    "ALTER TABLE internal.archive ADD COLUMN IF NOT EXISTS passing_from BIGINT",
    "ALTER TABLE internal.archived ADD COLUMN IF NOT EXISTS served_first_ns BIGINT",
    "ALTER TABLE internal.archived ADD COLUMN IF NOT EXISTS served_last_ns BIGINT",
    "ALTER TABLE internal.archived ADD COLUMN IF NOT EXISTS is_sampled BOOLEAN",
)
_COLUMNS: Final = ", ".join(one.name for one in fields(ArchivedFile)).replace("number", "file", 1)
_PLACES: Final = ", ".join("?" for _ in fields(ArchivedFile))


class Manifest:
    """The list of a store; what changes it is to be called within a transaction of the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._damaged: set[int] = set()
        for statement in (*_TABLES, *_ADDED):
            self._store.run(statement)
        found = self._store.run("SELECT identity, next_file, next_request FROM internal.archive")
        if not found:
            found = [(str(uuid.uuid4()), 0, 0)]
            sql = "INSERT INTO internal.archive VALUES (?, '', ?, ?, NULL, NULL)"
            self._store.run(sql, found[0])
        self.identity, self.next_file, self.next_request = found[0]

    def readable(self, folder: ArchiveFolder) -> list[ArchivedFile]:
        """Return the listed files that are there and not known to be damaged."""
        files = self.files()
        return [one for one in files if one.number not in self._damaged and folder.has(one)]

    def leave_out(self, folder: ArchiveFolder, damaged: Sequence[ArchivedFile]) -> None:
        """Have views without files that turned out to be damaged; they stay listed."""
        self._damaged.update(file.number for file in damaged)
        self.show(folder, {file.kind for file in damaged})

    def files(self, kinds: Collection[str] = KINDS) -> list[ArchivedFile]:
        """Return the listed files, by their times."""
        rows = self._store.run(
            f"SELECT {_COLUMNS} FROM internal.archived "
            "WHERE kind IN (SELECT unnest(?::VARCHAR[])) ORDER BY first_ns, file",
            [list(kinds)],
        )
        return [ArchivedFile(*row) for row in rows]

    def change(
        self,
        folder: ArchiveFolder,
        added: Sequence[ArchivedFile],
        removed: Sequence[ArchivedFile] = (),
    ) -> None:
        """List files, and others no more; the views of their kinds show it."""
        if removed:
            numbers = [file.number for file in removed]
            self._store.run(
                "DELETE FROM internal.archived WHERE file IN (SELECT unnest(?::BIGINT[]))",
                [numbers],
            )
        for file in added:
            sql = f"INSERT INTO internal.archived ({_COLUMNS}) VALUES ({_PLACES})"
            self._store.run(sql, astuple(file))
        self._store.run(
            "UPDATE internal.archive SET next_file = ?, next_request = ?",
            [self.next_file, self.next_request],
        )
        self.show(folder, {file.kind for file in (*added, *removed)})

    def show(self, folder: ArchiveFolder, kinds: Iterable[str]) -> None:
        """Make the views of some kinds: files that are not there any more are left out."""
        for kind in sorted(kinds):
            listed = [file for file in self.files([kind]) if file.number not in self._damaged]
            there = [file for file in listed if folder.has(file)]
            files = reading(folder.path, kind, there)
            self._store.run(
                f"CREATE OR REPLACE VIEW {view_name(kind)} AS "
                f"SELECT {view_select(kind)} FROM {files}"
            )

    def note_gone(self, files: Sequence[ArchivedFile]) -> None:
        """Note that logs are gone for good: some of any time up to then may be."""
        last_ns = max(file.last_ns for file in files)
        self._store.run("UPDATE internal.archive SET gone_ns = greatest(gone_ns, ?)", [last_ns])

    def gone_ns(self) -> int | None:
        """Return up to when logs may be gone, in ns since 1970; None if none are."""
        gone_ns: int | None = self._store.run("SELECT gone_ns FROM internal.archive")[0][0]
        return gone_ns

    def pass_on(self, *, is_passing: bool) -> None:
        """Note from which file on none is to stay, since when that is so; or that all are."""
        number = "coalesce(passing_from, next_file)" if is_passing else "NULL"
        self._store.run(f"UPDATE internal.archive SET passing_from = {number}")

    def passing(self) -> list[ArchivedFile]:
        """Return the listed files that are not to stay."""
        sql = "SELECT coalesce(passing_from, next_file) FROM internal.archive"
        ((first,),) = self._store.run(sql)
        return [file for file in self.files() if file.number >= first]

    def take_back(self, folder: ArchiveFolder) -> set[int]:
        """List files in the place of those that they replaced after this list was copied.

        Returns the minutes of which a sample is left now.
        """
        found = list(found_again(folder, self.files()))
        # The list is older than the files: none of them is to be written over.
        if found:
            self.next_file = max(self.next_file, folder.next_number())
        minutes = set[int]()
        for new, replaced in found:
            self.change(folder, [new], replaced)
            if new.is_sampled:
                # Of which requests are left out is not known: of any that may be.
                first_ns = min(file.first_ns for file in replaced) - LONGEST_SERVED_NS
                last_ns = max(file.last_ns for file in replaced) + LONGEST_SERVED_NS
                minutes.update(range(first_ns // NS_PER_MINUTE, last_ns // NS_PER_MINUTE + 1))
        if found:
            event = "archived files that were merged since are listed again"
            tell(logging.WARNING, event, folder=folder.path, files=len(found))
        return minutes

    def begin(self, folder: ArchiveFolder) -> list[str]:
        """Note where the archive is, and make all views; returns what is wrong with its files."""
        problems = {file: folder.problem(file) for file in self.files()}
        self._damaged = {file.number for file, problem in problems.items() if problem}
        self._store.run("UPDATE internal.archive SET folder = ?", [str(folder.path)])
        self.show(folder, KINDS)
        return [
            f"{folder.path / file.name}: {problem}" for file, problem in problems.items() if problem
        ]


def archive_folder(store: Store) -> Path | None:
    """Return where the archive of a store is; None where it has none."""
    has = "SELECT 1 FROM duckdb_tables() WHERE table_name = 'archive'"
    rows = store.run("SELECT folder FROM internal.archive") if store.run(has) else []
    return Path(rows[0][0]) if rows and rows[0][0] else None


def together(files: Iterable[ArchivedFile], folder: Path, *, is_sampled: bool) -> Origin:
    """Return the origin of the file that is made of some."""
    numbers, rows = set[int](), 0
    for file in files:
        origin = origin_of(folder / file.name)
        numbers |= {file.number} if origin is None else {file.number, *origin.files}
        rows += file.rows if origin is None else origin.rows
    return Origin(frozenset(numbers), rows, is_sampled)


def found_again(
    folder: ArchiveFolder, listed: Sequence[ArchivedFile]
) -> Iterator[tuple[ArchivedFile, list[ArchivedFile]]]:
    """Yield files that are not listed, and the listed ones that are gone and that each replaces."""
    names = {file.name for file in listed}
    missing = [file for file in listed if not (folder.path / file.name).exists()]
    if not missing:
        return
    # The last one first: it has the rows of those before it.
    for path in sorted(folder.own_files(), key=lambda one: one.stem, reverse=True):
        name = path.relative_to(folder.path).as_posix()
        origin = None if name in names else origin_of(path)
        own = [] if origin is None else _replaced_by(origin, missing)
        if origin is not None and own:
            with suppress(OSError, pa.ArrowException):
                new = folder.look(path, own[0], is_sampled=origin.is_sampled)
                missing = [file for file in missing if file not in own]
                yield new, own


def _replaced_by(origin: Origin, missing: Sequence[ArchivedFile]) -> list[ArchivedFile]:
    """Return the files that are gone and whose rows another has; none if it has others beside."""
    own = [file for file in missing if file.number in origin.files]
    # A sample of a file of any hours may be of any minutes.
    if origin.is_sampled and any(file.hour is None for file in own):
        return []
    # Of a sample nobody knows how many rows there were before.
    if any(file.is_sampled for file in own) or sum(file.rows for file in own) != origin.rows:
        return []
    return own
