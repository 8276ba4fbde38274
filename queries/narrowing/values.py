"""What `metric_values` has of some metrics, read from their scopes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from framewalk.engine.oal import FUNCTIONS, SCOPES
from framewalk.engine.views import RESOLUTIONS, values_selection
from framewalk.queries.narrowing.rows import rows_of_view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from framewalk.queries.narrowing.macros import Macros

_METRICS: Final = (
    "SELECT name, scope, function FROM internal.definitions WHERE name IN "
    "(SELECT unnest(?::VARCHAR[])) ORDER BY name"
)
_ID: Final = "entity_id"


def metrics_by_scope(
    macros: Macros, names: AbstractSet[str]
) -> dict[str, list[tuple[str, str]]] | None:
    """Return those of metrics that a store has, with their types; None where one is not known here.

    Raises duckdb.Error.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for name, scope, function in macros.connection.execute(_METRICS, [sorted(names)]).fetchall():
        if scope not in SCOPES or function not in FUNCTIONS:
            return None
        found.setdefault(scope, []).append((name, FUNCTIONS[function].sql_type))
    return found


def values_of_metrics(
    macros: Macros,
    metrics: Mapping[str, Sequence[tuple[str, str]]],
    resolutions: AbstractSet[str] | None = None,
) -> str:
    """Return what `metric_values` has of metrics, of some resolutions or all (None).

    Raises duckdb.Error.
    """
    parts = []
    for name, own in metrics.items():
        scope = SCOPES[name]
        wanted = {_ID, *(metric for metric, _ in own)}
        rows = {
            one.name: rows_of_view(macros, scope.view, one.name, wanted)
            for one in RESOLUTIONS
            if resolutions is None or one.name in resolutions
        }
        if rows:
            parts.append((scope, own, rows))
    return values_selection(parts)
