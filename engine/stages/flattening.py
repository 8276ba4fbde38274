"""Stage 3: nested messages -> log frames, one row per log (analysis.md, sections 1 and 3).

The children of an Arrow struct are read where they lie; rows are picked once, by whether the
operation is set. All rules for incomplete and hostile values (docs/semantics.md) apply here,
so every later stage may rely on Int64 columns that are not negative.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from framewalk.engine.counters import Counters
from framewalk.engine.schemas import (
    AHEAD_REASON,
    DEFAULT_MOST_AHEAD_S,
    GUARDED_DURATIONS,
    KEPT_LEAVES,
    KERNEL_OPERATIONS,
    LOG_COLUMNS,
    OPERATION_LEAVES,
    OPERATIONS,
    ROLES,
    TIME_LEAVES,
)
from framewalk.engine.stages.clocks import add_clocks, ahead_of, clocks_of
from framewalk.engine.stages.columns import with_serving
from framewalk.engine.stages.decoding import field_at, leaf_frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from framewalk.engine.stages.streams import StreamContext

DEVICE_NAME: Final = "l2_device_name"

_NS_PER_S: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000
_INT64_MAX: Final = 2**63 - 1
# Sums of two numbers below this need no wider type.
_SAFE: Final = 2**62

_SERVER: Final = ROLES.index("server")

_MEASURES: Final = {
    operation: [leaf.column for leaf in leaves if leaf.column.endswith(("_ns", "_bytes", "_count"))]
    for operation, leaves in OPERATION_LEAVES.items()
}


@dataclass(frozen=True, slots=True)
class LogFrames:
    """The logs of some messages.

    `operations` maps each of OPERATIONS to a frame of LOG_COLUMNS and its own columns
    (OPERATION_LEAVES; `http` has `latency_ms` beside). `connections` holds the connection columns
    that the logs' `connection` points into, the STREAM they are of, and what their node says:
    `cluster_name` and `node_name`.

    Where logs are to be kept the frames have the number of their `message` (UInt32), those of one
    operation in order, and what KEPT_LEAVES says beside.

    `ahead` are logs that are too far ahead of their arrival, None without any; `counters` has them
    as dropped, their own are empty. `clocks` has CLOCKS_SCHEMA.
    """

    connections: pl.DataFrame
    operations: Mapping[str, pl.DataFrame]
    counters: Counters
    clocks: pl.DataFrame
    ahead: LogFrames | None = None


def flatten(
    context: StreamContext,
    *,
    device_names: bool = False,
    serving: bool = False,
    most_ahead_s: float = DEFAULT_MOST_AHEAD_S,
    to_keep: bool = False,
) -> LogFrames:
    """Flatten messages whose node and connection are known.

    With `device_names` the frames of read and write have `l2_device_name` (String) beside, with
    `serving` that of HTTP SERVING_START and SERVING. Logs whose event is more than `most_ahead_s`
    ahead of their message's arrival are apart.
    """
    kernel_logs = context.nested["kernelLogs"]
    entries = pc.list_flatten(kernel_logs)
    kernel_rows = pl.Series("message", pc.list_parent_indices(kernel_logs)).cast(pl.UInt32)
    protocol_log = context.nested["protocolLog"]
    message_rows = pl.int_range(context.nested.num_rows, dtype=pl.UInt32, eager=True)

    messages, connections = _message_frame(context)
    frames: dict[str, pl.DataFrame] = {}
    whole: dict[str, pl.DataFrame] = {}
    ahead: dict[str, pl.DataFrame] = {}
    dropped: Counter[str] = Counter()
    quality: Counter[str] = Counter()
    logs = 0
    for operation in OPERATIONS:
        if operation in KERNEL_OPERATIONS:
            struct, rows = field_at(entries, (operation,)), kernel_rows
        else:
            struct, rows = field_at(protocol_log, ("http",)), message_rows
        raw = _operation_rows(struct, rows, operation, to_keep=to_keep)
        logs += raw.height
        clean = _clean_values(raw, operation, quality)
        if device_names and "l2_ifindex" in clean.columns:
            clean = _with_device_names(clean, context)
        placed = _place(clean, messages, dropped)
        whole[operation] = placed
        if serving and operation == "http":
            is_server = (connections["role"] == _SERVER).gather(placed["connection"])
            placed = with_serving(placed, whole["read"], whole["write"], is_server)
        is_ahead = ahead_of(placed, context.received_ns, int(most_ahead_s * _NS_PER_S))
        if is_ahead is not None:
            ahead[operation] = placed.filter(is_ahead)
            placed = placed.filter(~is_ahead)
        frames[operation] = _log_frame(placed, to_keep=to_keep)

    unknown = len(entries) + pc.sum(protocol_log.is_valid(), min_count=0).as_py() - logs
    dropped["unknown_operation"] += unknown
    dropped[AHEAD_REASON] += sum(frame.height for frame in ahead.values())
    # Messages are counted where they are decoded: a row may be a part of one.
    counters = Counters(0, logs + unknown, +dropped, +quality)
    times = [frame.select("message", "time_ns") for frame in ahead.values()]
    clocks = clocks_of(context, times)
    if not ahead:
        return LogFrames(connections, frames, counters, clocks)
    apart = {operation: frame.clear() for operation, frame in frames.items()}
    apart |= {operation: _log_frame(one, to_keep=to_keep) for operation, one in ahead.items()}
    without = LogFrames(connections, apart, Counters(), clocks.clear())
    return LogFrames(connections, frames, counters, clocks, without)


def concat_logs(parts: list[LogFrames]) -> LogFrames:
    """Put frames of several batches together; `connection` and `message` are renumbered."""
    if len(parts) == 1:
        return parts[0]
    first_rows = _starts([part.connections.height for part in parts])
    first_messages = _starts([_messages(part) for part in parts])
    operations = {
        operation: pl.concat(
            [
                _renumbered(part.operations[operation], first_row, first_message)
                for part, first_row, first_message in zip(
                    parts, first_rows, first_messages, strict=True
                )
            ]
        )
        for operation in OPERATIONS
    }
    ahead = [part.ahead for part in parts if part.ahead is not None]
    return LogFrames(
        pl.concat([part.connections for part in parts]),
        operations,
        sum((part.counters for part in parts), Counters()),
        add_clocks([part.clocks for part in parts]),
        concat_logs(ahead) if ahead else None,
    )


def _starts(counts: list[int]) -> list[int]:
    """Return the number at which each part begins when they are put together."""
    return [0, *accumulate(counts)][: len(counts)]


def _messages(logs: LogFrames) -> int:
    """Return a number that those of all messages of these logs are below."""
    frames = [*logs.operations.values(), *(logs.ahead.operations.values() if logs.ahead else ())]
    numbers = (frame["message"].max() for frame in frames if "message" in frame.columns)
    return max((number + 1 for number in numbers if isinstance(number, int)), default=0)


def _renumbered(frame: pl.DataFrame, first_row: int, first_message: int) -> pl.DataFrame:
    frame = frame.with_columns(pl.col("connection") + first_row)
    if first_message and "message" in frame.columns:
        return frame.with_columns(pl.col("message") + first_message)
    return frame


def _operation_rows(
    struct: pa.ChunkedArray, rows: pl.Series, operation: str, *, to_keep: bool
) -> pl.DataFrame:
    """Return the leaves of one operation where it is set, with the `message` they are in."""
    kept = KEPT_LEAVES.get(operation, ()) if to_keep else ()
    frame = leaf_frame(struct, TIME_LEAVES + OPERATION_LEAVES[operation] + kept)
    frame = frame.with_columns(rows.alias("message")).filter(pl.Series(struct.is_valid()))
    counts = [
        name
        for name, dtype in frame.schema.items()
        if name.endswith("_count") and dtype != pl.Int64
    ]
    return frame.cast(dict.fromkeys(counts, pl.Int64))


def _clean_values(frame: pl.DataFrame, operation: str, quality: Counter[str]) -> pl.DataFrame:
    """Replace bad measures by 0 and derive the duration."""
    frame = frame.with_columns(_durations(frame))
    bad_durations = frame.select(
        negative_duration=pl.col("ends_early").sum(),
        value_out_of_range=(pl.col("duration_ns") < 0).sum(),
    )
    quality.update(bad_durations.row(0, named=True))
    frame = frame.with_columns(pl.col("duration_ns").clip(lower_bound=0)).drop(
        "end_offset_ns", "ends_early"
    )
    measures = _MEASURES[operation]
    lowest = frame.select(pl.col(measures).min()).row(0) if measures else ()
    if any(value is not None and value < 0 for value in lowest):
        negative = frame.select((pl.col(measures) < 0).sum()).row(0)
        quality["value_out_of_range"] += sum(negative)
        frame = frame.with_columns(pl.col(measures).clip(lower_bound=0))
    return frame.with_columns(
        pl.when(pl.col(count) > 0).then(pl.col(duration)).otherwise(0).alias(duration)
        for duration, count in GUARDED_DURATIONS.get(operation, {}).items()
    )


def _durations(frame: pl.DataFrame) -> list[pl.Expr]:
    """Return `duration_ns` and `ends_early` from offsets that are unsigned numbers."""
    start = pl.col("start_offset_ns").reinterpret(signed=False)
    end = pl.col("end_offset_ns").reinterpret(signed=False)
    if _lowest(frame, "start_offset_ns") >= 0 and _lowest(frame, "end_offset_ns") >= 0:
        start, end = pl.col("start_offset_ns"), pl.col("end_offset_ns")
    early = end < start
    difference = pl.when(early).then(0).otherwise(end - start)
    return [difference.reinterpret(signed=True).alias("duration_ns"), early.alias("ends_early")]


def _lowest(frame: pl.DataFrame, column: str) -> int:
    value = frame[column].min()
    return value if isinstance(value, int) else 0


def _with_device_names(frame: pl.DataFrame, context: StreamContext) -> pl.DataFrame:
    """Name network devices by the interfaces that the node reported; unknown ones are empty."""
    interfaces = (
        context.nodes.select("net_interfaces")
        .with_row_index("node")
        .explode("net_interfaces")
        .drop_nulls()
        .unnest("net_interfaces")
        .select("node", l2_ifindex=pl.col("index").cast(pl.Int64), l2_device_name="name")
        .unique(["node", "l2_ifindex"], keep="last", maintain_order=True)
    )
    return (
        frame.with_columns(context.messages["node"].gather(frame["message"]))
        .with_columns(pl.col("l2_ifindex").cast(pl.Int64))
        .join(interfaces, on=["node", "l2_ifindex"], how="left", maintain_order="left")
        .with_columns(pl.col("l2_device_name").fill_null(""))
        .drop("node")
    )


def _message_frame(context: StreamContext) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return per message `connection`, boot time and `reason` to drop, and the connections.

    A connections row is a distinct pair of connection and node, as the node's cluster name takes
    part in what an address means.
    """
    pairs = context.messages.unique(maintain_order=True).drop_nulls().with_row_index("pair")
    connections = pl.concat(
        [
            context.connections[pairs["connection"]],
            context.nodes.select("cluster_name", "node_name")[pairs["node"]],
        ],
        how="horizontal",
    )
    nodes = context.nodes.select("boot_seconds", "boot_nanos", "has_boot_time").with_row_index(
        "node"
    )
    reasons = connections.select(reason=_connection_reason()).with_row_index("pair")
    messages = (
        context.messages.join(nodes, on="node", how="left", maintain_order="left")
        .join(pairs, on=["node", "connection"], how="left", maintain_order="left")
        .join(reasons, on="pair", how="left", maintain_order="left")
    )
    reason = (
        pl.when(pl.col("node").is_null())
        .then(pl.lit("no_node"))
        .when(~pl.col("has_boot_time"))
        .then(pl.lit("no_boot_time"))
        .when(pl.col("connection").is_null())
        .then(pl.lit("no_connection"))
        .otherwise("reason")
    )
    return (
        messages.select("boot_seconds", "boot_nanos", connection=pl.col("pair"), reason=reason),
        connections,
    )


