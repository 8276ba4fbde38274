"""Ranges of time as clients write them: wall-clock times of UTC, both ends included."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from graphql import GraphQLError

from framewalk.queries.metrics import Buckets, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

# As many points as an OAP gives; it says that they are 500.
MOST_POINTS: Final = 501

_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - as the store's times are
# So that what is before and after a range is a time, too.
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 9998
_SECOND: Final = "SECOND"
_FORMATS: Final = {
    "DAY": ("%Y-%m-%d", "yyyy-MM-dd", re.compile(r"\d{4}-\d\d-\d\d")),
    "HOUR": ("%Y-%m-%d %H", "yyyy-MM-dd HH", re.compile(r"\d{4}-\d\d-\d\d \d\d")),
    "MINUTE": ("%Y-%m-%d %H%M", "yyyy-MM-dd HHmm", re.compile(r"\d{4}-\d\d-\d\d \d{4}")),
    _SECOND: ("%Y-%m-%d %H%M%S", "yyyy-MM-dd HHmmss", re.compile(r"\d{4}-\d\d-\d\d \d{6}")),
}
_LENGTHS: Final = {
    "DAY": dt.timedelta(days=1),
    "HOUR": dt.timedelta(hours=1),
    "MINUTE": dt.timedelta(minutes=1),
    _SECOND: dt.timedelta(seconds=1),
}
_STEPS: Final = {"DAY": Step.DAY, "HOUR": Step.HOUR, "MINUTE": Step.MINUTE, _SECOND: Step.MINUTE}


@dataclass(frozen=True, slots=True)
class Range:
    """A range: the starts of its first and last step (UTC, naive), and how many steps."""

    step: str
    first: dt.datetime
    last: dt.datetime
    points: int

    @property
    def buckets(self) -> Buckets:
        """The buckets of the store that it covers; of seconds, the minutes that they are in."""
        return Buckets.between(_STEPS[self.step], self.first, self.last)

    @property
    def end(self) -> dt.datetime:
        """The end of the last step."""
        return self.last + _LENGTHS[self.step]

    @property
    def first_ms(self) -> int:
        """The start of the first step, in ms since 1970."""
        return (self.first - _EPOCH) // dt.timedelta(milliseconds=1)

    @property
    def is_seconds(self) -> bool:
        """Whether a step is shorter than what the store has."""
        return self.step == _SECOND


def range_of(duration: Mapping[str, Any]) -> Range:
    """Return the range of a Duration; raise GraphQLError where it is none, or too long."""
    step = duration["step"]
    first, last = (_time(duration[name], name, step) for name in ("start", "end"))
    points = (last - first) // _LENGTHS[step] + 1
    if points < 1:
        message = f"Duration: its end {duration['end']!r} is before its start."
        raise GraphQLError(message)
    if points > MOST_POINTS:
        message = (
            f"Duration: {points:,} steps of {step} are more than {MOST_POINTS - 1}: "
            "ask with longer steps."
        )
        raise GraphQLError(message)
    return Range(step, first, last, points)


def _time(text: str, name: str, step: str) -> dt.datetime:
    form, shown, pattern = _FORMATS[step]
    if pattern.fullmatch(text):
        try:
            time = dt.datetime.strptime(text, form)  # noqa: DTZ007 - the store's times are naive
        except ValueError:
            pass
        else:
            if _FIRST_YEAR <= time.year <= _LAST_YEAR:
                return time
    message = f"Duration: {name} {text[:40]!r} is no time as {shown}, which the step {step} has."
    raise GraphQLError(message)
