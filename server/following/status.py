"""What a process that follows a table knows of itself, as it was at some moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from framewalk.engine.store import Store

# Engines that are told one by one: those that gave a sign of life last. Each new store is one more.
MOST_ENGINES: Final = 200
_ENGINES: Final = (
    "SELECT engine, name, commits, epoch(committed_time), epoch(seen_time), is_silent "
    "FROM engines ORDER BY seen_time DESC, engine LIMIT ?"
)
_COUNTS: Final = "SELECT count(*), count(*) FILTER (is_silent) FROM engines"


@dataclass(frozen=True, slots=True)
class FollowedEngine:
    """How far a follower has an engine: its last commit, and when it was made (since 1970).

    `seen_s` is when the follower has found it.
    """

    engine: str
    name: str
    commits: int
    committed_s: float
    seen_s: float
    is_silent: bool


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """How many engines have published, how many of them are silent, and the newest of them."""

    engines: int = 0
    silent: int = 0
    newest: tuple[FollowedEngine, ...] = ()


@dataclass(frozen=True, slots=True)
class Versions:
    """Which version of a table the follower has all of, and which there was when it looked last."""

    merged: int = -1
    table: int = -1


@dataclass(frozen=True, slots=True)
class FollowerStatus:
    """What a follower says of itself.

    `is_reading` is false while the table does not answer; `failures` counts how often it did not.
    What was published before `watermark_s` (since 1970) is in the store, 0 before that is known of
    anything. `rows` were merged since the start; of a table that is read as a whole so many files
    are left. `tidied_s` is when it has tidied the table last. `logs` is None where engines publish
    none.
    """

    is_reading: bool = False
    failures: int = 0
    watermark_s: float = 0
    rows: int = 0
    files_left: int = 0
    tidied_s: float = 0
    states: Versions = Versions()
    logs: Versions | None = None
    engines: EngineCounts = EngineCounts()


def engines_of(store: Store) -> EngineCounts:
    """Return what a store that follows a table has of its engines."""
    ((engines, silent),) = store.run(_COUNTS)
    newest = tuple(FollowedEngine(*row) for row in store.run(_ENGINES, [MOST_ENGINES]))
    return EngineCounts(engines, silent, newest)
