"""What a store that follows a table needs besides: it is compacted, expires, and has a budget."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from framewalk.engine.errors import StoreMemoryError
from framewalk.engine.store import Borders
from framewalk.engine.telling import Trouble, tell
from framewalk.server.engine import ExpiryClock, StoreBudget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from framewalk.engine.store import Store

# As in a server that receives (server/engine/upkeep.py).
_COMPACT_EVERY_S: Final = 300
_OPEN_MINUTES: Final = 3
_AHEAD_MINUTES: Final = 10
# One that catches up gets so many rows within a minute. They are rolled up before there are many
# more, and more of them in a transaction: the more wait, and the fewer at once, the more it costs.
_MUCH_ROWS: Final = 1_000_000
_ROWS_AT_ONCE: Final = 50_000
_ROWS_OF_MUCH: Final = 250_000
_EXPIRE_EVERY_S: Final = 3600
_MINUTE_S: Final = 60
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Kept:
    """How long minutes, hours and days of metrics are kept, and how large a store may be."""

    ttl_days: tuple[int, int, int]
    budget_bytes: int


class FollowerUpkeep:
    """Keeps a store small, a step at a time; none runs at the start.

    While it `has_much` to roll up no more should be merged, or it never has less. Times named
    `now_s` are since 1970, `elapsed_s` is of a clock that is never set.
    """

    def __init__(self, store: Store, kept: Kept, now_s: float, elapsed_s: float) -> None:
        self._store = store
        self._kept = kept
        minutes, hours, days = kept.ttl_days
        has_longer = max(hours, days) > minutes
        self.budget = StoreBudget(store, kept.budget_bytes, minutes_first=has_longer)
        self._clock = ExpiryClock(now_s, elapsed_s)
        self._waiting = Trouble("metrics do not expire", "metrics expire again")
        self._compacted_s = self._expired_s = elapsed_s
        self._steps: Iterator[object] = iter(())
        self.has_much = False
        # Rows that were of open minutes when it was compacted last.
        self._left_rows = 0

    def run(self, now_s: float, elapsed_s: float) -> bool:
        """Do one step of what is due; tells whether there was one."""
        try:
            return self._run(now_s, elapsed_s)
        except StoreMemoryError as error:
            # Queries have it all. What is not done costs space until the next time.
            self._steps, self.has_much = iter(()), False
            self._left_rows = self._store.waiting_rows()
            tell(logging.WARNING, "store not tidied up, it is tried again", problem=error)
            return False

    def _run(self, now_s: float, elapsed_s: float) -> bool:
        if next(self._steps, None) is not None:
            return True
        self.budget.keep(elapsed_s)
        self.has_much = self._store.waiting_rows() - self._left_rows >= _MUCH_ROWS
        if self.has_much or elapsed_s - self._compacted_s >= _COMPACT_EVERY_S:
            self._compacted_s = elapsed_s
            self._steps = self._compacting(
                int(now_s // _MINUTE_S), _ROWS_OF_MUCH if self.has_much else _ROWS_AT_ONCE
            )
        elif elapsed_s - self._expired_s >= _EXPIRE_EVERY_S:
            self._expired_s = elapsed_s
            self._steps = self._expiring(now_s, elapsed_s)
        else:
            return False
        return True

    def _compacting(self, minute: int, rows_at_once: int) -> Iterator[object]:
        before, after = minute - _OPEN_MINUTES, minute + _AHEAD_MINUTES
        yield from self._store.compacting(before, after, rows_at_once)
        self._left_rows = self._store.waiting_rows()
        self._store.checkpoint()

    def _expiring(self, now_s: float, elapsed_s: float) -> Iterator[object]:
        problem = self._clock.problem(now_s, elapsed_s, self._store.newest_minute_s(now_s))
        if problem:
            self._waiting.goes_on(problem)
            return
        self._waiting.is_over()
        today_s = now_s - now_s % _DAY_S
        borders = Borders(
            *(datetime.fromtimestamp(today_s - days * _DAY_S, UTC) for days in self._kept.ttl_days)
        )
        rows = 0
        for deleted in self._store.expiring(borders):
            rows += deleted
            yield deleted
        if rows:
            before = borders.minutes.isoformat()
            tell(logging.INFO, "metrics expired", minutes_before=before, rows=rows)
