"""Resolved logs -> what the archive has of them, in columns; nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.archive.schema import (
    HTTP,
    OPERATIONS_OF,
    REQUEST,
    TRANSFER,
    summed,
)
from framewalk.engine.stages import connection_sides
from framewalk.engine.states import MINUTE, sum_expression, sum_fits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from framewalk.engine.stages import ResolvedLogs

_NS_PER_MINUTE: Final = 60 * 10**9
_MESSAGE: Final = "message"


class Mode(StrEnum):
    """What is kept: nothing, requests with the sums of their reads and writes, or each log.

    Sampled are requests, of which some are left when their hour is over.
    """

    NONE = "none"
    HTTP = "http"
    ALL = "all"
    SAMPLED = "sampled"


@dataclass(frozen=True, slots=True)
class Kept:
    """Logs of a batch: a frame for each kind that is kept.

    `peer` and `connection` of the frames are rows of `peers` (PEER_SCHEMA) and of `connections`
    (CONNECTION_COLUMNS). `request` is the number of a request within the batch: of its own row in
    `http`, of the request's in the others, null where a log was in no request's message; there are
    `requests` of them. It is there only where each log is kept.
    """

    peers: pl.DataFrame
    connections: pl.DataFrame
    frames: Mapping[str, pl.DataFrame]
    requests: int

    @property
    def size_bytes(self) -> int:
        """What the frames take in memory."""
        return sum(int(frame.estimated_size()) for frame in self.frames.values())

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(frame.height for frame in self.frames.values())

    @property
    def minutes(self) -> set[int]:
        """Of which minutes (since 1970) the rows are."""
        times = [frame["time_ns"] for frame in self.frames.values()]
        return set(pl.concat(one // _NS_PER_MINUTE for one in times).unique()) if times else set()

    def without(self, pairs: pl.DataFrame) -> Kept:
        """Leave out the logs of pairs of `peer` and `minute`."""
        minute = (pl.col("time_ns") // _NS_PER_MINUTE).alias(MINUTE)
        frames = {
            kind: frame.with_columns(minute).join(
                pairs, on=["peer", MINUTE], how="anti", maintain_order="left"
            )
            for kind, frame in self.frames.items()
        }
        return replace(self, frames={kind: one.drop(MINUTE) for kind, one in frames.items()})


@dataclass(frozen=True, slots=True)
class Keeper:
    """Keeps what a mode asks for."""

    mode: Mode

    def __call__(self, logs: ResolvedLogs, connections: pl.DataFrame) -> Kept:
        """Keep some logs; `connections` are those of LogFrames."""
        requests = logs.operations["http"]
        sums = [
            _sums(requests[_MESSAGE], logs.operations[one], one) for one in OPERATIONS_OF[TRANSFER]
        ]
        frames = {HTTP: pl.concat([requests, *sums], how="horizontal")}
        if self.mode is Mode.ALL:
            frames[HTTP] = frames[HTTP].with_columns(_numbers(requests))
            for kind, operations in OPERATIONS_OF.items():
                frames[kind] = pl.concat(
                    [_of_requests(logs.operations[one], requests, one) for one in operations],
                    how="diagonal",
                )
        kept = {
            kind: frame.drop(_MESSAGE, "latency_ms", strict=False) for kind, frame in frames.items()
        }
        return Kept(logs.peers, connection_sides(connections), kept, requests.height)


def _sums(messages: pl.Series, frame: pl.DataFrame, operation: str) -> pl.DataFrame:
    """Add up the logs of each of these messages; both have their messages in order."""
    columns = summed(operation)
    own = frame[_MESSAGE]
    begins = pl.Series(own.search_sorted(messages, side="left"), dtype=pl.UInt32)
    ends = pl.Series(own.search_sorted(messages, side="right"), dtype=pl.UInt32)
    counts = (ends - begins).cast(pl.Int64)
    named = {name: f"{operation}_{name}" for name in columns}
    count = counts.alias(f"{operation}_count")
    if not all(sum_fits(frame[name], frame.height) for name in columns):
        summed_up = frame.group_by(_MESSAGE).agg(
            sum_expression(pl.col(name), exact=False).alias(to) for name, to in named.items()
        )
        each = pl.DataFrame(messages).join(
            summed_up, on=_MESSAGE, how="left", maintain_order="left"
        )
        return each.select(count, pl.col(list(named.values())).fill_null(0))
    if int(counts.sum()) < frame.height:
        of_requests = frame[_MESSAGE].is_in(messages.implode())
        frame, ends = frame.filter(of_requests), counts.cum_sum()
    # The sum up to a request's last log, without that up to the one before: no group is looked for.
    last = (ends.cast(pl.Int64) - 1).set(ends == 0, None)
    running = frame.select(pl.col(name).cum_sum().gather(last).fill_null(0) for name in columns)
    return running.select(
        count,
        *(
            (pl.col(name) - pl.col(name).shift(1, fill_value=0)).alias(to)
            for name, to in named.items()
        ),
    )


def _of_requests(frame: pl.DataFrame, requests: pl.DataFrame, operation: str) -> pl.DataFrame:
    """Say which request each log was in the message of."""
    of_message = pl.DataFrame([requests[_MESSAGE], _numbers(requests)])
    return frame.join(of_message, on=_MESSAGE, how="left", maintain_order="left").with_columns(
        operation=pl.lit(operation)
    )


def _numbers(requests: pl.DataFrame) -> pl.Series:
    return pl.int_range(requests.height, dtype=pl.Int64, eager=True).alias(REQUEST)
