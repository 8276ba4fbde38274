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
    ROLES,
)
from framewalk.engine.stages.decoding import DECODE_MESSAGES, decode, field_at, leaf_frame
from framewalk.engine.stages.native import overflowing, to_columns
from framewalk.engine.wire.access_log_context_pb2 import AccessLogMessageContext
from framewalk.engine.wire.access_log_heads_pb2 import AccessLogMessageHeads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
    for rows, piece, received_ns in _within_silence(captured, nested, carried.clock_ns):
        context = _follow(rows, received_ns, piece, carried)
        yield context
        carried = context.carried


def _within_silence(
    captured: pa.Table, nested: pa.Table, clock_ns: int
) -> Iterator[tuple[pl.DataFrame, pa.Table, pl.Series]]:
    """Yield pieces no longer than the silence limit; `clock_ns` is what the clock was before.

    Of each there is STREAM and `clock_ns` of its messages, these, and when each came.
    """
    received_ns = pl.Series("received_ns", captured["received_at"].cast(pa.int64()))
    clocks_ns = received_ns.cum_max().clip(lower_bound=clock_ns)
    start = 0
    while start < nested.num_rows:
        limit_ns = int(clocks_ns[start]) + SILENCE_LIMIT_NS
        stop = int(clocks_ns.search_sorted(limit_ns, side="right"))
        length = stop - start
        stream = pl.Series(STREAM, captured["stream"].slice(start, length))
        rows = pl.DataFrame({STREAM: stream, "clock_ns": clocks_ns.slice(start, length)})
        yield rows, nested.slice(start, length), received_ns.slice(start, length)
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


# ---- what streams say, without logs


def follow_heads(messages: pa.Table, carried: Carried) -> Carried:
    """Return what streams have said after some messages (CAPTURE_SCHEMA), and before.

    Logs are not decoded, which makes this a tenth of decoding. So a message that cannot be decoded
    for its logs, which says nothing, says something here.
    """
    for captured, nested in _heads(messages):
        for rows, piece, _ in _within_silence(captured, nested, carried.clock_ns):
            node, connection = piece["node"], piece["connection"]
            carried = replace(
                carried,
                nodes=_said_last(rows, node.is_valid(), _node_frame(node), carried.nodes),
                connections=_said_last(
                    rows, connection.is_valid(), _connection_frame(connection), carried.connections
                ),
                clock_ns=int(rows["clock_ns"][-1]),
            )
    return carried


def _said_last(
    rows: pl.DataFrame, said: pa.ChunkedArray, frame: pl.DataFrame, carried: pl.DataFrame | None
) -> pl.DataFrame:
    """Return what `_follow_one` carries on, without the rows of messages."""
    said = pl.Series("said", said)
    if carried is None:
        carried = pl.DataFrame(schema={STREAM: pl.UInt64, "heard_ns": pl.Int64, **frame.schema})
    own = frame.with_columns(rows[STREAM]).filter(said)
    own = _within_limits(own.unique(STREAM, keep="last")).select(STREAM, *frame.columns)
    earlier = _still_open(rows, carried).drop("heard_ns").join(own, on=STREAM, how="anti")
    heard = rows.group_by(STREAM).agg(heard_ns=pl.col("clock_ns").last())
    latest = pl.concat([earlier, own]).join(heard, on=STREAM).select(carried.columns)
    clock_ns = rows["clock_ns"][-1]
    others = carried.join(heard, on=STREAM, how="anti").filter(
        clock_ns - pl.col("heard_ns") <= SILENCE_LIMIT_NS
    )
    return pl.concat([others, latest])


def said_alike(one: Carried, other: Carried) -> bool:
    """Tell whether streams have said the same; what they named for their caps is not compared."""
    if one.clock_ns != other.clock_ns:
        return False
    return _alike(one.nodes, other.nodes) and _alike(one.connections, other.connections)