def _connection_reason() -> pl.Expr:
    return (
        pl.when(~pl.col("local_is_kubernetes") & ~pl.col("local_is_ip"))
        .then(pl.lit("no_local_address"))
        .when(~pl.col("remote_is_kubernetes") & ~pl.col("remote_is_ip"))
        .then(pl.lit("no_remote_address"))
        .when(~pl.col("role").is_between(0, len(ROLES) - 1))
        .then(pl.lit("unknown_role"))
    )


def _place(frame: pl.DataFrame, messages: pl.DataFrame, dropped: Counter[str]) -> pl.DataFrame:
    """Give each log its connection and event time; drop and count those without."""
    frame = pl.concat([frame, messages[frame["message"]]], how="horizontal")
    if frame["reason"].null_count() < frame.height:
        for reason, count in frame["reason"].drop_nulls().value_counts().rows():
            dropped[reason] += count
        frame = frame.filter(pl.col("reason").is_null())
    frame = _with_event_time(frame)
    if frame["time_ns"].null_count():
        dropped["time_out_of_range"] += frame["time_ns"].null_count()
        frame = frame.drop_nulls("time_ns")
    return frame


def _log_frame(frame: pl.DataFrame, *, to_keep: bool) -> pl.DataFrame:
    derived = {"latency_ms": pl.col("duration_ns") // _NS_PER_MS} if "path" in frame.columns else {}
    own = set(LOG_COLUMNS) | {"reason", "boot_seconds", "boot_nanos", "start_offset_ns"}
    if not to_keep:
        own.add("message")
    return frame.select(*LOG_COLUMNS, pl.exclude(own), **derived)


def _with_event_time(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `time_ns` = boot time + start offset, null where it is out of range."""
    seconds, nanos, offset = pl.col("boot_seconds"), pl.col("boot_nanos"), pl.col("start_offset_ns")
    if _all_times_safe(frame):
        return frame.with_columns(time_ns=seconds * _NS_PER_S + nanos + offset)
    wide = pl.Int128
    exact = (
        seconds.cast(wide) * _NS_PER_S
        + nanos.cast(wide)
        + offset.reinterpret(signed=False).cast(wide)
    )
    in_range = exact.is_between(0, _INT64_MAX)
    return frame.with_columns(time_ns=pl.when(in_range).then(exact).cast(pl.Int64))


def _all_times_safe(frame: pl.DataFrame) -> bool:
    if frame.is_empty():
        return True
    seconds, nanos, offset = (
        frame[name] for name in ("boot_seconds", "boot_nanos", "start_offset_ns")
    )
    return bool(
        seconds.is_between(0, _SAFE // _NS_PER_S - 1).all()
        and nanos.is_between(0, _NS_PER_S).all()
        and offset.is_between(0, _SAFE).all()
    )
