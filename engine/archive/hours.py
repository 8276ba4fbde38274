"""Which hours get files of their own: as many as a node, and all together, may open over time.

A node whose clock runs wild would else have a file of each hour written with each commit, and a
sender can say that it is many nodes. What is beyond is archived all the same, together with other
logs of the kind in a file of no hour.
"""

from __future__ import annotations

from typing import Final

import polars as pl

_S_PER_HOUR: Final = 3600
_NS_PER_HOUR: Final = _S_PER_HOUR * 10**9
# What a node has opened is forgotten after so long.
_FORGET_S: Final = 3600
# Names that senders chose are remembered: so many at most.
_MOST_OPENED: Final = 100_000
# Hours that logs are of where clocks are right, and nodes were cut off for a day at most.
_BEFORE_HOURS: Final = 30
_AFTER_HOURS: Final = 1


class OpenedHours:
    """What nodes have opened: at most `most_of_node` hours each within an hour of `tick`.

    Of hours that are not about now there are `most_far` at most, whichever nodes they are of.
    """

    def __init__(self, most_of_node: int, most_far: int) -> None:
        self._most_of_node = most_of_node
        self._most_far = most_far
        self._now_hour: int | None = None
        self._far: set[int] = set()
        self._opened: dict[tuple[str, str], set[int]] = {}
        self._count = 0
        self._began_s: float | None = None

    def tick(self, elapsed_s: float, now_s: float | None) -> None:
        """Tell how late it is, by a clock that is never set and, if that is known, since 1970."""
        if now_s is not None:
            self._now_hour = int(now_s) // _S_PER_HOUR
        if self._began_s is None or elapsed_s - self._began_s >= _FORGET_S:
            self._opened, self._count, self._began_s = {}, 0, elapsed_s
            self._far = set()

    def own(self, logs: pl.DataFrame, connections: pl.DataFrame, most_hours: int) -> list[int]:
        """Return the hours (since 1970) that get a file of their own, `most_hours` files in all.

        `logs` have `time_ns` and their row of `connections`, which have `cluster` and `node`. Hours
        with logs of the most nodes come first, then those with the most logs: a node does not take
        the places of others.
        """
        hours = logs.select("connection", hour=pl.col("time_ns") // _NS_PER_HOUR)
        counts = hours.group_by("connection", "hour").len("logs")
        pairs = (
            counts.with_columns(
                connections[name].gather(counts["connection"]) for name in ("cluster", "node")
            )
            .group_by("cluster", "node", "hour")
            .agg(pl.sum("logs"))
            .sort("logs", "hour", descending=True)
        )
        opens = [
            self._opens((cluster or "", node or ""), hour)
            for cluster, node, hour in pairs.select("cluster", "node", "hour").iter_rows()
        ]
        found = (
            pairs.filter(pl.Series(opens, dtype=pl.Boolean))
            .group_by("hour")
            .agg(nodes=pl.len(), logs=pl.sum("logs"))
            .sort("nodes", "logs", "hour", descending=True)["hour"]
            .to_list()
        )
        fits = len(found) == pairs["hour"].n_unique() <= most_hours
        return found if fits else found[: most_hours - 1]

    def _opens(self, node: tuple[str, str], hour: int) -> bool:
        known = self._opened.setdefault(node, set())
        if hour in known:
            return True
        if len(known) >= self._most_of_node or self._count >= _MOST_OPENED:
            return False
        if not self._is_near(hour):
            if hour not in self._far and len(self._far) >= self._most_far:
                return False
            self._far.add(hour)
        known.add(hour)
        self._count += 1
        return True

    def _is_near(self, hour: int) -> bool:
        now = self._now_hour
        return now is not None and now - _BEFORE_HOURS <= hour <= now + _AFTER_HOURS
