"""Live: the segments of a spool -> a store, while they are written (design.md, decision 1).

A segment is a capture whose streams each lie in one record batch, so nothing is carried from one
run to the next. The store knows how far it has each segment: states and positions are committed
together, after the segment itself was forced to disk, and so each message is counted once.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final

from framewalk.engine.caps import DEFAULT_CAPS
from framewalk.engine.captures import CaptureBatch, Damage
from framewalk.engine.closing import Closing
from framewalk.engine.counters import Counters
from framewalk.engine.runs.admission import Admission, BeyondCaps
from framewalk.engine.runs.clocks import NodeClocks
from framewalk.engine.runs.holding import Holding, Moment
from framewalk.engine.runs.pending import Pending
from framewalk.engine.runs.quarantine import Quarantine, without
from framewalk.engine.runs.reading import NOTE_NAME, Reading, ReadingNote, Span, grouped
from framewalk.engine.runs.segments import SpoolSegments
from framewalk.engine.schemas import DEFAULT_MOST_AHEAD_S
from framewalk.engine.stages import first_phase, pieces, received_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from framewalk.engine.archive import Archive
    from framewalk.engine.captures import CapturePosition
    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.runs.segments import Segment
    from framewalk.engine.store import Store

# Logs between two commits of an engine that catches up: what it holds in memory meanwhile.
COMMIT_LOGS: Final = 500_000
# Segments that have been read to their end and are still open: each has a file descriptor.
_MOST_ENDED: Final = 64
# Where a spool keeps the messages that stop an engine.
QUARANTINE: Final = "quarantine"


@dataclass(frozen=True, slots=True)
class Flushed:
    """What one commit added: `rows` of states, none later than `latest_minute` (since 1970)."""

    counters: Counters
    rows: int
    latest_minute: int | None
    damages: tuple[Damage, ...]


@dataclass(slots=True)
class _Read:
    """What was read since the last commit, and the segments that came to their end."""

    computed: Pending
    reached: dict[Path, list[CapturePosition]] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    left_out: int = 0
    ended: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at all segments; `begins_bytes` says where in each it begins."""

    entities: Entities
    now: Moment | None
    begins_bytes: dict[Path, int] = field(default_factory=dict)


