"""What a live engine does beside its commits: compact, expire, delete what is no longer needed."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from framewalk.engine.errors import StoreMemoryError
from framewalk.engine.runs import forgettable
from framewalk.engine.telling import Trouble, tell
from framewalk.server.engine.expiry import ExpiryClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from framewalk.engine.runs import SpoolFollower
    from framewalk.engine.store import Store
    from framewalk.server.engine.link import EngineOptions

# Minutes are compacted in bulk, and not while most of their logs are still to come.
_COMPACT_EVERY_S: Final = 300
_OPEN_MINUTES: Final = 3
# The same for nodes whose clocks are ahead; minutes later than that have no logs to come either.
_AHEAD_MINUTES: Final = 10
_EXPIRE_EVERY_S: Final = 3600
# Stored segments go before their time when the spool has used up this share of its budget.
_BUDGET_SHARE: Final = 0.8
_STAYS: Final = "stored segment cannot be deleted, it is tried again"
_MINUTE_S: Final = 60
_DAY_S: Final = 86_400


class Upkeep:
    """Keeps store and spool small; each job has its own pace, none runs at the start.

    `removed_segments` counts the segments that were deleted. Times named `now_s` are since 1970,
    `elapsed_s` is of a clock that is never set.
    """

    def __init__(
        self,
        options: EngineOptions,
        store: Store,
        follower: SpoolFollower,
        now_s: float,
        elapsed_s: float,
    ) -> None:
        self.removed_segments = 0
        self._told: set[Path] = set()
        self._options = options
        self._store = store
        self._follower = follower
        self._compacted_s = self._expired_s = elapsed_s
        self._clock = ExpiryClock(now_s, elapsed_s)
        self._waiting = Trouble("metrics do not expire", "metrics expire again")

    def run(self, now_s: float, elapsed_s: float) -> None:
        """Do what is due."""
        self.remove_segments(elapsed_s)
        if elapsed_s - self._compacted_s >= _COMPACT_EVERY_S:
            self._compacted_s = elapsed_s
            self._attempt(lambda: self._compact(now_s))
        if elapsed_s - self._expired_s >= _EXPIRE_EVERY_S:
            self._expired_s = elapsed_s
            self._attempt(lambda: self._expire(now_s, elapsed_s))

    def remove_segments(self, elapsed_s: float) -> None:
        """Delete the segments that are no longer needed; a look may be under way."""
        options = self._options
        budget_bytes = int(options.budget_bytes * _BUDGET_SHARE)
        for path in self._follower.remove(elapsed_s, options.retention_s, budget_bytes):
            self.removed_segments += 1
            tell(logging.DEBUG, "segment deleted", path=path)
        for path in self._follower.undeletable.keys() - self._told:
            self._told.add(path)
            problem = self._follower.undeletable[path]
            remedy = "let the server write in the folder"
            tell(logging.WARNING, _STAYS, problem=problem, remedy=remedy)

    @staticmethod
    def _attempt(job: Callable[[], None]) -> None:
        try:
            job()
        except StoreMemoryError as error:
            # Queries have it all. What is not done costs space until the next time.
            tell(logging.WARNING, "store not tidied up, it is tried again", problem=error)

    def _compact(self, now_s: float) -> None:
        minute = int(now_s // _MINUTE_S)
        done = self._store.compact(minute - _OPEN_MINUTES, minute + _AHEAD_MINUTES)
        if not done.minutes:
            return
        self._store.checkpoint()
        tell(
            logging.DEBUG,
            "store compacted",
            minutes=done.minutes,
            rows_before=done.rows_before,
            rows_after=done.rows_after,
        )

    def _expire(self, now_s: float, elapsed_s: float) -> None:
        newest_s = self._store.newest_minute_s(now_s)
        problem = self._clock.problem(now_s, elapsed_s, newest_s)
        if problem:
            self._waiting.goes_on(problem)
            return
        self._waiting.is_over()
        today_s = now_s - now_s % _DAY_S
        before = datetime.fromtimestamp(today_s - self._options.metrics_ttl_days * _DAY_S, UTC)
        gone = forgettable(self._store, self._options.spool_folder, before.timestamp())
        rows = self._store.expire(before)
        if gone:
            self._store.forget(gone)
        if rows:
            tell(logging.INFO, "metrics expired", before=before.isoformat(), rows=rows)
