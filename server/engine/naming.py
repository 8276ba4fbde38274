"""Who has which name, for a running engine: dumps, a watch, and what the store has kept."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from framewalk.engine.closing import Closing
from framewalk.engine.errors import StoreMemoryError
from framewalk.engine.kubernetes import (
    REMEMBERED_S,
    ClusterAccess,
    LiveEntities,
    context_of,
    inventories_of,
)
from framewalk.engine.telling import tell

if TYPE_CHECKING:
    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.store import Store
    from framewalk.server.engine.link import EngineOptions

# What is known is written to the store this often at most, where it has changed.
_KEEP_EVERY_S: Final = 60
_COUNT_EVERY_S: Final = 600
_FEWEST_ADDRESSES: Final = 1_000
_LOW_SHARE: Final = 0.5
# What is already in the spool can wait so long for the first list of a cluster.
_FIRST_LIST_S: Final = 10
_MOST_LINES: Final = 20
# Clusters make Services anew all the time; what is forgotten may be told again.
_MOST_REMEMBERED: Final = 10_000


class Naming(Closing):
    """The entity table as it is by now; what it is made of is kept in the store.

    Times named `now_s` are since 1970, `elapsed_s` is of a clock that is never set.
    """

    def __init__(self, options: EngineOptions, store: Store, now_s: float) -> None:
        self._every_s = options.entities_reload_s
        self._store = store
        gone_after_ns = int((now_s - REMEMBERED_S) * 10**9)
        earlier = inventories_of(store.kept_sightings(gone_after_ns))
        accesses = _accesses(options)
        self._live = LiveEntities(
            options.entities_paths,
            now_s,
            accesses=accesses,
            by_owner=options.name_by_owner,
            earlier=earlier,
        )
        if not self._live.wait_listed(_FIRST_LIST_S):
            event = "cluster is not listed yet, its addresses are unknown"
            tell(logging.WARNING, event, source=", ".join(map(str, accesses)))
        self._told_of = self._live.entities
        self._names = NamesTold()
        self._names.tell(self._told_of)
        self._is_kept = False
        self._is_asked = False
        self._kept_s = float("-inf")
        self._addresses: Counter[str] = Counter()
        self._counted_s = float("-inf")
        self._read_s = float("-inf")

    @property
    def entities(self) -> Entities:
        """The newest table."""
        return self._live.entities

    def read_again(self) -> None:
        """Have the next refreshes read the dumps, changed or not."""
        self._is_asked = True

    def refresh(self, now_s: float, elapsed_s: float) -> None:
        """Take what was read, or have it read where it is due; never waits for it."""
        if self._read_s == float("-inf"):
            self._read_s = elapsed_s
        is_due = bool(self._every_s) and elapsed_s - self._read_s >= self._every_s
        if self._is_asked and not self._live.is_reading:
            self._is_asked = False
            self._live.forget_stamps()
            is_due = True
        if is_due or self._live.is_reading:
            self._read_s = elapsed_s
            problem = self._live.refresh(now_s)
            if problem is not None:
                tell(logging.WARNING, "entities not read, the old ones stay", problem=problem)
        self._tell_news()

    def count(self, addresses: Counter[str], elapsed_s: float) -> None:
        """Take the addresses of a commit; tell now and then if most stand for nobody."""
        self._addresses += addresses
        every = self._addresses.total()
        if elapsed_s - self._counted_s < _COUNT_EVERY_S or every < _FEWEST_ADDRESSES:
            return
        share = self._addresses["known"] / every
        self._addresses, self._counted_s = Counter(), elapsed_s
        if share < _LOW_SHARE:
            remedy = "see unknown_peers, and whether this is the cluster that the nodes are of"
            tell(logging.WARNING, "most addresses are unknown", known=f"{share:.1%}", remedy=remedy)

    def keep(self, elapsed_s: float) -> None:
        """Write to the store what has changed, now and then; no commit may be under way."""
        if self._is_kept or elapsed_s - self._kept_s < _KEEP_EVERY_S:
            return
        self._kept_s = elapsed_s
        try:
            self._store.keep_entities(*self._live.to_keep())
        except StoreMemoryError as error:
            # Queries have it all.
            tell(logging.WARNING, "names not kept in the store, it is tried again", problem=error)
            return
        self._live.is_kept()
        self._is_kept = True

    def close(self) -> None:
        """Read no more."""
        self._live.close()

    def _tell_news(self) -> None:
        entities = self._live.entities
        if entities is self._told_of:
            return
        self._told_of, self._is_kept = entities, False
        # A cluster changes all the time.
        level = logging.DEBUG if self._live.is_watching else logging.INFO
        tell(level, "entities read again", entities=entities)
        self._names.tell(entities)


def _accesses(options: EngineOptions) -> list[ClusterAccess]:
    """Return which clusters are watched."""
    if not options.kubernetes:
        return []
    contexts = [context_of(text) for text in options.kubernetes_contexts or ("",)]
    return [ClusterAccess(options.kubeconfig, one.context, one.cluster) for one in contexts]


class NamesTold:
    """Tells each fact once, when it first becomes so."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, entities: Entities) -> None:
        """Write lines for what was not told yet, a bounded number."""
        news = [one for one in entities.told if str(one) not in self._told]
        for one in news[:_MOST_LINES]:
            tell(logging.INFO, one.event, **one.facts)
        if len(news) > _MOST_LINES:
            tell(logging.INFO, "more Services share pods", count=len(news) - _MOST_LINES)
        odd = [one for one in entities.warnings if one not in self._told]
        for problem in odd:
            tell(logging.WARNING, "a Kubernetes object is odd", problem=problem)
        if len(self._told) > _MOST_REMEMBERED:
            self._told.clear()
        self._told.update(map(str, news), odd)
