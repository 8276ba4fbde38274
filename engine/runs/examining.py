"""Tries what an engine was reading when it ended, before it is read again."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Final

import pyarrow.compute as pc

from framewalk.engine.runs.probe import Attempt
from framewalk.engine.runs.prober import Prober
from framewalk.engine.runs.quarantine import Verdict, row_of, search
from framewalk.engine.runs.reading import Reading, batches_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from framewalk.engine.captures import CaptureBatch
    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.runs.probe import Setup
    from framewalk.engine.runs.quarantine import Quarantine, SetAside
    from framewalk.engine.runs.reading import ReadingNote, Span
    from framewalk.engine.store import Store

_ENTITIES: Final = "entities.arrow"
_SCRATCH: Final = "tried"


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried: what `note` names, `reading`, with what is computed as `setup` and `entities`.

    What ends a process goes to `quarantine`.
    """

    note: ReadingNote
    reading: Reading
    quarantine: Quarantine
    setup: Setup
    entities: Entities


def examine(
    trial: Trial,
    on_found: Callable[[SetAside, list[str]], None],
    on_wait: Callable[[], None],
    is_wanted: Callable[[], bool] = lambda: True,
) -> Verdict | None:
    """Set aside every message that ends a process; None if it was stopped. See Examination.

    Raises ProbeError where nothing can be tried, and OSError where nothing can be written.
    """
    folder = trial.quarantine.folder
    folder.mkdir(mode=0o700, exist_ok=True)
    table = folder / _ENTITIES
    trial.entities.write(table)
    # What an attempt that was ended has left there must not stay.
    scratch = folder / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    try:
        setup = replace(trial.setup, entities=table, scratch=scratch)
        with Prober(setup, on_wait) as prober:
            search = Examination(trial.note, trial.quarantine, prober, on_found, is_wanted)
            return search.run(trial.reading)
    finally:
        table.unlink(missing_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)


class _StoppedError(Exception):
    """Somebody wants the search to end; what is known is in the note."""


class Examination:
    """The search through what a note names.

    `on_found` is called with each message that is set aside and the captures that made room for
    it. Before each attempt `is_wanted` is asked whether to go on.
    """

    def __init__(
        self,
        note: ReadingNote,
        quarantine: Quarantine,
        prober: Prober,
        on_found: Callable[[SetAside, list[str]], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        self._note = note
        self._quarantine = quarantine
        self._prober = prober
        self._on_found = on_found
        self._is_wanted = is_wanted

    def run(self, reading: Reading) -> Verdict | None:
        """Set aside every message that ends a process; None if it was stopped.

        Raises ProbeError where nothing can be tried, and OSError where nothing can be written.
        """
        batches = list(batches_of(reading.spans))
        try:
            while True:
                verdict, reading = self._search(reading, batches)
                if verdict is Verdict.HARMLESS and not reading.commits:
                    # Making a store takes longer than most attempts.
                    reading = Reading(reading.spans, commits=True)
                    continue
                if verdict is not Verdict.DEADLY:
                    return verdict
                place, batch = row_of(batches, reading.dies - 1)
                self._on_found(*self._quarantine.add(place, batch, self._prober.problem))
                reading = replace(reading, lives=reading.dies, dies=0)
                self._note.write(reading)
        except _StoppedError:
            return None

    def _search(
        self, reading: Reading, batches: list[tuple[Path, CaptureBatch]]
    ) -> tuple[Verdict, Reading]:
        spans = reading.spans
        sizes = (pc.binary_length(batch.messages["message"]).to_pylist() for _, batch in batches)
        sizes_bytes = [0, *accumulate(chain.from_iterable(sizes))]

        def lives(attempt: Attempt, size_bytes: int) -> bool:
            if not self._is_wanted():
                raise _StoppedError
            return self._prober.lives(attempt, size_bytes)

        def lives_first(count: int) -> bool:
            left_out = tuple(one.place for one in self._quarantine.entries)
            attempt = Attempt(spans, count, reading.commits, left_out)
            return lives(attempt, sizes_bytes[count])

        def lives_alone(number: int) -> bool:
            place, _ = row_of(batches, number)
            size_bytes = sizes_bytes[number + 1] - sizes_bytes[number]
            return lives(Attempt(spans, 0, reading.commits, only=place), size_bytes)

        return search(reading, len(sizes_bytes) - 1, lives_first, lives_alone, self._note.write)


def suspected(note: ReadingNote, store: Store) -> Reading:
    """Return what a note names and a store does not have: what a process was at when it ended."""
    reading = note.read()
    ends = store.ends_at([one.path for one in reading.spans])
    held = store.held([capture for capture, _ in ends.values()])

    def is_stored(span: Span) -> bool:
        if span.path not in ends:
            return False
        capture, end = ends[span.path]
        waits = any(one.end_bytes > span.begin_bytes for one in held.get(capture, ()))
        return span.end_bytes <= end.offset_bytes and not waits

    left = tuple(one for one in reading.spans if not is_stored(one))
    return reading if left == reading.spans else Reading(left)
