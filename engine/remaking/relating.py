"""Relations between endpoints out of the archive: they replace what called sides alone gave.

The relations of a minute are made of the requests that the archive has of it and of a window around
it, so they depend neither on the order in which logs came nor on when they are made. The archive
says of which minutes something has come; these are made again as a whole. What is written and that
it was made are one transaction.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.archive import NEAR_MINUTES
from framewalk.engine.caps import DEFAULT_CAPS
from framewalk.engine.errors import DamagedLogsError
from framewalk.engine.remaking import sides
from framewalk.engine.remaking.making import Here, scope_of_relations
from framewalk.engine.remaking.naming import within_caps
from framewalk.engine.remaking.sides import CALLS, CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from framewalk.engine.archive import Archive
    from framewalk.engine.calls import Relations
    from framewalk.engine.oal import Plan
    from framewalk.engine.remaking.making import MadeRelations, Making
    from framewalk.engine.store import Store

_MINUTES_PER_HOUR: Final = 60
# Minutes that are made and written at once, if they have few requests.
_MINUTES_AT_ONCE: Final = 10
# Requests that are put together at once: some 1.6 kB each, with all that they are compared by.
MOST_REQUESTS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Related:
    """What was made: `minutes`, and how many `requests` they have.

    `crowded` minutes have too many requests to put them together: they have what called sides saw.
    `has_more` tells whether some minutes are left for the next time.
    """

    minutes: int = 0
    requests: int = 0
    crowded: int = 0
    has_more: bool = False

    def __add__(self, other: Related) -> Related:
        """Return the sum of both."""
        return Related(
            self.minutes + other.minutes,
            self.requests + other.requests,
            self.crowded + other.crowded,
            self.has_more or other.has_more,
        )


@dataclass(frozen=True, slots=True)
class RelatingOptions:
    """How much at once: requests that are put together, and endpoints that keep their names.

    With `at_most_once` some minutes may be left for the next time. `on_progress` is told how many
    are done, of how many. The metrics are those of a `plan`, or of all that the store knows.
    `making` says who computes them; what is made is the same.
    """

    most_requests: int = MOST_REQUESTS
    endpoints_per_service: int = DEFAULT_CAPS.endpoints_per_service
    at_most_once: bool = False
    plan: Plan | None = None
    on_progress: Callable[[int, int], None] = lambda _done, _all: None
    making: Making = field(default_factory=Here)


def prepare_relating(store: Store) -> None:
    """Make the views that `relate` fills, where a store does not have them: they can be asked."""
    with store.transaction():
        sides.make(store)


def relate(
    store: Store,
    archive: Archive,
    before_minute: int | None = None,
    options: RelatingOptions | None = None,
) -> Related:
    """Make the relations of the minutes before one (since 1970) that got requests, or of all.

    Minutes of which the archive has not all requests, or that have expired, keep what they have;
    those near requests in files that turn out to be damaged, too. Raises StoreError.
    """
    while True:
        # Each time some files are left out.
        with suppress(DamagedLogsError):
            return _related(store, archive, before_minute, options or RelatingOptions())


def _related(
    store: Store, archive: Archive, before_minute: int | None, options: RelatingOptions
) -> Related:
    due = archive.changed_minutes(before_minute)
    if not due:
        return Related()
    maker = _Maker(store, archive, options.plan or store.known_plan(), options)
    done, total = maker.skip(due), Related()
    chunks = list(_chunks([minute for minute in due if minute not in done]))
    left = sum(map(len, chunks))
    for made in maker.made(chunks):
        for one in made:
            total += maker.write(one)
        options.on_progress(total.minutes, len(due))
        if options.at_most_once and total.minutes < left:
            return replace(total, has_more=True)
    return total


class _Maker:
    """Makes the relations of some minutes at a time."""

    def __init__(
        self, store: Store, archive: Archive, plan: Plan, options: RelatingOptions
    ) -> None:
        self._store = store
        self._archive = archive
        self._plan = plan
        self._scope = scope_of_relations(plan)
        self._options = options
        with store.transaction():
            sides.make(store)
            sides.expire(store)

    def skip(self, due: Sequence[int]) -> set[int]:
        """Leave minutes as they are of which not all is there; returns them."""
        whole = set(self._archive.whole_minutes(due, NEAR_MINUTES))
        kept_from = self._store.first_kept_minute()
        if kept_from is not None:
            whole = {minute for minute in whole if minute >= kept_from}
        skipped = set(due) - whole
        if skipped:
            with self._store.transaction():
                self._archive.no_longer_changed(skipped)
        return skipped

    def made(self, chunks: Sequence[Sequence[int]]) -> Iterator[list[MadeRelations]]:
        """Yield what is made of minutes that follow each other, within an hour, chunk by chunk."""
        most = self._options.most_requests
        return self._options.making.relations(self._archive.logs(), self._plan, chunks, most)

    def write(self, made: MadeRelations) -> Related:
        """Replace what minutes have."""
        self._write(made.minutes, made.relations)
        return Related(len(made.minutes), made.requests, len(made.minutes) * made.is_crowded)

    def _write(self, minutes: Sequence[int], found: Relations) -> None:
        named = within_caps(found, self._scope, self._options.endpoints_per_service)
        bucket = pl.from_epoch(pl.col("minute") * 60, "s").cast(pl.Datetime("us"))
        calls = named.observed.select(
            bucket.alias(sides.BUCKET),
            *CALLS.keys,
            seen_by_both="both",
            seen_by_client="client",
            seen_by_server="server",
        )
        connections = named.connections.select(
            bucket.alias(sides.BUCKET), *CONNECTIONS.keys, *CONNECTIONS.counts
        )

        def also() -> None:
            sides.replace(self._store, CALLS, minutes, calls)
            sides.replace(self._store, CONNECTIONS, minutes, connections)
            self._archive.no_longer_changed(minutes)

        self._store.replace(minutes, [(self._scope, named.states)], whole=True, also=also)


def _chunks(minutes: Sequence[int]) -> Iterator[list[int]]:
    """Yield minutes that follow each other within an hour, some at a time."""
    chunk: list[int] = []
    for minute in minutes:
        if chunk and (
            minute != chunk[-1] + 1
            or minute % _MINUTES_PER_HOUR == 0
            or len(chunk) == _MINUTES_AT_ONCE
        ):
            yield chunk
            chunk = []
        chunk.append(minute)
    if chunk:
        yield chunk
