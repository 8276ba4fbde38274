"""What DuckDB tells of a store's views and macros (COMMENT), with units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from framewalk.engine.oal import SCOPES
from framewalk.engine.questions.macros import answered, percentiles_name, percentiles_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from framewalk.engine.oal import Metric

_UNITS: Final = "metrics.unit has the unit of each metric; times are in UTC"
_METRICS: Final = {
    "minute": f"Metrics of each {{}}, a row for each minute (time_bucket). {_UNITS}.",
    "hour": f"Metrics of each {{}}, a row for each hour, of which `minutes` have passed. {_UNITS}.",
    "day": f"Metrics of each {{}}, a row for each day, of which `minutes` have passed. {_UNITS}.",
}
_BETWEEN: Final = (
    "Metrics of each {} from since to before until (UTC), a row for each. Rates are per minute of "
    "the range; with divide_by := 1 they are counts. " + _UNITS + "."
)
_PERCENTILES: Final = (
    "Percentiles of each {} by one metric (of_metric), from since to before until (UTC), in its "
    "unit: what {}_between has, too, several times faster."
)
_VIEWS: Final = {
    "metrics": "Every metric: its definition, function and unit, and the columns it is in.",
    "former_meanings": "What metrics meant before a time (until, UTC), which their values before "
    "are of; without a definition they have none.",
    "entities": "Everything that was ever seen, once: since when and until when (UTC).",
    "metric_values": "All metrics of all scopes in the long form, a row for each value. "
    "metric_values_of is the same of one metric, and fast.",
    "pods": "Pods and the names that they had, from when to when (UTC).",
    "service_aliases": "Services that have the name of another, from when to when (UTC).",
    "unknown_peers": "Traffic of addresses without a name, by hour (time_bucket, UTC).",
}
_VALUES_OF: Final = (
    "What metric_values has of one metric, from since to before until (UTC), by minute, hour or "
    "day (resolution); of_entity is an entity as metric_values names it."
)
_COLUMNS: Final = {
    "metrics.unit": "Of the metric's values. `count` of a function cpm is per minute; 1/10000 is "
    "a share.",
    "metric_values.value": "In the unit that `metrics` has for the metric.",
    "unknown_peers.bytes": "Sent and received, in bytes.",
    "unknown_peers.logs": "Operations: one log each.",
    "unknown_peers.http_calls": "HTTP requests.",
}


def comment_statements(metrics: Sequence[Metric]) -> Iterator[str]:
    """Yield the statements that comment what a store with these metrics has."""
    for scope in SCOPES.values():
        for resolution, text in _METRICS.items():
            yield _comment("VIEW", f"{scope.view}_{resolution}", text.format(scope.view))
        yield _comment("MACRO TABLE", f"{scope.view}_between", _BETWEEN.format(scope.view))
        if percentiles_of(one for one in metrics if one.scope is scope):
            text = _PERCENTILES.format(scope.view, scope.view)
            yield _comment("MACRO TABLE", percentiles_name(scope), text)
    for view, text in _VIEWS.items():
        yield _comment("VIEW", view, text)
    for column, text in _COLUMNS.items():
        yield _comment("COLUMN", column, text)
    yield _comment("MACRO TABLE", "metric_values_of", _VALUES_OF)
    for question in answered(metrics):
        kind = "MACRO TABLE" if question.places else "VIEW"
        yield _comment(kind, question.name, question.answers)


def _comment(kind: str, name: str, text: str) -> str:
    escaped = text.replace("'", "''")
    return f"COMMENT ON {kind} {name} IS '{escaped}'"
