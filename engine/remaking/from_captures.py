"""Metrics made again out of captures, for minutes of which no archive has the logs.

The captures are replayed into a store of their own, `replayed`. What it has of a minute is all that
there is if they hold what the store has counted (`lacking` in engine/runs says whether they do);
then it takes the place of what the store has. Relations between endpoints are made of calls, and
stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from framewalk.engine.remaking.making import VIEW
from framewalk.engine.remaking.recomputing import (
    Recomputation,
    Recomputed,
    move_begins,
    plan_of,
    plan_recomputation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from framewalk.engine.oal import Metric
    from framewalk.engine.store import Store

_MINUTES_PER_HOUR: Final = 60
_OF_CALLS: Final = "relations between endpoints are made of an archive"


class AllMinutes:
    """What stands in place of an archive that has each log of each minute."""

    def whole_minutes(self, asked: Sequence[int], near: int = 0) -> list[int]:  # noqa: ARG002 - as of an archive
        """Return the minutes that are asked about."""
        return list(asked)

    def requests_only_minutes(self, first: int, last: int) -> set[int]:  # noqa: ARG002 - as of an archive
        """Return no minute."""
        return set()

    def sampled_minutes(self, first: int, last: int) -> set[int]:  # noqa: ARG002 - as of an archive
        """Return no minute."""
        return set()


def refused_of_captures(metrics: Collection[Metric]) -> dict[str, str]:
    """Return which metrics captures cannot make, and why."""
    return {one.name: _OF_CALLS for one in metrics if one.scope.view == VIEW}


def plan_from_captures(store: Store, names: Collection[str], first: int, end: int) -> Recomputation:
    """Find out what captures can make of the minutes from one to before another.

    Without `names` all metrics of the store's plan are.
    """
    asked = plan_recomputation(store, AllMinutes(), names, first, end)
    made = tuple(one for one in asked.metrics if one.scope.view != VIEW)
    refused = {**asked.refused, **refused_of_captures(asked.metrics)}
    return replace(asked, metrics=made, refused=MappingProxyType(refused))


def take_over(
    store: Store,
    replayed: Store,
    asked: Recomputation,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Recomputed:
    """Replace what minutes have of metrics by what a store of captures has, an hour at a time.

    The newest come first. Both stores' plans have these metrics. Raises StoreError.
    """
    plan = plan_of(asked.metrics, store.plan)
    names = [one.name for one in plan.metrics]
    made: set[int] = set()
    for minutes in _hours(asked.minutes):
        made.update(minutes)
        parts = [(scope, replayed.states_of(scope, minutes)) for scope in plan.scopes]
        store.replace(minutes, parts, also=lambda: move_begins(store, names, made))
        on_progress(len(made), len(asked.minutes))
    return Recomputed(minutes=len(made))


def _hours(minutes: Sequence[int]) -> Iterator[list[int]]:
    """Yield the minutes of each hour, the newest hour first."""
    hours: dict[int, list[int]] = {}
    for minute in minutes:
        hours.setdefault(minute // _MINUTES_PER_HOUR, []).append(minute)
    for _, own in sorted(hours.items(), reverse=True):
        yield own
