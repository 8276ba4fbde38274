"""Live: the segments of a spool -> a store, while they are written (design.md, decision 1).

A segment is a capture whose streams each lie in one record batch, so nothing is carried from one
run to the next. The store knows how far it has each segment: states and positions are committed
together, after the segment itself was forced to disk, and so each message is counted once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from framewalk.engine.capture import CAPTURE_SUFFIX, CaptureBatch, captures_in
from framewalk.engine.closing import Closing
from framewalk.engine.counters import Counters
from framewalk.engine.follow import END_MARKER, Damage, GrowingCapture
from framewalk.engine.pipeline import first_phase, pieces, regroup
from framewalk.engine.replayer import alike
from framewalk.engine.rollup import roll_up
from framewalk.engine.states import MINUTE
from framewalk.engine.store import Reached
from framewalk.engine.streams import Carried

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from framewalk.engine.capture import CapturePosition
    from framewalk.engine.entities import Entities
    from framewalk.engine.log_states import PeerStates
    from framewalk.engine.states import States
    from framewalk.engine.store import Store

# Logs between two commits of an engine that catches up: what it holds in memory meanwhile.
COMMIT_LOGS: Final = 500_000


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
class _Pending:
    """What was read since the last commit."""

    found: list[PeerStates] = field(default_factory=list)
    reached: dict[Path, list[CapturePosition]] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)

    @property
    def logs(self) -> int:
        return sum(found.counters.logs for found in self.found)


class SpoolFollower(Closing):
    """Commits what becomes whole in the segments of a folder.

    Segments are written one after the other, in the order of their names: where there is a later
    one, or the name is not after `complete_through`, nothing more is written. After an exception
    the follower may be ahead of its store: make a new one.
    """

    def __init__(
        self, folder: Path, store: Store, now_s: float, complete_through: str = ""
    ) -> None:
        self.complete_through = complete_through
        self._folder = folder
        self._store = store
        self._open: dict[Path, _Segment] = {}
        stored = [path for path in captures_in(folder)[:-1] if _is_stored(path, store)]
        self._stored_at_s = dict.fromkeys(stored, now_s)

    def follow(
        self, entities: Entities, now_s: float, commit_logs: int = COMMIT_LOGS
    ) -> Iterator[Flushed]:
        """Commit all that is whole now, and yield after each commit; `now_s` dates retention."""
        paths = captures_in(self._folder)
        pending = _Pending()
        ended: list[Path] = []
        for path in paths:
            if path in self._stored_at_s:
                continue
            is_complete = path != paths[-1] or path.name <= self.complete_through
            segment = self._opened(path)
            for group in regroup(segment.content.read(is_complete=is_complete), _rows):
                self._work(group, segment, entities, pending)
                if pending.logs >= commit_logs:
                    yield self._commit(pending)
                    pending = _Pending()
            if is_complete or segment.content.has_ended:
                ended.append(path)
        if pending.reached:
            yield self._commit(pending)
        if ended:
            self._close(ended, now_s)

    def unread_bytes(self) -> int:
        """Return the size of what is in the spool and not in the store."""
        return sum(segment.content.unread_bytes for segment in self._open.values())

    def remove(self, now_s: float, retention_s: float, budget_bytes: int) -> list[Path]:
        """Delete the segments that are stored and older than that, or in the way of new ones.

        Their age counts from the time they were stored, or from when the follower was made for
        those that were stored before. The oldest go early while all segments together have more
        than `budget_bytes`.
        """
        sizes_bytes = {path: path.stat().st_size for path in captures_in(self._folder)}
        total_bytes = sum(sizes_bytes.values())
        removed = []
        for path in sorted(self._stored_at_s):
            is_old = now_s - self._stored_at_s[path] >= retention_s
            if not is_old and total_bytes <= budget_bytes:
                continue
            total_bytes -= sizes_bytes.get(path, 0)
            path.unlink(missing_ok=True)
            del self._stored_at_s[path]
            removed.append(path)
        return removed

    def close(self) -> None:
        """Close all files."""
        for segment in self._open.values():
            segment.content.close()
        self._open.clear()

    def _opened(self, path: Path) -> _Segment:
        if path not in self._open:
            capture, position = _find(path, self._store) or (None, None)
            self._open[path] = _Segment(GrowingCapture(path, position), capture)
        return self._open[path]

    def _work(
        self,
        group: Sequence[CaptureBatch | Damage],
        segment: _Segment,
        entities: Entities,
        pending: _Pending,
    ) -> None:
        batches = [item.messages for item in group if isinstance(item, CaptureBatch)]
        for messages in pieces(batches):
            found, segment.carried = first_phase(
                messages, segment.carried, entities, self._store.plan
            )
            pending.found.append(found)
        pending.damages += [item for item in group if isinstance(item, Damage)]
        positions = pending.reached.setdefault(segment.content.path, [])
        positions.extend(item.position for item in group)

    def _commit(self, pending: _Pending) -> Flushed:
        segments = [self._open[path] for path in pending.reached]
        for segment in segments:
            # What is counted must not be lost: the sender would send it again.
            segment.content.sync()
        states = _with_damages(roll_up(pending.found, self._store.plan), pending.damages)
        captures = self._store.commit_many(
            [
                Reached(segment.capture, path, positions)
                for segment, (path, positions) in zip(
                    segments, pending.reached.items(), strict=True
                )
            ],
            states,
            ends_only=True,
        )
        for segment, capture in zip(segments, captures, strict=True):
            segment.capture = capture
        return _flushed(states, pending.damages)

    def _close(self, ended: Sequence[Path], now_s: float) -> None:
        segments = [self._open.pop(path) for path in ended]
        self._store.finish(*[one.capture for one in segments if one.capture is not None])
        for segment in segments:
            segment.content.close()
            self._stored_at_s[segment.content.path] = now_s


def _find(path: Path, store: Store) -> tuple[int, CapturePosition] | None:
    """Find the capture in the store that a segment is, and how far the store has it.

    It has the segment's name, or (a copy of it was replayed) begins with the same record batch.
    """
    named = [capture for capture, stored in store.paths().items() if stored.name == path.name]
    size_bytes = path.stat().st_size
    reached = [
        (capture, position)
        for capture in named or alike(path, store.captures())
        for position in store.positions(capture)
        if position.offset_bytes <= size_bytes
    ]
    return max(reached, key=lambda one: one[1].offset_bytes, default=None)


def _is_stored(path: Path, store: Store) -> bool:
    """Tell whether the store has all of a segment; its end marker does not count."""
    found = _find(path, store)
    size_bytes = path.stat().st_size
    return found is not None and found[1].offset_bytes >= size_bytes - len(END_MARKER)


def _rows(item: CaptureBatch | Damage) -> int:
    return int(item.messages.num_rows) if isinstance(item, CaptureBatch) else 0


def _with_damages(states: States, damages: Sequence[Damage]) -> States:
    damaged_bytes = sum(damage.size_bytes for damage in damages)
    if not damaged_bytes:
        return states
    counted = Counters(quality=Counter(damaged_bytes=damaged_bytes))
    return replace(states, counters=states.counters + counted)


def _flushed(states: States, damages: Sequence[Damage]) -> Flushed:
    frames = [scope.scalars for scope in states.scopes.values()]
    latest = [frame[MINUTE].max() for frame in frames if frame.height]
    return Flushed(
        states.counters,
        sum(frame.height for frame in frames),
        max((one for one in latest if isinstance(one, int)), default=None),
        tuple(damages),
    )


def forgettable(store: Store, folder: Path, before_s: float) -> list[int]:
    """Return the captures in a store that are segments begun before a time, and are gone.

    A segment's name is the time of its begin, in ns since 1970.
    """
    return [
        capture
        for capture, path in store.paths().items()
        if (digits := path.name.removesuffix(CAPTURE_SUFFIX)).isdecimal()
        and int(digits) < before_s * 10**9
        and not (folder / path.name).exists()
    ]
