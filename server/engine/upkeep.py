"""What a live engine does beside its commits: compact, expire, delete what is no longer needed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from framewalk.engine.captures import segments_in
from framewalk.engine.errors import StoreMemoryError
from framewalk.engine.remaking import RelatingOptions, prepare_relating, relate
from framewalk.engine.runs import forgettable
from framewalk.engine.store import Borders, Compacted
from framewalk.engine.telling import Trouble, tell
from framewalk.server.changing import Remaking
from framewalk.server.engine.budget import StoreBudget
from framewalk.server.engine.disks import Reserve, disk_of
from framewalk.server.engine.expiry import ExpiryClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from framewalk.engine.runs import SpoolFollower
    from framewalk.engine.store import Store
    from framewalk.server.engine.link import EngineOptions

# Minutes are compacted in bulk, and not while most of their logs are still to come.
_COMPACT_EVERY_S: Final = 300
_OPEN_MINUTES: Final = 3
# Rows that are compacted before the engine looks at the spool again, and one transaction's more:
# a second or two. Where more wait, so many that all are done after half of the time to the next.
_COMPACT_ROWS: Final = 25_000
_COMPACT_WITHIN_S: Final = _COMPACT_EVERY_S // 2
_ROWS_AT_ONCE: Final = 50_000
# The same for nodes whose clocks are ahead; minutes later than that have no logs to come either.
_AHEAD_MINUTES: Final = 10
_EXPIRE_EVERY_S: Final = 3600
# Rows that expire before the engine looks at the spool again, and one transaction's more.
_EXPIRE_ROWS: Final = 500_000
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
# Relations of endpoints are made so often, of minutes that are over for as long as compaction says:
# both logs of their calls are mostly there. So many requests are put together at once.
_RELATE_EVERY_S: Final = 60
_MOST_REQUESTS: Final = 200_000
# A query that has begun may go on for its time and some more.
_QUERY_S: Final = 60
_NS_PER_S: Final = 10**9
_MINUTE_S: Final = 60
_DAY_S: Final = 86_400


@dataclass(slots=True)
class _Expiry:
    """What expires, as far as it has: `rows` by now."""

    borders: Borders
    steps: Iterator[int]
    rows: int = 0


class Upkeep:
    """Keeps store and spool small; each job has its own pace, none runs at the start.

    `removed_segments` counts the segments that were deleted, `given_up_segments` those of them that
    went because the disk was full. `bytes_per_day` are what minutes take, by the view. `remaking`
    makes metrics again that are asked for.
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
        if follower.archive is not None:
            prepare_relating(store)
        most = follower.caps.endpoints_per_service
        self.remaking = Remaking(store, follower.archive, most)
        self._merged_s = self._related_s = elapsed_s
        self._crowded = Trouble(
            "calls are too many to put together, relations are what called sides saw",
            "calls are put together again",
        )
        self._compacted_s = self._expired_s = self._measured_s = elapsed_s
        self._compacting: Iterator[Compacted] | None = None
        self._compact_rows = _COMPACT_ROWS
        self._compacted = Compacted()
        self._expiring: _Expiry | None = None
        self._has_too_much = False
        self._clock = ExpiryClock(now_s, elapsed_s)
        self._waiting = Trouble("metrics do not expire", "metrics expire again")

    def run(self, now_s: float, elapsed_s: float) -> None:
        """Do what is due."""
        self.make_room(elapsed_s)
        self._forget_deleted()
        if elapsed_s - self._related_s >= _RELATE_EVERY_S:
            self._related_s = elapsed_s
            # Before they are compacted: then hours and days need not be made again.
            self._attempt(lambda: self._relate(now_s, elapsed_s))
        if self._compacting is None and elapsed_s - self._compacted_s >= _COMPACT_EVERY_S:
            self._compacted_s = elapsed_s
            self._attempt(lambda: self._begin_to_compact(now_s))
        if self._compacting is not None:
            # Where it fails it begins anew, the next time.
            steps, self._compacting = self._compacting, None
            self._attempt(lambda: self._compact(steps))
        if elapsed_s - self._merged_s >= _MERGE_EVERY_S:
            self._merged_s = elapsed_s
            self._attempt(lambda: self._merge(now_s, elapsed_s))
        if elapsed_s - self._measured_s >= _MEASURE_EVERY_S:
            self._measured_s = elapsed_s
            self._attempt(self._measure)
        if self._expiring is None and elapsed_s - self._expired_s >= _EXPIRE_EVERY_S:
            self._expired_s = elapsed_s
            self._attempt(lambda: self._begin_to_expire(now_s, elapsed_s))
        if self._expiring is not None:
            expiry, self._expiring = self._expiring, None
            self._attempt(lambda: self._expire(expiry))

    def make_room(self, elapsed_s: float) -> None:
        """Delete the segments and the days that are too much; a look may be under way."""
        budget_bytes = int(self._options.budget_bytes * _BUDGET_SHARE)
        self._remove_segments(elapsed_s, budget_bytes)
        self._attempt(lambda: self._give_up_archived(elapsed_s))
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

    def _give_up_archived(self, elapsed_s: float) -> None:
        """Delete the oldest archived logs where the disk is about to be full, before all else.

        They are there for as long as a query may be reading them, and are not asked for twice.
        """
        archive, settings = self._follower.archive, self._options.archive
        if archive is None or settings is None:
            return
        disk = disk_of(archive.folder)
        wanted_bytes = self._left_bytes(archive.folder)
        if self._reserve.is_missing and disk_of(self._options.store_path).device == disk.device:
            wanted_bytes += self._reserve.size_bytes
        if disk.free_bytes >= wanted_bytes:
            return
        archive.tidy(elapsed_s, self._longest_query_s())
        files = archive.make_room(wanted_bytes - disk.free_bytes, elapsed_s)
        if files:
            tell(
                logging.WARNING,
                "disk is nearly full, oldest archived logs are deleted",
                folder=archive.folder,
                files=files,
                free_bytes=disk.free_bytes,
                wanted_bytes=wanted_bytes,
            )

    def _longest_query_s(self) -> float:
        sql = self._options.sql
        return _QUERY_S + (sql.timeout_s if sql is not None else 0)

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

    def _begin_to_compact(self, now_s: float) -> None:
        looks = _COMPACT_WITHIN_S / max(self._options.flush_interval_s, 1)
        self._compact_rows = max(_COMPACT_ROWS, int(self._store.waiting_rows() / looks))
        minute = int(now_s // _MINUTE_S)
        before, after = minute - _OPEN_MINUTES, minute + _AHEAD_MINUTES
        self._compacting = self._store.compacting(before, after, _ROWS_AT_ONCE)

    def _compact(self, steps: Iterator[Compacted]) -> None:
        """Go on with a compaction, some rows at a time: commits come between."""
        rows = 0
        for done in steps:
            self._compacted += done
            self.budget.on_progress()
            rows += done.rows_before
            if rows >= self._compact_rows:
                self._compacting = steps
                return
        total, self._compacted = self._compacted, Compacted()
        if not total.minutes:
            return
        self._store.checkpoint()
        tell(
            logging.DEBUG,
            "store compacted",
            minutes=total.minutes,
            rows_before=total.rows_before,
            rows_after=total.rows_after,
        )

    def _relate(self, now_s: float, elapsed_s: float) -> None:
        """Have relations of endpoints made of calls, of some minutes at a time."""
        archive = self._follower.archive
        if archive is None:
            return
        options = RelatingOptions(
            most_requests=_MOST_REQUESTS,
            endpoints_per_service=self._follower.caps.endpoints_per_service,
            at_most_once=True,
            on_progress=lambda _done, _all: self.budget.on_progress(),
        )
        before = int(now_s // _MINUTE_S) - _OPEN_MINUTES
        done = relate(self._store, archive, before, options)
        if done.has_more:
            # Commits come first.
            self._related_s = elapsed_s - _RELATE_EVERY_S
        if done.crowded:
            self._crowded.goes_on(f"{done.requests} requests about a minute")
        elif done.minutes:
            self._crowded.is_over()
            tell(logging.DEBUG, "relations made", minutes=done.minutes, requests=done.requests)

    def _merge(self, now_s: float, elapsed_s: float) -> None:
        """Make larger files of the archive's small ones, a few at a time, and keep its budget."""
        archive, settings = self._follower.archive, self._options.archive
        if archive is None or settings is None:
            return
        archive.tidy(elapsed_s, self._longest_query_s(), now_s)
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
        files = dropped = 0
        if settings.is_passing:
            dropped = archive.drop_related(elapsed_s)
        else:
            open_from_ns = int(now_s * _NS_PER_S) - _LATE_NS
            files = archive.compact(elapsed_s, open_from_ns, self.budget.on_progress)
        self.archive_bytes = archive.size_bytes() + archive.waiting_bytes()
        if files:
            # There may be more to do, and commits come first.
            self._merged_s = elapsed_s - _MERGE_EVERY_S
            tell(logging.DEBUG, "archived files merged", files=files)
        if dropped:
            tell(logging.DEBUG, "logs deleted of which relations were made", files=dropped)

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

    def _begin_to_expire(self, now_s: float, elapsed_s: float) -> None:
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
        self._expiring = _Expiry(borders, self._store.expiring(borders))

    def _expire(self, expiry: _Expiry) -> None:
        """Go on with an expiry, some rows at a time: a day may have very many."""
        rows = 0
        for deleted in expiry.steps:
            expiry.rows += deleted
            self.budget.on_progress()
            rows += deleted
            if rows >= _EXPIRE_ROWS:
                self._expiring = expiry
                return
        borders = expiry.borders
        self._forget(borders.earliest)
        if expiry.rows:
            tell(
                logging.INFO,
                "metrics expired",
                minutes_before=borders.minutes.isoformat(),
                hours_before=borders.hours.isoformat(),
                days_before=borders.days.isoformat(),
                rows=expiry.rows,
            )
