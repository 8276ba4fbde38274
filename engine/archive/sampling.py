"""Of requests some stay: those that failed, those that were slow, and one in so many of the rest.

Both logs of a call share its fate, wherever they are: it hangs on what both say alike, the port
that the caller had and the request itself (sizes, trace). Where a call was slow for one of its two
sides alone, the log of the other side stays that is alike and nearest in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from framewalk.engine.archive.minutes import NS_PER_MINUTE, served
from framewalk.engine.archive.schema import HTTP, SAMPLE, WEIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from framewalk.engine.archive.files import ArchivedFile

# In what the two logs of a call are equal; of the port it is the caller's.
_ALIKE: Final = (
    "cluster",
    "method",
    "path",
    "status_code",
    "trace_id",
    "request_header_size_bytes",
    "request_body_size_bytes",
    "response_header_size_bytes",
    "response_body_size_bytes",
)
_TIMES: Final = ("time", "duration_ns", "serving_before_ns", "serving_after_ns")
_READ: Final = (*_TIMES, *_ALIKE, "role", "local_port", "remote_port")
_NS_PER_MS: Final = 10**6
# The other log of a call began no further away, by both clocks. To tell whether a log is that, one
# looks for others that may be.
_APART_NS: Final = 10 * 10**9
_NEAR_NS: Final = 3 * _APART_NS
_FIRST_FAILURE: Final = 500
_READ_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Sampling:
    """One in so many calls stays of those that neither failed nor took `slow_ms` or longer.

    That is how long they were really being served, or else their log: a minute at most.
    """

    one_in: int = 20
    slow_ms: int = 500


def near(files: Sequence[ArchivedFile], readable: Iterable[ArchivedFile]) -> list[ArchivedFile]:
    """Return the files of requests near those of some, and these."""
    first_ns = min(file.served_ns[0] for file in files) - _NEAR_NS
    last_ns = max(file.served_ns[1] for file in files) + _NEAR_NS
    return [
        file
        for file in readable
        if file.kind == HTTP and file.served_ns[0] <= last_ns and file.served_ns[1] >= first_ns
    ]


def staying(paths: Iterable[Path], sampling: Sampling) -> pl.DataFrame:
    """Return which requests of files stay for themselves, or as the other log of one that does.

    Columns: `key` (UInt64, the same of both logs of a call), `start_ns`, `is_called` (Boolean).
    """
    parts = []
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_READ_ROWS, columns=list(_READ), use_threads=False):
                rows = pa.Table.from_batches([batch])
                parts.append(_told(rows).with_columns(_is_notable(rows, sampling)))
    every = pl.concat(parts).sort("start_ns")
    notable = every.filter("is_notable").select("key", "start_ns", "is_called")
    # Each is the nearest of the other, or else the other log is that of another call.
    met = _nearest(_nearest(notable, every), every)
    there = met.join(notable, on=notable.columns, how="semi").select("key", "from_ns", "is_called")
    others = there.rename({"from_ns": "start_ns"}).with_columns(~pl.col("is_called"))
    return pl.concat([notable, others.select(notable.columns)]).unique()


def _nearest(asked: pl.DataFrame, every: pl.DataFrame) -> pl.DataFrame:
    """Return the nearest log of the other side that is alike; `from_ns` is where it was asked."""
    others = every.select("key", "is_called", "start_ns", found_ns="start_ns")
    return (
        asked.select("key", "start_ns", ~pl.col("is_called"))
        .sort("start_ns")
        .join_asof(
            others,
            on="start_ns",
            by=["key", "is_called"],
            strategy="nearest",
            tolerance=_APART_NS,
            check_sortedness=False,  # polars cannot check it within groups, and says so
        )
        .drop_nulls("found_ns")
        .select("key", "is_called", start_ns="found_ns", from_ns="start_ns")
    )


def sampled(
    tables: Iterable[pa.Table], stay: pl.DataFrame, sampling: Sampling, minutes: set[int]
) -> Iterator[pa.Table]:
    """Yield the rows of tables that stay; in `minutes` are put those of which not all do.

    `stay` is what `staying` returns. A row that stays for others has how many it stands for as
    WEIGHT, and as SAMPLE a number that it shares with those whose fate is the same. Tables without
    rows are left out.
    """
    marked = stay.with_columns(stays=pl.lit(value=True))
    for table in tables:
        told = _told(table)
        found = told.join(marked, on=stay.columns, how="left", maintain_order="left")
        stays = found["stays"].fill_null(value=False)
        drawn = told["key"] % sampling.one_in == 0
        weight = pl.select(pl.when(~stays).then(pl.lit(sampling.one_in, pl.Int64))).to_series()
        sample = told["key"].reinterpret(signed=True).set(stays, None)
        minutes.update(_minutes(table.filter((~stays).to_arrow())))
        marks = table
        for name, values in ((WEIGHT, weight), (SAMPLE, sample)):
            place = table.schema.get_field_index(name)
            marks = marks.set_column(place, name, values.to_arrow())
        left = marks.filter((stays | drawn).to_arrow())
        if left.num_rows:
            yield left


def _is_notable(rows: pa.Table, sampling: Sampling) -> pl.Series:
    spans = served(rows)
    lasted_ns = spans["end_ns"] - spans["start_ns"]
    status = pl.Series(rows["status_code"])
    found = (
        (lasted_ns >= sampling.slow_ms * _NS_PER_MS)
        | (status >= _FIRST_FAILURE).fill_null(value=True)
        | (status < 1).fill_null(value=True)
    )
    return found.alias("is_notable")


def _minutes(rows: pa.Table) -> set[int]:
    """Return the minutes (since 1970) that requests began and were being served in."""
    spans = served(rows)
    times = [pl.Series(rows["time"].cast(pa.int64())), spans["start_ns"], spans["end_ns"]]
    return {minute for one in times for minute in (one // NS_PER_MINUTE).unique()}


def _told(rows: pa.Table) -> pl.DataFrame:
    """Return of each request what `staying` has."""
    alike = pl.DataFrame(rows.select([*_ALIKE, "role", "local_port", "remote_port"]))
    texts = pl.col(pl.Categorical).cast(pl.String)
    is_called = alike["role"].cast(pl.String) == "server"
    port = pl.when(is_called).then("remote_port").otherwise("local_port").cast(pl.Int32)
    key = alike.with_columns(texts).select(*_ALIKE, port.alias("port")).hash_rows(seed=0)
    starts_ns = served(rows)["start_ns"]
    return pl.DataFrame([key.alias("key"), starts_ns, is_called.alias("is_called")])
