"""States that wait for their commit, bounded in rows and bytes whatever they come from.

A commit ends with a record batch, for positions are there only. What one record batch amounts to
may be more than memory holds: that is written early, into the transaction that the commit ends.

Logs that are ahead of their arrival wait for the commit, which tells whether they count. Where they
are too much to hold that is asked before, of the nodes that were heard up to then.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

import polars as pl

from framewalk.engine.archive import Kept, note_unarchived
from framewalk.engine.counters import Counters
from framewalk.engine.schemas import AHEAD_REASON, CLOCKS_SCHEMA
from framewalk.engine.stages import add_clocks, roll_up_in_parts, with_ahead
from framewalk.engine.states import minutes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from framewalk.engine.archive import Archive, ArchivedFile
    from framewalk.engine.captures import CaptureBatch, CaptureReader
    from framewalk.engine.oal import Plan
    from framewalk.engine.runs.admission import Admission
    from framewalk.engine.stages import Carried, PeerStates
    from framewalk.engine.states import States
    from framewalk.engine.store import Store

# Rows of states, of the logs' peers, that are held: some 50 MB.
MOST_HELD_ROWS: Final = 200_000
# Messages whose states are held: these keep the texts of the logs, such as paths.
MOST_HELD_BYTES: Final = 64 * 2**20
# Logs that are held for the archive.
_MOST_KEPT_BYTES: Final = 128 * 2**20


class Target(Protocol):
    """Where states are written early: a store, see Store.append."""

    @property
    def plan(self) -> Plan:
        """The definitions whose states are written."""

    def append(self, states: States) -> None:
        """Write states that count when the next commit does."""


class Waiting(Protocol):
    """What waits for its commit, as whoever commits sees it; see Pending."""

    minutes: pl.Series

    @property
    def counters(self) -> Counters:
        """Those of all logs, without the dropping of those that are not decided about."""

    def is_due(self, commit_logs: int) -> bool:
        """Tell whether there is enough for a commit."""

    def decide(self) -> None:
        """Decide whether the logs that are ahead count."""

    def rolled_up(self, others: Counters | None = None) -> Iterator[States]:
        """Yield the states that are to be written."""

    def list_archived(self, store: Store) -> None:
        """List what was archived, or that nothing was."""


class Computed(Protocol):
    """What others have computed of some record batches."""

    @property
    def batches(self) -> Sequence[CaptureBatch]:
        """The record batches, in their order."""

    @property
    def clock_ns(self) -> int:
        """What the capture's own clock is after them."""

    @property
    def logs(self) -> int:
        """How many logs they have."""

    def add_to(self, pending: Waiting) -> None:
        """Have it wait for its commit."""


class Spread(Protocol):
    """Has stretches of captures computed by others; commits are the replay's own."""

    def pending(
        self,
        store: Store,
        keeps_ahead: Callable[[pl.DataFrame], bool],
        admission: Admission,
        archive: Archive | None,
    ) -> Waiting:
        """Return what takes what is computed until the next commit."""

    def reader(self, path: Path) -> CaptureReader:
        """Open a capture of which the store has nothing."""

    def drop(self, path: Path) -> None:
        """Drop what was begun of a capture, of which the store has something by now."""

    def found(self, path: Path, reader: CaptureReader, carried: Carried) -> Iterator[Computed]:
        """Yield what is found in the rest of a capture, in its order."""


