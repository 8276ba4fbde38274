"""What is kept of logs -> rows of a table, in the order in which they are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from framewalk.engine.archive.schema import (
    CONNECTION_COLUMNS,
    EDGE,
    HTTP,
    NAME_LENGTH,
    PATH_LENGTH,
    PEER_COLUMNS,
    REQUEST,
    TABLES,
    TIME,
    UNKNOWN_MEMBER,
    arrow_schema,
)
from framewalk.engine.schemas import READ_SYSCALLS, WRITE_SYSCALLS
from framewalk.engine.stages import endpoint_expression

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from framewalk.engine.archive.hours import OpenedHours
    from framewalk.engine.archive.kept import Kept
    from framewalk.engine.archive.schema import Column
    from framewalk.engine.oal import EndpointPatterns

_HALF: Final = 32
_QUERY: Final = r"^([^?#]*)"
_AFTER_PATH: Final = ("?", "#")
_NS_PER_HOUR: Final = 3600 * 10**9
_TRACE_TEXTS: Final = ("trace_id", "trace_segment_id", "trace_span_id")


@dataclass(frozen=True, slots=True)
class Shown:
    """What is kept of a request's texts: without `paths` only its endpoint's name."""

    hosts: bool = True
    paths: bool = True
    queries: bool = False
    traces: bool = True

    @classmethod
    def of(cls, names: Collection[str]) -> Shown:
        """Return one that keeps what is named."""
        return cls(**{name: name in names for name in TEXTS})


TEXTS: Final = ("hosts", "paths", "queries", "traces")


@dataclass(frozen=True, slots=True)
class Numbering:
    """Where the numbers of requests go on, and how requests are shown."""

    first_request: int
    shown: Shown
    patterns: EndpointPatterns | None


def tables_of(
    kind: str, parts: Sequence[Kept], numbering: Numbering, most_hours: int, opened: OpenedHours
) -> Iterator[tuple[int | None, pa.Table]]:
    """Yield the rows of a kind by the hour of their time, in hours since 1970.

    Those of one edge lie together. What would be more than `most_hours` tables, or more hours than
    a node may open, is in one of no hour.
    """
    frame = _together(kind, parts, numbering.first_request)
    if frame is None:
        return
    peers = pl.concat([part.peers for part in parts])
    connections = pl.concat([part.connections for part in parts])
    if kind == HTTP:
        frame = _with_shown(_with_serving(frame), peers, numbering)
    frame = _by_edge(frame, peers)
    for hour, rows in _by_hour(frame, opened.own(frame, connections, most_hours)):
        arrays = [_array(column, rows, peers, connections) for column in TABLES[kind]]
        yield hour, pa.table(arrays, names=[column.name for column in TABLES[kind]])


def tables_again(
    kind: str, rows: pl.DataFrame, most_hours: int, opened: OpenedHours
) -> Iterator[tuple[int | None, pa.Table]]:
    """Yield rows of a kind as `tables_of` does: rows with the columns of TABLES, of any order."""
    if rows.is_empty():
        return
    schema = arrow_schema(kind)
    named = rows.sort(EDGE, maintain_order=True).with_columns(
        time_ns=pl.col(TIME).cast(pl.Int64), connection=pl.struct("cluster", "node").rank("dense")
    )
    nodes = named.select("connection", "cluster", "node").unique("connection").sort("connection")
    frame = named.with_columns(pl.col("connection").cast(pl.UInt32) - 1)
    for hour, own in _by_hour(frame, opened.own(frame, nodes, most_hours)):
        yield hour, own.select(schema.names).to_arrow().cast(schema)


def _by_hour(frame: pl.DataFrame, own: Sequence[int]) -> Iterator[tuple[int | None, pl.DataFrame]]:
    hours = frame["time_ns"] // _NS_PER_HOUR
    if hours.min() == hours.max():
        yield int(hours[0]) if own else None, frame
        return
    left = frame.height
    for hour in own:
        rows = frame.filter(hours == hour)
        left -= rows.height
        yield hour, rows
    if left:
        yield None, frame.filter(~hours.is_in(own))


def _together(kind: str, parts: Sequence[Kept], first_request: int) -> pl.DataFrame | None:
    frames = []
    peers = connections = 0
    for part in parts:
        frame = part.frames.get(kind)
        if frame is not None and frame.height:
            shifts = {"peer": peers, "connection": connections, REQUEST: first_request}
            frames.append(
                frame.with_columns(
                    pl.col(name) + shift
                    for name, shift in shifts.items()
                    if shift and name in frame.columns
                )
            )
        peers += part.peers.height
        connections += part.connections.height
        first_request += part.requests
    if not frames:
        return None
    return frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal")


def _with_serving(frame: pl.DataFrame) -> pl.DataFrame:
    """Say when a request was being served by what is before and after it, which is mostly 0.

    It is `serving_start_ns` (an event time) and `serving_duration_ns` of a log, if it has those.
    Both are null where one does not fit.
    """
    if "serving_start_ns" not in frame.columns:
        return frame
    names = ("serving_start_ns", "time_ns", "duration_ns", "serving_duration_ns")
    start, time, duration, serving = (pl.col(name).cast(pl.Int128) for name in names)
    before = (start - time).cast(pl.Int64, strict=False)
    after = (duration - (start - time) - serving).cast(pl.Int64, strict=False)
    fits = before.is_not_null() & after.is_not_null()
    return frame.with_columns(
        serving_before_ns=pl.when(fits).then(before), serving_after_ns=pl.when(fits).then(after)
    )


def _with_shown(frame: pl.DataFrame, peers: pl.DataFrame, numbering: Numbering) -> pl.DataFrame:
    """Leave out what is not to be kept, and name the endpoints that are not METHOD:path."""
    shown = numbering.shown
    services = peers["local_service"].gather(frame["peer"])
    has_special = frame["path"].str.contains_any([*_AFTER_PATH, "%"])
    frame = frame.with_columns(_endpoints(frame, services, numbering, has_special))
    if not shown.queries and has_special.any():
        frame = frame.with_columns(pl.col("path").str.extract(_QUERY))
    lengths = {"path": PATH_LENGTH} | dict.fromkeys(("host", *_TRACE_TEXTS), NAME_LENGTH)
    frame = frame.with_columns(
        pl.col(name).str.head(length)
        for name, length in lengths.items()
        if _longest_bytes(frame[name]) > length
    )
    gone = [] if shown.paths else ["path"]
    gone += [] if shown.hosts else ["host"]
    gone += [] if shown.traces else ["trace_provider", *_TRACE_TEXTS]
    frame = frame.drop(gone)
    if not shown.traces:
        return frame
    # The provider of no trace is that with the number 0.
    provider = pl.when(pl.col("trace_id") != "").then("trace_provider")
    return frame.with_columns(provider, pl.col(_TRACE_TEXTS).replace("", None))


def _endpoints(
    frame: pl.DataFrame, services: pl.Series, numbering: Numbering, has_special: pl.Series
) -> pl.Series:
    """Return the names of endpoints, null where METHOD:path is that of the row."""
    patterns, shown = numbering.patterns, numbering.shown
    is_other = has_special
    if patterns is not None or not shown.paths:
        is_other = pl.repeat(value=True, n=frame.height, dtype=pl.Boolean, eager=True)
    if not is_other.any():
        return pl.Series("endpoint", [None], dtype=pl.String).new_from_index(0, frame.height)
    asked = frame.select("method", "path", service=services).filter(is_other)
    distinct = asked.unique()
    named = distinct.with_columns(endpoint=endpoint_expression(patterns, distinct["service"]))
    found = asked.join(named, on=asked.columns, how="left", maintain_order="left")["endpoint"]
    rows = (is_other.cast(pl.UInt32).cum_sum() - 1).set(~is_other, None)
    return found.gather(rows).alias("endpoint")


def _longest_bytes(texts: pl.Series) -> int:
    longest = texts.str.len_bytes().max()
    return longest if isinstance(longest, int) else 0


def _by_edge(frame: pl.DataFrame, peers: pl.DataFrame) -> pl.DataFrame:
    """Sort rows by the names of their peers; those of one pair stay in the order they came in."""
    order = peers.with_row_index("peer").sort(EDGE)["peer"]
    rank = pl.zeros(len(order), pl.UInt64, eager=True).scatter(
        order, pl.int_range(len(order), dtype=pl.UInt64, eager=True)
    )
    rows = pl.int_range(frame.height, dtype=pl.UInt64, eager=True)
    keys = (rank.gather(frame["peer"]) * 2**_HALF + rows).sort()
    return frame.select(pl.all().gather((keys % 2**_HALF).cast(pl.UInt32)))


def _array(
    column: Column, frame: pl.DataFrame, peers: pl.DataFrame, connections: pl.DataFrame
) -> pa.Array:
    if column.name in PEER_COLUMNS:
        return _gathered(column, peers[column.name], frame["peer"])
    if column.name in CONNECTION_COLUMNS:
        return _gathered(column, connections[column.name], frame["connection"])
    name = "time_ns" if column.name == TIME else column.name
    if name not in frame.columns:
        return pa.nulls(frame.height, column.type)
    return _own(column, frame[name], frame)


def _own(column: Column, values: pl.Series, frame: pl.DataFrame) -> pa.Array:
    if column.name == "syscall":
        return _syscalls(values, frame["operation"])
    if column.members:
        return _named(values, column.members)
    array = values.to_arrow()
    if pa.types.is_timestamp(column.type):
        return array.view(column.type)
    return array.cast(column.type)


def _gathered(column: Column, values: pl.Series, rows: pl.Series) -> pa.Array:
    """Return each row's value; texts as numbers of a dictionary, so that none is hashed again."""
    array = values.to_arrow()
    if not pa.types.is_string(column.type) or not len(values):
        return array.cast(column.type).take(rows.to_arrow())
    encoded = array.cast(column.type).dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.take(rows.to_arrow()), encoded.dictionary)


def _named(numbers: pl.Series, members: Sequence[str]) -> pa.Array:
    """Name numbers; null stays null, and what has no name is UNKNOWN_MEMBER."""
    is_other = ~numbers.is_between(0, len(members) - 1)
    indices = numbers.set(is_other.fill_null(value=False), len(members)).cast(pl.Int8)
    return pa.DictionaryArray.from_arrays(indices.to_arrow(), pa.array([*members, UNKNOWN_MEMBER]))


def _syscalls(numbers: pl.Series, operations: pl.Series) -> pa.Array:
    """Name system calls: reads and writes have numbers of their own."""
    names = (*READ_SYSCALLS, *WRITE_SYSCALLS)
    is_read = operations == "read"
    shifted = pl.select(
        pl.when(is_read & numbers.is_between(0, len(READ_SYSCALLS) - 1))
        .then(numbers)
        .when(~is_read & numbers.is_between(0, len(WRITE_SYSCALLS) - 1))
        .then(numbers + len(READ_SYSCALLS))
        .otherwise(len(names))
    ).to_series()
    return _named(shifted, names)
