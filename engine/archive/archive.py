"""The archive of a store: logs are written before they are listed, and listed with their states.

archive = Archive(store, folder, ArchiveOptions(Mode.HTTP))
files = archive.write(kept)          # on the disk, and nobody sees them
store.commit_many(..., also=lambda: archive.list_files(files))
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from framewalk.engine.archive.files import ArchivedFile, ArchiveFolder
from framewalk.engine.archive.kept import Keeper, Kept, Mode
from framewalk.engine.archive.manifest import Manifest
from framewalk.engine.archive.merging import chosen, is_readable, merged
from framewalk.engine.archive.rows import Numbering, Shown, tables_of
from framewalk.engine.archive.schema import KINDS
from framewalk.engine.closing import Closing
from framewalk.engine.errors import StoreError, StoreRoomError
from framewalk.engine.telling import Trouble, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from framewalk.engine.stages import Keep
    from framewalk.engine.store import Store

_NS_PER_HOUR: Final = 3600 * 10**9


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """What is kept, and of each request what.

    A write makes at most `most_hours` files of a kind. With `gives_up` logs that find no room on
    the disk are told of and not archived; else the write is an error.
    """

    mode: Mode
    shown: Shown = field(default_factory=Shown)
    most_hours: int = 1_000
    gives_up: bool = False


class Archive(Closing):
    """The archive of a store that is open for writing.

    `problems` are the listed files that are missing or damaged: views leave those out. Raises
    StoreError where the folder cannot be used, and where another process uses it.
    """

    def __init__(self, store: Store, folder: Path, options: ArchiveOptions) -> None:
        self.keep: Keep = Keeper(options.mode)
        self.given_up_rows = 0
        self._store = store
        self._options = options
        self._gone: list[tuple[float, ArchivedFile]] = []
        self._trouble = Trouble("logs cannot be archived", "logs are archived again")
        # The folder says whose it is on the disk at once: a store that forgot it would be another.
        with store.transaction():
            self._manifest = Manifest(store)
        self._folder = ArchiveFolder(folder, self._manifest.identity)
        try:
            with store.transaction():
                self.problems = self._manifest.begin(self._folder)
        except BaseException:
            self._folder.close()
            raise
        self._remove_others()

    @property
    def folder(self) -> Path:
        """Where its files are: absolute, and without links."""
        return self._folder.path

    def close(self) -> None:
        """Remove what nothing lists any more, and let another process write the folder."""
        self._folder.remove(file for _, file in self._gone)
        self._gone = []
        self._folder.close()

    def write(self, parts: Sequence[Kept]) -> list[ArchivedFile]:
        """Write logs into files that are not listed yet; all of them or, if it gives up, none.

        Raises StoreError.
        """
        manifest, written = self._manifest, list[ArchivedFile]()
        patterns = self._store.plan.endpoint_patterns
        numbering = Numbering(manifest.next_request, self._options.shown, patterns)
        manifest.next_request += sum(part.requests for part in parts)
        try:
            for kind in KINDS:
                for hour, table in tables_of(kind, parts, numbering, self._options.most_hours):
                    written.append(self._write(kind, hour, [table]))
        except (OSError, pa.ArrowException) as error:
            self._folder.remove(written)
            self._refuse(error)
            self.given_up_rows += sum(part.rows for part in parts)
            return []
        self._trouble.is_over()
        return written

    def list_files(self, files: Sequence[ArchivedFile]) -> None:
        """List written files; to be called in the transaction of what they are about."""
        if files:
            self._manifest.change(self._folder, files)

    def remove(self, files: Iterable[ArchivedFile]) -> None:
        """Remove written files that were not listed."""
        self._folder.remove(files)

    def size_bytes(self) -> int:
        """Return what the listed files take."""
        return sum(file.size_bytes for file in self._manifest.files())

    def compact(
        self,
        elapsed_s: float,
        open_from_ns: int | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> int:
        """Make one file of several small ones, if there are enough; returns of how many.

        Hours from `open_from_ns` on still get logs; without it none does. Readers see the files
        before or the one after, and keep what they began with: see `tidy`.
        """
        open_hour = None if open_from_ns is None else open_from_ns // _NS_PER_HOUR

        def is_closed(hour: int | None) -> bool:
            return open_hour is None or (hour is not None and hour < open_hour)

        grows_slowly = open_hour is not None
        while files := chosen(
            self._manifest.readable(self._folder), is_closed, grows_slowly=grows_slowly
        ):
            kind, paths = files[0].kind, [self.folder / file.name for file in files]
            try:
                new = self._write(kind, files[0].hour, merged(kind, paths, on_progress))
            except (OSError, pa.ArrowException) as error:
                if self._leave_out_damaged(files):
                    continue
                self._refuse(error)
                return 0
            self._replace(files, [new], elapsed_s)
            return len(files)
        return 0

    def expire(self, before_ns: int, elapsed_s: float) -> int:
        """List no more what has no log from a time on (ns since 1970); returns how many files."""
        gone = [file for file in self._manifest.files() if file.last_ns < before_ns]
        self._replace(gone, [], elapsed_s)
        return len(gone)

    def keep_budget(self, budget_bytes: int, elapsed_s: float) -> int:
        """List the oldest files no more until the rest is within a budget; returns how many."""
        files = sorted(self._manifest.files(), key=lambda file: file.last_ns)
        over_bytes = sum(file.size_bytes for file in files) - budget_bytes
        gone = []
        for file in files:
            if over_bytes <= 0:
                break
            gone.append(file)
            over_bytes -= file.size_bytes
        self._replace(gone, [], elapsed_s)
        return len(gone)

    def tidy(self, elapsed_s: float, longest_query_s: float) -> None:
        """Remove files that no query can still be reading: they are listed no more for so long."""
        border_s = elapsed_s - longest_query_s
        self._folder.remove(file for since_s, file in self._gone if since_s <= border_s)
        self._gone = [(since_s, file) for since_s, file in self._gone if since_s > border_s]

    def _remove_others(self) -> None:
        """Remove what no process lists, unless the list is of another time than the folder.

        A store of a backup lists files that were merged since: what replaced them is all there is.
        """
        files = self._manifest.files()
        missing = sum(not (self.folder / file.name).exists() for file in files)
        if not missing:
            self._folder.remove_others(files)
            return
        # The store's numbers are of another time too: none of these files is to be written over.
        self._manifest.next_file = max(self._manifest.next_file, self._folder.next_number())
        event = "archived logs are missing, files that are not listed are not removed"
        tell(logging.WARNING, event, folder=self.folder, missing=missing)

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

    def _refuse(self, error: Exception) -> None:
        """Raise StoreError for what could not be written, unless that is given up."""
        problem = (str(error).splitlines() or [type(error).__name__])[0].lower()
        if isinstance(error, OSError):
            problem = (error.strerror or problem).lower()
        if not self._options.gives_up:
            if not isinstance(error, OSError):
                remedy = "run this without an archive, and report the message"
                raise StoreError(self.folder, problem, remedy) from error
            remedy = "make room, or check its permissions, and run this again"
            raise StoreRoomError(self.folder, problem, remedy) from error
        self._trouble.goes_on(f"{self.folder}: {problem}")

    def _write(self, kind: str, hour: int | None, tables: Iterable[pa.Table]) -> ArchivedFile:
        number = self._manifest.next_file
        self._manifest.next_file += 1
        return self._folder.write(number, kind, hour, tables)

    def _replace(
        self, files: Sequence[ArchivedFile], new: Sequence[ArchivedFile], elapsed_s: float
    ) -> None:
        if not files:
            return
        try:
            with self._store.transaction():
                self._manifest.change(self._folder, new, files)
        except BaseException:
            self._folder.remove(new)
            raise
        self._gone += [(elapsed_s, file) for file in files]
