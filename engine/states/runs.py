"""Rows in the order of a number, and how those of the same number merge: runs.

What a group-by does, for rows that are to stand in order anyway: each column is gone through once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa

from framewalk.engine.oal import Keep
from framewalk.engine.states.merging import KEY, VALUE, merge_expression, sum_fits

if TYPE_CHECKING:
    from collections.abc import Callable

_Array: TypeAlias = "np.ndarray[Any, Any]"

_CODE: Final = "code"
_MOST_CODES: Final = 2**63
_ENDS: Final = (-(2**63), 2**63 - 1)
# How the values of a run become one, and what stands for a null among them.
_REDUCED: Final[dict[Keep, tuple[Callable[..., _Array], int]]] = {
    Keep.COUNT: (np.add.reduceat, 0),
    Keep.SUM: (np.add.reduceat, 0),
    Keep.MAX: (np.maximum.reduceat, _ENDS[0]),
    Keep.MIN: (np.minimum.reduceat, _ENDS[1]),
    Keep.BITS: (np.bitwise_or.reduceat, 0),
}
_ADDED: Final = frozenset({Keep.COUNT, Keep.SUM})


def one_number(keys: pl.DataFrame) -> pl.Series:
    """Return Int64 numbers that are the same where all keys, whole numbers, are, in their order.

    Null where a key is. Grouping by one number costs a fraction of grouping by several columns.
    """
    code = pl.lit(0, pl.Int64)
    count = 1
    for name in keys.columns:
        lowest, highest = keys[name].min(), keys[name].max()
        if not isinstance(lowest, int) or not isinstance(highest, int):
            return pl.Series(_CODE, [None], dtype=pl.Int64).new_from_index(0, keys.height)
        span = highest - lowest + 1
        count *= span
        code = code * span + (pl.col(name).cast(pl.Int64) - lowest)
    if count < _MOST_CODES:
        return keys.select(code.alias(_CODE)).to_series()
    # Then there are at most so many as rows of each.
    dense = keys.select(pl.all().rank("dense").cast(pl.Int64))
    return one_number(dense)


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of rows, at least one: where each begins, and how many rows it has (int64)."""

    starts: _Array
    lengths: _Array

    @classmethod
    def of(cls, numbers: pl.Series) -> Runs:
        """Return the runs of numbers that are in order, at least one, none of them null."""
        is_first = (numbers != numbers.shift(1)).fill_null(value=True)
        starts = is_first.arg_true().to_numpy().astype(np.int64)
        return cls(starts, np.diff(starts, append=numbers.len()))

    @classmethod
    def with_lengths(cls, lengths: _Array) -> Runs:
        """Return runs of so many rows, one after the other."""
        return cls(lengths.cumsum() - lengths, lengths)

    @property
    def height(self) -> int:
        """How many rows they have together."""
        return int(self.starts[-1] + self.lengths[-1])

    def of_rows(self, values: _Array) -> pl.Series:
        """Return for each row what is given for each run."""
        return pl.Series(values.repeat(self.lengths))

    def first(self, values: pl.Series) -> pl.Series:
        """Return the value of each run's first row."""
        return values.gather(self.starts)

    def merged(self, values: pl.Series, keep: Keep) -> pl.Series:
        """Return one value (Int64) for each run, as merging gives it: `values` are those of rows.

        Nulls count for nothing. Where all are null, a count or sum is 0 and the others are null.
        """
        if keep in _ADDED and not self.fits(values):
            return self._added_carefully(values, keep)
        reduced, none = _REDUCED[keep]
        has_nulls = values.null_count() > 0
        filled = values.fill_null(none) if has_nulls else values
        found = pl.Series(values.name, reduced(filled.to_numpy(), self.starts))
        if keep in _ADDED or not has_nulls:
            return found
        known = np.logical_or.reduceat(values.is_not_null().to_numpy(), self.starts)
        return pl.select(pl.when(pl.Series(known)).then(found).alias(values.name)).to_series()

    def fits(self, values: pl.Series) -> bool:
        """Tell whether no run's sum can reach an end of 64 bits, where it would stop."""
        return sum_fits(values, int(self.lengths.max()) + 1)

    def _added_carefully(self, values: pl.Series, keep: Keep) -> pl.Series:
        rows = self.of_rows(np.arange(len(self.starts))).alias(_CODE).to_frame()
        rows = rows.with_columns(values)
        added = merge_expression(rows, values.name, keep)
        return rows.group_by(_CODE).agg(added).sort(_CODE)[values.name]


def as_lists(name: str, entries: pl.DataFrame, counts: _Array) -> pl.Series:
    """Return KEY and VALUE of entries as lists: the first so many are the first list, and so on."""
    ends = np.concatenate(([0], counts.cumsum()))
    content = entries.select(KEY, VALUE).to_struct().rechunk().to_arrow()
    return pl.Series(name, pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), content))


def merge_lists(lists: pl.Series, runs: Runs, keep: Keep) -> pl.Series:
    """Return a list of KEY and VALUE for each run, by key: each key once, in order.

    Empty where those of its rows (`lists`) are, null where all are.
    """
    lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
    of_rows = runs.of_rows(np.arange(len(runs.starts)))
    entries = lists.filter(pl.Series(lengths > 0)).explode().struct.unnest()
    number = of_rows.gather(np.arange(len(lengths)).repeat(lengths)).alias("number")
    entries = entries.with_columns(number)
    if entries.height:
        entries = _each_key_once(entries, keep)
    counts = np.bincount(entries["number"].to_numpy(), minlength=len(runs.starts))
    merged = as_lists(lists.name, entries, counts).cast(lists.dtype)
    if not lists.null_count():
        return merged
    known = np.logical_or.reduceat(lists.is_not_null().to_numpy(), runs.starts)
    return pl.select(pl.when(pl.Series(known)).then(merged).alias(lists.name)).to_series()


def _each_key_once(entries: pl.DataFrame, keep: Keep) -> pl.DataFrame:
    key = entries[KEY]
    ranked = key if key.dtype == pl.Int64 else key.rank("dense")
    numbers = one_number(entries.select("number", ranked.alias("ranked")))
    if not numbers.is_sorted():
        order = numbers.arg_sort()
        entries, numbers = entries[order], numbers.gather(order)
    runs = Runs.of(numbers)
    if len(runs.starts) == entries.height:
        return entries
    return pl.DataFrame(
        [
            runs.first(entries["number"]),
            runs.first(entries[KEY]),
            runs.merged(entries[VALUE], keep),
        ]
    )
