"""What goes into a store, as frames with the columns of its tables."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import polars as pl

from framewalk.engine.states import (
    KEY,
    MINUTE,
    TRAITS,
    VALUE,
    ScopeStates,
    as_lists,
    merge_scope,
)
from framewalk.engine.views import BUCKET, RESOLUTIONS, view_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from framewalk.engine.counters import Counters
    from framewalk.engine.oal import Metric, Scope, ScopePlan, State


# What an outbound is given of what has no name, beside the views of scopes.
UNKNOWN_PEERS: Final = "unknown_peers"


class Outbound(Protocol):
    """What takes a copy of all that commits write, within their transaction.

    Archived logs go to one that `takes_logs`.
    """

    takes_logs: bool

    def add(self, view: str, rows: pl.DataFrame) -> None:
        """Take rows of a scope: bucket, names, traits and states, or those of UNKNOWN_PEERS."""

    def add_file(self, kind: str, rows: int, content: bytes) -> None:
        """Take a file of archived logs of a kind: Parquet."""

    def close(self, counters: Counters) -> None:
        """Take what was counted: the transaction ends with this."""

    def undo(self) -> None:
        """Forget what the transaction gave: it is undone."""


def as_definitions(metrics: Sequence[Metric]) -> pl.DataFrame:
    """Return metrics as rows of internal.definitions."""
    columns = ["name", "scope", "function", "definition", "unit", "family"]
    views = [one.name for one in RESOLUTIONS]
    rows = [
        (
            metric.name,
            metric.scope.name,
            metric.function.name,
            str(metric.definition),
            metric.unit,
            metric.family,
            *(f"{view_name(metric.scope, one)}.{metric.name}" for one in RESOLUTIONS),
        )
        for metric in metrics
    ]
    return strings(rows, [*columns, *views]).select(
        *columns, pl.concat_list(views).alias("columns")
    )


def strings(rows: Sequence[tuple[str, ...]], columns: Sequence[str]) -> pl.DataFrame:
    """Return rows of strings."""
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def as_table(scope: Scope, states: ScopeStates, keyed: Sequence[State]) -> pl.DataFrame:
    """Return the states as rows of the states table, with states under their own names."""
    frame = states.scalars.with_columns(
        _lists(states, state.name, list(scope.keys)) for state in keyed
    )
    minute_us = 60_000_000
    bucket = (pl.col(MINUTE) * minute_us).cast(pl.Datetime("us")).alias(BUCKET)
    return frame.select(bucket, pl.exclude(MINUTE))


def _lists(states: ScopeStates, name: str, keys: list[str]) -> pl.Series:
    """Return the entries of each row of scalars: a state that found nothing is an empty list."""
    entries = states.keyed[name]
    if states.rows is not None:
        row = states.rows[name]
    else:
        numbered = states.scalars.select(*keys, MINUTE).with_row_index("row")
        on = [*keys, MINUTE]
        row = entries.join(numbered, on=on, how="left", maintain_order="left")["row"]
    order = row.arg_sort()
    counts = np.bincount(row.to_numpy(), minlength=states.scalars.height)
    return as_lists(name, entries.select(KEY, VALUE)[order], counts)


def as_states(scope: ScopePlan, rows: pl.DataFrame) -> ScopeStates:
    """Return rows as `as_table` gives them, with states under their own names, as states."""
    minute = pl.col(BUCKET).dt.epoch("s") // 60
    named = rows.with_columns(minute.alias(MINUTE))
    keys = [*scope.scope.keys, MINUTE]
    scalars = named.select(*keys, TRAITS, *(state.name for state in scope.scalar_states))
    keyed = {
        state.name: named.select(*keys, state.name)
        .filter(pl.col(state.name).list.len() > 0)
        .explode(state.name)
        .unnest(state.name)
        for state in scope.keyed_states
    }
    return merge_scope(scope, [ScopeStates(scalars, MappingProxyType(keyed))])


def as_counters(counters: Counters) -> list[tuple[str, str, int]]:
    """Return (kind, name, count) for each count that is not 0."""
    rows = [("messages", "", counters.messages), ("logs", "", counters.logs)]
    rows += [("dropped", reason, count) for reason, count in counters.dropped.items()]
    rows += [("addresses", kind, count) for kind, count in counters.addresses.items()]
    rows += [("quality", name, count) for name, count in counters.quality.items()]
    return [row for row in rows if row[-1] > 0]
