"""The macro of a scope over a range of time, and which shares of tables make up a range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from framewalk.engine.views.finished import Span, finished_values, listed
from framewalk.engine.views.names import (
    BUCKET,
    ENTITY,
    MINUTES,
    RESOLUTIONS,
    entities_table,
    entity_id,
    quoted,
    rolled_table,
    states_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from framewalk.engine.oal import Former, Metric, Scope


def between_macro(
    scope: Scope,
    metrics: Sequence[Metric],
    columns: Mapping[str, str],
    formers: Sequence[Former] = (),
) -> str:
    """Return the statement that makes the macro of a scope's metrics over a range of time.

    It has a row per entity, of what was from `since` to before `until`: whole days and hours from
    their tables, what is left at the ends from the minutes. `divide_by` stands for the minutes by
    which a rate is divided: with 1 it is a count.
    """
    keys = ", ".join(map(quoted, scope.keys))
    minutes = f"greatest(date_diff('minute', {SINCE}, {END}), 1)"
    values = finished_values(metrics, columns, Span(SINCE, END, _DIVISOR), formers)
    inner = [keys, f"{minutes} AS {MINUTES}", f"coalesce(divide_by, {minutes}) AS {_DIVISOR}"]
    return (
        f"CREATE OR REPLACE MACRO {scope.view}_between(since, until, divide_by := NULL) AS TABLE\n"
        f"SELECT {listed([f'{entity_id(scope)} AS entity_id', keys, MINUTES, *values.shown])}\n"
        f"FROM (\nSELECT {listed([*inner, *values.bounded])}\n"
        # Numbers are grouped in half the time of names; a condition on these reaches the tables.
        f"FROM (\nSELECT {listed([ENTITY, *values.aggregated])}\n"
        f"FROM (\n{rows_of_range(scope)}\n)\nGROUP BY ALL\n)\n"
        f"JOIN {entities_table(scope)} USING ({ENTITY})\n)"
    )


SINCE: Final = "since::TIMESTAMP"
_UNTIL: Final = "until::TIMESTAMP"
_NEWEST: Final = "(SELECT max(minute) FROM internal.newest) + INTERVAL 1 MINUTE"
END: Final = f"coalesce(least({_UNTIL}, {_NEWEST}), {_UNTIL})"
# No metric is called so, nor is a column of a metric's states.
_DIVISOR: Final = quoted("minutes of a rate")


def rows_of_range(scope: Scope, shown: str = "*") -> str:
    """Return the selection of a range's rows, of the columns that are shown."""
    return "\nUNION ALL\n".join(_parts(scope, shown))


def _parts(scope: Scope, shown: str) -> Iterator[str]:
    """Yield shares of the range; together they are all of it, each minute once.

    An hour that runs has its row, too: it is enough where the range goes on to the newest minute.
    """
    minutes, hours, days = (rolled_table(scope, one) for one in RESOLUTIONS)
    first_hour = _least(_next("hour", SINCE), _UNTIL)
    last_hour = _greatest(f"date_trunc('hour', {_UNTIL})", first_hour)
    first_day = _least(_next("day", first_hour), last_hour)
    last_day = _greatest(f"date_trunc('day', {last_hour})", first_day)
    # A function of a parameter comes first, as in the views (metrics.py).
    anywhere = f"{_greatest('since', 'since')}::TIMESTAMP"
    yield _part(shown, states_table(scope), anywhere, _UNTIL)
    yield _part(shown, days, first_day, last_day)
    yield _part(shown, hours, first_hour, first_day)
    yield _part(shown, hours, last_day, last_hour)
    yield _part(shown, minutes, SINCE, first_hour)
    is_all = f"{_UNTIL} >= {_NEWEST}"
    yield f"{_part(shown, hours, last_hour, _UNTIL)} AND {is_all}"
    yield f"{_part(shown, minutes, last_hour, _UNTIL)} AND NOT coalesce({is_all}, false)"


def parts_of_range(
    scope: Scope, since_us: int, until_us: int, newest_us: int | None
) -> list[tuple[str, str]]:
    """Return the tables that the macros of ranges read for a range, each with its condition.

    Times are since 1970; `newest_us` is the newest minute that the store has. It is what
    `rows_of_range` says, but for parts without any time.
    """
    minutes, hours, days = (rolled_table(scope, one) for one in RESOLUTIONS)
    hour_us, day_us = (one.minutes * _MINUTE_US for one in RESOLUTIONS[1:])
    first_hour = min(-(-since_us // hour_us) * hour_us, until_us)
    last_hour = max(until_us // hour_us * hour_us, first_hour)
    first_day = min(-(-first_hour // day_us) * day_us, last_hour)
    last_day = max(last_hour // day_us * day_us, first_day)
    is_all = newest_us is not None and until_us >= newest_us + _MINUTE_US
    parts = [
        (states_table(scope), since_us, until_us),
        (days, first_day, last_day),
        (hours, first_hour, first_day),
        (hours, last_day, last_hour),
        (minutes, since_us, first_hour),
        (hours if is_all else minutes, last_hour, until_us),
    ]
    return [
        (
            table,
            f"{BUCKET} >= make_timestamp({first_us}) AND {BUCKET} < make_timestamp({end_us})",
        )
        for table, first_us, end_us in parts
        if first_us < end_us
    ]


_MINUTE_US: Final = 60_000_000


def _part(shown: str, table: str, first: str, end: str) -> str:
    return f"SELECT {shown} FROM {table} WHERE {BUCKET} >= {first} AND {BUCKET} < {end}"


def _next(unit: str, time: str) -> str:
    """Return the expression for the first start of an hour or a day that is not before a time."""
    return f"date_trunc('{unit}', {time} + INTERVAL 1 {unit} - INTERVAL 1 MICROSECOND)"


def _least(one: str, other: str) -> str:
    return f"least({one}, {other})"


def _greatest(one: str, other: str) -> str:
    return f"greatest({one}, {other})"
