"""What waits for names: record batches with an address that nobody knows, received just now.

A Pod's first logs may be here before the cluster has told of the Pod. What waits stays in the
spool: here is only a copy, so that it is not read twice, of no more than so many bytes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from framewalk.engine.stages import received_ns, with_nameless
from framewalk.engine.store import HeldPiece
from framewalk.engine.telling import tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from framewalk.engine.captures import CaptureBatch
    from framewalk.engine.kubernetes import Entities

# What waits at once, of all segments; what would be more is not waited for.
MOST_HELD_BYTES: Final = 64 * 2**20
_NS_PER_S: Final = 10**9
_TELL_EVERY_S: Final = 60


@dataclass(frozen=True, slots=True)
class Held:
    """A record batch that waits until `due_s`; `received_ns` is when its last message came."""

    batch: CaptureBatch
    begin_bytes: int
    due_s: float
    received_ns: int

    @property
    def piece(self) -> HeldPiece:
        """Its place in its segment."""
        return HeldPiece(self.begin_bytes, self.batch.position.offset_bytes)


@dataclass(frozen=True, slots=True)
class Moment:
    """Now: by a clock that is never set, in seconds, and by the receiver's, in ns since 1970."""

    elapsed_s: float
    clock_ns: int


class Holding:
    """Decides what waits for names, for `wait_s` after its receipt at most; with 0 nothing does.

    At most `most_bytes` wait at once.
    """

    def __init__(self, wait_s: float = 0, most_bytes: int = MOST_HELD_BYTES) -> None:
        self.wait_s = wait_s
        self.most_bytes = most_bytes
        self._told_s = float("-inf")

    def due_s(self, batch: CaptureBatch, now: Moment) -> float:
        """Return until when a record batch may wait, by the clock that is never set."""
        # A clock that was set back makes nothing wait for longer.
        age_s = max((now.clock_ns - received_ns(batch.messages)) / _NS_PER_S, 0)
        return now.elapsed_s + self.wait_s - age_s

    def waiting(
        self, batches: Sequence[CaptureBatch], entities: Entities, now: Moment, held_bytes: int
    ) -> list[CaptureBatch]:
        """Return the record batches that are to wait, while `held_bytes` wait already."""
        young = [one for one in batches if self.due_s(one, now) > now.elapsed_s]
        if not young:
            return []
        is_nameless = with_nameless([one.messages for one in young], entities)
        waiting = []
        for one in (one for one, wanted in zip(young, is_nameless, strict=True) if wanted):
            held_bytes += one.messages.nbytes
            if held_bytes > self.most_bytes:
                self._tell(now.elapsed_s)
                break
            waiting.append(one)
        return waiting

    def _tell(self, now_s: float) -> None:
        if now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            event = "too much waits for names, the rest is counted with those known by now"
            tell(logging.WARNING, event, most_bytes=self.most_bytes)
