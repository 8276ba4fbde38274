"""The older questions about metrics, which swctl and Grafana's plugin ask: values are whole."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from graphql import GraphQLError

from framewalk.engine.views import quoted
from framewalk.queries.graphql.answers.durations import range_of
from framewalk.queries.metrics import (
    ENDPOINT,
    INSTANCE,
    KEYS,
    SERVICE,
    EntityName,
    Leaf,
    Metric,
    Order,
    Series,
    Top,
    entity_of_id,
    read_leaves,
    top_list,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from framewalk.queries.graphql.answers.asked import Asked
    from framewalk.queries.metrics import Buckets

_ORDERS: Final = {"ASC": Order.SMALLEST, "DES": Order.LARGEST}
_STEP_TEXTS: Final = {"minute": "%Y%m%d%H%M", "hour": "%Y%m%d%H", "day": "%Y%m%d"}
_MOST_TOP: Final = 10_000
_MOST_PATTERN: Final = 1_000
_LARGEST: Final = 2**63 - 1
# Of the names in a question, by the columns of a scope.
_NAMES: Final = {
    "service": "serviceName",
    "instance": "serviceInstanceName",
    "endpoint": "endpointName",
    "source_service": "serviceName",
    "source_instance": "serviceInstanceName",
    "source_endpoint": "endpointName",
    "dest_service": "destServiceName",
    "dest_instance": "destServiceInstanceName",
    "dest_endpoint": "destEndpointName",
}


def metric_type(asked: Asked, name: str) -> str:
    """Return what the values of a metric are like."""
    metric = asked.catalogue.get(name)
    return "UNKNOWN" if metric is None else _type(metric)


def metrics(asked: Asked, regex: str | None = None) -> list[dict[str, Any]]:
    """Return the metrics whose whole names a pattern fits, all without one."""
    known = asked.catalogue.metrics
    wanted = _matching(list(known), regex) if regex else known
    return [
        {"name": one.name, "type": _type(one), "catalog": one.scope.upper()}
        for one in map(known.__getitem__, wanted)
    ]


def _matching(names: list[str], regex: str) -> list[str]:
    """Return the names that a pattern fits; Arrow's patterns take no longer for any text."""
    if len(regex) > _MOST_PATTERN:
        message = f"regex: this pattern is longer than {_MOST_PATTERN} characters."
        raise GraphQLError(message)
    try:
        fits = pc.match_substring_regex(pa.array(names, pa.string()), pattern=f"^(?:{regex})$")
    except pa.ArrowInvalid as error:
        message = f"regex: {regex!r} is no pattern."
        raise GraphQLError(message) from error
    return [name for name, one in zip(names, fits.to_pylist(), strict=True) if one]


def value(asked: Asked, condition: Mapping[str, Any], duration: Mapping[str, Any]) -> int:
    """Return the average of a metric over a range, 0 without any."""
    return _mean(asked, condition, duration) or 0


