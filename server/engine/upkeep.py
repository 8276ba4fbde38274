"""What a live engine does beside its commits: compact, expire, delete what is no longer needed."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from framewalk.engine.captures import segments_in
from framewalk.engine.errors import StoreMemoryError
from framewalk.engine.runs import forgettable
from framewalk.engine.store import Borders
from framewalk.engine.telling import Trouble, tell
from framewalk.server.engine.budget import StoreBudget
from framewalk.server.engine.disks import Reserve, disk_of
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
# Rows that are compacted before the engine looks at the spool again: some seconds.
_COMPACT_ROWS: Final = 500_000
# The same for nodes whose clocks are ahead; minutes later than that have no logs to come either.
_AHEAD_MINUTES: Final = 10
_EXPIRE_EVERY_S: Final = 3600
_MEASURE_EVERY_S: Final = 600
# Stored segments go before their time when the spool has used up this share of its budget.
_BUDGET_SHARE: Final = 0.8
# And when less of the disk is free than two segments, or this share of a small disk.
_SEGMENTS_FREE: Final = 2
_DISK_SHARE: Final = 0.05
_STAYS: Final = "stored segment cannot be deleted, it is tried again"
# Small files of the archive are merged so often, and an hour is over for it so long after its end.
_MERGE_EVERY_S: Final = 60
_LATE_NS: Final = 300 * 10**9
# A query that has begun may go on for its time and some more.
_QUERY_S: Final = 60
_NS_PER_S: Final = 10**9
_MINUTE_S: Final = 60
_DAY_S: Final = 86_400


class Upkeep:
    """Keeps store and spool small; each job has its own pace, none runs at the start.

    `removed_segments` counts the segments that were deleted, `given_up_segments` those of them that
    went because the disk was full. `bytes_per_day` are what minutes take, by the view.
    Times named `now_s` are since 1970, `elapsed_s` is of a clock that is never set.
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
        self.given_up_segments = 0
        has_longer = max(options.hour_ttl_days, options.day_ttl_days) > options.minute_ttl_days
        self.budget = StoreBudget(store, options.store_budget_bytes, minutes_first=has_longer)
        self._told: set[Path] = set()
        self._options = options
        self._store = store
        self._follower = follower
        self._reserve = Reserve(options.store_path, options.reserve_bytes)
        self.bytes_per_day: dict[str, int] = {}
        self.archive_bytes = 0 if follower.archive is None else follower.archive.size_bytes()
        self._merged_s = elapsed_s
        self._compacted_s = self._expired_s = self._measured_s = elapsed_s
        self._has_too_much = False
        self._clock = ExpiryClock(now_s, elapsed_s)
        self._waiting = Trouble("metrics do not expire", "metrics expire again")

    def run(self, now_s: float, elapsed_s: float) -> None:
        """Do what is due."""
        self.make_room(elapsed_s)
        self._forget_deleted()
        if elapsed_s - self._compacted_s >= _COMPACT_EVERY_S:
            self._compacted_s = elapsed_s
            self._attempt(lambda: self._compact(now_s, elapsed_s))
        if elapsed_s - self._merged_s >= _MERGE_EVERY_S:
            self._merged_s = elapsed_s
            self._attempt(lambda: self._merge(now_s, elapsed_s))
        if elapsed_s - self._measured_s >= _MEASURE_EVERY_S:
            self._measured_s = elapsed_s
            self._attempt(self._measure)
        if elapsed_s - self._expired_s >= _EXPIRE_EVERY_S:
            self._expired_s = elapsed_s
            self._attempt(lambda: self._expire(now_s, elapsed_s))

    def make_room(self, elapsed_s: float) -> None:
        """Delete the segments and the days that are too much; a look may be under way."""
        budget_bytes = int(self._options.budget_bytes * _BUDGET_SHARE)
        self._remove_segments(elapsed_s, budget_bytes)
        self._give_up_segments(elapsed_s)
        for path in self._follower.undeletable.keys() - self._told:
            self._told.add(path)
            problem = self._follower.undeletable[path]
            remedy = "let the server write in the folder"
            tell(logging.WARNING, _STAYS, problem=problem, remedy=remedy)
        self._attempt(lambda: self._keep_budget(elapsed_s))
        self._reserve.restore(self._left_bytes(self._options.store_path))

    def _remove_segments(self, elapsed_s: float, budget_bytes: int) -> int:
        removed = self._follower.remove(elapsed_s, self._options.retention_s, budget_bytes)
        for path in removed:
            tell(logging.DEBUG, "segment deleted", path=path)
        self.removed_segments += len(removed)
        return len(removed)

    def _give_up_segments(self, elapsed_s: float) -> None:
        """Delete stored segments before their time where the disk is about to be full."""
        folder, store_path = self._options.spool_folder, self._options.store_path
        disk = disk_of(folder)
        wanted_bytes = self._left_bytes(folder)
        if self._reserve.is_missing and disk_of(store_path).device == disk.device:
            wanted_bytes += self._reserve.size_bytes
        if disk.free_bytes >= wanted_bytes:
            return
        total_bytes = sum(path.stat().st_size for path in segments_in(folder))
        budget_bytes = total_bytes - (wanted_bytes - disk.free_bytes)
        count = self._remove_segments(elapsed_s, budget_bytes)
        self.given_up_segments += count
        if count:
            tell(
                logging.WARNING,
                "disk is nearly full, stored segments are deleted before their time",
                folder=folder,
                segments=count,
                free_bytes=disk.free_bytes,
                wanted_bytes=wanted_bytes,
            )

    def _left_bytes(self, path: Path) -> int:
        """Return how much of a disk is to be free."""
        segments_bytes = _SEGMENTS_FREE * self._options.segment_bytes
        return min(segments_bytes, int(disk_of(path).size_bytes * _DISK_SHARE))

    def _keep_budget(self, elapsed_s: float) -> None:
        # Without a reserve the store is to have half as much, so that it can go on.
        is_missing = self._reserve.is_missing
        wanted_bytes = self._reserve.size_bytes // 2 if is_missing else 0
        free_bytes = disk_of(self._options.store_path).free_bytes if is_missing else 0
        self.budget.keep(elapsed_s, wanted_bytes, free_bytes)

    def _forget_deleted(self) -> None:
        """Forget the captures of days that were deleted, as those of expired ones."""
        before, self.budget.deleted_before = self.budget.deleted_before, None
        if before is not None:
            self._attempt(lambda: self._forget(before))

    def _forget(self, before: datetime) -> None:
        gone = forgettable(self._store, self._options.spool_folder, before.timestamp())
        if gone:
            self._store.forget(gone)

    @staticmethod
    def _attempt(job: Callable[[], None]) -> None:
        try:
            job()
        except StoreMemoryError as error:
            # Queries have it all. What is not done costs space until the next time.
            tell(logging.WARNING, "store not tidied up, it is tried again", problem=error)

    def _compact(self, now_s: float, elapsed_s: float) -> None:
        minute = int(now_s // _MINUTE_S)
        done = self._store.compact(
            minute - _OPEN_MINUTES,
            minute + _AHEAD_MINUTES,
            _COMPACT_ROWS,
            self.budget.on_progress,
        )
        if not done.minutes:
            return
        if done.rows_before >= _COMPACT_ROWS:
            # There may be more to do, and commits come first.
            self._compacted_s = elapsed_s - _COMPACT_EVERY_S
        self._store.checkpoint()
        tell(
            logging.DEBUG,
            "store compacted",
            minutes=done.minutes,
            rows_before=done.rows_before,
            rows_after=done.rows_after,
        )

    def _merge(self, now_s: float, elapsed_s: float) -> None:
        """Make larger files of the archive's small ones, a few at a time, and keep its budget."""
        archive, settings = self._follower.archive, self._options.archive
        if archive is None or settings is None:
            return
        sql = self._options.sql
        archive.tidy(elapsed_s, _QUERY_S + (sql.timeout_s if sql is not None else 0))
        deleted = archive.keep_budget(settings.budget_bytes, elapsed_s)
        if deleted:
            why, budget_bytes = "its budget is used up", settings.budget_bytes
            tell(
                logging.WARNING,
                "oldest archived logs deleted",
                why=why,
                files=deleted,
                budget_bytes=budget_bytes,
            )
        open_from_ns = int(now_s * _NS_PER_S) - _LATE_NS
        files = archive.compact(elapsed_s, open_from_ns, self.budget.on_progress)
        self.archive_bytes = archive.size_bytes()
        if files:
            # There may be more to do, and commits come first.
            self._merged_s = elapsed_s - _MERGE_EVERY_S
            tell(logging.DEBUG, "archived files merged", files=files)

    def _measure(self) -> None:
        """Tell, once, where what comes is more than the budget holds for as long as it is kept."""
        self.bytes_per_day = self._store.growth()
        per_day, days = sum(self.bytes_per_day.values()), self._options.minute_ttl_days
        has_too_much = per_day * days > self._options.store_budget_bytes
        if has_too_much and not self._has_too_much:
            tell(
                logging.WARNING,
                "store has not room for what it is to keep",
                bytes_per_day=per_day,
                days=days,
                budget_bytes=self._options.store_budget_bytes,
                remedy="raise FRAMEWALK_STORE_BUDGET_BYTES, or lower FRAMEWALK_MINUTE_DATA_TTL",
            )
        self._has_too_much = has_too_much

    def _expire(self, now_s: float, elapsed_s: float) -> None:
        newest_s = self._store.newest_minute_s(now_s)
        problem = self._clock.problem(now_s, elapsed_s, newest_s)
        if problem:
            self._waiting.goes_on(problem)
            return
        self._waiting.is_over()
        archive, settings = self._follower.archive, self._options.archive
        if archive is not None and settings is not None:
            before_ns = int((now_s - settings.ttl_days * _DAY_S) * _NS_PER_S)
            files = archive.expire(before_ns, elapsed_s)
            if files:
                tell(logging.INFO, "archived logs expired", files=files, days=settings.ttl_days)
        options = self._options
        borders = Borders(
            *(
                datetime.fromtimestamp(now_s - now_s % _DAY_S - days * _DAY_S, UTC)
                for days in (options.minute_ttl_days, options.hour_ttl_days, options.day_ttl_days)
            )
        )
        rows = self._store.expire(borders, self.budget.on_progress)
        self._forget(borders.earliest)
        if rows:
            tell(
                logging.INFO,
                "metrics expired",
                minutes_before=borders.minutes.isoformat(),
                hours_before=borders.hours.isoformat(),
                days_before=borders.days.isoformat(),
                rows=rows,
            )
