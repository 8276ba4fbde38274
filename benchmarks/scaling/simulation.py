"""What faults do to lag: engines, a table and a follower, second by second, with measured costs.

Engines commit batches of rows into outboxes, and publish what is waiting; the table takes so many
commits a second from all of them; a follower reads what was published. Faults take one of them away
for a time. Nothing is drawn: the same faults are always the same answer.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

STORAGE: Final = "storage"
FOLLOWER: Final = "follower"
ENGINES: Final = "engines"
# So long it is looked at without faults.
_USUAL_S: Final = 600


@dataclass(frozen=True, slots=True)
class Fault:
    """What is away, from when and how long; of engines the first `count`."""

    what: str
    from_s: int
    for_s: int
    count: int = 1

    def holds(self, what: str, second: int, number: int = 0) -> bool:
        """Whether it is away in this second."""
        is_within = self.from_s <= second < self.from_s + self.for_s
        return is_within and self.what == what and number < self.count


@dataclass(frozen=True, slots=True)
class Group:
    """A group of engines on one table; what comes for an engine that is away waits on disk."""

    engines: int
    rows_per_s: float
    engine_rows_per_s: float
    follower_rows_per_s: float
    commits_per_s: float
    publish_every_s: int
    follow_every_s: int


@dataclass(slots=True)
class Lags:
    """What was seen: the most seconds and rows that waited, and when all was well again."""

    published_rows: float = 0
    followed_rows: float = 0
    most_unpublished_rows: float = 0
    most_unfollowed_rows: float = 0
    most_lag_s: float = 0
    well_again_s: int | None = None


@dataclass(slots=True)
class _Engine:
    spool_rows: float = 0
    outbox: deque[tuple[int, float]] = field(default_factory=deque)


def simulate(
    group: Group, faults: Sequence[Fault], seconds: int, usual_s: float | None = None
) -> Lags:
    """Return what became of rows that come evenly for so many seconds.

    `most_lag_s` is the age of the oldest rows when a follower has them. It is well again when that
    is, for good, at most `usual_s`: what it is without a fault, and an interval more.
    """
    engines = [_Engine() for _ in range(group.engines)]
    table: deque[tuple[int, float]] = deque()
    lags = Lags()
    if usual_s is None:
        # A fault may move the times at which engines publish against those of the follower.
        alone_s = simulate(group, [], min(seconds, _USUAL_S), math.inf).most_lag_s
        usual_s = alone_s + group.publish_every_s + group.follow_every_s
    for second in range(seconds):
        for number, engine in enumerate(engines):
            engine.spool_rows += group.rows_per_s / group.engines
            if not any(fault.holds(ENGINES, second, number) for fault in faults):
                _compute(engine, group, second)
        if not any(fault.holds(STORAGE, second) for fault in faults):
            lags.published_rows += _publish(engines, table, group, second)
        if not any(fault.holds(FOLLOWER, second) for fault in faults):
            oldest_s = _follow(table, lags, group, second)
            lags.most_lag_s = max(lags.most_lag_s, second - oldest_s)
        _note(engines, table, lags, second, usual_s)
    return lags


def _compute(engine: _Engine, group: Group, second: int) -> None:
    """Move what an engine has computed in this second into its outbox."""
    rows = min(engine.spool_rows, group.engine_rows_per_s)
    if rows <= 0:
        return
    # Rows that had waited are as old as the rate says.
    waited_s = round((engine.spool_rows - rows) / (group.rows_per_s / group.engines))
    engine.spool_rows -= rows
    engine.outbox.append((second - waited_s, rows))


def _publish(
    engines: Sequence[_Engine], table: deque[tuple[int, float]], group: Group, second: int
) -> float:
    """Publish what waits in the outboxes whose turn it is: one commit has all of an engine's."""
    left = group.commits_per_s
    published = 0.0
    late = sorted(engines, key=lambda one: one.outbox[0][0] if one.outbox else second)
    for engine in late:
        if left < 1 or not engine.outbox:
            break
        if second - engine.outbox[0][0] < group.publish_every_s - 1:
            continue
        left -= 1
        published += sum(rows for _, rows in engine.outbox)
        table.extend(engine.outbox)
        engine.outbox.clear()
    return published


def _follow(table: deque[tuple[int, float]], lags: Lags, group: Group, second: int) -> int:
    """Take rows out of the table; returns when the oldest of them came in."""
    if second % group.follow_every_s:
        return second
    left = group.follower_rows_per_s * group.follow_every_s
    oldest_s = second
    while table and left > 0:
        at_s, rows = table.popleft()
        taken = min(rows, left)
        left -= taken
        lags.followed_rows += taken
        oldest_s = min(oldest_s, at_s)
        if taken < rows:
            table.appendleft((at_s, rows - taken))
    return oldest_s


def _note(
    engines: Sequence[_Engine],
    table: Sequence[tuple[int, float]],
    lags: Lags,
    second: int,
    usual_s: float,
) -> None:
    waiting = [one for engine in engines for one in engine.outbox]
    unpublished = sum(rows for _, rows in waiting) + sum(one.spool_rows for one in engines)
    unfollowed = sum(rows for _, rows in table)
    lags.most_unpublished_rows = max(lags.most_unpublished_rows, unpublished)
    lags.most_unfollowed_rows = max(lags.most_unfollowed_rows, unfollowed)
    oldest_s = min((at_s for at_s, _ in [*waiting, *table]), default=second)
    has_spooled = any(one.spool_rows > 0 for one in engines)
    if second - oldest_s > usual_s or has_spooled:
        lags.well_again_s = None
    elif lags.well_again_s is None:
        lags.well_again_s = second
