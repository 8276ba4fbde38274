"""What one stream may name: services, pods and minutes (caps.py).

A bound on what a stream has named is kept for each stream. Only of a stream whose bound is above
its cap the names themselves are kept, from then on: what it had named before is forgiven, which is
no more than its cap.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.caps import STREAM_ENTITIES, STREAM_MINUTES
from framewalk.engine.counters import Counters
from framewalk.engine.stages.streams import STREAM, Bound, Named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from framewalk.engine.caps import Caps
    from framewalk.engine.stages.flattening import LogFrames

# Rover ends a stream after 20 s. One that is silent for longer than this may name as much again.
_SILENCE_NS: Final = 60 * 10**9
_NS_PER_MINUTE: Final = 60 * 10**9
# A connection is between two services and two pods.
_NAMED_BY_CONNECTION: Final = 4
# Above this those that are over are looked for.
_MANY_STREAMS: Final = 4_096


def within_caps(
    logs: LogFrames, named: Named, clock_ns: int, caps: Caps
) -> tuple[LogFrames, Named]:
    """Drop the logs of what a stream names beyond its caps; return what has been named by now.

    `logs.connections` have a column STREAM, which they have no more afterwards. `clock_ns` is the
    capture's own.
    """
    bounds, streams = _bounds(logs, named, clock_ns)
    entities, minutes = _of_streams(named.entities, bounds), _of_streams(named.minutes, bounds)
    crowded = [one for one in streams if bounds[one].entities > caps.entities_per_stream]
    if crowded:
        refused, entities = _refused_entities(logs, _as_frame(crowded), entities, caps)
        logs = _without(logs, STREAM_ENTITIES, refused)
    long = [one for one in streams if _minutes_in(bounds[one]) > caps.minutes_per_stream]
    if long:
        kept, minutes = _kept_minutes(logs, _as_frame(long), minutes, caps)
        logs = _within_minutes(logs, _as_frame(long), kept)
    connections = logs.connections.drop(STREAM)
    ahead = logs.ahead
    if ahead is not None:
        ahead = replace(ahead, connections=connections)
    return replace(logs, connections=connections, ahead=ahead), Named(bounds, entities, minutes)


def add_bounds(
    before: Mapping[int, Bound], found: Mapping[int, Bound], begin_ns: int
) -> dict[int, Bound]:
    """Return bounds after some messages, of those before and those of the messages alone.

    `begin_ns` is what the capture's clock was before them.
    """
    oldest_ns = begin_ns - _SILENCE_NS
    bounds = {one: bound for one, bound in before.items() if bound.heard_ns >= oldest_ns}
    for stream, own in found.items():
        earlier = bounds.get(stream)
        if earlier is None:
            bounds[stream] = own
            continue
        bounds[stream] = Bound(
            own.heard_ns,
            earlier.entities + own.entities,
            min(earlier.first_minute, own.first_minute),
            max(earlier.last_minute, own.last_minute),
        )
    return bounds


def comes_near(bounds: Mapping[int, Bound], streams: Iterable[int], caps: Caps) -> bool:
    """Tell whether one of some streams may have named more than its caps allow."""
    return any(
        bounds[one].entities > caps.entities_per_stream
        or _minutes_in(bounds[one]) > caps.minutes_per_stream
        for one in streams
    )


def _as_frame(streams: Sequence[int]) -> pl.DataFrame:
    return pl.DataFrame({STREAM: streams}, schema={STREAM: pl.UInt64})


def _of_streams(members: pl.DataFrame, bounds: Mapping[int, Bound]) -> pl.DataFrame:
    """Leave out the members of streams that are over."""
    if members.is_empty():
        return members
    return members.join(_as_frame(list(bounds)), on=STREAM, how="semi")


def _minutes_in(bound: Bound) -> int:
    return bound.last_minute - bound.first_minute + 1


def _bounds(
    logs: LogFrames, named: Named, clock_ns: int
) -> tuple[Mapping[int, Bound], Sequence[int]]:
    """Add what the logs may name to what was named; return the streams of the logs, too."""
    span = _span(logs)
    if span is None:
        return named.bounds, ()
    first, last = span
    counts = logs.connections[STREAM].value_counts()
    bounds = dict(named.bounds)
    oldest_ns = clock_ns - _SILENCE_NS
    for stream, connections in counts.iter_rows():
        before = bounds.get(stream)
        if before is None or before.heard_ns < oldest_ns:
            before = Bound(clock_ns, 0, first, last)
        bounds[stream] = Bound(
            clock_ns,
            before.entities + connections * _NAMED_BY_CONNECTION,
            min(before.first_minute, first),
            max(before.last_minute, last),
        )
    if len(bounds) > _MANY_STREAMS:
        bounds = {one: bound for one, bound in bounds.items() if bound.heard_ns >= oldest_ns}
    return bounds, counts[STREAM].to_list()


def _span(logs: LogFrames) -> tuple[int, int] | None:
    """Return the first and the last minute of any log, None without any."""
    times = [frame["time_ns"] for frame in _frames(logs)]
    first = [one for one in (time.min() for time in times) if isinstance(one, int)]
    last = [one for one in (time.max() for time in times) if isinstance(one, int)]
    return (min(first) // _NS_PER_MINUTE, max(last) // _NS_PER_MINUTE) if first else None


def _frames(logs: LogFrames) -> list[pl.DataFrame]:
    ahead = [] if logs.ahead is None else list(logs.ahead.operations.values())
    return [*logs.operations.values(), *ahead]


def _refused_entities(
    logs: LogFrames, crowded: pl.DataFrame, known: pl.DataFrame, caps: Caps
) -> tuple[pl.Series, pl.DataFrame]:
    """Tell which connections name an entity beyond the cap, and which are named by now."""
    rows = logs.connections.with_row_index("row").join(crowded.select(STREAM), on=STREAM)
    sides = pl.concat(
        rows.filter(pl.col(f"{side}_is_kubernetes") & (pl.col(f"{side}_service") != "")).select(
            STREAM, "row", service=f"{side}_service", pod=f"{side}_pod"
        )
        for side in ("local", "remote")
    )
    services = sides.with_columns(pod=pl.lit(None, pl.String))
    pods = sides.filter(pl.col("pod") != "")
    entities = pl.concat([services, pods]).select(
        STREAM, "row", member=pl.struct("service", "pod").hash()
    )
    new = entities.sort("row").unique([STREAM, "member"], keep="first", maintain_order=True)
    new = new.join(known, on=[STREAM, "member"], how="anti", maintain_order="left")
    admitted, refused = _divided(new.select(STREAM, "member"), known, caps.entities_per_stream)
    beyond = entities.join(refused, on=[STREAM, "member"], how="semi")["row"].unique()
    every = pl.int_range(logs.connections.height, dtype=pl.UInt32, eager=True)
    return every.is_in(beyond.cast(pl.UInt32).implode()), pl.concat([known, admitted])


def _kept_minutes(
    logs: LogFrames, long: pl.DataFrame, known: pl.DataFrame, caps: Caps
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return which minutes of long streams have room, and which are known by now."""
    streams = logs.connections[STREAM]
    found = pl.concat(
        pl.DataFrame(
            {
                STREAM: streams.gather(frame["connection"]),
                "member": frame["time_ns"] // _NS_PER_MINUTE,
            }
        ).unique()
        for frame in _frames(logs)
    )
    new = (
        found.unique()
        .join(long.select(STREAM), on=STREAM, how="semi")
        .join(known, on=[STREAM, "member"], how="anti")
        # The latest are what is looked at.
        .sort("member", descending=True)
    )
    admitted, _ = _divided(new, known, caps.minutes_per_stream)
    kept = pl.concat([known, admitted])
    return kept, kept


