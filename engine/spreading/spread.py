"""Captures in stretches that workers compute, taken in their order.

What streams had said before a stretch is found out here, without logs (`follow_heads`), so that
stretches of one capture are computed at once. Each is compared with what its worker found before it
in full: where the two differ (a message that cannot be decoded for its logs) what comes after it is
done again, and so it is where a stream comes near its caps.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Self

from framewalk.engine.captures import CaptureReader, can_be_cut
from framewalk.engine.closing import Closing
from framewalk.engine.errors import CaptureError
from framewalk.engine.runs import Pending, without
from framewalk.engine.spreading.gathering import Gathered, Taken
from framewalk.engine.spreading.pool import IN_FLIGHT
from framewalk.engine.spreading.stretches import Stretch
from framewalk.engine.stages import (
    Carried,
    Named,
    add_bounds,
    comes_near,
    follow_heads,
    pieces,
    regroup,
    said_alike,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import polars as pl

    from framewalk.engine.archive import Archive
    from framewalk.engine.captures import CaptureBatch
    from framewalk.engine.runs import Admission, Waiting
    from framewalk.engine.spreading.pool import Pool
    from framewalk.engine.spreading.stretches import Found, Setup
    from framewalk.engine.stages import Bound
    from framewalk.engine.store import Store

# After so many that had to be done again a capture's stretches are computed one after the other.
_MOST_AGAIN: Final = 3


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A stretch that workers have; `after` is what streams have said then, as far as is known."""

    group: list[CaptureBatch]
    stretch: Stretch
    number: str
    after: Carried


@dataclass(slots=True)
class _Course:
    """How far a capture is.

    `settled` is what streams had said, and named, after what was taken, up to `settled_bytes`;
    `carried` what they have said before the next of `groups`, from `begin_bytes` on. `again` counts
    how often stretches had to be done again; `in_order` is for one at a time.
    """

    path: Path
    reader: CaptureReader
    groups: Iterator[list[CaptureBatch]]
    settled: Carried
    settled_bytes: int
    carried: Carried
    begin_bytes: int
    submitted: deque[_Submitted] = field(default_factory=deque)
    again: int = 0
    in_order: bool = False

    @classmethod
    def of(cls, path: Path, reader: CaptureReader, carried: Carried) -> Self:
        """Begin where a reader is."""
        at = reader.position.offset_bytes
        groups = regroup(reader, attrgetter("messages"))
        return cls(path, reader, groups, carried, at, carried, at)

    def back(self) -> list[str]:
        """Go back to what is settled; returns the numbers of stretches that are to be dropped."""
        numbers = [one.number for one in self.submitted]
        self.groups = chain([one.group for one in self.submitted], self.groups)
        self.submitted.clear()
        self.carried, self.begin_bytes = self.settled, self.settled_bytes
        return numbers


