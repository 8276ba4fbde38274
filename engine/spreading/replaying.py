"""A replay whose captures are computed by others."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from framewalk.engine.caps import DEFAULT_CAPS
from framewalk.engine.captures import find_captures
from framewalk.engine.errors import BrokenTaskError
from framewalk.engine.kubernetes import Entities
from framewalk.engine.runs import COMMIT_LOGS, Reading, Span, find_stored, replay
from framewalk.engine.schemas import DEFAULT_MOST_AHEAD_S
from framewalk.engine.spreading.spread import SpreadRun
from framewalk.engine.spreading.stretches import Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from framewalk.engine.archive import Archive
    from framewalk.engine.caps import Caps
    from framewalk.engine.captures import CaptureBatch
    from framewalk.engine.oal import Plan
    from framewalk.engine.paths import Paths
    from framewalk.engine.runs import Guard, ReplayProgress, ReplaySummary
    from framewalk.engine.spreading.pool import Pool
    from framewalk.engine.spreading.stretches import Stretch
    from framewalk.engine.store import Store


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Those of `replay` (engine/runs), which says what they are."""

    on_progress: Callable[[ReplayProgress], None] | None = None
    commit_logs: int = COMMIT_LOGS
    most_ahead_s: float = DEFAULT_MOST_AHEAD_S
    caps: Caps = DEFAULT_CAPS
    guard: Guard | None = None
    archive: Archive | None = None
    roll_up: bool = False
    when_read: Callable[[], None] | None = None


def replay_spread(
    captures: Paths,
    entities: Entities,
    store: Store,
    pool: Pool | None,
    options: ReplayOptions | None = None,
) -> ReplaySummary:
    """Add captures to a store as `replay` does, computed by a pool; without one by this process.

    What is in the store then is the same, and so is what is counted. Raises what `replay` raises,
    WorkersError where nobody is left to do the work, and BrokenTaskError for a stretch of a capture
    over which three workers have ended: it is noted for the next replay with the same `guard`.
    """
    options = options or ReplayOptions()
    if pool is None:
        return _replay(captures, entities, store, options, None)
    paths = find_captures(captures)
    setup = Setup(
        _without_definitions(store.plan),
        # Without what is told of it, and without what was made of it meanwhile.
        Entities(entities.lookups),
        options.most_ahead_s,
        options.caps,
        options.archive.keep if options.archive is not None else None,
    )

    def is_new(path: Path) -> bool:
        return find_stored(path, store) is None

    def rows_out(path: Path, batch: CaptureBatch) -> Sequence[int]:
        return () if options.guard is None else options.guard.quarantine.rows_of(path, batch)

    with SpreadRun(pool, setup, paths, is_new, rows_out) as spread:
        try:
            return _replay(paths, entities, store, options, spread)
        except BrokenTaskError:
            if options.guard is not None and spread.at is not None:
                _write_down(options.guard, spread.at)
            raise


def _without_definitions(plan: Plan) -> Plan:
    """Return what states are computed by: of five bytes that a plan has four are its metrics."""
    return replace(plan, scopes=tuple(replace(scope, metrics=()) for scope in plan.scopes))


def _write_down(guard: Guard, at: Stretch) -> None:
    """Note what workers have ended over, for the next replay to try apart."""
    span = Span(at.path.absolute(), at.begin_bytes, at.end_bytes)
    with suppress(OSError):
        guard.note.write(Reading((span,)))


def _replay(
    captures: Paths,
    entities: Entities,
    store: Store,
    options: ReplayOptions,
    spread: SpreadRun | None,
) -> ReplaySummary:
    return replay(
        captures,
        entities,
        store,
        on_progress=options.on_progress,
        commit_logs=options.commit_logs,
        most_ahead_s=options.most_ahead_s,
        caps=options.caps,
        guard=options.guard,
        archive=options.archive,
        roll_up=options.roll_up,
        when_read=options.when_read,
        spread=spread,
    )
