"""Kubernetes dumps that are read again when they change: the entity table of a live engine."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from stat import S_ISDIR, S_ISREG
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from framewalk.engine.closing import Closing
from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes.addresses import Entities
from framewalk.engine.kubernetes.dumps import files_of_folder, read_dumps, source_of
from framewalk.engine.kubernetes.inventory import REMEMBERED_S, Inventory, Seen, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from framewalk.engine.kubernetes.describing import Described
    from framewalk.engine.kubernetes.inventory import History, Identity

_Stamps: TypeAlias = "frozenset[tuple[str, int, int, int]]"
_Inventories: TypeAlias = "Mapping[str, Inventory]"

_NS_PER_S: Final = 10**9


class _Known(NamedTuple):
    """What dumps said of each cluster, and the table made of it."""

    inventories: _Inventories
    entities: Entities


class _Wanted(NamedTuple):
    """What is read, and how it is named."""

    paths: Sequence[Path]
    by_owner: bool


class _Seen(NamedTuple):
    """What files were like, and what was read then or why nothing was."""

    stamps: _Stamps
    known: _Known | None
    problem: EntitiesError | None = None


class EntitiesFiles(Closing):
    """The entity table of some dumps, files or folders, as they are now and were lately.

    An object that is in the dumps no more was there until it was missed, and stays known for
    REMEMBERED_S. Dumps are looked at and read again in a thread of their own, as that takes long
    for a large cluster, and for ever on a mount that hangs. A path may be `NAME=PATH` (see
    `source_of`); `by_owner` names Pods without a Service after their owner. `earlier` is what was
    known before: without any path it is all there is.

    Raises EntitiesError where the dumps cannot be read at the start.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        now_s: float,
        *,
        by_owner: bool = False,
        earlier: _Inventories = MappingProxyType({}),
    ) -> None:
        self._wanted = _Wanted(paths, by_owner)
        self._stamps = _stamps_of(paths)
        self._known = _read(self._wanted, earlier, now_s)
        self._reading: Future[_Seen] | None = None

    @property
    def entities(self) -> Entities:
        """The newest table."""
        return self._known.entities

    @property
    def described(self) -> Described:
        """What the newest table is made of; takes a while for a large cluster."""
        return self._known.entities.described(self._known.inventories)

    @property
    def inventories(self) -> Mapping[str, Inventory]:
        """What the newest table is made of, by cluster."""
        return self._known.inventories

    @property
    def is_reading(self) -> bool:
        """Whether dumps are being read, or have been and were not taken yet."""
        return self._reading is not None

    def refresh(self, now_s: float) -> EntitiesError | None:
        """Take what was read, or begin to read what has changed; never waits for it.

        Returns why dumps could not be read: the table stays as it was, until they change again.
        """
        if self._reading is not None:
            return self._take()
        known = self._known.inventories
        self._reading = _in_thread(partial(_look, self._wanted, self._stamps, known, now_s))
        return None

    def forget_stamps(self) -> None:
        """Have the next `refresh` that begins to read read all, changed or not."""
        self._stamps = frozenset()

    def close(self) -> None:
        """Leave the thread alone; what it is reading is of no use any more."""
        self._reading = None

    def _take(self) -> EntitiesError | None:
        if self._reading is None or not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        seen = reading.result()
        self._stamps = seen.stamps
        if seen.known is not None:
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


def _look(wanted: _Wanted, stamps: _Stamps, known: _Inventories, now_s: float) -> _Seen:
    """Read the dumps if they are not as they were."""
    now = _stamps_of(wanted.paths)
    if now == stamps:
        return _Seen(now, None)
    try:
        return _Seen(now, _read(wanted, known, now_s))
    except EntitiesError as error:
        return _Seen(now, None, error)


def _read(wanted: _Wanted, known: _Inventories, now_s: float) -> _Known:
    for file in _files(wanted.paths):
        if _is_special(file):
            problem = "this is no regular file, it cannot be read again"
            raise EntitiesError(file, problem, "write the dump into a file")
    dumps = read_dumps(wanted.paths)
    now_ns = int(now_s * _NS_PER_S)
    read = dumps.inventories
    merged = dict(known)
    if wanted.paths:
        nothing = Inventory()
        merged = {
            cluster: _merged(known.get(cluster, nothing), read.get(cluster, nothing), now_ns)
            for cluster in {**read, **known}
        }
    entities = Entities.of(merged, dumps.warnings, by_owner=wanted.by_owner)
    return _Known(merged, entities)


def _merged(earlier: Inventory, read: Inventory, now_ns: int) -> Inventory:
    """Add what was read now; what is missed in it is gone by now, and forgotten later."""
    forgotten_ns = now_ns - REMEMBERED_S * _NS_PER_S
    kept = [one for one in earlier.histories if one.gone_ns > forgotten_ns]
    there = {one.identity for one in read.histories}
    # One that is back was not gone.
    back = [replace(one, gone=None) if one.identity in there else one for one in kept]
    seen = [sighting for one in (*back, *read.histories) for sighting in one.sightings()]
    newest = max((span.last for one in read.histories for span in one.spans), default=Seen())
    gone = newest._replace(at_ns=now_ns)
    missed = (Sighting(gone, one.newest, is_gone=True) for one in _missed(kept, there))
    return Inventory.of([*seen, *missed])


def with_earlier(
    earlier: Iterable[History[Any]],
    watched: Iterable[History[Any]],
    lists: Mapping[type, Sequence[Seen]],
) -> Inventory:
    """Add what was known before to what is watched; what a list did not have by then is gone.

    `lists` has when all objects of a kind were listed.
    """
    earlier, watched = tuple(earlier), tuple(watched)
    seen = [one for history in (*earlier, *watched) for one in history.sightings()]
    there = {one.identity for one in watched}
    seen += (
        Sighting(listed, one.newest, is_gone=True)
        for one in _missed(earlier, there)
        for listed in lists.get(type(one.newest), ())
    )
    return Inventory.of(seen)


def _missed(known: Iterable[History[Any]], there: Collection[Identity]) -> Iterator[History[Any]]:
    """Yield what was known and is not there now."""
    return (one for one in known if one.gone is None and one.identity not in there)


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
    for path in (source_of(one).path for one in paths):
        with suppress(OSError, EntitiesError):
            yield from files_of_folder(path) if path.is_dir() else (path,)