@dataclass(slots=True)
class _Ahead:
    """Logs that are ahead and not decided about, and what tells whether they count.

    `rows` are those of their states, `size_bytes` is that of earlier messages they keep.
    """

    parts: list[PeerStates] = field(default_factory=list)
    clocks: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CLOCKS_SCHEMA))
    logs: int = 0
    rows: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class Pending:
    """What was computed since the last commit.

    `admission` keeps it within caps when it is rolled up; without one there are none.
    `keeps_ahead` tells from the clocks of nodes (CLOCKS_SCHEMA) whether logs that are ahead count.
    `rows` and `minutes` are about what was written. `has_written` tells whether something is in the
    store's transaction already. With an `archive` the results have what it keeps of their logs:
    that is written with their states, and `list_archived` is to be called in the commit.
    """

    store: Target
    keeps_ahead: Callable[[pl.DataFrame], bool]
    on_progress: Callable[[], None] = lambda: None
    admission: Admission | None = None
    most_rows: int = MOST_HELD_ROWS
    archive: Archive | None = None
    rows: int = 0
    minutes: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.Int64))
    has_written: bool = False
    _found: list[PeerStates] = field(default_factory=list)
    _found_rows: int = 0
    _found_bytes: int = 0
    _ahead: _Ahead = field(default_factory=_Ahead)
    _counters: Counters = field(default_factory=Counters)
    _dropped: Counters = field(default_factory=Counters)
    # What is beyond the caps of what was rolled up last; before that it is in the counters.
    _beyond: Counters = field(default_factory=Counters)
    _written_rows: int = 0
    _kept_bytes: int = 0
    _archived: list[ArchivedFile] = field(default_factory=list)
    # Those of what was rolled up last.
    _latest: list[ArchivedFile] = field(default_factory=list)

    @property
    def counters(self) -> Counters:
        """Those of all logs, without the dropping of those that are not decided about."""
        return self._counters + self._beyond

    def begin(self, size_bytes: int) -> None:
        """Note how large messages are whose states are about to come."""
        self._found_bytes += size_bytes

    def add(self, found: PeerStates) -> None:
        """Take states, and write early what is too much to hold."""
        self._take(found)
        held_bytes = self._found_bytes + self._ahead.size_bytes
        is_much = held_bytes >= 2 * MOST_HELD_BYTES or self._kept_bytes >= 2 * _MOST_KEPT_BYTES
        if self._held_rows() >= self.most_rows or is_much:
            self._write_early()
        self.on_progress()

    def is_due(self, commit_logs: int) -> bool:
        """Tell whether there is enough for a commit."""
        is_much = self._counters.logs >= commit_logs or self._found_bytes >= MOST_HELD_BYTES
        is_much |= self._kept_bytes >= _MOST_KEPT_BYTES
        return is_much or self._held_rows() >= self.most_rows // 2 or self.has_written

    def decide(self) -> None:
        """Decide whether the logs that are ahead count: to be called before they are rolled up."""
        ahead, self._ahead = self._ahead, _Ahead()
        if self.keeps_ahead(ahead.clocks):
            self._found += ahead.parts
            self._counters += sum((part.counters for part in ahead.parts), Counters())
            self._found_rows += ahead.rows
            return
        dropped = Counters(dropped=Counter({AHEAD_REASON: ahead.logs}))
        self._counters += dropped
        self._dropped += dropped

    def rolled_up(self, others: Counters | None = None) -> Iterator[States]:
        """Yield the states that are to be written; `others` are counted with the first of them.

        May be called again where nothing of it was written.
        """
        extra = self._dropped + (others or Counters())
        self.rows = self._written_rows
        for states in self._within_caps():
            self.rows += sum(scope.scalars.height for scope in states.scopes.values())
            self.minutes = pl.concat([self.minutes, minutes_of(states)]).unique()
            yield replace(states, counters=states.counters + extra)
            extra = Counters()

    def list_archived(self, store: Store) -> None:
        """List what was archived, or that nothing was; to be called where all states are written.

        That is in the transaction of the commit.
        """
        if self.archive is not None:
            self.archive.list_files([*self._archived, *self._latest], self.minutes.to_list())
        else:
            note_unarchived(store, self.minutes.to_list())

    def _write_archive(self, found: list[PeerStates]) -> None:
        if self.archive is None:
            return
        # Of an attempt that was undone.
        self.archive.remove(self._latest)
        kept = [part.kept for part in found if isinstance(part.kept, Kept)]
        self._latest = self.archive.write(kept)

    def _within_caps(self) -> Iterator[States]:
        found, self._beyond = self._found, Counters()
        if self.admission is not None:
            found, self._beyond = self.admission.admitted(found)
        self._write_archive(found)
        for states in roll_up_in_parts(found, self.store.plan):
            if self.admission is None:
                yield states
                continue
            named, beyond = self.admission.with_others(states)
            self._beyond += beyond
            yield named

    def _held_rows(self) -> int:
        return self._found_rows + self._ahead.rows + self._ahead.clocks.height

    def _take(self, found: PeerStates) -> None:
        ahead = self._ahead
        if not found.clocks.is_empty():
            ahead.clocks = add_clocks([ahead.clocks, found.clocks])
            ahead.logs += int(found.clocks["ahead_logs"].sum())
        others, *parts = with_ahead(found)
        self._kept_bytes += _kept_bytes([others, *parts])
        ahead.parts += parts
        ahead.rows += sum(part.rows for part in parts)
        self._found.append(replace(others, clocks=found.clocks.clear(), ahead=None))
        self._found_rows += others.rows
        self._counters += others.counters

    def _write_early(self) -> None:
        ahead = self._ahead
        if ahead.parts:
            ahead.size_bytes += self._found_bytes
        is_many = 2 * (ahead.rows + ahead.clocks.height) >= self.most_rows
        if is_many or ahead.size_bytes >= 2 * MOST_HELD_BYTES:
            self.decide()
        self.has_written = True
        for states in self.rolled_up():
            self.store.append(states)
            self.on_progress()
        self._written_rows = self.rows
        self._counters += self._beyond
        self._beyond = Counters()
        self._found, self._found_rows, self._found_bytes = [], 0, 0
        self._archived += self._latest
        self._latest, self._kept_bytes = [], _kept_bytes(ahead.parts)
        self._dropped = Counters()


def _kept_bytes(parts: list[PeerStates]) -> int:
    return sum(part.kept.size_bytes for part in parts if part.kept is not None)
