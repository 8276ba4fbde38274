"""The logs that engines share, in an archive of the follower: it is filled, upkept, and related.

What comes of a minute depends on the logs alone, so every follower makes the same of it: nobody is
elected to.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from framewalk.engine.archive import Archive, ArchiveOptions, Mode, note_changed
from framewalk.engine.caps import DEFAULT_CAPS
from framewalk.engine.closing import Closing
from framewalk.engine.errors import StoreMemoryError, TableError
from framewalk.engine.remaking import Related, RelatingOptions, prepare_relating, relate
from framewalk.engine.sharing import LogsFollower, LogsTable
from framewalk.engine.telling import Trouble, tell
from framewalk.server.engine import ExpiryClock
from framewalk.server.following.status import Versions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from framewalk.engine.sharing import SharedTable
    from framewalk.engine.store import Store

# As in a server that receives (server/engine/upkeep.py, server/engine/process.py).
MOST_REQUESTS: Final = 200_000
_RELATE_EVERY_S: Final = 60
_OPEN_MINUTES: Final = 3
_MERGE_EVERY_S: Final = 60
_LATE_NS: Final = 300 * 10**9
_EXPIRE_EVERY_S: Final = 3600
_MOST_HOURS: Final = 8
_MOST_HOURS_OF_NODE: Final = 30
_MOST_FAR_HOURS: Final = 100
_QUERY_S: Final = 60
_NS_PER_S: Final = 10**9
_MINUTE_S: Final = 60
_DAY_S: Final = 86_400
_BEHIND: Final = "its table of logs does not have what engines have published"


@dataclass(frozen=True, slots=True)
class KeptLogs:
    """Where a follower has its archive, and how long and how much of it is kept.

    No query runs for longer than `longest_query_s`. So many endpoints of a called service keep
    their names. Requests of a minute and a window around it are put together up to `most_requests`.
    """

    folder: Path
    ttl_days: int
    budget_bytes: int
    longest_query_s: float
    endpoints_per_service: int = DEFAULT_CAPS.endpoints_per_service
    most_requests: int = MOST_REQUESTS


class FollowedLogs(Closing):
    """An archive of a store that follows `states`, which is open and has logs beside it.

    Times named `now_s` are since 1970, `elapsed_s` is of a clock that is never set.

    Raises StoreError where the archive cannot be used, or is of other logs; TableError.
    """

    def __init__(
        self, store: Store, states: SharedTable, kept: KeptLogs, now_s: float, elapsed_s: float
    ) -> None:
        self._store = store
        self._states = states
        self._plan = states.plan()
        self._kept = kept
        self._table = LogsTable(states.uri)
        self._table.open_beside(states)
        options = ArchiveOptions(
            Mode.ALL,
            most_hours=_MOST_HOURS,
            most_hours_of_node=_MOST_HOURS_OF_NODE,
            most_far_hours=_MOST_FAR_HOURS,
            gives_up=True,
        )
        self._archive = Archive(store, kept.folder, options)
        try:
            prepare_relating(store)
            self._follower = LogsFollower(store, self._archive, self._table)
        except BaseException:
            self._archive.close()
            raise
        for problem in self._archive.problems:
            event = "archived logs cannot be read, they are left out"
            tell(logging.ERROR, event, problem=problem)
        self._crowded = Trouble(
            "calls are too many to put together, relations are what called sides saw",
            "calls are put together again",
        )
        self._steps: Iterator[object] | None = None
        self._related_s: float | None = None
        self._clock = ExpiryClock(now_s, elapsed_s)
        self._merged_s = self._expired_s = elapsed_s

    def note_minutes(self, minutes: Collection[int]) -> None:
        """Note minutes that get relations as called sides saw them: they are made again."""
        note_changed(self._store, minutes)

    @property
    def versions(self) -> Versions:
        """How far the archive is."""
        merged = self._follower.version
        return Versions(merged, self._table.version if merged >= 0 else -1)

    def step(self, now_s: float, elapsed_s: float) -> bool:
        """Do one step of bringing the archive to where the table is; tells whether there is more.

        All states that the store has by now have their logs in the table. Raises TableError.
        """
        steps = self._steps or self._round(now_s, elapsed_s)
        self._steps = None
        if next(steps, None) is None:
            return False
        self._steps = steps
        return True

    def upkeep(self, now_s: float, elapsed_s: float) -> None:
        """Do what is due: merge small files, delete what is too much or too old."""
        archive, kept = self._archive, self._kept
        if elapsed_s - self._merged_s >= _MERGE_EVERY_S:
            archive.tidy(elapsed_s, _QUERY_S + kept.longest_query_s, now_s)
            deleted = archive.keep_budget(kept.budget_bytes, elapsed_s)
            if deleted:
                facts = {"files": deleted, "budget_bytes": kept.budget_bytes}
                why = "its budget is used up"
                tell(logging.WARNING, "oldest archived logs deleted", why=why, **facts)
            more = archive.compact(elapsed_s, int(now_s * _NS_PER_S) - _LATE_NS)
            self._merged_s = elapsed_s - (_MERGE_EVERY_S if more else 0)
        if elapsed_s - self._expired_s >= _EXPIRE_EVERY_S:
            self._expired_s = elapsed_s
            if self._clock.problem(now_s, elapsed_s, self._store.newest_minute_s(now_s)):
                # The store's own upkeep tells it.
                return
            files = archive.expire(int((now_s - kept.ttl_days * _DAY_S) * _NS_PER_S), elapsed_s)
            if files:
                tell(logging.INFO, "archived logs expired", files=files, days=kept.ttl_days)

    def close(self) -> None:
        """Let another process write the archive."""
        self._archive.close()

    def _round(self, now_s: float, elapsed_s: float) -> Iterator[object]:
        self._table.open_beside(self._states)
        yield from self._follower.follow()
        if self._related_s is not None and elapsed_s - self._related_s < _RELATE_EVERY_S:
            return
        lacking = self._follower.lacking()
        if lacking:
            problem = f"{_BEHIND} ({', '.join(lacking[:20])})"
            raise TableError(self._states.uri, problem, "restore it")
        self._related_s = elapsed_s
        while (done := self._relate(int(now_s // _MINUTE_S) - _OPEN_MINUTES)).has_more:
            yield done

    def _relate(self, before_minute: int) -> Related:
        """Have relations of endpoints made of calls, of some minutes at a time."""
        options = RelatingOptions(
            most_requests=self._kept.most_requests,
            endpoints_per_service=self._kept.endpoints_per_service,
            at_most_once=True,
            plan=self._plan,
        )
        try:
            done = relate(self._store, self._archive, before_minute, options)
        except StoreMemoryError as error:
            event = "no memory for relations of endpoints, they are tried again"
            tell(logging.WARNING, event, problem=error)
            return Related()
        if done.crowded:
            most = self._kept.most_requests
            self._crowded.goes_on(f"more than {most:,} requests about a minute; see --relate-most")
        elif done.minutes:
            self._crowded.is_over()
            tell(logging.DEBUG, "relations made", minutes=done.minutes, requests=done.requests)
        return done
