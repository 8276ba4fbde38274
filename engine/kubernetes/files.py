"""Kubernetes dumps that are read again when they change: the entity table of a live engine."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from framewalk.engine.closing import Closing
from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes.addresses import Entities
from framewalk.engine.kubernetes.dumps import read_dump
from framewalk.engine.kubernetes.inventory import Inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_Stamps: TypeAlias = "frozenset[tuple[str, int, int, int]]"

# How long an object that has left the dumps is remembered, at least: logs come late.
REMEMBERED_S: Final = 3600


class _Known(NamedTuple):
    """What dumps said before and after a turn, and the table made of both."""

    before: Inventory
    since: Inventory
    entities: Entities


class _Seen(NamedTuple):
    """What files were like, and what was read then or why nothing was."""

    stamps: _Stamps
    known: _Known | None
    problem: EntitiesError | None = None


class EntitiesFiles(Closing):
    """The entity table of some dumps, files or folders, as they are now and were lately.

    An object that is in the dumps no more stays known for REMEMBERED_S to twice that. Dumps are
    looked at and read again in a thread of their own, as that takes long for a large cluster, and
    for ever on a mount that hangs.

    Raises EntitiesError where the dumps cannot be read at the start.
    """

    def __init__(self, paths: Sequence[Path], now_s: float) -> None:
        self._paths = paths
        self._stamps = _stamps_of(paths)
        nothing = Inventory((), ())
        self._known = _read(paths, nothing, nothing)
        self._turned_s = now_s
        self._reading: Future[_Seen] | None = None

    @property
    def entities(self) -> Entities:
        """The newest table."""
        return self._known.entities

    @property
    def is_reading(self) -> bool:
        """Whether dumps are being read, or have been and were not taken yet."""
        return self._reading is not None

    def refresh(self, now_s: float) -> EntitiesError | None:
        """Take what was read, or begin to read what has changed; never waits for it.

        Returns why dumps could not be read: the table stays as it was, until they change again.
        """
        if self._reading is not None:
            return self._take(now_s)
        before, since, _ = self._known
        if now_s - self._turned_s >= REMEMBERED_S:
            before, since = since, Inventory((), ())
        self._reading = _in_thread(partial(_look, self._paths, self._stamps, before, since))
        return None

    def forget_stamps(self) -> None:
        """Have the next `refresh` that begins to read read all, changed or not."""
        self._stamps = frozenset()

    def close(self) -> None:
        """Leave the thread alone; what it is reading is of no use any more."""
        self._reading = None

    def _take(self, now_s: float) -> EntitiesError | None:
        if self._reading is None or not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        seen = reading.result()
        self._stamps = seen.stamps
        if seen.known is not None:
            # What was said since the last turn is what was said before this one.
            if seen.known.before is self._known.since:
                self._turned_s = now_s
            self._known = seen.known
        return seen.problem


def _in_thread(function: Callable[[], _Seen]) -> Future[_Seen]:
    """Call a function in a thread that an exit of the process does not wait for."""
    future: Future[_Seen] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is taken
            future.set_exception(error)

    threading.Thread(target=work, name="entities", daemon=True).start()
    return future


def _look(paths: Sequence[Path], stamps: _Stamps, before: Inventory, since: Inventory) -> _Seen:
    """Read the dumps if they are not as they were."""
    now = _stamps_of(paths)
    if now == stamps:
        return _Seen(now, None)
    try:
        return _Seen(now, _read(paths, before, since))
    except EntitiesError as error:
        return _Seen(now, None, error)


def _read(paths: Sequence[Path], before: Inventory, since: Inventory) -> _Known:
    for file in _files(paths):
        if _is_special(file):
            problem = "this is no regular file, it cannot be read again"
            raise EntitiesError(file, problem, "write the dump into a file")
    since = read_dump(paths, since)
    return _Known(before, since, Entities.from_inventory(read_dump((), before, since)))


def _is_special(file: Path) -> bool:
    with suppress(OSError):
        mode = file.stat().st_mode
        return not S_ISREG(mode) and not S_ISDIR(mode)
    # Reading it will tell.
    return False


def _stamps_of(paths: Sequence[Path]) -> _Stamps:
    """Return what changes when a file is written or replaced."""
    stamps = set()
    for file in _files(paths):
        with suppress(OSError):
            stat = file.stat()
            stamps.add((str(file), stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return frozenset(stamps)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        with suppress(OSError):
            yield from path.iterdir() if path.is_dir() else (path,)
