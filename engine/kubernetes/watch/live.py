"""The newest table of a live engine: of dumps, of clusters that are watched, or of both."""

from __future__ import annotations

import threading
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from framewalk.engine.closing import Closing
from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes.addresses import Entities
from framewalk.engine.kubernetes.files import EntitiesFiles
from framewalk.engine.kubernetes.inventory import Inventory
from framewalk.engine.kubernetes.table import Table
from framewalk.engine.kubernetes.watch.cluster import ClusterWatch
from framewalk.engine.kubernetes.watch.merging import Merged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from framewalk.engine.kubernetes.describing import Described
    from framewalk.engine.kubernetes.watch.connection import ClusterAccess

# Changes that come within this time are put into the table together.
_GATHER_S: Final = 0.4


class LiveEntities(Closing):
    """The table of dumps and of clusters that are watched: the newer sighting wins.

    With `accesses` it is updated in a thread of its own half a second after something has changed;
    without it is that of the dumps alone.

    Raises EntitiesError where dumps cannot be read at the start, where nothing can be watched (no
    client, no configuration), or where two clusters have the same name; a server that is away is no
    error.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        now_s: float,
        *,
        accesses: Sequence[ClusterAccess] = (),
        by_owner: bool = False,
        earlier: Mapping[str, Inventory] = MappingProxyType({}),
    ) -> None:
        _refuse_same_names(accesses)
        self._files = EntitiesFiles(paths, now_s, by_owner=by_owner, earlier=earlier)
        self._kept: Described | None = None
        self._keeping: Described | None = None
        self._making = _Making(self._files, accesses, by_owner=by_owner) if accesses else None

    @property
    def entities(self) -> Entities:
        """The newest table."""
        return self._files.entities if self._making is None else self._making.entities

    def to_keep(self) -> tuple[Described | None, Described]:
        """Return what was kept last and may be so still (None: no matter), and what is to be kept.

        Of clusters that are watched that is what has changed since `is_kept` was called.
        """
        if self._making is not None:
            return None, self._making.described()
        self._keeping = self._files.described
        return self._kept, self._keeping

    def is_kept(self) -> None:
        """Learn that what `to_keep` returned is kept."""
        self._kept = self._keeping
        if self._making is not None:
            self._making.is_kept()

    @property
    def is_reading(self) -> bool:
        """Whether dumps are being read, or have been and were not taken yet."""
        return self._files.is_reading

    @property
    def is_watching(self) -> bool:
        """Whether there is a watch."""
        return self._making is not None

    def wait_listed(self, timeout_s: float) -> bool:
        """Wait until the table has the first list of each cluster; returns whether it has."""
        return self._making is None or self._making.wait_listed(timeout_s)

    def refresh(self, now_s: float) -> EntitiesError | None:
        """Read dumps that have changed, without waiting; returns why they could not be read."""
        problem = self._files.refresh(now_s)
        if self._making is not None:
            self._making.wake()
        return problem

    def forget_stamps(self) -> None:
        """Have the next `refresh` that begins to read read all, changed or not."""
        self._files.forget_stamps()

    def close(self) -> None:
        """Stop watching, and reading."""
        self._files.close()
        if self._making is not None:
            self._making.close()


class _Making(threading.Thread):
    """Keeps a table up to date, until it is closed."""

    def __init__(
        self, files: EntitiesFiles, accesses: Sequence[ClusterAccess], *, by_owner: bool
    ) -> None:
        super().__init__(name="entities-table", daemon=True)
        self._files = files
        self._by_owner = by_owner
        self._made = files.entities
        self._made_of: Entities | None = None
        self._table = Table(by_owner=by_owner)
        self._merged: dict[str, Merged] = {}
        self._error: BaseException | None = None
        self._news = threading.Event()
        self._closed = threading.Event()
        self._has_lists = threading.Event()
        self._lock = threading.Lock()
        self._watches: dict[str, ClusterWatch] = {}
        try:
            for one in accesses:
                self._watches[one.cluster] = ClusterWatch(one, on_change=self.wake)
        except EntitiesError:
            self._close_watches()
            raise
        self.start()

    @property
    def entities(self) -> Entities:
        """The newest table; raises what ended the thread."""
        if self._error is not None:
            raise self._error
        return self._made

    def described(self) -> Described:
        """Return what the table is made of, as far as it is not kept."""
        with self._lock:
            return self._table.described()

    def is_kept(self) -> None:
        """Learn that what was described last is kept."""
        with self._lock:
            self._table.is_kept()

    def wake(self) -> None:
        """Have it look for changes."""
        self._news.set()

    def wait_listed(self, timeout_s: float) -> bool:
        """Wait until the table has the first list of each cluster; returns whether it has."""
        return self._has_lists.wait(timeout_s)

    def run(self) -> None:
        """Work until closed."""
        while not self._closed.is_set():
            self._news.wait()
            # The first table is wanted at once.
            if self._has_lists.is_set():
                self._closed.wait(_GATHER_S)
            self._news.clear()
            try:
                with self._lock:
                    self._update()
            except BaseException as error:  # noqa: BLE001 - it is raised where the table is taken
                self._error = error
                return

    def close(self) -> None:
        """End it, and the watches."""
        self._closed.set()
        self._news.set()
        self._close_watches()
        self.join(timeout=10)

    def _update(self) -> None:
        read = self._files.entities
        has_lists = all(one.wait_listed(0) for one in self._watches.values())
        is_new = read is not self._made_of
        if is_new:
            self._begin_again()
            self._made_of = read
        for cluster, watch in self._watches.items():
            changes = watch.take_changes(again=is_new)
            self._table.update(cluster, self._merged[cluster].take(changes))
        warnings = (one for watch in self._watches.values() for one in watch.warnings)
        told = self._table.told()
        self._made = Entities(
            self._table.lookups(), told=told, warnings=(*read.warnings, *warnings)
        )
        if has_lists:
            self._has_lists.set()

    def _begin_again(self) -> None:
        """Make a table of what dumps say now; what is watched is added to it."""
        inventories = self._files.inventories
        self._table = Table(by_owner=self._by_owner)
        nothing = Inventory()
        self._merged = {name: Merged(inventories.get(name, nothing)) for name in self._watches}
        for cluster, inventory in inventories.items():
            if cluster not in self._watches:
                every = {one.identity: one for one in inventory.histories}
                self._table.update(cluster, every)

    def _close_watches(self) -> None:
        for watch in self._watches.values():
            watch.close()


def _refuse_same_names(accesses: Sequence[ClusterAccess]) -> None:
    names = [one.cluster for one in accesses]
    for one in accesses:
        if names.count(one.cluster) > 1:
            same = f"are both named {one.cluster}" if one.cluster else "have no name"
            problem = f"two clusters that are watched {same}"
            remedy = "name each after the clusterName of its nodes: --context NAME=CONTEXT"
            raise EntitiesError(str(one), problem, remedy)
