"""Buckets of durations by which a percentile is at most 1% off, from 1 us to 10 minutes.

Each is a 36th of a doubling wide, in whole nanoseconds and by whole numbers only: all machines
have the same buckets. A duration out of the range counts in the first or the last one.
"""

from __future__ import annotations

from typing import Final

SHORTEST_NS: Final = 1_000
LONGEST_NS: Final = 600_000_000_000

_PER_DOUBLING: Final = 36
# Fractional bits of the starts of the first doubling: those of the last one are exact by them.
_SHIFT: Final = 20
_FIRST_DOUBLING: Final = tuple(
    round((SHORTEST_NS << _SHIFT) * 2 ** (step / _PER_DOUBLING)) for step in range(_PER_DOUBLING)
)


def _start_ns(bucket: int) -> int:
    doublings, step = divmod(bucket, _PER_DOUBLING)
    return (_FIRST_DOUBLING[step] << doublings) >> _SHIFT


def _starts_ns() -> tuple[int, ...]:
    starts = [SHORTEST_NS]
    while (start := _start_ns(len(starts))) <= LONGEST_NS:
        starts.append(start)
    return tuple(starts)


STARTS_NS: Final = _starts_ns()


def start_ns_sql(bucket: str) -> str:
    """Return the SQL for the start of a bucket by its number."""
    first = f"{list(_FIRST_DOUBLING)}[{bucket} % {_PER_DOUBLING} + 1]"
    return f"(({first} << ({bucket} // {_PER_DOUBLING})) >> {_SHIFT})"


def told_ns_sql(start_ns: str) -> str:
    """Return the SQL for what a bucket is told as: no duration in it is more than 1% off."""
    return f"{start_ns} * 101 // 100"
