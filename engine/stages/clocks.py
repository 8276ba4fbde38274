"""Logs whose event is ahead of their arrival, and by how much the clocks of nodes are.

What has not happened yet cannot have been received: such a log is of a node whose clock is ahead,
or the receiver's clock is behind. Which of the two cannot be told from a log, so states of these
logs are kept apart, and whoever has heard enough nodes decides (engine/runs/clocks.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.errors import InputError
from framewalk.engine.schemas import CLOCKS_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from framewalk.engine.stages.streams import StreamContext

_INT64_MAX: Final = 2**63 - 1
# As nanoseconds it still is a number of 64 bits.
_LONGEST_AHEAD_S: Final = 9_000_000_000


def ahead_of(frame: pl.DataFrame, received_ns: pl.Series, most_ahead_ns: int) -> pl.Series | None:
    """Return which logs are more than that ahead of their message's arrival; None for no log.

    `frame` has `time_ns` and `message`, a row of `received_ns`.
    """
    latest, first = frame["time_ns"].max(), received_ns.min()
    if not isinstance(latest, int) or not isinstance(first, int) or latest - first <= most_ahead_ns:
        return None
    limits_ns = received_ns.clip(upper_bound=_INT64_MAX - most_ahead_ns) + most_ahead_ns
    is_ahead = frame["time_ns"] > limits_ns.gather(frame["message"])
    return is_ahead if is_ahead.any() else None


def clocks_of(context: StreamContext, ahead: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return a row of CLOCKS_SCHEMA for each node of some messages; `ahead` are logs that are.

    A part of a message (splitting.py) counts as one.
    """
    names = context.nodes.select(node="node_name").with_row_index("row")
    heard = context.messages.group_by(row="node").agg(messages=pl.len().cast(pl.Int64))
    clocks = heard.join(names, on="row", how="inner")
    if ahead:
        logs = pl.concat(ahead)
        logs = logs.select(
            "message",
            row=context.messages["node"].gather(logs["message"]),
            # Both are from 1970 on, so their difference fits.
            offset_ns=logs["time_ns"]
            - context.received_ns.clip(lower_bound=0).gather(logs["message"]),
        )
        found = logs.group_by("row").agg(
            ahead_messages=pl.col("message").n_unique().cast(pl.Int64),
            ahead_logs=pl.len().cast(pl.Int64),
            offset_ns=pl.col("offset_ns").median().cast(pl.Int64),
        )
        clocks = clocks.join(found, on="row", how="left")
    else:
        none = pl.lit(None, pl.Int64)
        clocks = clocks.with_columns(ahead_messages=none, ahead_logs=none, offset_ns=none)
    counts = pl.col("ahead_messages", "ahead_logs").fill_null(0)
    return add_clocks([clocks.with_columns(counts).select(*CLOCKS_SCHEMA)])


def add_clocks(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Put frames of CLOCKS_SCHEMA together, with each node once."""
    return (
        pl.concat([pl.DataFrame(schema=CLOCKS_SCHEMA), *parts])
        .group_by("node")
        .agg(
            pl.col("messages", "ahead_messages", "ahead_logs").sum(),
            pl.col("offset_ns").sort_by("ahead_messages").last(),
        )
    )


def check_most_ahead(most_ahead_s: float) -> None:
    """Raise InputError for what is no time that logs can be ahead of their arrival."""
    # Not a number is in no range.
    if not 0 <= most_ahead_s <= _LONGEST_AHEAD_S:
        place, problem = "most_ahead_s", f"{most_ahead_s} is no time to be ahead"
        raise InputError(place, problem, f"give seconds from 0 to {_LONGEST_AHEAD_S:,}")