def _heads(messages: pa.Table) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield messages and what they say; where one cannot be decoded, as decoding all has it."""
    decoded = [
        _decoded_heads(messages.slice(start, DECODE_MESSAGES))
        for start in range(0, messages.num_rows, DECODE_MESSAGES)
    ]
    whole = [one for one in decoded if one is not None]
    if len(whole) == len(decoded):
        yield messages, pa.Table.from_batches(whole)
        return
    for one in decode(messages):
        yield one.captured, one.nested


def _decoded_heads(messages: pa.Table) -> pa.RecordBatch | None:
    contents = messages["message"].combine_chunks()
    if overflowing(contents, AccessLogMessageHeads):
        return None
    return to_columns(contents, AccessLogMessageHeads)


def _alike(one: pl.DataFrame | None, other: pl.DataFrame | None) -> bool:
    if one is None or other is None:
        return (one is None or one.is_empty()) and (other is None or other.is_empty())
    return one.sort(STREAM).equals(other.sort(STREAM))


# ---- the same at a glance, without logs --------------------------------------

ADDRESSES_SCHEMA: Final = pl.Schema(
    {
        "batch": pl.UInt32,
        "cluster": pl.String,
        "ip": pl.String,
        "port": pl.Int32,
        "is_called": pl.Boolean,
    }
)
_WANTED: Final = ("local_ip", "local_port", "remote_ip", "remote_port", "role")
_LEAVES: Final = tuple(
    leaf for leaf in CONNECTION_LEAVES if leaf.column in {*_WANTED, "ztunnel_ip", "ztunnel_by"}
)
_PRESENCE: Final = tuple(
    leaf for leaf in CONNECTION_PRESENCE if not leaf.column.endswith("_is_kubernetes")
)
_SERVER: Final = ROLES.index("server")
_CLUSTER: Final = ("clusterName",)


class _Said(NamedTuple):
    """What the batch of that number said last of its cluster."""

    batch: int
    cluster: str


_NOTHING_SAID: Final = _Said(-1, "")


class _Slice(NamedTuple):
    """Some messages of the batch of that number."""

    batch: int
    messages: pa.BinaryArray


def addresses_of(batches: Sequence[pa.RecordBatch]) -> pl.DataFrame:
    """Return the IP addresses that record batches of CAPTURE_SCHEMA are about: ADDRESSES_SCHEMA.

    Each row once; `batch` is the number of the record batch, `port` is 0 where the address is not
    that of the called side. Logs are not decoded, which makes this a tenth of decoding. Messages
    that cannot be decoded say nothing.
    """
    found = [pl.DataFrame(schema=ADDRESSES_SCHEMA)]
    before = _NOTHING_SAID
    for slices in _together(batches):
        addresses, before = _addresses(slices, before)
        found.append(addresses)
    return pl.concat(found).unique()


def _together(batches: Sequence[pa.RecordBatch]) -> Iterator[list[_Slice]]:
    """Yield as many messages as are decoded at once."""
    waiting: list[_Slice] = []
    rows = 0
    for number, batch in enumerate(batches):
        for start in range(0, batch.num_rows, DECODE_MESSAGES):
            part = batch["message"].slice(start, DECODE_MESSAGES)
            if waiting and rows + len(part) > DECODE_MESSAGES:
                yield waiting
                waiting, rows = [], 0
            waiting.append(_Slice(number, part))
            rows += len(part)
    if waiting:
        yield waiting


def _addresses(slices: list[_Slice], before: _Said) -> tuple[pl.DataFrame, _Said]:
    """Return what is asked about the addresses of some messages, each once, and what is said last.

    `before` is what was said last of the messages before these.
    """
    columns = _decoded(pa.concat_arrays([one.messages for one in slices]))
    if columns is not None:
        return _asked(slices, columns, before)
    # One sender's fault is that sender's.
    parts = [pl.DataFrame(schema=ADDRESSES_SCHEMA)]
    for one in slices:
        alone = _decoded(one.messages)
        if alone is not None:
            part, before = _asked([one], alone, before)
            parts.append(part)
    return pl.concat(parts), before


def _decoded(messages: pa.BinaryArray) -> pa.Table | None:
    if overflowing(messages, AccessLogMessageContext):
        return None
    columns = to_columns(messages, AccessLogMessageContext)
    return None if columns is None else pa.Table.from_batches([columns])


def _asked(slices: list[_Slice], columns: pa.Table, before: _Said) -> tuple[pl.DataFrame, _Said]:
    connection = columns["connection"]
    present = {
        leaf.column: pl.Series(field_at(connection, leaf.path).is_valid()) for leaf in _PRESENCE
    }
    rows = _clusters(slices, columns["node"], before)
    connections = (
        pl.concat([rows, leaf_frame(connection, _LEAVES)], how="horizontal")
        .with_columns(**present)
        .filter(pl.Series(connection.is_valid()))
    )
    is_server = pl.col("role") == _SERVER
    sides = [
        connections.filter(f"{side}_is_ip").select(
            "batch",
            "cluster",
            ip=ip,
            port=pl.when(is_called).then(f"{side}_port").otherwise(0).cast(pl.Int32),
            is_called=is_called,
        )
        for side, ip, is_called in (
            ("local", pl.col("local_ip"), is_server),
            ("remote", _remote_ip(), ~is_server),
        )
    ]
    return pl.concat(sides).unique().cast(ADDRESSES_SCHEMA), _Said(*rows.row(-1))


def _remote_ip() -> pl.Expr:
    is_tunnel = pl.col("has_ztunnel") & (pl.col("ztunnel_by") == 0) & (pl.col("ztunnel_ip") != "")
    return pl.when(is_tunnel).then("ztunnel_ip").otherwise("remote_ip")


def _clusters(slices: list[_Slice], node: pa.ChunkedArray, before: _Said) -> pl.DataFrame:
    """Return the `batch` of each message and its `cluster`: what its batch said last."""
    lengths = [len(one.messages) for one in slices]
    numbers = pl.DataFrame(
        {"batch": [one.batch for one in slices], "length": lengths},
        schema={"batch": pl.UInt32, "length": pl.UInt32},
    ).select(pl.col("batch").repeat_by("length").explode())
    says = pl.Series("says", node.is_valid())
    said = pl.Series("said", field_at(node, _CLUSTER))
    cluster = pl.when("says").then("said").forward_fill().over("batch")
    earlier = pl.when(pl.col("batch") == before.batch).then(pl.lit(before.cluster))
    return numbers.with_columns(says, said).select(
        "batch", cluster=pl.coalesce(cluster, earlier, pl.lit(""))
    )
