"""Ranges of time as buckets: how long one is, where the first begins, how many there are."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
import numpy.typing as npt

_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - as DuckDB gives times in UTC


class Step(Enum):
    """The length of a bucket, for which the store has views."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def resolution(self) -> str:
        """The last part of the names of its views."""
        return self.value

    @property
    def seconds(self) -> int:
        """The length of a bucket in seconds."""
        return _SECONDS[self]

    @property
    def length(self) -> dt.timedelta:
        """The length of a bucket."""
        return dt.timedelta(seconds=self.seconds)

    def start_of(self, time: dt.datetime) -> dt.datetime:
        """Return the start of the bucket that a time (UTC, naive) is in."""
        return time - (time - _EPOCH) % self.length


_SECONDS = {Step.MINUTE: 60, Step.HOUR: 3_600, Step.DAY: 86_400}


@dataclass(frozen=True)
class Buckets:
    """`count` buckets, one after the other; `first` is the start of the first (UTC, naive)."""

    step: Step
    first: dt.datetime
    count: int

    @classmethod
    def between(cls, step: Step, first: dt.datetime, last: dt.datetime) -> Buckets:
        """Return the buckets from the one that `first` is in to the one that `last` is in.

        There are none where `last` is before `first`.
        """
        start = step.start_of(first)
        return cls(step, start, max(0, (step.start_of(last) - start) // step.length + 1))

    @property
    def last(self) -> dt.datetime:
        """The start of the last bucket."""
        return self.first + (self.count - 1) * self.step.length

    @property
    def end(self) -> dt.datetime:
        """The end of the last bucket."""
        return self.first + self.count * self.step.length

    @property
    def times(self) -> list[dt.datetime]:
        """The starts of all buckets."""
        return [self.first + at * self.step.length for at in range(self.count)]

    @property
    def first_ms(self) -> int:
        """The start of the first bucket, in ms since 1970."""
        return (self.first - _EPOCH) // dt.timedelta(milliseconds=1)

    @cached_property
    def epoch_ms(self) -> npt.NDArray[np.int64]:
        """The starts of all buckets, in ms since 1970."""
        step_ms = self.step.seconds * 1_000
        return self.first_ms + step_ms * np.arange(self.count, dtype=np.int64)

    def since(self, steps: int) -> Buckets:
        """Return the same with so many more buckets before the first."""
        return Buckets(self.step, self.first - steps * self.step.length, self.count + steps)
