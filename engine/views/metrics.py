"""The views of a scope at each resolution, and the macro that they are read from.

A view merges the rows of one entity and bucket while it is read, then finishes each metric. It
reads what is rolled up to its resolution and what is not rolled up yet. So there is one row per
entity and bucket whatever was split, late or replayed.
"""

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
    literal,
    quoted,
    rolled_table,
    states_table,
    view_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from framewalk.engine.oal import Former, Metric, Scope
    from framewalk.engine.views.names import Resolution


def metrics_macro(
    scope: Scope,
    metrics: Sequence[Metric],
    columns: Mapping[str, str],
    formers: Sequence[Former] = (),
) -> str:
    """Return the statement that makes the macro of a scope's metrics at a resolution.

    The views are read from it. `columns` maps the names of states to columns of the states table.
    """
    keys = ", ".join(map(quoted, scope.keys))
    bucket = f"{BUCKET},\n  "
    ends = f"{BUCKET} + to_minutes({_LENGTH})"
    values = finished_values(metrics, columns, Span(BUCKET, ends, _LENGTH), formers)
    shown = [f"{entity_id(scope)} AS entity_id", keys, *values.shown]
    return (
        f"{_macro(scope)}\n"
        f"SELECT {bucket}{listed(shown)}\n"
        f"FROM (\nSELECT {bucket}{listed([keys, *values.bounded])}\n"
        f"FROM (\nSELECT {bucket}{listed([keys, *values.aggregated])}\n"
        f"FROM (\n{_rows(scope)}\n)\n"
        # Joined before it is grouped: so a condition on names or time reaches the tables.
        f"JOIN {entities_table(scope)} USING ({ENTITY})\nGROUP BY ALL\n))"
    )


def empty_macro(scope: Scope, metrics: Sequence[Metric]) -> str:
    """Return the statement that makes a macro with the columns of `metrics_macro`, without rows.

    A view is bound when it is made, with all that it reads: this is bound fast.
    """
    columns = [(BUCKET, "TIMESTAMP"), ("entity_id", "VARCHAR")]
    columns += [(name, "VARCHAR") for name in scope.keys]
    columns += [(metric.name, metric.function.sql_type) for metric in metrics]
    nulls = ", ".join(f"NULL::{sql_type} AS {quoted(name)}" for name, sql_type in columns)
    return f"{_macro(scope)} SELECT {nulls} LIMIT 0"


def metric_view(scope: Scope, resolution: Resolution) -> str:
    """Return the statement that makes the view of a scope at a resolution, from its macro."""
    rows = f"{_macro_name(scope)}({literal(resolution.name)}, {resolution.minutes})"
    made = f"CREATE OR REPLACE VIEW {view_name(scope, resolution)} AS"
    if resolution.minutes == 1:
        return f"{made} FROM {rows}"
    first = ", ".join([BUCKET, "entity_id", *map(quoted, scope.keys)])
    return f"{made} SELECT {first}, {passed(resolution)}, * EXCLUDE ({first}) FROM {rows}"


# Parameters of macros, whose names no metric has: theirs have no space.
_RESOLUTION: Final = quoted("own resolution")
_LENGTH: Final = quoted("own minutes")


def _macro_name(scope: Scope) -> str:
    return f"internal.{scope.view}_metrics"


def _macro(scope: Scope) -> str:
    return f"CREATE OR REPLACE MACRO {_macro_name(scope)}({_RESOLUTION}, {_LENGTH}) AS TABLE"


def _rows(scope: Scope) -> str:
    """Return the rows that a view merges: those of its resolution, and what is not rolled up yet.

    What calls a function with a parameter comes first: its type is not known yet when the macro is
    made, and so the rest of it is not bound either, which takes most of the time.
    """
    bucket = (
        f"CASE {_RESOLUTION} WHEN '{RESOLUTIONS[0].name}' THEN {BUCKET} "
        f"ELSE date_trunc({_RESOLUTION}, {BUCKET}) END"
    )
    added = f"SELECT * REPLACE ({bucket} AS {BUCKET}) FROM {states_table(scope)}"
    rolled = (
        f"FROM {rolled_table(scope, one)} WHERE {_RESOLUTION} = {literal(one.name)}"
        for one in RESOLUTIONS
    )
    return "\nUNION ALL\n".join([added, *rolled])


def passed(resolution: Resolution) -> str:
    """Return the column with the minutes of a bucket up to the end of the newest minute."""
    since = f"date_diff('minute', {BUCKET}, (SELECT max(minute) FROM internal.newest)) + 1"
    return f"greatest(least({since}, {resolution.minutes}), 1) AS {MINUTES}"
