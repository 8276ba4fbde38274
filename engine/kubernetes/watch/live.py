"""The newest table of a live engine: of dumps, of a watch, or of both."""

from __future__ import annotations

import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from framewalk.engine.closing import Closing
from framewalk.engine.kubernetes.addresses import Entities
from framewalk.engine.kubernetes.files import EntitiesFiles, with_earlier
from framewalk.engine.kubernetes.watch.cluster import ClusterWatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from framewalk.engine.errors import EntitiesError
    from framewalk.engine.kubernetes.describing import Described
    from framewalk.engine.kubernetes.inventory import Inventory
    from framewalk.engine.kubernetes.watch.connection import ClusterAccess

# A table is made again no sooner than after so many times what making it took.
_REST: Final = 25
_LONGEST_REST_S: Final = 60


class LiveEntities(Closing):
    """The table of dumps and of a cluster that is watched: the newer sighting wins.

    It is made in a thread of its own when something has changed, at most once a `refresh`, and so
    seldom that it takes little of a core. Without `access` it is that of the dumps alone.

    Raises EntitiesError where dumps cannot be read at the start, or where nothing can be watched
    (no client, no configuration); a server that is away is no error.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        now_s: float,
        *,
        access: ClusterAccess | None = None,
        by_owner: bool = False,
        earlier: Mapping[str, Inventory] = MappingProxyType({}),
    ) -> None:
        self._files = EntitiesFiles(paths, now_s, by_owner=by_owner, earlier=earlier)
        self._by_owner = by_owner
        self._cluster = access.cluster if access is not None else ""
        self._watch = ClusterWatch(access) if access is not None else None
        self._made = self._files.entities
        self._inventories = self._files.inventories
        self._made_of: tuple[Entities, int] = (self._made, 0)
        self._making: _Making | None = None
        self._rest_until_s: float = 0

    @property
    def entities(self) -> Entities:
        """The newest table."""
        return self._made

    @property
    def described(self) -> Described:
        """What the newest table is made of; takes a while for a large cluster."""
        return self._made.described(self._inventories)

    @property
    def is_reading(self) -> bool:
        """Whether dumps are being read, or have been and were not taken yet."""
        return self._files.is_reading

    @property
    def is_watching(self) -> bool:
        """Whether there is a watch."""
        return self._watch is not None

    def wait_listed(self, timeout_s: float) -> bool:
        """Wait for the first list of the cluster, and take it; returns whether it came."""
        if self._watch is None or not self._watch.wait_listed(timeout_s):
            return self._watch is None
        self.take()
        if self._making is not None:
            self._making.join(timeout_s)
        self.take()
        return True

    def refresh(self, now_s: float) -> EntitiesError | None:
        """Read dumps that have changed, without waiting; returns why they could not be read."""
        problem = self._files.refresh(now_s)
        self.take()
        return problem

    def take(self) -> None:
        """Take a table that was made, or begin to make one of what has changed; never waits."""
        if self._watch is None:
            self._made, self._inventories = self._files.entities, self._files.inventories
            return
        if self._making is not None:
            if self._making.is_alive():
                return
            self._rest_until_s = time.monotonic() + min(
                self._making.took_s * _REST, _LONGEST_REST_S
            )
            self._made, self._inventories = self._making.result()
            self._making = None
        wanted = (self._files.entities, self._watch.changes)
        if wanted != self._made_of and time.monotonic() >= self._rest_until_s:
            self._made_of = wanted
            self._making = _Making(self._files, self._watch, self._cluster, by_owner=self._by_owner)
            self._making.start()

    def forget_stamps(self) -> None:
        """Have the next `refresh` that begins to read read all, changed or not."""
        self._files.forget_stamps()

    def close(self) -> None:
        """Stop watching, and reading."""
        self._files.close()
        if self._watch is not None:
            self._watch.close()


class _Making(threading.Thread):
    """Makes a table of what is known now."""

    def __init__(
        self,
        files: EntitiesFiles,
        watch: ClusterWatch,
        cluster: str,
        *,
        by_owner: bool,
    ) -> None:
        super().__init__(name="entities-table", daemon=True)
        self._inventories = dict(files.inventories)
        self._warnings = (*files.entities.warnings, *watch.warnings)
        self._watch = watch
        self._cluster = cluster
        self._by_owner = by_owner
        self._entities: Entities | None = None
        self._error: BaseException | None = None
        self.took_s: float = 0

    def run(self) -> None:
        """Make it."""
        started_s = time.thread_time()
        try:
            lists = self._watch.lists
            watched = self._watch.inventory()
            read = self._inventories.get(self._cluster)
            if read is not None:
                watched = with_earlier(read, watched, lists)
            self._inventories[self._cluster] = watched
            self._entities = Entities.of(self._inventories, self._warnings, by_owner=self._by_owner)
        except BaseException as error:  # noqa: BLE001 - it is raised where the table is taken
            self._error = error
        self.took_s = time.thread_time() - started_s

    def result(self) -> tuple[Entities, Mapping[str, Inventory]]:
        """Return the table, and what it is made of."""
        if self._entities is None:
            raise self._error or AssertionError
        return self._entities, self._inventories
