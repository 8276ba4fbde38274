"""What is made again, before it is written: pure functions of archived logs, and who calls them.

This process does, one part after the other, or others do (engine/spreading).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

import polars as pl

from framewalk.engine.archive import NS_PER_MINUTE
from framewalk.engine.calls import (
    ARCHIVED_COLUMNS,
    WINDOW_NS,
    Relations,
    archived_logs,
    relations_as_called,
    relations_of,
)
from framewalk.engine.remaking.adding import Adding
from framewalk.engine.remaking.connections import tcp_as_called, tcp_logs
from framewalk.engine.remaking.reading import Wanted, resolved_logs
from framewalk.engine.stages import log_states

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from framewalk.engine.archive import ArchivedLogs
    from framewalk.engine.oal import Plan, ScopePlan
    from framewalk.engine.states import States

VIEW: Final = "endpoint_relation"
# What is read at once where there are too many requests to put them together.
_SLICE_NS: Final = 5 * 10**9
_COLUMNS: Final = f"{ARCHIVED_COLUMNS}, components"


@dataclass(frozen=True, slots=True)
class MadeMetrics:
    """The states of minutes (since 1970), and of how many logs they are."""

    minutes: tuple[int, ...]
    logs: int
    states: States


@dataclass(frozen=True, slots=True)
class MadeRelations:
    """The relations between endpoints of minutes, and how many `requests` these have.

    `is_crowded` where those are too many to put them together: it is what called sides saw.
    """

    minutes: tuple[int, ...]
    requests: int
    is_crowded: bool
    relations: Relations


class Making(Protocol):
    """Makes parts, each of some minutes, in their order; see `metrics_of` and `relations_made`.

    All methods raise StoreError where archived logs cannot be read.
    """

    def metrics(
        self, logs: ArchivedLogs, plan: Plan, parts: Iterable[Sequence[int]]
    ) -> Iterator[MadeMetrics]:
        """Yield the states of parts."""

    def relations(
        self, logs: ArchivedLogs, plan: Plan, parts: Iterable[Sequence[int]], most_requests: int
    ) -> Iterator[list[MadeRelations]]:
        """Yield the relations of parts, each as one or several that follow each other."""


def metrics_of(logs: ArchivedLogs, plan: Plan, minutes: Sequence[int]) -> MadeMetrics:
    """Make the states of minutes (since 1970, in order) of the logs that there are."""
    count, adding = 0, Adding(plan)
    for found in resolved_logs(logs, Wanted.of(plan), minutes):
        count += sum(frame.height for frame in found.operations.values())
        adding.add(log_states(found, plan))
    return MadeMetrics(tuple(minutes), count, adding.states())


def relations_made(
    logs: ArchivedLogs, plan: Plan, minutes: Sequence[int], most_requests: int
) -> list[MadeRelations]:
    """Make the relations of minutes that follow each other, within an hour.

    At most `most_requests` are put together at once, so it may be some minutes after the other.
    """
    first_ns = minutes[0] * NS_PER_MINUTE - WINDOW_NS
    end_ns = (minutes[-1] + 1) * NS_PER_MINUTE + WINDOW_NS
    if logs.count_requests(first_ns, end_ns) > most_requests:
        if len(minutes) == 1:
            own = logs.count_requests(first_ns + WINDOW_NS, end_ns - WINDOW_NS)
            called = _as_called(logs, plan, minutes[0])
            return [MadeRelations(tuple(minutes), own, is_crowded=True, relations=called)]
        middle = len(minutes) // 2
        halves = (minutes[:middle], minutes[middle:])
        return [one for half in halves for one in relations_made(logs, plan, half, most_requests)]
    requests = archived_logs(logs.requests(first_ns, end_ns, _COLUMNS))
    tcp = tcp_logs(logs, minutes, most_requests)
    if tcp is None:
        found = relations_of(requests, plan, minutes)
        found = replace(found, connections=tcp_as_called(logs, minutes))
    else:
        found = relations_of(requests, plan, minutes, tcp)
    begins_ns = requests["time_ns"]
    is_own = begins_ns.is_between(first_ns + WINDOW_NS, end_ns - WINDOW_NS, closed="left")
    count = int(is_own.sum())
    return [MadeRelations(tuple(minutes), count, is_crowded=False, relations=found)]


class Here:
    """This process makes the parts, each when the one before is taken; see `Making`."""

    def metrics(
        self, logs: ArchivedLogs, plan: Plan, parts: Iterable[Sequence[int]]
    ) -> Iterator[MadeMetrics]:
        """Yield the states of parts."""
        return (metrics_of(logs, plan, part) for part in parts)

    def relations(
        self, logs: ArchivedLogs, plan: Plan, parts: Iterable[Sequence[int]], most_requests: int
    ) -> Iterator[list[MadeRelations]]:
        """Yield the relations of parts, each as one or several that follow each other."""
        return (relations_made(logs, plan, part, most_requests) for part in parts)


def scope_of_relations(plan: Plan) -> ScopePlan:
    """Return what a plan has of relations between endpoints."""
    return next(one for one in plan.scopes if one.scope.view == VIEW)


def _as_called(logs: ArchivedLogs, plan: Plan, minute: int) -> Relations:
    """Return what called sides saw, of some seconds at a time."""
    found = []
    starts = range(minute * NS_PER_MINUTE, (minute + 1) * NS_PER_MINUTE + 1, _SLICE_NS)
    for first_ns, end_ns in pairwise(starts):
        requests = archived_logs(logs.requests(first_ns, end_ns, _COLUMNS))
        begins_ns = pl.coalesce("serving_start_ns", "time_ns")
        own = requests.filter(begins_ns.is_between(first_ns, end_ns, closed="left"))
        found.append(relations_as_called(own, plan))
    called = Relations.added(scope_of_relations(plan), found)
    return replace(called, connections=tcp_as_called(logs, [minute]))
