"""The segments of a spool: which there are, how far the store has each, and which can go."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from framewalk.engine.captures import (
    CAPTURE_SUFFIX,
    END_MARKER,
    CaptureBatch,
    CapturePosition,
    Damage,
    GrowingCapture,
    is_segment,
    segments_in,
)
from framewalk.engine.closing import Closing
from framewalk.engine.errors import CaptureError, StoreMemoryError
from framewalk.engine.runs.holding import Held
from framewalk.engine.stages import Carried
from framewalk.engine.store import HeldPiece, Reached

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from framewalk.engine.store import Store

_T = TypeVar("_T")
_START: CapturePosition = CapturePosition(0, 0, "")


@dataclass(slots=True)
class Segment:
    """A segment that has, or may get, more than the store.

    `end` is the furthest that the store has; `left` is what was before it when the segment was
    opened and is not in the store, `held` what was read since and waited for names when the last
    commit was made, by its end.
    """

    content: GrowingCapture
    capture: int | None = None
    end: CapturePosition = _START
    left: set[HeldPiece] = field(default_factory=set)
    held: dict[int, Held] = field(default_factory=dict)
    carried: Carried = field(default_factory=Carried)
    # Where each record batch begins that was read and is not worked on yet.
    _begins: dict[int, int] = field(default_factory=dict)

    @property
    def first_bytes(self) -> int:
        """Where the first record batch begins that the store does not have."""
        begins = [one.begin_bytes for one in self._pieces()]
        return min([self.end.offset_bytes, *begins])

    @property
    def left_bytes(self) -> int:
        """How much of what is before the end is not in the store."""
        return _size_of(_before(self.end, self._pieces()))

    def read(self, *, is_complete: bool) -> Iterator[CaptureBatch | Damage]:
        """Yield what the store does not have and was not read before."""
        begin_bytes = self.content.position.offset_bytes
        for item in self.content.read(is_complete=is_complete):
            end_bytes = item.position.offset_bytes
            passed = {piece for piece in self.left if piece.end_bytes <= end_bytes}
            self.left -= passed
            is_left = isinstance(item, Damage) or end_bytes in {one.end_bytes for one in passed}
            if end_bytes > self.end.offset_bytes or (passed and is_left):
                self._begins[end_bytes] = begin_bytes
                yield item
            begin_bytes = end_bytes
        if is_complete:
            # The file was cut off since.
            gone, self.left = sorted(self.left), set()
            for begin_bytes, end_bytes in gone:
                size_bytes = end_bytes - begin_bytes
                yield Damage(self.content.path, begin_bytes, size_bytes, self.end)

    def hold(self, batch: CaptureBatch, due_s: float, received_ns: int) -> None:
        """Have a record batch that was just read wait."""
        end_bytes = batch.position.offset_bytes
        self.held[end_bytes] = Held(batch, self._begins[end_bytes], due_s, received_ns)

    def due(self, now_s: float) -> list[CaptureBatch]:
        """Return the record batches that need not wait any more."""
        return [one.batch for one in self.held.values() if one.due_s <= now_s]

    def worked_on(self) -> None:
        """Forget where those begin that were just read."""
        self._begins.clear()

    def reached(self, positions: Sequence[CapturePosition]) -> Reached:
        """Return what a commit of what ends at these positions says of this segment."""
        end = self._furthest(positions)
        ends = {end} if end != self.end else set()
        if self.capture is None:
            # By its first record batch a segment is known, whether that waits or not.
            firsts = [*positions, *(one.batch.position for one in self.held.values())]
            ends |= {min(firsts, key=_offset)}
        waiting = self._pieces({one.offset_bytes for one in positions})
        ordered = sorted(ends, key=_offset)
        return Reached(self.capture, self.content.path, ordered, _before(end, waiting))

    def committed(self, capture: int, positions: Sequence[CapturePosition]) -> None:
        """Take what ends at these positions as stored."""
        self.capture = capture
        self.end = self._furthest(positions)
        for position in positions:
            self.held.pop(position.offset_bytes, None)

    def _furthest(self, positions: Sequence[CapturePosition]) -> CapturePosition:
        return max(*positions, self.end, key=_offset)

    def _pieces(self, without: Collection[int] = ()) -> list[HeldPiece]:
        held = (one.piece for end_bytes, one in self.held.items() if end_bytes not in without)
        return [*self.left, *held]


def _offset(position: CapturePosition) -> int:
    return position.offset_bytes


def _before(end: CapturePosition, pieces: Iterable[HeldPiece]) -> list[HeldPiece]:
    return sorted(one for one in pieces if one.end_bytes < end.offset_bytes)


def _size_of(pieces: Iterable[HeldPiece]) -> int:
    return sum(one.end_bytes - one.begin_bytes for one in pieces)


class SpoolSegments(Closing):
    """The segments of a folder, and what is open of them.

    `unreadable` has those that could not be opened at the last look, `undeletable` those that could
    not be deleted, and why; both are tried again. Where the store has no memory, `make_room` is
    called and the same is tried once more. Times are those of a clock that is never set.
    """

    def __init__(
        self, folder: Path, store: Store, now_s: float, make_room: Callable[[], None]
    ) -> None:
        self.unreadable: dict[Path, str] = {}
        self.undeletable: dict[Path, str] = {}
        self.open: dict[Path, Segment] = {}
        self._folder = folder
        self._store = store
        self._make_room = make_room
        paths = segments_in(folder)
        known = self.with_room(lambda: store.ends_at(paths))
        held = self.with_room(lambda: store.held([capture for capture, _ in known.values()]))
        self._known_bytes = {
            path: end.offset_bytes - _size_of(held.get(capture, ()))
            for path, (capture, end) in known.items()
        }
        # Only these can be copies of captures, and of these ones: a replay needs the store for
        # itself.
        self._maybe_copies = frozenset(paths) - known.keys()
        self._newest_known = store.newest()
        stored = [path for path in paths[:-1] if self._has_all_of(path)]
        self._stored_at_s = dict.fromkeys(stored, now_s)

    def listed(self) -> list[Path]:
        """Return all there are; those that are gone are open no more.

        Raises OSError where the folder cannot be listed.
        """
        # Where a folder is gone or must not be read, a glob finds nothing and says nothing.
        os.scandir(self._folder).close()
        paths = segments_in(self._folder)
        there = set(paths)
        for path in self.open.keys() - there:
            self.open.pop(path).content.close()
        for known in (self._stored_at_s, self._known_bytes, self.unreadable, self.undeletable):
            for path in known.keys() - there:
                del known[path]
        return paths

    def opened(self, paths: Sequence[Path]) -> Iterator[Path]:
        """Yield the segments that may have more than the store, opened one after the other."""
        for path in paths:
            if path in self._stored_at_s:
                continue
            if path not in self.open:
                try:
                    self.open[path] = self._opened_one(path)
                except (CaptureError, OSError) as error:
                    # It may have been deleted since it was listed.
                    if os.path.lexists(path):
                        self.unreadable[path] = str(error)
                    continue
            self.unreadable.pop(path, None)
            yield path

    def finished(self, paths: Sequence[Path], now_s: float) -> None:
        """Close segments of which everything is in the store."""
        segments = [self.open.pop(path) for path in paths]
        captures = [one.capture for one in segments if one.capture is not None]
        self.with_room(lambda: self._store.finish(*captures))
        for segment in segments:
            segment.content.close()
            path = segment.content.path
            self._known_bytes[path] = segment.end.offset_bytes
            self._stored_at_s[path] = now_s

    def unread_bytes(self) -> int:
        """Return the size of what is in the spool and not in the store."""
        paths = (path for path in segments_in(self._folder) if path not in self._stored_at_s)
        return sum(map(self._unread_bytes, paths))

    def remove(self, now_s: float, retention_s: float, budget_bytes: int) -> list[Path]:
        """Delete the segments that are stored and older than that, or in the way of new ones.

        Their age counts from the time they were stored, or from when this was made for those that
        were stored before. The oldest go early while all segments together have more than
        `budget_bytes`.
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
        for segment in self.open.values():
            segment.content.close()
        self.open.clear()

    def with_room(self, function: Callable[[], _T]) -> _T:
        """Use the store; a transaction that found no memory has left nothing behind."""
        try:
            return function()
        except StoreMemoryError:
            self._make_room()
            return function()

    def _opened_one(self, path: Path) -> Segment:
        capture, end = self._known(path) or (None, None)
        if capture is None or end is None:
            return Segment(GrowingCapture(path))
        left = self.with_room(lambda: self._store.held([capture])).get(capture, frozenset())
        # What is left is read again from the start: a restart is rare.
        content = GrowingCapture(path, None if left else end)
        return Segment(content, capture, end, set(left))

    def _known(self, path: Path) -> tuple[int, CapturePosition] | None:
        """Find the capture that a segment is, and how far the store has it.

        It was read from the same path, or (a copy of it was replayed) begins with the same record
        batch. If that is further than the file goes, a part of it was cut off since; what it
        held is counted.
        """
        known = self.with_room(lambda: self._store.ends_at([path])).get(path)
        if known is not None or path not in self._maybe_copies:
            return known
        with GrowingCapture(path) as capture:
            first = next(capture.read(is_complete=True), None)
        if first is None:
            return None
        begin, newest = first.position, self._newest_known
        return self.with_room(lambda: self._store.end_of_alike(begin, newest))

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
        segment = self.open.get(path)
        if segment is None:
            return max(_size_bytes(path) - self._known_bytes.get(path, 0), 0)
        rest_bytes = max(_size_bytes(path) - segment.end.offset_bytes, 0)
        return rest_bytes + segment.left_bytes


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        # Deleted since it was listed.
        return 0


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
