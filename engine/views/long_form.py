"""The view of all metrics in long form: a row for each value, or labelled part of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from framewalk.engine.oal import PERCENTILES, SCOPES
from framewalk.engine.views.names import (
    BUCKET,
    MINUTES,
    RESOLUTIONS,
    entity_name,
    literal,
    quoted,
    view_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from framewalk.engine.oal import Metric, Scope


# Names of metrics with the types of their columns.
Typed: TypeAlias = "Sequence[tuple[str, str]]"


def metric_values_view() -> str:
    """Return the statement that makes the long form over all scopes and resolutions."""
    return f"CREATE OR REPLACE VIEW metric_values AS FROM {_VALUES_MACRO}(NULL)"


def empty_values_macro() -> str:
    """Return the statement that makes `metric_values_macro` without rows, as `empty_macro`."""
    return f"{_MADE_VALUES} {_NO_VALUES} LIMIT 0"


def metric_values_macro(metrics: Sequence[Metric]) -> str:
    """Return the statement that makes the macro that the long form is read from."""
    # As in the views (metrics.py): a function of the parameter comes first.
    selects = [f"{_NO_VALUES} WHERE greatest({_NOTHING}, {_NOTHING}) IS NOT NULL"]
    for scope in SCOPES.values():
        own = [(one.name, one.function.sql_type) for one in metrics if one.scope is scope]
        if own:
            rows = {
                one.name: f"* FROM {view_name(scope, one)}"
                if one.minutes == 1
                else f"* EXCLUDE ({MINUTES}) FROM {view_name(scope, one)}"
                for one in RESOLUTIONS
            }
            selects.append(_values_of_scope(scope, own, rows))
    return f"{_MADE_VALUES}\n{_all_values(selects)}"


def values_selection(parts: Iterable[tuple[Scope, Typed, Mapping[str, str]]]) -> str:
    """Return what the long form has of some metrics.

    They come by scope: with their types, and SQL of rows that have them, by resolution.
    """
    selects = [_NO_VALUES]
    for scope, metrics, rows in parts:
        selected = {name: f"* FROM ({sql})" for name, sql in rows.items()}
        selects.append(_values_of_scope(scope, metrics, selected))
    return _all_values(selects)


def _values_of_scope(scope: Scope, metrics: Typed, rows: Mapping[str, str]) -> str:
    names = list(map(literal, rows))
    names[0] += f" AS {_OWN_RESOLUTION}"
    selects = map("SELECT {}, {}".format, names, rows.values())
    every = " UNION ALL ".join(selects)
    return (
        f"SELECT {BUCKET}, {_OWN_RESOLUTION} AS resolution, {literal(scope.name)} AS scope, "
        f"entity_id, {entity_name(scope)} AS entity, "
        f"unnest({_labelled_values(metrics)}, recursive := true) "
        f"FROM ({every})"
    )


def _all_values(selects: Iterable[str]) -> str:
    every = "\nUNION ALL\n".join(selects)
    return f"FROM (\n{every}\n) WHERE value IS NOT NULL"


# These stand beside the columns of metrics, whose names have no space: `e` could be one of them.
_OWN_RESOLUTION: Final = quoted("own resolution")
_OWN_ENTRY: Final = quoted("own entry")
_NOTHING: Final = quoted("own nothing")
_VALUES_MACRO: Final = "internal.metric_values_of"
_MADE_VALUES: Final = f"CREATE OR REPLACE MACRO {_VALUES_MACRO}({_NOTHING}) AS TABLE"
_NO_VALUES: Final = (
    f"SELECT NULL::TIMESTAMP AS {BUCKET}, '' AS resolution, '' AS scope, '' AS entity_id, "
    "'' AS entity, '' AS metric, '' AS label, NULL::DOUBLE AS value"
)


def _labelled_values(metrics: Typed) -> str:
    """Return a list of {metric, label, value}; a plain value has the empty label."""
    plain = [name for name, sql_type in metrics if sql_type in _PLAIN]
    names = ", ".join(map(literal, plain))
    values = ", ".join(map(quoted, plain))
    # One expression for all: a struct for each takes three times as long to read and bind.
    pairs = f"list_zip([{names}]::VARCHAR[], [{values}]::DOUBLE[])"
    entry = f"{{'metric': {_OWN_ENTRY}[1], 'label': '', 'value': {_OWN_ENTRY}[2]}}"
    lists = [f"list_transform({pairs}, lambda {_OWN_ENTRY}: {entry})"]
    lists += [_values_of(*one) for one in metrics if one[1] not in _PLAIN]
    return f"flatten([{', '.join(lists)}])"


_PLAIN: Final = frozenset({"BIGINT", "DOUBLE"})


def _values_of(name: str, sql_type: str) -> str:
    column = quoted(name)
    if sql_type.startswith("STRUCT"):
        entries = (_entry(name, f"'p{p}'", f"{column}.p{p}") for p in PERCENTILES)
        return f"[{', '.join(entries)}]"
    entry = _entry(name, f"{_OWN_ENTRY}.key::VARCHAR", f"{_OWN_ENTRY}.value")
    labelled = f"list_transform(map_entries({column}), lambda {_OWN_ENTRY}: {entry})"
    return f"coalesce({labelled}, [])"


def _entry(name: str, label: str, value: str) -> str:
    return f"{{'metric': {literal(name)}, 'label': {label}, 'value': {value}::DOUBLE}}"
