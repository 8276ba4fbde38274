"""What goes into a store, as frames with the columns of its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from framewalk.engine.states import KEY, MINUTE, VALUE
from framewalk.engine.store.views import BUCKET, RESOLUTIONS, view_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from framewalk.engine.counters import Counters
    from framewalk.engine.oal import Metric, Scope, State
    from framewalk.engine.states import ScopeStates


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
    keys = [*scope.keys, MINUTE]
    frame = states.scalars
    for state in keyed:
        entries = (
            states.keyed[state.name].group_by(keys).agg(pl.struct(KEY, VALUE).alias(state.name))
        )
        # A state that was computed and found nothing is an empty list, not NULL.
        none = pl.lit([], dtype=entries.schema[state.name])
        frame = frame.join(entries, on=keys, how="left").with_columns(
            pl.col(state.name).fill_null(none)
        )
    minute_us = 60_000_000
    bucket = (pl.col(MINUTE) * minute_us).cast(pl.Datetime("us")).alias(BUCKET)
    return frame.select(bucket, pl.exclude(MINUTE))


def as_counters(counters: Counters) -> list[tuple[str, str, int]]:
    """Return (kind, name, count) for each count that is not 0."""
    rows = [("messages", "", counters.messages), ("logs", "", counters.logs)]
    rows += [("dropped", reason, count) for reason, count in counters.dropped.items()]
    rows += [("addresses", kind, count) for kind, count in counters.addresses.items()]
    rows += [("quality", name, count) for name, count in counters.quality.items()]
    return [row for row in rows if row[-1] > 0]
