"""Merging rows in order gives what adding them up one by one gives."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framewalk.engine.oal import Keep
from framewalk.engine.states import Runs, merge_lists

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST = 2**63 - 1
_ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.none() | st.integers(-9, 9) | st.sampled_from([_MOST, -_MOST])),
    min_size=1,
    max_size=20,
).map(lambda rows: sorted(rows, key=lambda row: row[0]))


def _added(values: Sequence[int]) -> int:
    return max(-_MOST - 1, min(sum(values), _MOST))


def _union(values: Sequence[int]) -> int:
    bits = 0
    for value in values:
        bits |= value
    return bits


_MERGED: dict[Keep, Callable[[Sequence[int]], int | None]] = {
    Keep.COUNT: _added,
    Keep.SUM: _added,
    Keep.MAX: lambda values: max(values, default=None),
    Keep.MIN: lambda values: min(values, default=None),
    Keep.BITS: lambda values: _union(values) if values else None,
}


@pytest.mark.parametrize("keep", list(_MERGED))
@settings(max_examples=30, deadline=None)
@given(rows=_ROWS)
def test_values_of_a_run_become_one(keep: Keep, rows: list[tuple[int, int | None]]) -> None:
    """Nulls count for nothing, and a sum stops at the ends of 64 bits."""
    expected: defaultdict[int, list[int]] = defaultdict(list)
    for number, value in rows:
        expected[number] += [] if value is None else [value]
    numbers, values = zip(*rows, strict=True)
    found = Runs.of(pl.Series(numbers)).merged(pl.Series("v", values, pl.Int64), keep)
    assert found.to_list() == [_MERGED[keep](own) for _, own in sorted(expected.items())]


_LISTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.none() | st.lists(st.tuples(st.sampled_from("acb"), st.integers(0, 9)), max_size=4),
    ),
    min_size=1,
    max_size=12,
).map(lambda rows: sorted(rows, key=lambda row: row[0]))


@pytest.mark.parametrize("has_numbers", [True, False])
@settings(max_examples=30, deadline=None)
@given(rows=_LISTS)
def test_lists_of_a_run_become_one(
    rows: list[tuple[int, list[tuple[str, int]] | None]], *, has_numbers: bool
) -> None:
    """Each key is there once, in order; a run of nulls alone is null."""

    def key_of(text: str) -> int | str:
        return ord(text) if has_numbers else text

    expected: dict[int, dict[int | str, int] | None] = {}
    for number, entries in rows:
        known = expected.setdefault(number, None)
        if entries is not None:
            sums = expected[number] = known if known is not None else {}
            for text, value in entries:
                sums[key_of(text)] = sums.get(key_of(text), 0) + value
    dtype = pl.List(pl.Struct({"key": pl.Int64 if has_numbers else pl.String, "value": pl.Int64}))
    lists = [
        None if own is None else [{"key": key_of(text), "value": value} for text, value in own]
        for _, own in rows
    ]
    runs = Runs.of(pl.Series([number for number, _ in rows]))
    found = merge_lists(pl.Series("l", lists, dtype), runs, Keep.SUM)
    assert found.dtype == dtype
    assert found.to_list() == [
        None if sums is None else [{"key": key, "value": sums[key]} for key in sorted(sums)]
        for _, sums in sorted(expected.items())
    ]
