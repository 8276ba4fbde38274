"""The rows of a view of metrics, and those of the macros of ranges, with a few of their columns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from framewalk.engine.oal import SCOPES
from framewalk.engine.views import (
    BUCKET,
    RESOLUTIONS,
    literal,
    parts_of_range,
    passed,
    quoted,
    states_table,
)
from framewalk.queries.narrowing.macros import ROWS, TABLE, own_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from framewalk.queries.narrowing.macros import Choices, Macros

_ENTITY: Final = "entity"
_MINUTES: Final = "minutes"
_OF_METRIC: Final = "of_metric"
_RESOLUTION, _LENGTH = quoted("own resolution"), quoted("own minutes")
# Rows of another resolution: DuckDB would leave them out, once all is bound.
_NEVER: Final = re.compile(r"UNION ALL \(SELECT \* FROM [\w.]+ WHERE \('(\w+)' = '(?!\1')\w+'\)\)")
_RESOLUTIONS: Final = {one.name: one for one in RESOLUTIONS}
_SCOPES: Final = {scope.view: scope for scope in SCOPES.values()}
_KEYS: Final = {scope.view: frozenset(scope.keys) for scope in SCOPES.values()}
# What buckets are added up by, and how many logs each has.
_OF_BUCKETS: Final = frozenset({"held", "key", "logs"})


def rows_of_view(
    macros: Macros,
    scope: str,
    resolution: str,
    wanted: Collection[str],
    minutes: int | None = None,
) -> str:
    """Return the rows of a scope's view at a resolution: time, names, and the wanted columns.

    A rate is divided by `minutes`, or else by the length of a bucket. Raises duckdb.Error.
    """
    name = f"{scope}_metrics"
    found = macros.selection(name, wanted, _KEYS[scope] | {BUCKET})
    length = _RESOLUTIONS[resolution].minutes
    values = {
        _RESOLUTION: literal(resolution),
        _LENGTH: str(length if minutes is None else minutes),
    }
    rows = _NEVER.sub("", _filled(found, values))
    if _MINUTES in wanted and length > 1:
        return f"SELECT *, {passed(_RESOLUTIONS[resolution])} FROM ({rows})"  # noqa: S608 - rows of a view
    return rows


def rows_of_range(
    macros: Macros,
    scope: str,
    wanted: Collection[str],
    arguments: Mapping[str, str],
) -> str | None:
    """Return what the macro of a scope's metrics over a range has, with the wanted columns.

    `arguments` are SQL. None where it is no range of times. Raises duckdb.Error.
    """
    always = _KEYS[scope] | {_ENTITY}
    return _of_range(macros, scope, f"{scope}_between", arguments, (wanted, always, ()))


def percentiles_of_range(
    macros: Macros,
    scope: str,
    wanted: Collection[str],
    metric: str,
    arguments: Mapping[str, str],
) -> str | None:
    """Return what the macro of a metric's percentiles has, as `rows_of_range`."""
    always = _KEYS[scope] | {_ENTITY} | _OF_BUCKETS
    name = f"{scope}_percentiles_between"
    return _of_range(macros, scope, name, arguments, (wanted, always, ((_OF_METRIC, metric),)))


def _of_range(
    macros: Macros,
    scope: str,
    name: str,
    arguments: Mapping[str, str],
    chosen: tuple[Collection[str], Collection[str], Choices],
) -> str | None:
    """Return what a macro has of a range: of no other tables than those with a part of it."""
    ends = _ends(macros, arguments)
    if ends is None:
        return None
    since_us, until_us, newest_us = ends
    selection, rows = macros.selection(name, *chosen), macros.rows(name, chosen[2])
    parts = parts_of_range(_SCOPES[scope], since_us, until_us, newest_us)
    every = [f"{rows.replace(TABLE, table)} WHERE {condition}" for table, condition in parts]
    values = {quoted(own_name(name)): sql for name, sql in arguments.items()}
    values |= {
        quoted(own_name("since")): f"make_timestamp({since_us})",
        quoted(own_name("until")): f"make_timestamp({until_us})",
        ROWS: " UNION ALL ".join(every or [f"{rows.replace(TABLE, _states(scope))} LIMIT 0"]),
    }
    return _filled(_filled(selection, {ROWS: values.pop(ROWS)}), values)


def _states(scope: str) -> str:
    return states_table(_SCOPES[scope])


def _ends(macros: Macros, arguments: Mapping[str, str]) -> tuple[int, int, int | None] | None:
    """Return a range's ends and the store's newest minute, in us since 1970; None if it has none.

    What is no time, or infinite, is left to DuckDB.
    """
    asked = (arguments["since"], arguments["until"])
    if asked not in macros.ends:
        since, until = (f"try(epoch_us({one}::TIMESTAMP))" for one in asked)
        newest = "(SELECT epoch_us(max(minute)) FROM internal.newest)"
        sql = f"SELECT {since}, {until}, {newest}"
        since_us, until_us, newest_us = macros.connection.execute(sql).fetchall()[0]
        is_range = since_us is not None and until_us is not None
        macros.ends[asked] = (since_us, until_us, newest_us) if is_range else None
    return macros.ends[asked]


def _filled(selection: str, values: Mapping[str, str]) -> str:
    """Write SQL where the names of parameters stand; what is written is not looked into again."""
    places = re.compile("|".join(map(re.escape, values)))
    return places.sub(lambda found: values[found[0]], selection)
