"""Stage 2: the node and the connection that each message belongs to (wire.md, last section).

Rover sends `node` in a stream's first message and `connection` in each connection's first
message. Later messages belong to the last of both in their stream. What a stream has said so
far is carried from batch to batch, for as long as the stream is not silent for an hour.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl
import pyarrow as pa

from framewalk.engine.schemas import (
    CONNECTION_LEAVES,
    CONNECTION_PRESENCE,
    MOST_NODE_ITEMS,
    NAME_LENGTHS,
    NODE_LEAVES,
)
from framewalk.engine.stages.decoding import field_at, leaf_frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Rover closes a stream after 20 s. A stream that is silent for longer than this, by the
# capture's own clock, is over: so what is carried does not grow with a capture's length.
SILENCE_LIMIT_NS: Final = 3600 * 10**9

STREAM: Final = "stream"


def _none(member: pl.DataType | type[pl.DataType]) -> pl.DataFrame:
    return pl.DataFrame(schema={STREAM: pl.UInt64, "member": member})


class Bound(NamedTuple):
    """At most so many entities, in minutes that are not before the first nor after the last."""

    heard_ns: int
    entities: int
    first_minute: int
    last_minute: int


@dataclass(frozen=True, slots=True)
class Named:
    """What streams have named so far.

    `bounds` says of each stream how much at most. `entities` (hashes) and `minutes` have `stream`
    and `member`, of streams that come near their caps.
    """

    bounds: Mapping[int, Bound] = field(default_factory=dict)
    entities: pl.DataFrame = field(default_factory=lambda: _none(pl.UInt64))
    minutes: pl.DataFrame = field(default_factory=lambda: _none(pl.Int64))


@dataclass(frozen=True, slots=True)
class Carried:
    """What streams have said so far: one row per stream in each frame.

    Both frames have `stream` (UInt64) and `heard_ns` (Int64), then the columns of NODE_LEAVES
    or CONNECTION_LEAVES. `clock_ns` is the latest `received_at` seen. `named` is for the caps of
    streams (crowding.py).
    """

    nodes: pl.DataFrame | None = None
    connections: pl.DataFrame | None = None
    clock_ns: int = 0
    named: Named = field(default_factory=Named)


@dataclass(frozen=True, slots=True)
class StreamContext:
    """Which row of `nodes` and of `connections` each message belongs to.

    `messages` has one row per message: `node` and `connection`, UInt32, null where the stream
    has not said any; `nodes` and `connections` have the STREAM that said so. `nested` is the batch
    the rows stand for, `received_ns` when each came.
    """

    nested: pa.Table
    received_ns: pl.Series
    messages: pl.DataFrame
    nodes: pl.DataFrame
    connections: pl.DataFrame
    carried: Carried


def follow_streams(
    captured: pa.Table, nested: pa.Table, carried: Carried
) -> Iterator[StreamContext]:
    """Yield the context of the messages, in pieces no longer than the silence limit.

    The `carried` of the last piece is what the next batch of the same capture starts from.
    """
    received_ns = pl.Series("received_ns", captured["received_at"].cast(pa.int64()))
    clock_ns = received_ns.cum_max().clip(lower_bound=carried.clock_ns)
    start = 0
    while start < nested.num_rows:
        limit_ns = int(clock_ns[start]) + SILENCE_LIMIT_NS
        stop = int(clock_ns.search_sorted(limit_ns, side="right"))
        length = stop - start
        stream = pl.Series(STREAM, captured["stream"].slice(start, length))
        piece = nested.slice(start, length)
        rows = pl.DataFrame({STREAM: stream, "clock_ns": clock_ns.slice(start, length)})
        context = _follow(rows, received_ns.slice(start, length), piece, carried)
        yield context
        carried = context.carried
        start = stop


def _follow(
    rows: pl.DataFrame, received_ns: pl.Series, nested: pa.Table, carried: Carried
) -> StreamContext:
    node, nodes, carried_nodes = _follow_one(
        rows, nested["node"].is_valid(), _node_frame(nested["node"]), carried.nodes
    )
    connection, connections, carried_connections = _follow_one(
        rows,
        nested["connection"].is_valid(),
        _connection_frame(nested["connection"]),
        carried.connections,
    )
    return StreamContext(
        nested,
        received_ns,
        pl.DataFrame({"node": node, "connection": connection}),
        nodes,
        connections,
        replace(
            carried,
            nodes=carried_nodes,
            connections=carried_connections,
            clock_ns=int(rows["clock_ns"][-1]),
        ),
    )


def _follow_one(
    rows: pl.DataFrame, said: pa.ChunkedArray, frame: pl.DataFrame, carried: pl.DataFrame | None
) -> tuple[pl.Series, pl.DataFrame, pl.DataFrame]:
    """Return each message's row in the table, the table, and what to carry on.

    The table is what earlier batches said about the streams at hand, then `frame`, which has
    one row per message of this batch that `said` something.
    """
    said = pl.Series("said", said)
    rows = rows.with_columns(said)
    if carried is None:
        carried = pl.DataFrame(schema={STREAM: pl.UInt64, "heard_ns": pl.Int64, **frame.schema})
    earlier = _still_open(rows, carried)
    own = _within_limits(frame.filter(said)).insert_column(0, rows[STREAM].filter(said))
    table = pl.concat([earlier.drop("heard_ns"), own], how="vertical")
    ordinal = (pl.col("said").cum_sum() - 1 + earlier.height).cast(pl.UInt32)
    index = (
        rows.with_columns(index=pl.when("said").then(ordinal))
        .with_columns(pl.col("index").forward_fill().over(STREAM))
        .join(
            earlier.select(STREAM).with_row_index("earlier"),
            on=STREAM,
            how="left",
            maintain_order="left",
        )
        .with_columns(index=pl.coalesce("index", "earlier"))
    )
    return index["index"], table, _carry_on(index, table.drop(STREAM), carried)


def _within_limits(said: pl.DataFrame) -> pl.DataFrame:
    """Cut what many logs would repeat: a name of a megabyte, a list of a million."""
    long = [
        name
        for name, length in NAME_LENGTHS.items()
        if name in said.columns and (_largest(said[name].str.len_bytes()) > length)
    ]
    lists = [name for name, dtype in said.schema.items() if isinstance(dtype, pl.List)]
    full = [name for name in lists if _largest(said[name].list.len()) > MOST_NODE_ITEMS]
    return said.with_columns(
        *(pl.col(name).str.head(NAME_LENGTHS[name]) for name in long),
        *(pl.col(name).list.head(MOST_NODE_ITEMS) for name in full),
    )


def _largest(sizes: pl.Series) -> int:
    largest = sizes.max()
    return largest if isinstance(largest, int) else 0


def _still_open(rows: pl.DataFrame, carried: pl.DataFrame) -> pl.DataFrame:
    """Return the carried rows of the streams at hand, without those that fell silent."""
    first = rows.group_by(STREAM).agg(pl.col("clock_ns").first())
    return (
        carried.join(first, on=STREAM, how="inner", maintain_order="left")
        .filter(pl.col("clock_ns") - pl.col("heard_ns") <= SILENCE_LIMIT_NS)
        .drop("clock_ns")
    )


def _carry_on(index: pl.DataFrame, table: pl.DataFrame, carried: pl.DataFrame) -> pl.DataFrame:
    last = (
        index.group_by(STREAM, maintain_order=True)
        .agg(pl.col("index").last(), heard_ns=pl.col("clock_ns").last())
        .drop_nulls("index")
    )
    latest = pl.concat([last.select(STREAM, "heard_ns"), table[last["index"]]], how="horizontal")
    clock_ns = index["clock_ns"][-1]
    others = carried.join(index.select(STREAM).unique(), on=STREAM, how="anti").filter(
        clock_ns - pl.col("heard_ns") <= SILENCE_LIMIT_NS
    )
    return pl.concat([others, latest], how="vertical")


def _node_frame(node: pa.ChunkedArray) -> pl.DataFrame:
    frame = leaf_frame(node, NODE_LEAVES)
    return frame.with_columns(has_boot_time=pl.Series(field_at(node, ("bootTime",)).is_valid()))


def _connection_frame(connection: pa.ChunkedArray) -> pl.DataFrame:
    presence = {
        leaf.column: pl.Series(field_at(connection, leaf.path).is_valid())
        for leaf in CONNECTION_PRESENCE
    }
    return leaf_frame(connection, CONNECTION_LEAVES).with_columns(**presence)
