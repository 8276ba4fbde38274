"""The macro of one metric's percentiles over a range of time: buckets are added up as rows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from framewalk.engine.oal import PERCENTILES, rank_of, told_of_bucket
from framewalk.engine.questions import empty_percentiles, percentiles_head, percentiles_of
from framewalk.engine.views.finished import Span, listed, of_its_time
from framewalk.engine.views.names import ENTITY, entities_table, entity_id, literal, quoted
from framewalk.engine.views.ranges import END, SINCE, rows_of_range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from framewalk.engine.oal import Former, Metric, Scope


def percentiles_macro(
    scope: Scope,
    metrics: Sequence[Metric],
    columns: Mapping[str, str],
    formers: Sequence[Former] = (),
) -> str:
    """Return the statement that makes the macro of one metric's percentiles over a range of time.

    `between_macro` has them, too, out of lists of buckets. Here buckets are added up as rows, which
    takes a fifth of the time or less; but a view that did so for all would read all, whatever is
    asked for. Of a scope without percentiles it has no rows.
    """
    own = percentiles_of(metrics)
    if not own:
        return empty_percentiles(scope)
    held = _of_metric(own, formers, lambda one: quoted(columns[one.states[0].name]))
    at = [
        f"min(key) FILTER (running >= {rank_of(str(p), 'total')}) AS at_p{p}" for p in PERCENTILES
    ]
    told = [f"{_of_metric(own, formers, partial(_told_of, p))} AS p{p}" for p in PERCENTILES]
    keys = ", ".join(map(quoted, scope.keys))
    rows = rows_of_range(scope, f"{ENTITY}, {held} AS held")
    asked_for = f"SELECT {ENTITY} FROM {entities_table(scope)} WHERE {_is_asked_for(scope)}"
    each = f"OVER (PARTITION BY {ENTITY}"
    sums = [
        f"(sum(logs) {each} ORDER BY key ROWS UNBOUNDED PRECEDING))::BIGINT AS running",
        f"(sum(logs) {each}))::BIGINT AS total",
    ]
    return (
        f"CREATE OR REPLACE MACRO {percentiles_head(scope)} AS TABLE\n"
        f"SELECT {entity_id(scope)} AS entity_id, {keys}, {', '.join(told)}\n"
        f"FROM (\nSELECT {listed([ENTITY, *at])}\n"
        f"FROM (\nSELECT {listed([ENTITY, 'key', *sums])}\n"
        f"FROM (\nSELECT {ENTITY}, held.key AS key, sum(held.value)::BIGINT AS logs\n"
        f"FROM (\nSELECT {ENTITY}, unnest(held) AS held\n"
        # The join below reaches the tables, too, but not in a query that joins this to another.
        f"FROM (\n{rows}\n)\nSEMI JOIN (\n{asked_for}\n) USING ({ENTITY})\n)\n"
        "GROUP BY ALL\n))\nGROUP BY ALL\n)\n"
        f"JOIN {entities_table(scope)} USING ({ENTITY})"
    )


def _is_asked_for(scope: Scope) -> str:
    """Return the condition that one end is a service, or in a namespace, where that is given."""
    services = [quoted(key) for key in scope.keys if key.endswith("service")]
    called = " OR ".join(f"{one} = of_service" for one in services)
    within = " OR ".join(f"ends_with({one}, '.' || of_namespace)" for one in services)
    return f"(of_service IS NULL OR {called}) AND (of_namespace IS NULL OR {within})"


def _of_metric(
    metrics: Sequence[Metric], formers: Sequence[Former], of_one: Callable[[Metric], str]
) -> str:
    """Return what there is of the metric that is asked for, by its meaning in the range."""
    cases = []
    for metric in metrics:
        own = [one for one in formers if one.name == metric.name]
        befores = ["NULL" if one.metric is None else of_one(one.metric) for one in own]
        value = of_its_time(of_one(metric), own, befores, Span(SINCE, END, ""))
        cases.append(f"WHEN {literal(metric.name)} THEN {value} ")
    unknown = "error('there are no such percentiles of this; FROM metrics lists all')"
    return f"CASE of_metric {''.join(cases)}ELSE {unknown} END"


def _told_of(percentile: int, metric: Metric) -> str:
    return told_of_bucket(metric, f"at_p{percentile}")
