"""A table that engines share, of minutes of a large cluster, made of states and not of logs.

Each engine commits once a minute, and has each entity of it: the pods of a service are on nodes of
all engines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine import Store, merge
from framewalk.engine.sharing import Outbox, OutboxReader
from large.cluster import make_cluster, write_dump
from large.hours import FIRST_MINUTE, states_of_minute, varied
from large.minutes import Minutes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from framewalk.engine.sharing import SharedTable

_KINDS: Final = 4
_US_PER_MINUTE: Final = 60_000_000


@dataclass(frozen=True, slots=True)
class Day:
    """What is in a table: rows of a minute, some kinds of them in turn, from `first_minute` on."""

    kinds: Sequence[pl.DataFrame]
    engines: int
    first_minute: int

    def write(self, table: SharedTable, minutes: Sequence[int], at_once: int) -> int:
        """Write minutes (0 is the first one) to a table that is open; returns how many rows.

        So many minutes of an engine are in one commit of the table.
        """
        rows = 0
        for begin in range(0, len(minutes), at_once):
            some = minutes[begin : begin + at_once]
            for engine in range(self.engines):
                frame = pl.concat([self._rows(number, engine) for number in some])
                table.append(f"engine-{engine}", some[-1] + 1, some[-1] + 1, frame)
                table.open()
                rows += frame.height
        return rows

    def _rows(self, number: int, engine: int) -> pl.DataFrame:
        """Return what an engine commits of a minute, as rows of the table."""
        minute = self.first_minute + number
        day = datetime.fromtimestamp(minute * 60, UTC).date().isoformat()
        made_us = pl.lit((minute + 1) * _US_PER_MINUTE, pl.Int64)
        return self.kinds[(number * self.engines + engine) % len(self.kinds)].with_columns(
            pl.lit(f"engine-{engine}").alias("engine"),
            pl.lit(number + 1, pl.Int64).alias("commit"),
            pl.lit(minute, pl.Int64).alias("minute"),
            pl.lit(day).alias("day"),
            pl.when(pl.col("made_us").is_not_null()).then(made_us).alias("made_us"),
        )


def kinds_of(table: SharedTable, folder: Path, services: int, view: str) -> list[pl.DataFrame]:
    """Compute a minute of a cluster, of all scopes or that of one view, as rows of a table.

    Sums are others in each of some kinds (`varied`).
    """
    plan, minutes = table.plan(), Minutes(make_cluster(services))
    dump = folder / "kubectl.json"
    write_dump(minutes.cluster, dump)
    states = states_of_minute(minutes, 0, dump, plan)
    if view:
        nothing = merge(plan).scopes
        states = replace(states, scopes={**nothing, view: states.scopes[view]})
    kinds = []
    for kind in range(_KINDS):
        with Store(":memory:", plan) as store:
            store.outbound = outbox = Outbox(store, "engine", lambda: 0)
            store.commit(None, folder, [], varied(states, kind, FIRST_MINUTE))
            batch = OutboxReader(store.connection).batch(outbox.place, table.layout, 1, 1)
            assert batch is not None
            kinds.append(batch.rows)
    return kinds