def nullable_value(
    asked: Asked, condition: Mapping[str, Any], duration: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the average of a metric over a range, and whether there is none."""
    found = _mean(asked, condition, duration)
    return {"value": found or 0, "isEmptyValue": found is None}


def values(
    asked: Asked, condition: Mapping[str, Any], duration: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a metric bucket by bucket."""
    buckets = range_of(duration).buckets
    name, entity = condition["name"], _named(asked, condition)
    key = entity.id if entity is not None else ""
    series = _series(asked, name, entity, buckets)
    return {"label": None, "values": _points(name, key, _only(series), buckets)}


def labelled_values(
    asked: Asked,
    condition: Mapping[str, Any],
    labels: Sequence[str],
    duration: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return a labelled metric bucket by bucket, for some labels or all."""
    buckets = range_of(duration).buckets
    name, entity = condition["name"], _named(asked, condition)
    metric = asked.catalogue.get(name)
    if metric is None or not metric.is_labelled or entity is None:
        return []
    return [
        {
            "label": f"{{{label}={text}}}",
            "values": _points(name, entity.id, one, buckets),
        }
        for one in _series(asked, name, entity, buckets)
        for label, text in one.labels
        if not labels or text in labels
    ]


def sorted_metrics(
    asked: Asked, condition: Mapping[str, Any], duration: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the entities with the largest or smallest averages of a metric."""
    buckets = range_of(duration).buckets
    metric = asked.catalogue.get(condition["name"])
    service = condition.get("parentService") or None
    count = max(0, min(condition["topN"], _MOST_TOP))
    if metric is None or not count:
        return []
    if service is not None and (
        metric.scope not in {INSTANCE, ENDPOINT} or condition.get("normal") is not True
    ):
        return []
    order = _ORDERS[condition["order"]]
    ranked = top_list(asked.cursor, Top(metric, buckets, count, order, service))
    return [
        {
            "name": _shown(one.entity, service),
            "id": one.entity.id,
            "value": str(_whole(one.value)),
            "refId": None,
        }
        for one in ranked
    ]


def top_services(
    asked: Asked,
    name: str,
    topN: int,
    duration: Mapping[str, Any],
    order: str,
) -> list[dict[str, Any]]:
    """Return the services with the largest or smallest averages of a metric."""
    condition = {"name": name, "topN": topN, "order": order}
    found = sorted_metrics(asked, condition, duration)
    return [{"name": one["name"], "id": one["id"], "value": int(one["value"])} for one in found]


def heat_map(
    asked: Asked, condition: Mapping[str, Any], duration: Mapping[str, Any]
) -> dict[str, Any]:
    """Return counts per bucket of values; a page asks for the metric before it knows its kind."""
    buckets = range_of(duration).buckets
    entity = _named(asked, condition)
    key = entity.id if entity is not None else ""
    metric = asked.catalogue.get(condition["name"])
    found: dict[Any, dict[int, int]] = {}
    if metric is not None and metric.is_histogram and metric.is_stored and entity is not None:
        found = _counts(asked, metric, entity, buckets)
    bounds = sorted({bound for counts in found.values() for bound in counts})
    return {
        "values": [
            {
                "id": _point_id(condition["name"], key, time, buckets),
                "values": [found.get(time, {}).get(bound, 0) for bound in bounds],
            }
            for time in buckets.times
        ],
        "buckets": [
            {"min": str(bound), "max": str(bounds[at + 1]) if at + 1 < len(bounds) else "infinite+"}
            for at, bound in enumerate(bounds)
        ],
    }


def values_of_ids(
    asked: Asked, metric: Mapping[str, Any], duration: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the averages of a metric of entities, 0 where there is none."""
    buckets = range_of(duration).buckets
    known = asked.catalogue.get(metric["name"])
    leaves: dict[str, Leaf] = {}
    if known is not None and not known.is_labelled and not known.is_histogram:
        named = {one: entity_of_id(known.scope, one) for one in metric["ids"]}
        leaves = {
            one: Leaf(known, entity, buckets) for one, entity in named.items() if entity is not None
        }
    found = read_leaves(asked.cursor, leaves.values())
    averages = {one: _average(found[leaf]) or 0 for one, leaf in leaves.items()}
    return {
        "values": [
            {"id": one, "value": averages.get(one, 0), "isEmptyValue": False}
            for one in metric["ids"]
        ]
    }


def linear_values(
    asked: Asked, metric: Mapping[str, Any], duration: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a metric of an entity, by its identifier, bucket by bucket."""
    buckets = range_of(duration).buckets
    name, key = metric["name"], metric.get("id") or ""
    known = asked.catalogue.get(name)
    entity = entity_of_id(known.scope, key) if known is not None else None
    return _points(name, key, _only(_series(asked, name, entity, buckets)), buckets)


def _type(metric: Metric) -> str:
    if metric.is_histogram:
        return "HEATMAP"
    return "LABELED_VALUE" if metric.is_labelled else "REGULAR_VALUE"


def _named(asked: Asked, condition: Mapping[str, Any]) -> EntityName | None:
    """Return the entity of a question, None where it names none of the metric's scope."""
    metric = asked.catalogue.get(condition["name"])
    if metric is None:
        return None
    given = condition["entity"]
    names = [given.get(_NAMES[key]) for key in KEYS[metric.scope]]
    is_real = given.get("normal") is True and (
        "dest_service" not in KEYS[metric.scope] or given.get("destNormal") is True
    )
    if not is_real or not all(names):
        return None
    return EntityName(metric.scope, tuple(map(str, names)))


def _series(
    asked: Asked, name: str, entity: EntityName | None, buckets: Buckets
) -> tuple[Series, ...]:
    metric = asked.catalogue.get(name)
    if metric is None or entity is None or metric.is_histogram:
        return ()
    leaf = Leaf(metric, entity, buckets)
    return read_leaves(asked.cursor, [leaf])[leaf]


def _only(series: Sequence[Series]) -> Series | None:
    """Return the series of a metric without labels."""
    return next((one for one in series if not one.labels), None)


def _mean(asked: Asked, condition: Mapping[str, Any], duration: Mapping[str, Any]) -> int | None:
    buckets = range_of(duration).buckets
    return _average(_series(asked, condition["name"], _named(asked, condition), buckets))


def _average(series: Sequence[Series]) -> int | None:
    plain = _only(series)
    if plain is None:
        return None
    numbers = plain.values[~np.isnan(plain.values)]
    return _whole(float(numbers.mean())) if numbers.size else None


def _whole(number: float) -> int:
    """Return a number as a Long: cut, and within 64 bits."""
    return max(-_LARGEST - 1, min(_LARGEST, math.trunc(number)))


def _points(name: str, key: str, series: Series | None, buckets: Buckets) -> dict[str, Any]:
    numbers = [math.nan] * buckets.count if series is None else series.values.tolist()
    return {
        "values": [
            {
                "id": _point_id(name, key, time, buckets),
                "value": 0 if math.isnan(number) else _whole(number),
                "isEmptyValue": math.isnan(number),
            }
            for time, number in zip(buckets.times, numbers, strict=True)
        ]
    }


def _point_id(name: str, key: str, time: Any, buckets: Buckets) -> str:  # noqa: ANN401 - a datetime
    return f"{name}_{time.strftime(_STEP_TEXTS[buckets.step.resolution])}_{key}"


def _shown(entity: EntityName, service: str | None) -> str:
    if entity.scope == SERVICE or service is not None:
        return entity.own_name
    return " - ".join(entity.names)


def _counts(
    asked: Asked, metric: Metric, entity: EntityName, buckets: Buckets
) -> dict[Any, dict[int, int]]:
    names = " AND ".join(f"{quoted(key)} = ?" for key in KEYS[metric.scope])
    rows = asked.cursor.execute(
        f"SELECT time_bucket, {quoted(metric.column)} "  # noqa: S608 - names of a view
        f"FROM {metric.scope}_{buckets.step.resolution} "
        f"WHERE time_bucket BETWEEN ? AND ? AND {names}",
        [buckets.first, buckets.last, *entity.names],
    ).fetchall()
    return {time: dict(_pairs(counts)) for time, counts in rows if counts}


def _pairs(counts: Any) -> list[tuple[int, int]]:  # noqa: ANN401 - a map or a list of structs
    if isinstance(counts, dict):
        return [(int(bound), int(count)) for bound, count in counts.items()]
    return [(int(one["key"]), int(one["value"])) for one in counts]
