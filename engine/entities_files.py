"""Kubernetes dumps that are read again when they change: the entity table of a live engine."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from framewalk.engine.closing import Closing
from framewalk.engine.entities import Entities
from framewalk.engine.errors import EntitiesError
from framewalk.engine.inventory import Inventory
from framewalk.engine.kubernetes import read_dump

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# How long an object that has left the dumps is remembered, at least: logs come late.
REMEMBERED_S: Final = 3600


class _Known(NamedTuple):
    """What dumps said before and after a turn, and the table made of both."""

    before: Inventory
    since: Inventory
    entities: Entities


class EntitiesFiles(Closing):
    """The entity table of some dumps, files or folders, as they are now and were lately.

    An object that is in the dumps no more stays known for REMEMBERED_S to twice that. Dumps are
    read again in a thread of their own, as that takes long for a large cluster.

    Raises EntitiesError where the dumps cannot be read at the start.
    """

    def __init__(self, paths: Sequence[Path], now_s: float) -> None:
        self._paths = paths
        self._stamps = frozenset(_stamps(paths))
        nothing = Inventory((), ())
        self._known = _read(paths, nothing, nothing)
        self._turned_s = now_s
        self._thread = ThreadPoolExecutor(1, "entities")
        self._reading: Future[_Known] | None = None

    @property
    def entities(self) -> Entities:
        """The newest table."""
        return self._known.entities

    @property
    def is_reading(self) -> bool:
        """Whether dumps are being read, or have been and were not taken yet."""
        return self._reading is not None

    def refresh(self, now_s: float) -> EntitiesError | None:
        """Take what was read, and begin to read what has changed; never waits for it.

        Returns why dumps could not be read: the table stays as it was, until they change again.
        """
        if self._reading is not None:
            return self._take()
        stamps = frozenset(_stamps(self._paths))
        if stamps != self._stamps:
            self._stamps = stamps
            before, since, _ = self._known
            if now_s - self._turned_s >= REMEMBERED_S:
                self._turned_s = now_s
                before, since = since, Inventory((), ())
            self._reading = self._thread.submit(_read, self._paths, before, since)
        return None

    def close(self) -> None:
        """End the thread; what it is reading is of no use any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> EntitiesError | None:
        if self._reading is None or not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        try:
            self._known = reading.result()
        except EntitiesError as error:
            return error
        return None


def _read(paths: Sequence[Path], before: Inventory, since: Inventory) -> _Known:
    since = read_dump(paths, since)
    return _Known(before, since, Entities.from_inventory(read_dump((), before, since)))


def _stamps(paths: Sequence[Path]) -> Iterator[tuple[str, int, int, int]]:
    """Yield what changes when a file is written or replaced."""
    for path in paths:
        with suppress(OSError):
            for file in path.iterdir() if path.is_dir() else (path,):
                stat = file.stat()
                yield str(file), stat.st_ino, stat.st_mtime_ns, stat.st_size
