"""What an engine does first where the one before it ended while it was reading."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from framewalk.engine.archive import Mode
from framewalk.engine.runs import (
    NOTE_NAME,
    SET_ASIDE_REMEDY,
    ProbeError,
    ReadingNote,
    Setup,
    Trial,
    Verdict,
    suspected,
)
from framewalk.engine.runs import examine as tried
from framewalk.engine.telling import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.runs import SetAside, SpoolFollower
    from framewalk.engine.store import Store
    from framewalk.server.engine.link import EngineOptions


@dataclass(frozen=True, slots=True)
class Watch:
    """Who waits for a search: `on_wait` is called again and again, before attempts `is_wanted`."""

    on_wait: Callable[[], None]
    is_wanted: Callable[[], bool]


def examine(
    options: EngineOptions, store: Store, follower: SpoolFollower, entities: Entities, watch: Watch
) -> None:
    """Try what an engine was reading when it ended; what ends processes is set aside.

    Where no single message is at fault, the follower is told to read with care.
    """
    note = ReadingNote(options.spool_folder / NOTE_NAME)
    reading = suspected(note, store)
    if not reading.spans:
        note.clear()
        return
    segments = ", ".join(one.path.name for one in reading.spans)
    tell(logging.WARNING, "an engine ended while it read, it is tried apart", segments=segments)
    setup = Setup(
        options.oal_paths,
        options.apdex_path,
        endpoint_patterns_path=options.endpoint_patterns_path,
    )
    if options.archive is not None and follower.archive is not None:
        mode, texts = Mode(options.archive.mode), options.archive.texts
        setup = replace(setup, archive_mode=mode, archived_texts=texts)
    try:
        trial = Trial(note, reading, follower.quarantine, setup, entities)
        verdict = tried(trial, _told, watch.on_wait, watch.is_wanted)
    except ProbeError as error:
        tell(logging.ERROR, "what was read cannot be tried apart", problem=error)
        verdict = Verdict.UNCLEAR
    if verdict is Verdict.HARMLESS:
        tell(logging.INFO, "what was read does no harm")
    if verdict is Verdict.TOGETHER:
        tell(logging.WARNING, "no single message is at fault, they are read a batch at a time")
        follower.careful_to_bytes = reading.ends_bytes


def _told(found: SetAside, gone: list[str]) -> None:
    place = found.place
    tell(
        logging.ERROR,
        "message set aside, it ends the engine",
        segment=place.segment,
        stream=found.stream,
        seq=found.seq,
        bytes=found.size_bytes,
        problem=found.problem,
        capture=found.capture,
        remedy=SET_ASIDE_REMEDY,
    )
    for name in gone:
        tell(logging.WARNING, "quarantine is full, its oldest capture is deleted", capture=name)
