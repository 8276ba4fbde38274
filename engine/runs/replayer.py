"""Replay: captures -> a store, resumable and counted once.

A capture is recognised by its content, not its name: the store keeps a digest for the end of
each record batch that it holds. A capture that is there already is left out; one that has
grown, or whose replay was cut off, goes on where the store ends.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.caps import DEFAULT_CAPS, beyond_caps
from framewalk.engine.captures import CaptureReader, can_be_cut, digests_at, find_captures
from framewalk.engine.counters import Counters
from framewalk.engine.runs.admission import Admission
from framewalk.engine.runs.clocks import NodeClocks
from framewalk.engine.runs.pending import Pending
from framewalk.engine.runs.quarantine import without
from framewalk.engine.runs.reading import Reading, Span, grouped
from framewalk.engine.schemas import DEFAULT_MOST_AHEAD_S
from framewalk.engine.stages import (
    Carried,
    check_most_ahead,
    decode,
    first_phase,
    follow_streams,
    pieces,
    regroup,
)
from framewalk.engine.store import Reached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from framewalk.engine.archive import Archive
    from framewalk.engine.caps import Caps
    from framewalk.engine.captures import CaptureBatch, CapturePosition
    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.paths import Paths
    from framewalk.engine.runs.pending import Computed, Spread, Waiting
    from framewalk.engine.runs.quarantine import Quarantine
    from framewalk.engine.runs.reading import ReadingNote
    from framewalk.engine.store import HeldPiece, Store

# Logs between two commits: often enough to lose little work, seldom enough to cost little.
COMMIT_LOGS: Final = 500_000
# Rows, and minutes of them, that wait until they are rolled up together: each time the hours and
# days of all their entities are written again. The newest minutes may still get some.
ROLL_UP_ROWS: Final = 500_000
ROLL_UP_MINUTES: Final = 15
_OPEN_MINUTES: Final = 3
_NS_PER_S: Final = 10**9


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """How far one capture of a replay is."""

    path: Path
    offset_bytes: int
    size_bytes: int
    logs: int


@dataclass(frozen=True, slots=True)
class CaptureSummary:
    """What became of one capture. `known_messages` were in the store before.

    `warning` has a line for each thing that is odd about it, None for nothing.
    """

    path: Path
    counters: Counters
    known_messages: int
    warning: str | None


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """What a replay did. `minutes` are those that got logs, as minutes since the epoch."""

    captures: tuple[CaptureSummary, ...]
    minutes: frozenset[int]

    @property
    def counters(self) -> Counters:
        """The sum over all captures."""
        return sum((capture.counters for capture in self.captures), Counters())


def replay(  # noqa: PLR0913 - options, each with a default
    captures: Paths,
    entities: Entities,
    store: Store,
    *,
    on_progress: Callable[[ReplayProgress], None] | None = None,
    commit_logs: int = COMMIT_LOGS,
    most_ahead_s: float = DEFAULT_MOST_AHEAD_S,
    caps: Caps = DEFAULT_CAPS,
    guard: Guard | None = None,
    archive: Archive | None = None,
    roll_up: bool = False,
    when_read: Callable[[], None] | None = None,
    spread: Spread | None = None,
) -> ReplaySummary:
    """Add captures to a store; folders stand for the captures in them.

    Logs that are more than `most_ahead_s` ahead of their arrival are dropped, unless most nodes
    that a capture has heard of up to a commit are ahead: then the receiver's clock was behind.
    What is beyond `caps` is dropped or called `others`, and counted. With a `guard` what is read is
    written down before, and what was set aside is left out and counted. The logs that count are
    added to an `archive` of the store with their metrics. With `roll_up` rows do not stay as they
    were committed: minutes, hours and days are made of them, in the end of all. Values are the
    same, and what is late is added to them by a later replay. `when_read` is called before that,
    when all captures are in the store. What can be computed by others is left to `spread`.

    Every capture is opened before the first one is read, so a wrong path costs no time.
    Memory use does not depend on the captures' length.

    Raises:
        InputError: `most_ahead_s` is no time.
        CaptureError: a capture cannot be read.
        StoreError: the store cannot be written; what was committed before stays.
    """
    check_most_ahead(most_ahead_s)
    paths = find_captures(captures)
    store.discard()
    minutes = [pl.Series(dtype=pl.Int64)]
    summaries = []
    options = _Options(on_progress, commit_logs, most_ahead_s, guard, archive, roll_up, spread)
    admission = Admission(store.names, caps)
    for path in paths:
        job = _CaptureReplay(path, entities, store, admission, options)
        summaries.append(job.run())
        minutes.append(job.minutes)
    if when_read is not None:
        when_read()
    if roll_up:
        store.compact()
    return ReplaySummary(tuple(summaries), frozenset(pl.concat(minutes).to_list()))


@dataclass(frozen=True, slots=True)
class Guard:
    """What keeps a message from ending a replay for good.

    `note` says what is being read, `quarantine` what is left out. Captures are committed a record
    batch at a time up to where `careful_to_bytes` says.
    """

    note: ReadingNote
    quarantine: Quarantine
    careful_to_bytes: Mapping[Path, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Options:
    on_progress: Callable[[ReplayProgress], None] | None
    commit_logs: int
    most_ahead_s: float
    guard: Guard | None
    archive: Archive | None
    roll_up: bool
    spread: Spread | None


class _CaptureReplay:
    """The replay of one capture."""

    def __init__(
        self,
        path: Path,
        entities: Entities,
        store: Store,
        admission: Admission,
        options: _Options,
    ) -> None:
        self.minutes = pl.Series(dtype=pl.Int64)
        self._path = path
        self._entities = entities
        self._store = store
        self._admission = admission
        self._options = options
        self._clocks = NodeClocks()
        self._clock_s: float = 0
        self._logs = 0
        self._counters = Counters()
        self._spread: Spread | None = None
        self._pending = self._new_pending()
        self._reached: list[CapturePosition] = []
        self._known_bytes = 0
        self._left_out = 0
        self._rolled_up_to: int | None = None
        self._left: dict[int, HeldPiece] = {}

    def run(self) -> CaptureSummary:
        """Replay what the store does not have yet."""
        known = find_stored(self._path, self._store)
        spread = self._options.spread
        if known is not None and spread is not None:
            spread.drop(self._path)
        if known is not None and known.whole:
            messages = known.position.messages
            return CaptureSummary(self._path, self._counters, messages, known.warning)
        capture = known.capture if known else None
        known_bytes = known.position.offset_bytes if known else 0
        begun = spread if known is None else None
        with begun.reader(self._path) if begun else CaptureReader(self._path) as reader:
            held: list[CaptureBatch] = []
            stored = self._without_held(reader.until(known_bytes), known, held)
            carried = self._carried_over(stored)
            if spread is not None and self._can_be_spread(held):
                self._spread, self._known_bytes = spread, known_bytes
                self._pending = self._new_pending()
                capture = self._take_all(spread.found(self._path, reader, carried), reader, capture)
            else:
                self._work_on_held(held, known_bytes)
                capture = self._work_on_all(reader, carried, capture)
            if self._reached:
                self._commit(capture)
            held_messages = sum(one.messages.num_rows for one in held)
            known_messages = known.position.messages - held_messages if known else 0
            return CaptureSummary(self._path, self._counters, known_messages, self._warning(reader))

    def _work_on_all(
        self, reader: CaptureReader, carried: Carried, capture: int | None
    ) -> int | None:
        """Work on what is left of a capture; returns its id, if the store has some of it then."""
        for group, is_alone in grouped(reader, iter(reader), self._careful_to_bytes()):
            carried = self._work(group, carried)
            self._tell(reader, reader.position.offset_bytes)
            if is_alone or self._pending.is_due(self._options.commit_logs):
                capture = self._commit(capture)
        return capture

    def _take_all(
        self, computed: Iterable[Computed], reader: CaptureReader, capture: int | None
    ) -> int | None:
        """Take what others have computed of it; returns its id, as `_work_on_all` does."""
        for one in computed:
            self._clock_s = one.clock_ns / _NS_PER_S
            self._logs += one.logs
            one.add_to(self._pending)
            self._reached.extend(batch.position for batch in one.batches)
            self._left_out += sum(len(self._rows_set_aside(batch)) for batch in one.batches)
            self._tell(reader, one.batches[-1].position.offset_bytes)
            if self._pending.is_due(self._options.commit_logs):
                # Others have lived on it: what is left to end this process is the commit.
                self._write_down(one.batches)
                capture = self._commit(capture)
        return capture

    def _can_be_spread(self, held: Sequence[CaptureBatch]) -> bool:
        """Tell whether others may compute it: nothing was left for later, nothing is suspected."""
        return not held and not self._careful_to_bytes() and can_be_cut(self._path)

    def _careful_to_bytes(self) -> int:
        guard = self._options.guard
        return guard.careful_to_bytes.get(self._path, 0) if guard is not None else 0

    def _without_held(
        self, stored: Iterable[CaptureBatch], known: KnownCapture | None, held: list[CaptureBatch]
    ) -> Iterator[CaptureBatch]:
        """Yield record batches without those that a live engine has left for later: into `held`."""
        self._left = {one.end_bytes: one for one in known.held} if known else {}
        for batch in stored:
            if self._left.pop(batch.position.offset_bytes, None) is not None:
                held.append(batch)
            else:
                yield batch

    def _work_on_held(self, held: Sequence[CaptureBatch], known_bytes: int) -> None:
        """Work on what was left for later: streams that each lie in one record batch."""
        self._known_bytes = 0 if held else known_bytes
        for group in regroup(held, attrgetter("messages")):
            self._work(group, Carried())

    def _work(self, group: Sequence[CaptureBatch], carried: Carried) -> Carried:
        self._write_down(group)
        pending = self._pending
        assert isinstance(pending, Pending)  # noqa: S101 - tells the type
        archive = self._options.archive
        for messages in pieces([self._allowed(batch) for batch in group]):
            pending.begin(messages.nbytes)
            for found, after in first_phase(
                messages,
                carried,
                self._entities,
                self._store.plan,
                most_ahead_s=self._options.most_ahead_s,
                caps=self._admission.caps,
                keep=archive.keep if archive is not None else None,
            ):
                carried = after
                self._clock_s = carried.clock_ns / _NS_PER_S
                self._logs += found.counters.logs
                pending.add(found)
        self._reached.extend(batch.position for batch in group)
        return carried

    def _commit(self, capture: int | None) -> int:
        pending, left = self._pending, tuple(self._left.values())
        reached = Reached(capture, self._path, self._reached, left)
        pending.decide()
        lost = Counters(messages=self._left_out, quality=Counter(quarantined=self._left_out))
        (committed,) = self._store.commit_many(
            [reached],
            pending.rolled_up(lost),
            also=lambda: pending.list_archived(self._store),
        )
        self._known_bytes = self._reached[-1].offset_bytes
        if self._options.guard is not None:
            self._options.guard.note.clear()
        self._counters += pending.counters + lost
        self._left_out = 0
        self.minutes = pl.concat([self.minutes, pending.minutes]).unique()
        if self._options.roll_up:
            self._roll_up(pending.minutes)
        self._pending, self._reached = self._new_pending(), []
        return committed

    def _roll_up(self, minutes: pl.Series) -> None:
        """Roll up what is over where it is much: in the end the file would have it twice."""
        oldest, newest = minutes.min(), minutes.max()
        if not isinstance(oldest, int) or not isinstance(newest, int):
            return
        if self._rolled_up_to is None:
            self._rolled_up_to = oldest
        end = newest - _OPEN_MINUTES
        is_long = end - self._rolled_up_to >= ROLL_UP_MINUTES
        if is_long and self._store.waiting_rows() >= ROLL_UP_ROWS:
            self._store.compact(end)
            self._store.checkpoint()
            self._rolled_up_to = end

    def _new_pending(self) -> Waiting:
        def keeps_ahead(clocks: pl.DataFrame) -> bool:
            return self._clocks.keeps_ahead(clocks, self._clock_s)

        self._admission.begin()
        guard = self._options.guard
        on_progress = guard.note.touch if guard is not None else _do_nothing
        archive = self._options.archive
        if self._spread is not None:
            return self._spread.pending(self._store, keeps_ahead, self._admission, archive)
        return Pending(self._store, keeps_ahead, on_progress, self._admission, archive=archive)

    def _write_down(self, group: Sequence[CaptureBatch]) -> None:
        """Note what is about to be worked on, beside what is not committed yet."""
        if self._options.guard is not None:
            end_bytes = group[-1].position.offset_bytes
            span = Span(self._path.absolute(), self._known_bytes, end_bytes)
            # Without a note a death is harder to explain, but a full disk must not stop it.
            with suppress(OSError):
                self._options.guard.note.write(Reading((span,)))

    def _allowed(self, batch: CaptureBatch) -> pa.RecordBatch:
        allowed = self._without_set_aside(batch)
        self._left_out += batch.messages.num_rows - allowed.num_rows
        return allowed

    def _without_set_aside(self, batch: CaptureBatch) -> pa.RecordBatch:
        return without(batch.messages, self._rows_set_aside(batch))

    def _rows_set_aside(self, batch: CaptureBatch) -> Sequence[int]:
        guard = self._options.guard
        return () if guard is None else guard.quarantine.rows_of(self._path, batch)

    def _carried_over(self, stored: Iterable[CaptureBatch]) -> Carried:
        """Follow the streams of messages that the store has, for those that come after them.

        All of them are decoded: a stream that never fell silent may still be about a connection
        that it named long ago.
        """
        carried = Carried()
        for group in regroup(stored, attrgetter("messages")):
            for messages in pieces([self._without_set_aside(batch) for batch in group]):
                for decoded in decode(messages):
                    for context in follow_streams(decoded.captured, decoded.nested, carried):
                        carried = context.carried
        return carried

    def _tell(self, reader: CaptureReader, offset_bytes: int) -> None:
        if self._options.on_progress is not None:
            progress = ReplayProgress(self._path, offset_bytes, reader.size_bytes, self._logs)
            self._options.on_progress(progress)

    def _warning(self, reader: CaptureReader) -> str | None:
        clocks = self._clocks.warning()
        said = [reader.warning]
        said += [f"{self._path}: {one}" for one in (clocks, beyond_caps(self._counters)) if one]
        return "\n".join(filter(None, said)) or None


def _do_nothing() -> None:
    """Nobody waits for a sign of life."""


@dataclass(frozen=True, slots=True)
class KnownCapture:
    """A stored capture that a file begins with, and how far the two are the same.

    `whole` is true if the store holds all that can be read of the file; `warning` is what
    reading it warned of. `held` is what a live engine has left for later.
    """

    capture: int
    position: CapturePosition
    whole: bool
    warning: str | None
    held: frozenset[HeldPiece] = frozenset()


def find_stored(path: Path, store: Store) -> KnownCapture | None:
    """Find the stored capture that the file is, is a beginning of, or goes on from.

    One of the two must hold every record batch of the other: captures that begin alike and
    then differ are different captures.
    """
    candidates = alike(path, store.captures())
    if not candidates:
        return None
    with CaptureReader(path) as reader:
        read = {batch.position for batch in reader}
        warning = reader.warning
    known = [
        KnownCapture(capture, _furthest(read & held), read <= held, warning)
        for capture in candidates
        if (held := store.positions(capture)) <= read or read <= held
    ]
    known = known or _find_damaged(path, store, candidates, warning)
    if not known:
        return None
    furthest = max(known, key=lambda one: one.position.offset_bytes)
    left = store.held([furthest.capture]).get(furthest.capture, frozenset())
    return replace(furthest, whole=furthest.whole and not left, held=left)


def lacking(paths: Iterable[Path], store: Store) -> str | None:
    """Say what a store has counted that captures do not hold; None where they hold just that."""
    left = set(store.captures())
    if store.counted_of_forgotten().messages:
        return "it has counted captures, or segments of a spool, that it does not know any more"
    if store.counted().quality["quarantined"]:
        return "messages were set aside when it was made"
    if store.held(left):
        return "it has left some of a capture for later: run `framewalk replay` with it first"
    for path in paths:
        known = find_stored(path, store)
        if (problem := _differs(path, known, store)) is not None:
            return problem
        left -= {known.capture} if known is not None else set()
    missing = [str(path) for capture, path in store.paths().items() if capture in left]
    return f"it has counted {', '.join(sorted(missing))}, too" if missing else None


def _differs(path: Path, known: KnownCapture | None, store: Store) -> str | None:
    if known is None:
        return f"it has not counted {path}: run `framewalk replay` with it first"
    with CaptureReader(path) as reader:
        end = _furthest(batch.position for batch in reader)
    if end != known.position:
        return f"it has not counted all of {path}: run `framewalk replay` with it first"
    if end != _furthest(store.positions(known.capture)):
        return f"it has counted more of {path} than there is"
    return None


def _find_damaged(
    path: Path, store: Store, candidates: Sequence[int], warning: str | None
) -> list[KnownCapture]:
    """Find the capture that a live engine has read, past damage that ends a replay."""
    ends = {capture: _furthest(store.positions(capture)) for capture in candidates}
    digests = digests_at(path, {end.offset_bytes for end in ends.values()})
    return [
        KnownCapture(capture, end, whole=True, warning=warning)
        for capture, end in ends.items()
        if digests[end.offset_bytes] == end.digest
    ]


def alike(path: Path, first_positions: Mapping[int, CapturePosition]) -> list[int]:
    """Return the stored captures whose first record batch the file has too."""
    size_bytes = path.stat().st_size
    within = {id_: one for id_, one in first_positions.items() if one.offset_bytes <= size_bytes}
    digests = digests_at(path, {one.offset_bytes for one in within.values()})
    return [id_ for id_, one in within.items() if digests[one.offset_bytes] == one.digest]


def _furthest(positions: Iterable[CapturePosition]) -> CapturePosition:
    return max(positions, key=lambda one: one.offset_bytes)
