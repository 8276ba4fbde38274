"""Live: the segments of a spool -> a store, while they are written (design.md, decision 1).

A segment is a capture whose streams each lie in one record batch, so nothing is carried from one
run to the next. The store knows how far it has each segment: states and positions are committed
together, after the segment itself was forced to disk, and so each message is counted once.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from framewalk.engine.caps import DEFAULT_CAPS
from framewalk.engine.captures import (
    CAPTURE_SUFFIX,
    END_MARKER,
    CaptureBatch,
    Damage,
    GrowingCapture,
    is_segment,
    segments_in,
)
from framewalk.engine.closing import Closing
from framewalk.engine.counters import Counters
from framewalk.engine.errors import CaptureError, StoreMemoryError
from framewalk.engine.runs.admission import Admission, BeyondCaps
from framewalk.engine.runs.clocks import NodeClocks
from framewalk.engine.runs.pending import Pending
from framewalk.engine.runs.quarantine import Quarantine, without
from framewalk.engine.runs.reading import NOTE_NAME, Reading, ReadingNote, Span, grouped
from framewalk.engine.schemas import DEFAULT_MOST_AHEAD_S
from framewalk.engine.stages import Carried, first_phase, pieces
from framewalk.engine.store import Reached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from framewalk.engine.captures import CapturePosition
    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.store import Store

_T = TypeVar("_T")

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
class _Segment:
    """A segment that has, or may get, more than the store."""

    content: GrowingCapture
    capture: int | None = None
    carried: Carried = field(default_factory=Carried)


@dataclass(slots=True)
class _Read:
    """What was read since the last commit, and the segments that came to their end."""

    computed: Pending
    reached: dict[Path, list[CapturePosition]] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    left_out: int = 0
    ended: list[Path] = field(default_factory=list)


class SpoolFollower(Closing):
    """Commits what becomes whole in the segments of a folder.

    Segments are written one after the other, in the order of their names: where there is a later
    one, or the name is not after `complete_through`, nothing more is written. Until then what is
    not whole may still become so, however long a disk takes, and is waited for. `has_all` tells
    whether the last look left nothing behind that was there when it began. `unreadable` has the
    segments that could not be opened at the last look, `undeletable` those that could not be
    deleted, and why; both are tried again. Where the store has no memory, `make_room` is called
    and the same is tried once more. After an exception the follower may be ahead of its store:
    make a new one. What is set aside in `quarantine` is left out and counted; segments are
    committed a record batch at a time up to where `careful_to_bytes` says.

    Logs that are more than `most_ahead_s` ahead of their arrival are dropped, unless the receiver's
    clock is behind; what is beyond `caps` is dropped or called `others`. Times are those of a clock
    that is never set, not those of logs.
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
        self.has_all = False
        self.unreadable: dict[Path, str] = {}
        self.undeletable: dict[Path, str] = {}
        self.careful_to_bytes: dict[Path, int] = {}
        self._note = ReadingNote(folder / NOTE_NAME)
        self.quarantine = Quarantine(folder / QUARANTINE)
        self._folder = folder
        self._store = store
        self._make_room = make_room
        self._clocks = NodeClocks()
        self._admission = Admission(store.names)
        self._beyond = BeyondCaps()
        self._open: dict[Path, _Segment] = {}
        paths = segments_in(folder)
        known = self._with_room(lambda: store.ends_at(paths))
        self._known_bytes = {path: end.offset_bytes for path, (_, end) in known.items()}
        # Only these can be copies of captures, and of these ones: a replay needs the store for
        # itself.
        self._maybe_copies = frozenset(paths) - known.keys()
        self._newest_known = store.newest()
        stored = [path for path in paths[:-1] if self._has_all_of(path)]
        self._stored_at_s = dict.fromkeys(stored, now_s)

    def follow(
        self,
        entities: Entities,
        now_s: float,
        commit_logs: int = COMMIT_LOGS,
        on_progress: Callable[[], None] = lambda: None,
    ) -> Iterator[Flushed]:
        """Commit all that is whole now, and yield after each commit.

        Segments may be removed between two commits. `on_progress` is called every few seconds at
        least, however long a commit takes. Raises OSError where the folder cannot be listed.
        """
        self._store.discard()
        paths = self._listed()
        self._leave_out_those_gone(paths)
        self.has_all = False
        is_stuck = False
        read_on = partial(self._new_read, now_s, on_progress)
        pending = read_on()
        for path in self._opened(paths):
            is_complete = path != paths[-1] or path.name <= self.complete_through
            segment = self._open[path]
            read = segment.content.read(is_complete=is_complete)
            careful_to_bytes = self.careful_to_bytes.get(path, 0)
            for group, is_alone in grouped(segment.content, read, careful_to_bytes):
                self._work(group, segment, entities, pending)
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
        paths = (path for path in segments_in(self._folder) if path not in self._stored_at_s)
        return sum(map(self._unread_bytes, paths))

    def remove(self, now_s: float, retention_s: float, budget_bytes: int) -> list[Path]:
        """Delete the segments that are stored and older than that, or in the way of new ones.

        Their age counts from the time they were stored, or from when the follower was made for
        those that were stored before. The oldest go early while all segments together have more
        than `budget_bytes`.
        """
        sizes_bytes = {path: _size_bytes(path) for path in segments_in(self._folder)}
        total_bytes = sum(sizes_bytes.values())
        removed = []
        for path in sorted(self._stored_at_s):
            is_old = now_s - self._stored_at_s[path] >= retention_s
            if not is_old and total_bytes <= budget_bytes:
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                self.undeletable[path] = f"{path}: {(error.strerror or str(error)).lower()}"
                continue
            total_bytes -= sizes_bytes.get(path, 0)
            del self._stored_at_s[path]
            removed.append(path)
        return removed

    def close(self) -> None:
        """Close all files."""
        for segment in self._open.values():
            segment.content.close()
        self._open.clear()

    def _listed(self) -> list[Path]:
        # Where a folder is gone or must not be read, a glob finds nothing and says nothing.
        os.scandir(self._folder).close()
        return segments_in(self._folder)

    def _leave_out_those_gone(self, paths: Sequence[Path]) -> None:
        there = set(paths)
        for path in self._open.keys() - there:
            self._open.pop(path).content.close()
        for known in (self._stored_at_s, self._known_bytes, self.unreadable, self.undeletable):
            for path in known.keys() - there:
                del known[path]

    def _opened(self, paths: Sequence[Path]) -> Iterator[Path]:
        """Yield the segments that may have more than the store, opened one after the other."""
        for path in paths:
            if path in self._stored_at_s:
                continue
            if path not in self._open:
                try:
                    self._open[path] = self._opened_one(path)
                except (CaptureError, OSError) as error:
                    # It may have been deleted since it was listed.
                    if os.path.lexists(path):
                        self.unreadable[path] = str(error)
                    continue
            self.unreadable.pop(path, None)
            yield path

    def _opened_one(self, path: Path) -> _Segment:
        capture, position = self._known(path) or (None, None)
        if position is not None:
            self._known_bytes[path] = position.offset_bytes
        return _Segment(GrowingCapture(path, position), capture)

    def _known(self, path: Path) -> tuple[int, CapturePosition] | None:
        """Find the capture that a segment is, and how far the store has it.

        It was read from the same path, or (a copy of it was replayed) begins with the same record
        batch. If that is further than the file goes, a part of it was cut off since; what it
        held is counted.
        """
        known = self._with_room(lambda: self._store.ends_at([path])).get(path)
        if known is not None or path not in self._maybe_copies:
            return known
        with GrowingCapture(path) as capture:
            first = next(capture.read(is_complete=True), None)
        if first is None:
            return None
        begin, newest = first.position, self._newest_known
        return self._with_room(lambda: self._store.end_of_alike(begin, newest))

    def _has_all_of(self, path: Path) -> bool:
        """Tell whether the store has a whole segment; its end marker does not count."""
        try:
            size_bytes = path.stat().st_size
        except OSError:
            return False
        known_bytes = self._known_bytes.get(path)
        return known_bytes is not None and known_bytes >= size_bytes - len(END_MARKER)

    def _unread_bytes(self, path: Path) -> int:
        # What was read and is not committed is read again, should this process end.
        return max(_size_bytes(path) - self._known_bytes.get(path, 0), 0)

    def _new_read(self, now_s: float, on_progress: Callable[[], None]) -> _Read:
        keeps_ahead = partial(self._clocks.keeps_ahead, now_s=now_s)
        self._admission.caps = self.caps
        self._admission.begin()
        return _Read(Pending(self._store, keeps_ahead, on_progress, self._admission))

    def _work(
        self,
        group: Sequence[CaptureBatch | Damage],
        segment: _Segment,
        entities: Entities,
        pending: _Read,
    ) -> None:
        positions = pending.reached.setdefault(segment.content.path, [])
        positions.extend(item.position for item in group)
        self._write_down(pending)
        batches = [item for item in group if isinstance(item, CaptureBatch)]
        for messages in pieces([self._allowed(one, segment, pending) for one in batches]):
            pending.computed.begin(messages)
            for found, carried in first_phase(
                messages,
                segment.carried,
                entities,
                self._store.plan,
                most_ahead_s=self.most_ahead_s,
                caps=self.caps,
            ):
                segment.carried = carried
                pending.computed.add(found)
        pending.damages += [item for item in group if isinstance(item, Damage)]

    def _write_down(self, pending: _Read) -> None:
        """Note what is about to be worked on, beside what is not committed yet."""
        spans = [
            Span(path, self._known_bytes.get(path, 0), positions[-1].offset_bytes)
            for path, positions in pending.reached.items()
        ]
        # Without a note a death is harder to explain, but a full disk must not stop the commit.
        with suppress(OSError):
            self._note.write(Reading(tuple(spans)))

    def _allowed(self, batch: CaptureBatch, segment: _Segment, pending: _Read) -> pa.RecordBatch:
        rows = self.quarantine.rows_of(segment.content.path, batch)
        pending.left_out += len(rows)
        return without(batch.messages, rows)

    def _settle(self, pending: _Read, now_s: float) -> Iterator[Flushed]:
        """Commit what was read, and close what has ended: all of it is in the store then."""
        flushed = [self._commit(pending, now_s)] if pending.reached else []
        self._close(pending.ended, now_s)
        yield from flushed

    def _commit(self, pending: _Read, now_s: float) -> Flushed:
        segments = [self._open[path] for path in pending.reached]
        for segment in segments:
            # What is counted must not be lost: the sender would send it again.
            segment.content.sync()
        computed, lost = pending.computed, _lost(pending)
        computed.decide()
        reached = [
            Reached(segment.capture, path, positions)
            for segment, (path, positions) in zip(segments, pending.reached.items(), strict=True)
        ]

        def commit() -> tuple[int, ...]:
            states = computed.rolled_up(lost)
            return self._store.commit_many(reached, states, ends_only=True)

        # What was written early is undone with the rest: only another engine can try again.
        captures = commit() if computed.has_written else self._with_room(commit)
        for segment, capture in zip(segments, captures, strict=True):
            segment.capture = capture
        for path, positions in pending.reached.items():
            self._known_bytes[path] = positions[-1].offset_bytes
        self._note.clear()
        self._clocks.tell(now_s)
        self._beyond.add(computed.counters, now_s)
        latest = computed.minutes.max()
        return Flushed(
            computed.counters + lost,
            computed.rows,
            latest if isinstance(latest, int) else None,
            tuple(pending.damages),
        )

    def _close(self, ended: Sequence[Path], now_s: float) -> None:
        segments = [self._open.pop(path) for path in ended]
        finished = [one.capture for one in segments if one.capture is not None]
        self._with_room(lambda: self._store.finish(*finished))
        for segment in segments:
            segment.content.close()
            self._stored_at_s[segment.content.path] = now_s

    def _with_room(self, function: Callable[[], _T]) -> _T:
        """Use the store; a transaction that found no memory has left nothing behind."""
        try:
            return function()
        except StoreMemoryError:
            self._make_room()
            return function()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        # Deleted since it was listed.
        return 0


def _lost(pending: _Read) -> Counters:
    """Count what was left out: damaged bytes, and messages that are set aside."""
    damaged_bytes = sum(damage.size_bytes for damage in pending.damages)
    lost = Counter(damaged_bytes=damaged_bytes, quarantined=pending.left_out)
    return Counters(messages=pending.left_out, quality=lost)


def forgettable(store: Store, folder: Path, before_s: float) -> list[int]:
    """Return the captures in a store that are segments begun before a time, and are gone.

    A segment's name is the time of its begin, in ns since 1970, of 20 digits.
    """
    before_name = f"{int(before_s * 10**9):020d}{CAPTURE_SUFFIX}"
    return [
        capture
        for capture, path in store.paths(before_name).items()
        if is_segment(path) and not (folder / path.name).exists()
    ]
