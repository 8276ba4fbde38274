"""A stretch of a capture, and what it amounts to: a pure function of its messages and a setup.

Whoever computes one needs no store: what is decided over all of a commit (caps of minutes, logs
ahead of their arrival) is left to who has them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path  # noqa: TC003 - for whoever reads the types of the tasks
from typing import TYPE_CHECKING, Final

from framewalk.engine.captures import read_span
from framewalk.engine.counters import Counters
from framewalk.engine.runs import named_in, without
from framewalk.engine.spreading.packing import pack, unpack
from framewalk.engine.spreading.pool import Made
from framewalk.engine.stages import (
    Carried,
    add_clocks,
    first_phase,
    pieces,
    roll_up_in_parts,
    with_ahead,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import polars as pl
    import pyarrow as pa

    from framewalk.engine.caps import Caps
    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.oal import Plan
    from framewalk.engine.stages import Keep, PeerStates

_TRY_APART: Final = "run this again: its messages are tried apart first"


@dataclass(frozen=True, slots=True)
class Setup:
    """What all stretches are computed with; `keep` is that of an archive."""

    plan: Plan
    entities: Entities
    most_ahead_s: float
    caps: Caps
    keep: Keep | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """Whole record batches of a capture, from a byte to another, and what was said before them.

    `left_out` has the rows that are not to be read, by the number of their batch.
    """

    path: Path
    begin_bytes: int
    end_bytes: int
    carried: Carried
    left_out: tuple[tuple[int, tuple[int, ...]], ...] = ()

    def __str__(self) -> str:
        return f"{self.path}, bytes {self.begin_bytes:,} to {self.end_bytes:,}"

    @property
    def remedy(self) -> str:
        """What to do where it cannot be computed."""
        return _TRY_APART

    def compute(self, setup: Setup, parts: Iterable[bytes]) -> Made:  # noqa: ARG002 - of no others
        """Find what there is in it. Raises CaptureError where it cannot be read as it was."""
        return _computed(self, setup)


@dataclass(frozen=True, slots=True)
class Rolling:
    """What was found in stretches is rolled up together, what is ahead with it or without.

    Its parts are packed states. `first` is the first of the stretches, which follow each other.
    """

    first: str
    with_ahead: bool

    def __str__(self) -> str:
        return f"{self.first}, and what follows it"

    @property
    def remedy(self) -> str:
        """What to do where it cannot be computed."""
        return _TRY_APART

    def compute(self, setup: Setup, parts: Iterable[bytes]) -> Made:
        """Roll up the packed states by peers of stretches, as `roll_up_in_parts` does."""
        own, ahead = _divided([part for content in parts for part in unpack(content)])
        chosen = [*own, *ahead] if self.with_ahead else own
        bare = [replace(part, clocks=part.clocks.clear(), ahead=None) for part in chosen]
        rolled_up = [pack(states) for states in roll_up_in_parts(bare, setup.plan)]
        return Made(None, pack(rolled_up))


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a stretch, beside its states.

    `counters` are those of logs that are not `ahead` of their arrival, `ahead_counters` of those
    that are. `rows` and `ahead_rows` are of states before they are rolled up, `size_bytes` of the
    messages. `named` are the services and pods by minute (`named_in`), `after` is what streams had
    said in the end.
    """

    counters: Counters
    clocks: pl.DataFrame
    after: Carried
    rows: int
    size_bytes: int
    named: pl.DataFrame
    ahead_counters: Counters
    ahead_logs: int
    ahead_rows: int
    ahead_named: pl.DataFrame


def _computed(stretch: Stretch, setup: Setup) -> Made:
    read = read_span(stretch.path, stretch.begin_bytes, stretch.end_bytes)
    left_out = dict(stretch.left_out)
    batches = [without(batch, left_out.get(at, ())) for at, batch in enumerate(read)]
    parts, after, size_bytes = _parts(batches, stretch.carried, setup)
    own, ahead = _divided(parts)
    clocks = add_clocks([part.clocks for part in parts])
    found = Found(
        counters=sum((part.counters for part in own), Counters()),
        clocks=clocks,
        after=after,
        rows=sum(part.rows for part in own),
        size_bytes=size_bytes,
        named=named_in(own),
        ahead_counters=sum((part.counters for part in ahead), Counters()),
        ahead_logs=int(clocks["ahead_logs"].sum()),
        ahead_rows=sum(part.rows for part in ahead),
        ahead_named=named_in(ahead),
    )
    return Made(found, pack(parts))


def _parts(
    batches: Sequence[pa.RecordBatch], carried: Carried, setup: Setup
) -> tuple[list[PeerStates], Carried, int]:
    """Return the results of the first phase, what to carry on, and the bytes of the messages."""
    parts, size_bytes = [], 0
    for messages in pieces(list(batches)):
        size_bytes += messages.nbytes
        for found, after in first_phase(
            messages,
            carried,
            setup.entities,
            setup.plan,
            most_ahead_s=setup.most_ahead_s,
            caps=setup.caps,
            keep=setup.keep,
        ):
            parts.append(found)
            carried = after
    return parts, carried, size_bytes


def _divided(parts: Sequence[PeerStates]) -> tuple[list[PeerStates], list[PeerStates]]:
    """Return parts without what is ahead of its arrival, and that."""
    divided = [with_ahead(part) for part in parts]
    return [one for one, *_ in divided], [one for _, *others in divided for one in others]
