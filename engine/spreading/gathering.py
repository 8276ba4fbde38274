"""What was found in stretches and waits for its commit: `Pending` (engine/runs) for who has others.

States stay with the workers until the commit, and are rolled up there. Only where more is named
than the caps allow it is done here, part by part.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl

from framewalk.engine.archive import note_unarchived
from framewalk.engine.counters import Counters
from framewalk.engine.runs import MOST_HELD_BYTES, MOST_HELD_ROWS, Pending
from framewalk.engine.schemas import AHEAD_REASON, CLOCKS_SCHEMA
from framewalk.engine.spreading.packing import unpack
from framewalk.engine.spreading.stretches import Rolling
from framewalk.engine.stages import add_clocks
from framewalk.engine.states import minutes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from framewalk.engine.captures import CaptureBatch
    from framewalk.engine.runs import Admission, Waiting
    from framewalk.engine.spreading.pool import Pool
    from framewalk.engine.spreading.stretches import Found
    from framewalk.engine.states import States
    from framewalk.engine.store import Store


@dataclass(frozen=True, slots=True)
class Taken:
    """A stretch that was found by a pool, and its record batches."""

    batches: Sequence[CaptureBatch]
    name: str
    number: str
    found: Found
    pool: Pool

    @property
    def clock_ns(self) -> int:
        """What the capture's own clock is after it."""
        return self.found.after.clock_ns

    @property
    def logs(self) -> int:
        """How many logs it has."""
        return self.found.counters.logs

    def add_to(self, pending: Waiting) -> None:
        """Have it wait for its commit."""
        if isinstance(pending, Gathered):
            pending.take(self)
        elif isinstance(pending, Pending):
            pending.begin(self.found.size_bytes)
            for part in self.pool.parts(self.number):
                pending.add(part)
            self.pool.forget([self.number])


@dataclass(slots=True)
class Gathered:
    """What was found since the last commit: as `Pending`, and commits fall where they do there."""

    store: Store
    keeps_ahead: Callable[[pl.DataFrame], bool]
    admission: Admission
    pool: Pool
    minutes: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.Int64))
    _taken: list[Taken] = field(default_factory=list)
    _clocks: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CLOCKS_SCHEMA))
    _counters: Counters = field(default_factory=Counters)
    _dropped: Counters = field(default_factory=Counters)
    _beyond: Counters = field(default_factory=Counters)
    _counts_ahead: bool = False

    @property
    def counters(self) -> Counters:
        """Those of all logs, without the dropping of those that are not decided about."""
        return self._counters + self._beyond

    def take(self, taken: Taken) -> None:
        """Take what was found in the next stretch."""
        self._taken.append(taken)
        self._counters += taken.found.counters
        if not taken.found.clocks.is_empty():
            self._clocks = add_clocks([self._clocks, taken.found.clocks])

    def is_due(self, commit_logs: int) -> bool:
        """Tell whether there is enough for a commit."""
        found = [one.found for one in self._taken]
        rows = sum(one.rows + one.ahead_rows for one in found) + self._clocks.height
        size_bytes = sum(one.size_bytes for one in found)
        is_much = self._counters.logs >= commit_logs or size_bytes >= MOST_HELD_BYTES
        return is_much or rows >= MOST_HELD_ROWS // 2

    def decide(self) -> None:
        """Decide whether the logs that are ahead count: to be called before they are rolled up."""
        self._counts_ahead = self.keeps_ahead(self._clocks)
        if self._counts_ahead:
            self._counters += sum((one.found.ahead_counters for one in self._taken), Counters())
            return
        logs = sum(one.found.ahead_logs for one in self._taken)
        self._dropped = Counters(dropped=Counter({AHEAD_REASON: logs}))
        self._counters += self._dropped

    def rolled_up(self, others: Counters | None = None) -> Iterator[States]:
        """Yield the states that are to be written; `others` are counted with the first of them."""
        found = [one.found for one in self._taken]
        named = [one.named for one in found]
        if self._counts_ahead:
            named += [one.ahead_named for one in found]
        numbers = [one.number for one in self._taken]
        if self.admission.has_room(named):
            yield from self._within_caps(numbers, self._dropped + (others or Counters()))
        else:
            yield from self._in_parts(others)
        self.pool.forget(numbers)

    def list_archived(self, store: Store) -> None:
        """List that nothing was archived; to be called where all states are written."""
        note_unarchived(store, self.minutes.to_list())

    def _within_caps(self, numbers: Sequence[str], extra: Counters) -> Iterator[States]:
        for states in self._of_workers(numbers):
            named, beyond = self.admission.with_others(states)
            self._beyond += beyond
            self.minutes = pl.concat([self.minutes, minutes_of(named)]).unique()
            yield replace(named, counters=named.counters + extra)
            extra = Counters()

    def _of_workers(self, numbers: Sequence[str]) -> Iterator[States]:
        task = Rolling(self._taken[0].name, self._counts_ahead)
        number = self.pool.submit(task, numbers, is_urgent=True)
        self.pool.found(number)
        yield from map(unpack, self.pool.parts(number))
        self.pool.forget([number])

    def _in_parts(self, others: Counters | None) -> Iterator[States]:
        """Do as one process does: part by part, in their order."""
        pending = Pending(self.store, lambda _: self._counts_ahead, admission=self.admission)
        for taken in self._taken:
            for part in self.pool.parts(taken.number):
                pending.add(part)
        pending.decide()
        yield from pending.rolled_up(others)
        self.minutes, self._counters = pending.minutes, pending.counters
