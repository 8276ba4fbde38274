"""The buckets of relative percentiles: where they begin, what is in them, how far off they are."""

from __future__ import annotations

import duckdb
import polars as pl
import pytest
from reference.functions import bucket_starts_ns

from framewalk.engine.oal.bound import RelativeBucket, Value
from framewalk.engine.oal.catalogue import Column, Level, ValueType
from framewalk.engine.oal.expressions import key_expression
from framewalk.engine.oal.finish import PERCENTILES, finish_relative_percentile

TEN_MINUTES = 600 * 10**9
KEY = RelativeBucket(Value(Column("duration_ns", Level.LOG, ValueType.LONG)))


def keys_of(durations_ns: list[int | None]) -> list[int | None]:
    frame = pl.DataFrame({"duration_ns": durations_ns}, schema={"duration_ns": pl.Int64})
    return frame.select(key_expression(KEY)).to_series().to_list()


def told(key: int) -> int:
    """Return what is told of durations that are all in one bucket."""
    entries = f"""[{{'key': {key}, 'value': 3}}]::STRUCT("key" BIGINT, "value" BIGINT)[]"""
    finished = finish_relative_percentile(["entries"], 1, ())
    rows = duckdb.sql(f"SELECT {finished} FROM (SELECT {entries} AS entries)").fetchall()
    values = set(rows[0][0].values())
    assert len(values) == 1
    assert len(rows[0][0]) == len(PERCENTILES)
    return int(values.pop())


def test_a_duration_is_in_the_last_bucket_that_begins_before_it() -> None:
    starts = list(bucket_starts_ns())
    assert len(starts) == 1_050
    assert starts == sorted(set(starts))
    assert keys_of(starts) == list(range(1_050))
    before = [start - 1 for start in starts[1:]]
    assert keys_of(before) == list(range(1_049))


def test_what_is_out_of_the_range_is_in_the_first_or_the_last_bucket() -> None:
    durations = [-1, 0, 1, 999, TEN_MINUTES, TEN_MINUTES + 1, 2**63 - 1, None]
    assert keys_of(durations) == [0, 0, 0, 0, 1_049, 1_049, 1_049, None]


@pytest.mark.parametrize("first", range(0, 1_050, 105))
def test_what_is_told_is_at_most_one_percent_off(first: int) -> None:
    starts = [*bucket_starts_ns(), TEN_MINUTES + 1]
    for key in range(first, first + 105, 7):
        shortest, longest = starts[key], starts[key + 1] - 1
        for duration in (shortest, longest):
            assert 100 * abs(told(key) - duration) <= duration, (key, duration)
