"""The archive of a store: logs are written before they are listed, and listed with their states.

archive = Archive(store, folder, ArchiveOptions(Mode.HTTP))
files = archive.write(kept)          # on the disk, and nobody sees them
store.commit_many(..., also=lambda: archive.list_files(files))
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl
import pyarrow as pa

from framewalk.engine.archive import minutes
from framewalk.engine.archive.files import ArchivedFile, ArchiveFolder, Origin, oldest, problem_of
from framewalk.engine.archive.handing import REQUESTS_ONLY, UNARCHIVED, hand_over
from framewalk.engine.archive.hours import OpenedHours
from framewalk.engine.archive.kept import Keeper, Kept, Mode
from framewalk.engine.archive.manifest import Manifest, together
from framewalk.engine.archive.merging import (
    chosen,
    due_for_sampling,
    is_readable,
    merged,
    to_sample,
)
from framewalk.engine.archive.minutes import NEAR_MINUTES, NS_PER_MINUTE
from framewalk.engine.archive.reading import ArchivedLogs, Listed, damaged_logs
from framewalk.engine.archive.rows import Numbering, Shown, tables_again, tables_of
from framewalk.engine.archive.sampling import Sampling, near, sampled, staying
from framewalk.engine.archive.schema import HTTP, KINDS, TIME
from framewalk.engine.closing import Closing
from framewalk.engine.errors import StoreError, StoreRoomError
from framewalk.engine.schemas import LONGEST_SERVED_NS
from framewalk.engine.telling import Trouble, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from framewalk.engine.stages import Keep
    from framewalk.engine.store import Store

_NS_PER_HOUR: Final = 3600 * 10**9
_LONGEST_SERVED_S: Final = LONGEST_SERVED_NS // 10**9
# After all that there are.
_NO_MINUTE: Final = 2**62


@dataclass(frozen=True, slots=True)
class ArchiveOptions:
    """What is kept, and of each request what.

    A write makes at most `most_hours` files of a kind, and logs of a node open at most
    `most_hours_of_node` within an hour by the clock of `tidy`, all nodes `most_far_hours` that are
    not about now. With `gives_up` logs that find no
    room on the disk are told of and not archived; else the write is an error. `sampling` is for
    SAMPLED. Logs that are `passing` stay until relations were made of them: see `drop_related`.
    """

    mode: Mode
    shown: Shown = field(default_factory=Shown)
    most_hours: int = 1_000
    most_hours_of_node: int = 10**9
    most_far_hours: int = 10**9
    gives_up: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    is_passing: bool = False


class _Gone(NamedTuple):
    """A file that is listed no more, since when; others are there in its place or not."""

    since_s: float
    file: ArchivedFile
    is_replaced: bool


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
        self._gone: list[_Gone] = []
        # Up to which number files were there, and when.
        self._there: deque[tuple[float, int]] = deque()
        self._opened = OpenedHours(options.most_hours_of_node, options.most_far_hours)
        # Minutes of what is written and not listed yet, and of what was given up.
        self._changed: set[int] = set()
        self._lost: set[int] = set()
        self._trouble = Trouble("logs cannot be archived", "logs are archived again")
        # The folder says whose it is on the disk at once: a store that forgot it would be another.
        with store.transaction():
            self._manifest = Manifest(store)
        self._folder = ArchiveFolder(folder, self._manifest.identity)
        try:
            with store.transaction():
                again = self._manifest.take_back(self._folder)
                minutes.note_sampled(store, again)
                self.problems = self._manifest.begin(self._folder)
                self._manifest.pass_on(is_passing=options.is_passing)
                if minutes.begin(store) and self._manifest.readable(self._folder):
                    minutes.take_over(store)
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
        self._folder.remove(one.file for one in self._gone)
        self._gone = []
        self._folder.close()

    def write(self, parts: Sequence[Kept]) -> list[ArchivedFile]:
        """Write logs into files that are not listed yet; all of them or, if it gives up, none.

        Raises StoreError.
        """
        manifest = self._manifest
        patterns = self._store.plan.endpoint_patterns
        numbering = Numbering(manifest.next_request, self._options.shown, patterns)
        manifest.next_request += sum(part.requests for part in parts)
        how = numbering, self._options.most_hours, self._opened
        written = self._write_all(
            (kind, *one) for kind in KINDS for one in tables_of(kind, parts, *how)
        )
        if written is None:
            self.given_up_rows += sum(part.rows for part in parts)
            self._lost.update(*(part.minutes for part in parts))
        return written or []

    def write_rows(self, kind: str, rows: pl.DataFrame) -> list[ArchivedFile]:
        """Write rows that another archive has written: the columns of TABLES, as `write` does."""
        tables = tables_again(kind, rows, self._options.most_hours, self._opened)
        written = self._write_all((kind, *one) for one in tables)
        if written is None:
            self.given_up_rows += rows.height
            self._lost |= set(rows[TIME].cast(pl.Int64) // NS_PER_MINUTE)
        return written or []

    def _write_all(
        self, tables: Iterable[tuple[str, int | None, pa.Table]]
    ) -> list[ArchivedFile] | None:
        """Write tables of kinds and hours; None where that was given up."""
        written: list[ArchivedFile] = []
        try:
            for kind, hour, table in tables:
                written.append(self._write(kind, hour, [table]))
                if kind == HTTP:
                    self._changed |= minutes.minutes_near([table])
        except (OSError, pa.ArrowException) as error:
            self._folder.remove(written)
            self._refuse(error)
            return None
        self._trouble.is_over()
        return written

    def list_files(self, files: Sequence[ArchivedFile], about: Collection[int] = ()) -> None:
        """List written files; to be called in the transaction of what they are about.

        `about` are the minutes (since 1970) that all logs of the transaction are of.
        """
        only = () if self._options.mode is Mode.ALL else about
        hand_over(self._store, self.folder, files, {REQUESTS_ONLY: only, UNARCHIVED: self._lost})
        minutes.note_requests_only(self._store, only)
        minutes.note_changed(self._store, self._changed)
        minutes.note_unarchived(self._store, self._lost)
        self._changed, self._lost = set(), set()
        if files:
            self._manifest.change(self._folder, files)

    def remove(self, files: Iterable[ArchivedFile]) -> None:
        """Remove written files that were not listed."""
        self._folder.remove(files)

    def changed_minutes(self, before: int | None = None) -> list[int]:
        """Return the minutes (since 1970) that got requests since `no_longer_changed`, in order.

        Those included in whose calls these requests may take part.
        """
        return minutes.changed(self._store, before)

    def no_longer_changed(self, made: Collection[int]) -> None:
        """Note what was made of changed minutes; to be called in the transaction that writes it."""
        minutes.no_longer_changed(self._store, made)

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

    def note_changed(self, changed: Collection[int]) -> None:
        """Have minutes in `changed_minutes`, as if they had got requests."""
        with self._store.transaction():
            minutes.note_changed(self._store, changed)

    def logs(self) -> ArchivedLogs:
        """Return the logs of the files that are listed now."""
        files = self._manifest.readable(self._folder)
        listed = Listed(self.folder, tuple(files))
        return ArchivedLogs(listed, self._store.query, self._leave_out_damaged)

    def size_bytes(self) -> int:
        """Return what the listed files take."""
        return sum(file.size_bytes for file in self._manifest.files())

    def waiting_bytes(self) -> int:
        """Return what files take that are listed no more, and wait for queries that read them."""
        return sum(one.file.size_bytes for one in self._gone)

    def compact(
        self,
        elapsed_s: float,
        open_from_ns: int | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> int:
        """Make one file of several small ones, if there are enough; returns of how many.

        Hours from `open_from_ns` on still get logs; without it none does. Readers see the files
        before or the one after, and keep what they began with: see `tidy`. Of those of an hour that
        is over SAMPLED leaves some requests, once relations were made of all.
        """
        open_hour = None if open_from_ns is None else open_from_ns // _NS_PER_HOUR

        def is_closed(hour: int | None) -> bool:
            return open_hour is None or (hour is not None and hour < open_hour)

        while True:
            readable = self._manifest.readable(self._folder)
            whole = to_sample(readable, open_hour) if self._options.mode is Mode.SAMPLED else []
            files = due_for_sampling(whole, minutes.changed(self._store, None))
            is_sampled = bool(files)
            if not files:
                others = [file for file in readable if file not in whole]
                files = chosen(others, is_closed, grows_slowly=open_hour is not None)
            if not files:
                return 0
            try:
                if is_sampled:
                    self._sample(files, elapsed_s, on_progress)
                else:
                    self._merge(files, elapsed_s, on_progress)
            except (OSError, pa.ArrowException) as error:
                read = near(files, readable) if is_sampled else files
                if self._leave_out_damaged(read):
                    continue
                self._refuse(error)
                return 0
            return len(files)

    def expire(self, before_ns: int, elapsed_s: float) -> int:
        """List no more what has no log from a time on (ns since 1970); returns how many files."""
        gone = [file for file in self._manifest.files() if file.last_ns < before_ns]
        self._replace(gone, [], elapsed_s)
        return len(gone)

    def drop_related(self, elapsed_s: float) -> int:
        """List no more what is passing and of which relations were made; returns how many files.

        That is of no minute that is near one that has changed since, and was there for the longest
        time that a request is followed: so long others of these minutes may come. Files from before
        they were passing stay.
        """
        self._there.append((elapsed_s, self._manifest.next_file))
        end = 0
        while self._there and self._there[0][0] <= elapsed_s - _LONGEST_SERVED_S:
            end = self._there.popleft()[1]
        if end:
            # The latest that is old enough counts the next time, too.
            self._there.appendleft((float("-inf"), end))
        first = min(self.changed_minutes(), default=_NO_MINUTE) - NEAR_MINUTES
        gone = [
            file
            for file in self._manifest.passing()
            if file.number < end and max(file.last_ns, file.served_ns[1]) // NS_PER_MINUTE < first
        ]
        self._replace(gone, [], elapsed_s)
        return len(gone)

    def keep_budget(self, budget_bytes: int, elapsed_s: float) -> int:
        """List the oldest files no more until the rest is within a budget; returns how many.

        Files that were replaced count until they are removed: they are there twice. Those that went
        for the budget do not, or more would go for them.
        """
        replaced_bytes = sum(one.file.size_bytes for one in self._gone if one.is_replaced)
        return self._give_up(self.size_bytes() + replaced_bytes - budget_bytes, elapsed_s)

    def make_room(self, wanted_bytes: int, elapsed_s: float) -> int:
        """List the oldest files no more, of so much with what waits already; returns how many."""
        return self._give_up(wanted_bytes - self.waiting_bytes(), elapsed_s)

    def _give_up(self, over_bytes: int, elapsed_s: float) -> int:
        gone = oldest(self._manifest.files(), over_bytes)
        self._replace(gone, [], elapsed_s)
        return len(gone)

    def change(
        self, file: ArchivedFile, changed: Callable[[pa.Table], pa.Table], elapsed_s: float
    ) -> list[ArchivedFile] | None:
        """Have other rows in place of those of a file: `changed` returns them. Raises StoreError.

        It gets tables with the columns of TABLES; texts are dictionaries, and have to stay so.
        Returns the file that has them, if there are any; None where that was given up. What it
        takes the place of stays for queries that began before: see `tidy`.
        """
        try:
            rows = merged(file.kind, self._paths([file]), lambda: None, change=changed)
            new = self._rewritten([file], rows, is_sampled=bool(file.is_sampled))
            self._replace([file], new, elapsed_s, ())
        except (OSError, pa.ArrowException) as error:
            if self._leave_out_damaged([file]):
                raise damaged_logs(self.folder) from error
            self._refuse(error)
            return None
        return new

    def tidy(self, elapsed_s: float, longest_query_s: float, now_s: float | None = None) -> None:
        """Remove files that no query can still be reading: they are listed no more for so long.

        `now_s` is the time since 1970, where that is known.
        """
        self._opened.tick(elapsed_s, now_s)
        border_s = elapsed_s - longest_query_s
        self._folder.remove(one.file for one in self._gone if one.since_s <= border_s)
        self._gone = [one for one in self._gone if one.since_s > border_s]

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

    def _first_kept_minute(self) -> int:
        return (self._manifest.gone_ns() or 0) // NS_PER_MINUTE

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

    def _refuse(self, error: Exception) -> None:
        """Raise StoreError for what could not be written, unless that is given up."""
        problem = problem_of(error)
        if not self._options.gives_up:
            if not isinstance(error, OSError):
                remedy = "run this without an archive, and report the message"
                raise StoreError(self.folder, problem, remedy) from error
            remedy = "make room, or check its permissions, and run this again"
            raise StoreRoomError(self.folder, problem, remedy) from error
        self._trouble.goes_on(f"{self.folder}: {problem}")

    def _sample(
        self, files: Sequence[ArchivedFile], elapsed_s: float, on_progress: Callable[[], None]
    ) -> None:
        """Leave some requests of files of one hour, all of them or none."""
        sampling, found = self._options.sampling, set[int]()
        stay = staying(self._paths(near(files, self._manifest.readable(self._folder))), sampling)
        rows = sampled(merged(HTTP, self._paths(files), on_progress), stay, sampling, found)
        self._replace(files, self._rewritten(files, rows, is_sampled=True), elapsed_s, found)

    def _rewritten(
        self, files: Sequence[ArchivedFile], rows: Iterator[pa.Table], *, is_sampled: bool
    ) -> list[ArchivedFile]:
        first = next(rows, None)
        if first is None:
            return []
        origin = together(files, self.folder, is_sampled=is_sampled)
        return [self._write(files[0].kind, files[0].hour, chain([first], rows), origin)]

    def _merge(
        self, files: Sequence[ArchivedFile], elapsed_s: float, on_progress: Callable[[], None]
    ) -> None:
        rows = merged(files[0].kind, self._paths(files), on_progress)
        is_sampled = bool(files[0].is_sampled)
        self._replace(files, self._rewritten(files, rows, is_sampled=is_sampled), elapsed_s)

    def _paths(self, files: Iterable[ArchivedFile]) -> list[Path]:
        return [self.folder / file.name for file in files]

    def _write(
        self,
        kind: str,
        hour: int | None,
        tables: Iterable[pa.Table],
        origin: Origin | None = None,
    ) -> ArchivedFile:
        number = self._manifest.next_file
        self._manifest.next_file += 1
        return self._folder.write(number, kind, hour, tables, origin=origin)

    def _replace(
        self,
        files: Sequence[ArchivedFile],
        new: Sequence[ArchivedFile],
        elapsed_s: float,
        sampled_minutes: Collection[int] | None = None,
    ) -> None:
        """List files no more, and others in their place: none where their logs are gone."""
        if not files:
            return
        try:
            with self._store.transaction():
                self._manifest.change(self._folder, new, files)
                minutes.note_sampled(self._store, sampled_minutes or ())
                if not new and sampled_minutes is None:
                    self._manifest.note_gone(files)
                    minutes.forget_before(self._store, self._first_kept_minute())
        except BaseException:
            self._folder.remove(new)
            raise
        is_replaced = bool(new) or sampled_minutes is not None
        self._gone += [_Gone(elapsed_s, file, is_replaced) for file in files]
