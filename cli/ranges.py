"""The range of time that `framewalk sql` asks about: what the options say, and what it is."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

LastOption = Annotated[
    str | None,
    typer.Option(
        "--last",
        metavar="TIME",
        help="Ask about the last 30m, 1h, 2d, 1h30m: up to now beside a server, up to the newest "
        "minute in a file.",
        show_default=False,
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TIME",
        help="Ask about what was from this time, such as 2026-11-02T09:00 (UTC). Default: from "
        "the oldest.",
        show_default=False,
    ),
]
ToOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="TIME",
        help="Ask about what was before this time. Default: up to the newest.",
        show_default=False,
    ),
]

EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - as DuckDB gives times in UTC

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_LAST: Final = re.compile(r"(?:\d+[mhd])+")
_PART: Final = re.compile(r"(\d+)([mhd])")


class Range(NamedTuple):
    """From a time to before another, both in UTC without a zone."""

    since: dt.datetime
    until: dt.datetime

    def __str__(self) -> str:
        """Return it for a person."""
        return f"from {shown(self.since)} to {shown(self.until)}"


def utc_now() -> dt.datetime:
    """Return the time by which ranges beside a server end, to the second."""
    return dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0)


def shown(time: dt.datetime) -> str:
    """Return a time in UTC as ISO 8601."""
    return f"{time.isoformat()}Z"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options say: how long, or from when to when (UTC); None where they say nothing."""

    last: dt.timedelta | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None

    @classmethod
    def read(cls, last: str | None, since: str | None, until: str | None) -> Wanted:
        """Read the options; raises BadParameter."""
        if last is not None and since is not None:
            problem = "both say where to begin: give one of them"
            raise typer.BadParameter(problem, param_hint="--last, --from")
        wanted = cls(
            None if last is None else length_of(last, "--last"),
            None if since is None else _time(since, "--from"),
            None if until is None else _time(until, "--to"),
        )
        if wanted.since is not None and wanted.until is not None:
            _check(Range(wanted.since, wanted.until))
        return wanted

    @property
    def is_given(self) -> bool:
        """Whether they say anything."""
        return (self.last, self.since, self.until) != (None, None, None)

    def within(self, stored: Callable[[], Range], now: dt.datetime | None) -> Range:
        """Return the range; raises BadParameter where it ends before it begins.

        `stored` tells what there is, and is asked only where it counts. `now` is the time of a
        server, and None for a file at rest.
        """
        until = self.until
        if until is None:
            until = stored().until if now is None else now
        if self.last is not None:
            return Range(_before(until, self.last), until)
        since = stored().since if self.since is None else self.since
        if self.since is None and self.until is None:
            # A clock may be behind what there is.
            return Range(since, max(since, until, stored().until))
        return _check(Range(since, until))


def _check(asked: Range) -> Range:
    if asked.since >= asked.until:
        problem = f"nothing is {asked}"
        raise typer.BadParameter(problem, param_hint="--from, --to")
    return asked


def length_of(text: str, option: str) -> dt.timedelta:
    """Return a length of time; raises BadParameter."""
    parts = _PART.findall(text) if _LAST.fullmatch(text) else []
    try:
        found = sum(
            (dt.timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts),
            dt.timedelta(),
        )
    except (OverflowError, ValueError) as error:
        problem = f"{text!r} is longer than there are times"
        raise typer.BadParameter(problem, param_hint=option) from error
    if not found:
        problem = f"{text!r} is no length of time: give minutes, hours or days, as 30m, 1h or 2d"
        raise typer.BadParameter(problem, param_hint=option)
    return found


def _time(text: str, option: str) -> dt.datetime:
    try:
        time = dt.datetime.fromisoformat(text)
        return time if time.tzinfo is None else time.astimezone(dt.UTC).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        problem = f"{text!r} is no time: give one as 2026-11-02T09:00 (UTC), or a date"
        raise typer.BadParameter(problem, param_hint=option) from error


def _before(time: dt.datetime, length: dt.timedelta) -> dt.datetime:
    try:
        return time - length
    except OverflowError:
        return EPOCH
