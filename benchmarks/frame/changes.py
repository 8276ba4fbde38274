"""What became of the costs that the first run showed: before, and in a run of now.

The figures of before are those of the first run that is recorded (docs/benchmarks.md in commit
6705cd3, size large, the same machine while other work ran on it); the percentiles of a day were
asked of that commit's engine later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from frame.table import megabytes, seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from frame.results import Results, RowResult

CHANGE_COLUMNS: Final = ("what", "before", "now", "done")


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of a row, as it was, and what was done about it."""

    what: str
    row: str
    before: str
    now: Callable[[RowResult], str]
    done: str


def _cpu(row: RowResult) -> str:
    return seconds(row.cpu_s.median)


def _ratio(row: RowResult) -> str:
    return f"{row.rivals[0].ratio.median:.2f}"


def _memory(row: RowResult) -> str:
    return megabytes(row.peak_bytes)


CHANGES: Final = (
    Change(
        "make a store",
        "make a store",
        "1.24 s",
        _cpu,
        "`metric_values` is bound over empty views first; definitions at hand are not parsed "
        "again; shorter SQL",
    ),
    Change(
        "replay of a nearly empty capture",
        "replay of a nearly empty capture",
        "2.20 s",
        _cpu,
        "the same",
    ),
    Change(
        "whole replay beside read and ptars only",
        "whole replay",
        "2.87",
        _ratio,
        "the above; Polars' allocator keeps memory for the next batch, and one thread does what "
        "two did",
    ),
    Change(
        "memory of the whole replay",
        "whole replay",
        "1,142 MB",
        _memory,
        "a commit every 500,000 logs, not every 2 million",
    ),
    Change(
        "service map of 6 hours",
        "service map of 6 hours",
        "1.67 s",
        _cpu,
        "percentiles: buckets are sorted and added up once, not for each bucket again",
    ),
    Change(
        "p99 of all relations over 24 hours",
        "p99 of all relations over 24 hours",
        "89.9 s",
        _cpu,
        "the same",
    ),
)


def change_lines(results: Results) -> list[tuple[str, ...]]:
    """Return the cells of CHANGE_COLUMNS; none for a row that a smaller size lacks."""
    rows = {row.name: row for row in results.rows}
    return [
        (change.what, change.before, change.now(rows[change.row]), change.done)
        for change in CHANGES
        if change.row in rows
    ]
