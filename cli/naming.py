"""Who has which name in a replay: dumps, or what the store has kept of earlier ones."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from framewalk.cli.console import warn
from framewalk.engine.errors import InputError
from framewalk.engine.kubernetes import (
    Entities,
    inventories_of,
    read_dumps,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from framewalk.engine.runs import ReplaySummary
    from framewalk.engine.store import Store

_MINUTE_NS: Final = 60 * 10**9
_DUMP: Final = "name what kubectl printed of the cluster (--entities)"


class Naming:
    """The address table of a replay; `sources` are dumps, maybe none for a store that is there.

    Raises EntitiesError for dumps that cannot be read, and InputError where nothing is known.
    """

    def __init__(self, sources: Sequence[Path], store: Path, *, by_owner: bool) -> None:
        if not sources and not store.exists():
            raise InputError(store, "there is no such file, and no dump", _DUMP)
        self._by_owner = by_owner
        self._sources = sources
        dumps = read_dumps(sources)
        self._inventories = dumps.inventories
        self.entities = Entities.of(self._inventories, dumps.warnings, by_owner=by_owner)

    def settle(self, store: Store) -> None:
        """Keep in the store what is known; or take what it has kept, where no dump was named."""
        for warning in self.entities.warnings:
            warn(warning)
        if self._sources:
            store.keep_entities(None, self.entities.described(self._inventories))
            return
        self._inventories = inventories_of(store.kept_sightings())
        self.entities = Entities.of(self._inventories, by_owner=self._by_owner)
        if self.entities.addresses.is_empty():
            raise InputError(store.path, "it has kept no names of an earlier dump", _DUMP)

    def shared(self) -> list[tuple[str, str]]:
        """Return rows for a summary: how many Services share pods with others."""
        counts = Counter(one.event for one in self.entities.told)
        return [(event, f"{count:,}") for event, count in counts.items()]

    def doubts(self, summary: ReplaySummary) -> list[str]:
        """Say why the dumps may not be those of the captures' cluster or time."""
        said = []
        for cluster, inventory in self._inventories.items():
            named = f"cluster {cluster}: " if cluster else ""
            if not inventory.pods:
                said.append(f"{named}no Pod is in what was read; dump pods, too")
            if not inventory.services:
                said.append(f"{named}no Service is in what was read; dump services, too")
        counted = summary.counters.addresses
        if counted["known"] < counted["unknown"]:
            said.append(
                f"only {known_share(summary)} of the addresses are known; "
                "see unknown_peers, and whether the dump is of this cluster and time"
            )
        pods = self.entities.pods
        if summary.minutes and pods.height:
            first_ns, last_ns = (at(summary.minutes) * _MINUTE_NS for at in (min, max))
            begins, ends = pods["from_ns"].fill_null(first_ns), pods["to_ns"].fill_null(last_ns)
            if not ((begins <= last_ns + _MINUTE_NS) & (ends >= first_ns)).any():
                said.append("no Pod of the dump was there at the time of the captures")
        return said


def known_share(summary: ReplaySummary) -> str:
    """Return how many of the addresses of logs stand for somebody; empty where there were none."""
    counted = summary.counters.addresses
    every = counted.total()
    return f"{counted['known'] / every:.1%} of {every:,}" if every else ""
