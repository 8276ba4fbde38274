"""What a replay does first where the process before it ended while it was reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from framewalk.cli.console import say, warn
from framewalk.engine.runs import (
    SET_ASIDE_REMEDY,
    Guard,
    ProbeError,
    Quarantine,
    Trial,
    Verdict,
    examine,
    suspected,
)

if TYPE_CHECKING:
    from pathlib import Path

    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.runs import ReadingNote, SetAside, Setup
    from framewalk.engine.store import Store


def quarantine_of(store: Path) -> Path:
    """Return the folder beside a store with the messages that end a replay into it."""
    return store.with_name(f"{store.name}.quarantine")


def guarded(store: Store, note: ReadingNote, setup: Setup, entities: Entities) -> Guard:
    """Return what a replay is guarded by; what ended the one before it is set aside first."""
    quarantine = Quarantine(quarantine_of(store.path))
    reading = suspected(note, store)
    if not reading.spans:
        note.clear()
        return Guard(note, quarantine)
    names = ", ".join(str(one.path) for one in reading.spans)
    warn(f"a replay ended while it read {names}: its messages are tried apart")
    try:
        trial = Trial(note, reading, quarantine, setup, entities)
        verdict = examine(trial, lambda found, gone: _tell(quarantine, found, gone), note.touch)
    except ProbeError as error:
        warn(f"what was read cannot be tried apart: {error}")
        return Guard(note, quarantine)
    if verdict is Verdict.HARMLESS:
        say("they do no harm")
    if verdict is Verdict.TOGETHER:
        warn("no single message is at fault, they are read a batch at a time")
        return Guard(note, quarantine, reading.ends_bytes)
    return Guard(note, quarantine)


def _tell(quarantine: Quarantine, found: SetAside, gone: list[str]) -> None:
    place = f"{found.place.segment}, stream {found.stream}, message {found.seq}"
    capture = quarantine.folder / found.capture
    warn(
        f"{place}: set aside, it ends the process ({found.problem}); {SET_ASIDE_REMEDY}: {capture}"
    )
    for name in gone:
        warn(f"{quarantine.folder / name}: deleted, as the quarantine is full")
