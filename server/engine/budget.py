"""The store's budget: the oldest days are deleted when it takes more, whatever a clock says."""

from __future__ import annotations

import datetime as dt
import logging
from typing import TYPE_CHECKING, Final

from framewalk.engine.store import Borders
from framewalk.engine.telling import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from framewalk.engine.store import Room, Store, StoredDay

_LOOK_EVERY_S: Final = 60
# Of all rows: so much may go at once, if it is more than a day. A store has many days where logs
# of any age come, and few of them are worth a checkpoint.
_SHARE_AT_ONCE: Final = 0.01
# Deleted rows take half as much as the others at most; where it is more, somebody reads.
_MOST_SCATTERED: Final = 1.5
_DAY: Final = dt.timedelta(days=1)
# Before all that DuckDB has nanoseconds for.
_NEVER: Final = dt.datetime(1678, 1, 1, tzinfo=dt.UTC)


class StoreBudget:
    """Keeps the store within `budget_bytes` of blocks in use and write-ahead log.

    What deleted rows still take, until a checkpoint can free it, is over the budget for that time
    and makes nothing else be deleted. The newest day stays, however large it is. With
    `minutes_first` hours and days stay as long as there is more than a day of minutes.
    `on_progress` is called between transactions, `cancel_queries` before a day is deleted.
    """

    def __init__(self, store: Store, budget_bytes: int, *, minutes_first: bool = False) -> None:
        self.on_progress: Callable[[], None] = lambda: None
        self.cancel_queries: Callable[[], None] = lambda: None
        self.deleted_days = 0
        self.deleted_rows = 0
        self.used_bytes = 0
        self.deleted_before: dt.datetime | None = None
        self._store = store
        self._budget_bytes = budget_bytes
        self._minutes_first = minutes_first
        self._looked_s = -float(_LOOK_EVERY_S)
        self._is_told = False

    def keep(self, elapsed_s: float, disk_bytes: int = 0, free_bytes: int = 0) -> None:
        """Delete a day, or a few small ones, if there is too much.

        That is so, too, where `free_bytes` of the disk and the free blocks of the store are not
        `disk_bytes` together. Looks once a minute, and again at once where that has helped.
        """
        if elapsed_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = elapsed_s
        room = self._room()
        why = self._why(room, disk_bytes, free_bytes)
        is_kept = room.used_bytes > _MOST_SCATTERED * self._budget_bytes
        if (why or is_kept) and not self._is_told:
            # While somebody reads nothing is freed: that is no reason to delete more.
            self.cancel_queries()
        if why or room.used_bytes > self._budget_bytes:
            room = self._freed()
        why = self._why(room, disk_bytes, free_bytes)
        self._is_told = self._is_told and bool(why)
        if why:
            self._delete(why, room)

    def _why(self, room: Room, disk_bytes: int, free_bytes: int) -> str:
        """Say why there is too much; the empty string where there is not."""
        if room.used_bytes - room.deleted_bytes > self._budget_bytes:
            return "its budget is used up"
        is_short = free_bytes + room.free_bytes + room.deleted_bytes < disk_bytes
        return "the disk is full" if is_short else ""

    def _freed(self) -> Room:
        self._store.checkpoint()
        return self._room()

    def _delete(self, why: str, room: Room) -> None:
        days = self._store.days(coarser=not self._minutes_first)
        chosen = _oldest(days)
        is_minutes = self._minutes_first and bool(chosen)
        if not chosen and self._minutes_first:
            days = self._store.days(coarser=True)
            chosen = _oldest(days)
        if not chosen:
            self._tell_of_newest(why, room, days)
            return
        before = chosen[-1].begin + _DAY
        others = _NEVER if is_minutes else before
        borders = Borders(before, others, others)
        rows = self._store.expire(borders, self.on_progress)
        if not is_minutes:
            self.deleted_before = before
        self.deleted_days += len(chosen)
        self.deleted_rows += rows
        tell(
            logging.WARNING,
            "oldest metrics deleted",
            why=why,
            days=_named(chosen),
            rows=rows,
            used_bytes=room.used_bytes,
            budget_bytes=self._budget_bytes,
        )
        if self._freed().used_bytes < room.used_bytes:
            # There may be more to delete.
            self._looked_s = -float(_LOOK_EVERY_S)

    def _room(self) -> Room:
        room = self._store.room()
        self.used_bytes = room.used_bytes
        return room

    def _tell_of_newest(self, why: str, room: Room, days: Sequence[StoredDay]) -> None:
        if self._is_told:
            return
        self._is_told = True
        tell(
            logging.WARNING,
            "store has too much, its only day stays",
            why=why,
            day=_named(days),
            used_bytes=room.used_bytes,
            budget_bytes=self._budget_bytes,
            remedy="raise FRAMEWALK_STORE_BUDGET_BYTES, make room, or use fewer definitions",
        )


def _oldest(days: Sequence[StoredDay]) -> Sequence[StoredDay]:
    """Return the oldest day, and those after it that are few rows with it; never the newest."""
    most_rows = _SHARE_AT_ONCE * sum(day.rows for day in days)
    count = rows = 0
    for day in days[:-1]:
        rows += day.rows
        if count and rows > most_rows:
            break
        count += 1
    return days[:count]


def _named(days: Sequence[StoredDay]) -> str:
    """Name days by the first and the last of them."""
    names = [f"{day.begin:%Y-%m-%d}" for day in days]
    return " to ".join(dict.fromkeys(names[:1] + names[-1:]))