class SpreadRun(Closing):
    """What a replay asks of workers; see `Spread` in engine/runs/replayer.py.

    `paths` are those of the replay, in its order. `is_new` tells whether the store has nothing of a
    capture: those are begun while others before them are still computed. `rows_out` returns the
    rows of a record batch that are to be left out.
    """

    def __init__(
        self,
        pool: Pool,
        setup: Setup,
        paths: Sequence[Path],
        is_new: Callable[[Path], bool],
        rows_out: Callable[[Path, CaptureBatch], Sequence[int]],
    ) -> None:
        self._pool = pool
        self._caps = setup.caps
        self._keeps_logs = setup.keep is not None
        self._next = deque(paths)
        self._is_new = is_new
        self._rows_out = rows_out
        self._courses: dict[Path, _Course] = {}
        self._taken: set[Path] = set()
        # The stretch that is waited for.
        self.at: Stretch | None = None
        pool.begin(setup)

    def pending(
        self,
        store: Store,
        keeps_ahead: Callable[[pl.DataFrame], bool],
        admission: Admission,
        archive: Archive | None,
    ) -> Waiting:
        """Return what takes what is found until the next commit."""
        if self._keeps_logs:
            return Pending(store, keeps_ahead, admission=admission, archive=archive)
        return Gathered(store, keeps_ahead, admission, self._pool)

    def reader(self, path: Path) -> CaptureReader:
        """Open a capture of which the store has nothing; it may have been begun."""
        course = self._courses.get(path)
        return CaptureReader(path) if course is None else course.reader

    def drop(self, path: Path) -> None:
        """Drop what was begun of a capture."""
        course = self._courses.pop(path, None)
        if course is not None:
            self._pool.forget(course.back())
            course.reader.close()

    def found(self, path: Path, reader: CaptureReader, carried: Carried) -> Iterator[Taken]:
        """Yield what is found in the rest of a capture, stretch by stretch."""
        self._taken.add(path)
        course = self._courses.get(path) or _Course.of(path, reader, carried)
        self._courses[path] = course
        while True:
            self._fill(course)
            if not course.submitted:
                del self._courses[path]
                return
            one = course.submitted.popleft()
            self.at = one.stretch
            taken = self._settled(course, one, self._pool.found(one.number))
            self.at = None
            yield taken

    def close(self) -> None:
        """Drop all that was begun."""
        for path in list(self._courses):
            self.drop(path)

    def _settled(self, course: _Course, one: _Submitted, found: Found) -> Taken:
        """Go on from what a worker found, and go back where it is not what it was taken for."""
        if not course.in_order and self._is_crowded(course, found):
            # Who has named what is known one stretch after the other only.
            course.in_order = True
            self._pool.forget([one.number, *course.back()])
            one = self._submitted(course, one.group)
            found = self._pool.found(one.number)
        after = found.after
        if not course.in_order:
            after = replace(after, named=Named(_bounds(course, found)))
        course.settled, course.settled_bytes = after, one.stretch.end_bytes
        if course.in_order or not said_alike(after, one.after):
            course.again += 1
            course.in_order = course.again >= _MOST_AGAIN
            self._pool.forget(course.back())
        return Taken(one.group, str(one.stretch), one.number, found, self._pool)

    def _is_crowded(self, course: _Course, found: Found) -> bool:
        return comes_near(_bounds(course, found), found.after.named.bounds, self._caps)

    def _fill(self, course: _Course) -> None:
        """Have as many stretches in flight as keep all workers busy."""
        self._fill_from(course)
        later = deque(one for one in self._courses.values() if one is not course)
        while self._has_room():
            if not later and (begun := self._begun()) is not None:
                later.append(begun)
            if not later:
                return
            self._fill_from(later.popleft())

    def _fill_from(self, course: _Course) -> None:
        while self._has_room() and not (course.in_order and course.submitted):
            group = next(course.groups, None)
            if group is None:
                return
            one = self._submitted(course, group)
            course.submitted.append(one)
            course.begin_bytes = one.stretch.end_bytes
            if not course.in_order:
                course.carried = one.after

    def _has_room(self) -> bool:
        in_flight = sum(len(one.submitted) for one in self._courses.values())
        return in_flight < IN_FLIGHT * self._pool.workers

    def _begun(self) -> _Course | None:
        """Begin another capture of which the store has nothing."""
        while self._next:
            path = self._next.popleft()
            # What cannot be read is told when it is its turn.
            with suppress(CaptureError):
                if path not in self._taken and can_be_cut(path) and self._is_new(path):
                    self._taken.add(path)
                    self._courses[path] = _Course.of(path, CaptureReader(path), Carried())
                    return self._courses[path]
        return None

    def _submitted(self, course: _Course, group: list[CaptureBatch]) -> _Submitted:
        rows_out = [tuple(self._rows_out(course.path, batch)) for batch in group]
        carried = course.carried
        stretch = Stretch(
            course.path.absolute(),
            course.begin_bytes,
            group[-1].position.offset_bytes,
            carried if course.in_order else replace(carried, named=Named()),
            tuple((at, rows) for at, rows in enumerate(rows_out) if rows),
        )
        number = self._pool.submit(stretch)
        if not course.in_order:
            pairs = zip(group, rows_out, strict=True)
            for messages in pieces([without(one.messages, rows) for one, rows in pairs]):
                carried = follow_heads(messages, carried)
        return _Submitted(group, stretch, number, carried)


def _bounds(course: _Course, found: Found) -> dict[int, Bound]:
    before = course.settled
    return add_bounds(before.named.bounds, found.after.named.bounds, before.clock_ns)