class SpoolFollower(Closing):
    """Commits what becomes whole in the segments of a folder.

    Segments are written one after the other, in the order of their names: where there is a later
    one, or the name is not after `complete_through`, nothing more is written. Until then what is
    not whole may still become so, however long a disk takes, and is waited for. `has_all` tells
    whether the last look left nothing behind that was there when it began, apart from what waits
    for names (`waits_since_ns`). `unreadable` and `undeletable` are those of SpoolSegments. Where
    the store has no memory, `make_room` is called and the same is tried once more. After an
    exception the follower may be ahead of its store: make a new one. What is set aside in
    `quarantine` is left out and counted; segments are committed a record batch at a time up to
    where `careful_to_bytes` says.

    Record batches with addresses that nobody knows wait as `holding` says; the others do not wait
    for them. Logs that are more than `most_ahead_s` ahead of their arrival are dropped, unless the
    receiver's clock is behind; what is beyond `caps` is dropped or called `others`. Logs that count
    are added to an `archive`. Times are those of a clock that is never set, not those of logs.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        now_s: float,
        complete_through: str = "",
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        self.complete_through = complete_through
        self.most_ahead_s: float = DEFAULT_MOST_AHEAD_S
        self.caps = DEFAULT_CAPS
        self.holding = Holding()
        self.archive: Archive | None = None
        self.has_all = False
        self.careful_to_bytes: dict[Path, int] = {}
        self._note = ReadingNote(folder / NOTE_NAME)
        self.quarantine = Quarantine(folder / QUARANTINE)
        self._store = store
        self._clocks = NodeClocks()
        self._admission = Admission(store.names)
        self._beyond = BeyondCaps()
        self._segments = SpoolSegments(folder, store, now_s, make_room)

    @property
    def unreadable(self) -> Mapping[Path, str]:
        """The segments that could not be opened at the last look, and why."""
        return self._segments.unreadable

    @property
    def undeletable(self) -> Mapping[Path, str]:
        """The segments that could not be deleted, and why."""
        return self._segments.undeletable

    @property
    def waits_since_ns(self) -> int | None:
        """When the first of what waits for names was received, in ns since 1970; None if none."""
        held = (one for segment in self._open.values() for one in segment.held.values())
        return min((one.received_ns for one in held), default=None)

    def follow(
        self,
        entities: Entities,
        now_s: float,
        commit_logs: int = COMMIT_LOGS,
        on_progress: Callable[[], None] = lambda: None,
        clock_ns: int | None = None,
    ) -> Iterator[Flushed]:
        """Commit all that is whole now and need not wait, and yield after each commit.

        Segments may be removed between two commits. `on_progress` is called every few seconds at
        least, however long a commit takes. `clock_ns` is now by the receiver's clock, in ns since
        1970; without it nothing waits for names. Raises OSError where the folder cannot be listed.
        """
        self._store.discard()
        paths = self._segments.listed()
        self.has_all = False
        is_stuck = False
        look = _Look(entities, None if clock_ns is None else Moment(now_s, clock_ns))
        read_on = partial(self._new_read, now_s, on_progress)
        pending = read_on()
        for path in self._segments.opened(paths):
            is_complete = path != paths[-1] or path.name <= self.complete_through
            segment = self._open[path]
            look.begins_bytes[path] = segment.first_bytes
            due = segment.due(now_s if look.now is not None else float("inf"))
            read = chain(due, segment.read(is_complete=is_complete))
            careful_to_bytes = self.careful_to_bytes.get(path, 0)
            for group, is_alone in grouped(segment.content, read, careful_to_bytes):
                self._work(group, segment, look, pending, is_alone=is_alone)
                if is_alone or pending.computed.is_due(commit_logs):
                    yield from self._settle(pending, now_s)
                    pending = read_on()
            is_stuck |= segment.content.is_stuck
            if is_complete or segment.content.has_ended:
                pending.ended.append(path)
            if len(pending.ended) >= _MOST_ENDED:
                yield from self._settle(pending, now_s)
                pending = read_on()
        yield from self._settle(pending, now_s)
        self.has_all = not is_stuck and not self.unreadable

    def unread_bytes(self) -> int:
        """Return the size of what is in the spool and not in the store."""
        return self._segments.unread_bytes()

    def remove(self, now_s: float, retention_s: float, budget_bytes: int) -> list[Path]:
        """Delete the segments that are no longer needed; see SpoolSegments."""
        return self._segments.remove(now_s, retention_s, budget_bytes)

    def close(self) -> None:
        """Close all files."""
        self._segments.close()

    @property
    def _open(self) -> dict[Path, Segment]:
        return self._segments.open

    def _new_read(self, now_s: float, on_progress: Callable[[], None]) -> _Read:
        keeps_ahead = partial(self._clocks.keeps_ahead, now_s=now_s)
        self._admission.caps = self.caps
        self._admission.begin()
        archive = self.archive
        return _Read(
            Pending(self._store, keeps_ahead, on_progress, self._admission, archive=archive)
        )

    def _work(
        self,
        group: Sequence[CaptureBatch | Damage],
        segment: Segment,
        look: _Look,
        pending: _Read,
        *,
        is_alone: bool,
    ) -> None:
        self._write_down(group, segment, look, pending)
        # What is read with care is committed at once, to know what does harm.
        waiting = [] if is_alone else self._waiting(group, segment, look)
        segment.worked_on()
        now = [item for item in group if item.position.offset_bytes not in waiting]
        if not now:
            return
        positions = pending.reached.setdefault(segment.content.path, [])
        positions.extend(item.position for item in now)
        batches = [item for item in now if isinstance(item, CaptureBatch)]
        for messages in pieces([self._allowed(one, segment, pending) for one in batches]):
            pending.computed.begin(messages.nbytes)
            for found, carried in first_phase(
                messages,
                segment.carried,
                look.entities,
                self._store.plan,
                most_ahead_s=self.most_ahead_s,
                caps=self.caps,
                keep=self.archive.keep if self.archive is not None else None,
            ):
                segment.carried = carried
                pending.computed.add(found)
        # No later record batch has more of these streams, and views of strings would keep whole
        # decoded batches in memory.
        segment.carried = replace(segment.carried, nodes=None, connections=None)
        pending.damages += [item for item in now if isinstance(item, Damage)]

    def _waiting(
        self, group: Sequence[CaptureBatch | Damage], segment: Segment, look: _Look
    ) -> frozenset[int]:
        """Have those wait that are to wait for names; returns their ends."""
        if look.now is None or not self.holding.wait_s:
            return frozenset()
        new = [
            item
            for item in group
            if isinstance(item, CaptureBatch) and item.position.offset_bytes not in segment.held
        ]
        waited_in = [each for each in self._open.values() if each.held]
        if len(waited_in) >= _MOST_ENDED and not segment.held:
            return frozenset()
        held = [one for each in waited_in for one in each.held.values()]
        held_bytes = sum(one.batch.messages.nbytes for one in held)
        waiting = self.holding.waiting(new, look.entities, look.now, held_bytes)
        for one in waiting:
            due_s = self.holding.due_s(one, look.now)
            segment.hold(one, due_s, received_ns(one.messages))
        return frozenset(one.position.offset_bytes for one in waiting)

    def _write_down(
        self,
        group: Sequence[CaptureBatch | Damage],
        segment: Segment,
        look: _Look,
        pending: _Read,
    ) -> None:
        """Note what is about to be worked on, beside what is not committed yet."""
        worked_on = {path: list(positions) for path, positions in pending.reached.items()}
        positions = worked_on.setdefault(segment.content.path, [])
        positions += [item.position for item in group]
        spans = [
            Span(path, look.begins_bytes[path], max(one.offset_bytes for one in positions))
            for path, positions in worked_on.items()
        ]
        # Without a note a death is harder to explain, but a full disk must not stop the commit.
        with suppress(OSError):
            self._note.write(Reading(tuple(spans)))

    def _allowed(self, batch: CaptureBatch, segment: Segment, pending: _Read) -> pa.RecordBatch:
        rows = self.quarantine.rows_of(segment.content.path, batch)
        pending.left_out += len(rows)
        return without(batch.messages, rows)

    def _settle(self, pending: _Read, now_s: float) -> Iterator[Flushed]:
        """Commit what was read, and close what has ended: all of it is in the store then."""
        flushed = [self._commit(pending, now_s)] if pending.reached else []
        self._note.clear()
        ended = [path for path in pending.ended if not self._open[path].held]
        self._segments.finished(ended, now_s)
        yield from flushed

    def _commit(self, pending: _Read, now_s: float) -> Flushed:
        segments = [self._open[path] for path in pending.reached]
        for segment in segments:
            # What is counted must not be lost: the sender would send it again.
            segment.content.sync()
        computed, lost = pending.computed, _lost(pending)
        computed.decide()
        each = list(zip(segments, pending.reached.values(), strict=True))
        reached = [segment.reached(positions) for segment, positions in each]

        def commit() -> tuple[int, ...]:
            states = computed.rolled_up(lost)
            also = partial(computed.list_archived, self._store)
            return self._store.commit_many(reached, states, ends_only=True, also=also)

        # What was written early is undone with the rest: only another engine can try again.
        captures = commit() if computed.has_written else self._segments.with_room(commit)
        for (segment, positions), capture in zip(each, captures, strict=True):
            segment.committed(capture, positions)
        self._clocks.tell(now_s)
        self._beyond.add(computed.counters, now_s)
        latest = computed.minutes.max()
        return Flushed(
            computed.counters + lost,
            computed.rows,
            latest if isinstance(latest, int) else None,
            tuple(pending.damages),
        )


def _lost(pending: _Read) -> Counters:
    """Count what was left out: damaged bytes, and messages that are set aside."""
    damaged_bytes = sum(damage.size_bytes for damage in pending.damages)
    lost = Counter(damaged_bytes=damaged_bytes, quarantined=pending.left_out)
    return Counters(messages=pending.left_out, quality=lost)
