"""Which files are the archive: a table of the store, written in the transactions of its commits.

So each log that is counted is in a listed file, and in one. The views are made again with every
change of the list, in the same transaction: a reader sees one list or the other.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

from framewalk.engine.archive.files import ArchivedFile
from framewalk.engine.archive.schema import KINDS, view_name, view_select
from framewalk.engine.store import literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from framewalk.engine.archive.files import ArchiveFolder
    from framewalk.engine.store import Store

_TABLES: Final = (
    """
    CREATE TABLE IF NOT EXISTS internal.archive (
      identity VARCHAR NOT NULL,
      folder VARCHAR NOT NULL,
      next_file BIGINT NOT NULL,
      next_request BIGINT NOT NULL
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
      last_ns BIGINT NOT NULL
    )
    """,
)
_COLUMNS: Final = "file, kind, hour, rows, size_bytes, first_ns, last_ns"


class Manifest:
    """The list of a store; what changes it is to be called within a transaction of the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._damaged: set[int] = set()
        for table in _TABLES:
            self._store.run(table)
        found = self._store.run("SELECT identity, next_file, next_request FROM internal.archive")
        if not found:
            found = [(str(uuid.uuid4()), 0, 0)]
            self._store.run("INSERT INTO internal.archive VALUES (?, '', ?, ?)", found[0])
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
            values = (
                file.number,
                file.kind,
                file.hour,
                file.rows,
                file.size_bytes,
                file.first_ns,
                file.last_ns,
            )
            self._store.run("INSERT INTO internal.archived VALUES (?, ?, ?, ?, ?, ?, ?)", values)
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
            paths = [folder.path / file.name for file in there]
            self._store.run(_view(kind, [folder.empty_file(kind), *paths]))

    def begin(self, folder: ArchiveFolder) -> list[str]:
        """Note where the archive is, and make all views; returns what is wrong with its files."""
        problems = {file: folder.problem(file) for file in self.files()}
        self._damaged = {file.number for file, problem in problems.items() if problem}
        self._store.run("UPDATE internal.archive SET folder = ?", [str(folder.path)])
        self.show(folder, KINDS)
        return [
            f"{folder.path / file.name}: {problem}" for file, problem in problems.items() if problem
        ]


def _view(kind: str, paths: Sequence[Path]) -> str:
    names = ", ".join(literal(str(path)) for path in paths)
    return (
        f"CREATE OR REPLACE VIEW {view_name(kind)} AS SELECT {view_select(kind)} "
        f"FROM read_parquet([{names}], hive_partitioning = false)"
    )