def _divided(
    new: pl.DataFrame, known: pl.DataFrame, most: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Divide members into those that still have room in their streams and the others."""
    held = known.group_by(STREAM).agg(held=pl.len().cast(pl.Int64))
    placed = new.join(held, on=STREAM, how="left", maintain_order="left").with_columns(
        place=pl.int_range(pl.len(), dtype=pl.Int64).over(STREAM) + pl.col("held").fill_null(0)
    )
    has_room = pl.col("place") < most
    columns = new.columns
    return placed.filter(has_room).select(columns), placed.filter(~has_room).select(columns)


def _within_minutes(logs: LogFrames, long: pl.DataFrame, kept: pl.DataFrame) -> LogFrames:
    """Leave out the logs of long streams that are in no kept minute."""
    streams = logs.connections[STREAM]
    is_long = streams.is_in(long[STREAM].implode())

    def is_refused(frame: pl.DataFrame) -> pl.Series:
        placed = pl.DataFrame(
            {
                STREAM: streams.gather(frame["connection"]),
                "member": frame["time_ns"] // _NS_PER_MINUTE,
            }
        ).join(
            kept.with_columns(is_kept=pl.lit(value=True)),
            on=[STREAM, "member"],
            how="left",
            maintain_order="left",
        )
        return is_long.gather(frame["connection"]) & placed["is_kept"].is_null()

    return _leave_out(logs, STREAM_MINUTES, is_refused)


def _without(logs: LogFrames, reason: str, refused: pl.Series) -> LogFrames:
    """Leave out the logs of refused connections."""
    return _leave_out(logs, reason, lambda frame: refused.gather(frame["connection"]))


def _leave_out(
    logs: LogFrames, reason: str, is_refused: Callable[[pl.DataFrame], pl.Series]
) -> LogFrames:
    operations, left_out = {}, 0
    for operation, frame in logs.operations.items():
        refused = is_refused(frame)
        left_out += int(refused.sum())
        operations[operation] = frame.filter(~refused)
    ahead = logs.ahead
    if ahead is not None:
        # Those are dropped with a reason of their own already, and kept out should they count.
        kept = {name: frame.filter(~is_refused(frame)) for name, frame in ahead.operations.items()}
        gone = sum(frame.height for frame in ahead.operations.values()) - sum(
            frame.height for frame in kept.values()
        )
        counted = ahead.counters + Counters(dropped=Counter({reason: gone}))
        ahead = replace(ahead, operations=kept, counters=counted)
    counters = logs.counters + Counters(dropped=Counter({reason: left_out}))
    return replace(logs, operations=operations, counters=counters, ahead=ahead)
