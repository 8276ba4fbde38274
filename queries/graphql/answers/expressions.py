"""Expressions of a whole document, evaluated together, and their results in the schema's shape."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from graphql import GraphQLError

from framewalk.queries.graphql.answers.columns import Columns
from framewalk.queries.graphql.answers.durations import range_of
from framewalk.queries.metrics import ENDPOINT, INSTANCE, SERVICE, Buckets, service_id
from framewalk.queries.mqe import (
    Entity,
    ExpressionResult,
    Request,
    ResultType,
    evaluate_all,
    explain,
)
from framewalk.queries.mqe import as_text as text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb

    from framewalk.queries.graphql.answers.durations import Range
    from framewalk.queries.metrics import Catalogue, EntityName, Statement
    from framewalk.queries.mqe import ResultSeries

_FIELDS: Final = {
    "serviceName": "service",
    "normal": "normal",
    "serviceInstanceName": "instance",
    "endpointName": "endpoint",
    "destServiceName": "dest_service",
    "destNormal": "dest_normal",
    "destServiceInstanceName": "dest_instance",
    "destEndpointName": "dest_endpoint",
}
_SCOPES: Final = {SERVICE: "Service", INSTANCE: "ServiceInstance", ENDPOINT: "Endpoint"}
_EMPTY_LIST: Final = {"metric": {"labels": []}, "values": []}


def evaluate(
    cursor: duckdb.DuckDBPyConnection,
    catalogue: Catalogue,
    expressions: Mapping[int, Mapping[str, Any]],
) -> dict[int, Any]:
    """Return the results of expressions by what they are known by, or the error of their range.

    Nothing else is an error: what is wrong with an expression, its metrics or its entity is in its
    result; and so is, for whoever debugs, the SQL that reads its values. Raises duckdb.Error.
    """
    began_ns = time.time_ns()
    ranges: dict[tuple[str, str, str], Range | GraphQLError] = {}
    found: dict[int, Any] = {}
    requests: dict[int, tuple[Request, Range]] = {}
    for node, arguments in expressions.items():
        duration = arguments["duration"]
        key = (duration["start"], duration["end"], duration["step"])
        if key not in ranges:
            ranges[key] = _range_or_error(duration)
        covered = ranges[key]
        if isinstance(covered, GraphQLError):
            found[node] = covered
            continue
        entity = _entity(arguments["entity"])
        request = Request(arguments["expression"], entity, _read(covered))
        requests[node] = request, covered
    results = evaluate_all(cursor, catalogue, [request for request, _ in requests.values()])
    for (node, (_, covered)), result in zip(requests.items(), results, strict=True):
        found[node] = _answer(result, covered)
    debugged = {node for node in requests if expressions[node].get("debug")}
    if debugged:
        ended_ns = time.time_ns()
        read = explain(cursor, catalogue, [request for request, _ in requests.values()])
        for node in debugged:
            expression = requests[node][0].expression
            found[node]["debuggingTrace"] = _trace(expression, read, began_ns, ended_ns)
    return found


def _trace(
    expression: str, read: Sequence[Statement], began_ns: int, ended_ns: int
) -> dict[str, Any]:
    """Return what is read as spans: statements and times are of all expressions of the document."""
    times = {"startTime": began_ns, "endTime": ended_ns, "duration": ended_ns - began_ns}
    operations = [("MQE", expression), *(("SQL", one.written) for one in read)]
    spans = [
        {"spanId": at, "parentSpanId": min(at, 1) - 1, "operation": operation, "msg": text}
        | {"error": None, **times}
        for at, (operation, text) in enumerate(operations)
    ]
    return {"traceId": "", "condition": expression, "spans": spans, **times}


def _range_or_error(duration: Mapping[str, Any]) -> Range | GraphQLError:
    try:
        return range_of(duration)
    except GraphQLError as error:
        return error


def _entity(given: Mapping[str, Any]) -> Entity:
    return Entity(**{field: given.get(name) for name, field in _FIELDS.items()})


def _read(covered: Range) -> Buckets:
    """Return the buckets that are read; of seconds the minutes that begin in the range."""
    buckets = covered.buckets
    if covered.is_seconds and buckets.first < covered.first:
        return Buckets(buckets.step, buckets.first + buckets.step.length, buckets.count - 1)
    return buckets


def _answer(result: ExpressionResult, covered: Range) -> dict[str, Any]:
    series = [_series(one) for one in result.series]
    if result.type is ResultType.SORTED_LIST and not series:
        # UIs read the first without looking.
        series = [_EMPTY_LIST]
    if covered.is_seconds and result.type is ResultType.TIME_SERIES_VALUES:
        series = [_series_of_seconds(one, covered) for one in result.series]
    return {
        "type": result.type.value,
        "results": series,
        "error": result.error,
        "debuggingTrace": None,
    }


def _series(series: ResultSeries) -> dict[str, Any]:
    texts = series.texts
    nothing: list[Any] = [None] * len(texts)
    columns: dict[str, list[Any]] = {
        "id": list(series.ids) or nothing,
        "value": texts,
        "traceID": nothing,
        "owner": list(map(_owner, series.owners)) or nothing,
    }
    return {"metric": _labels(series), "values": Columns(columns)}


def _series_of_seconds(series: ResultSeries, covered: Range) -> dict[str, Any]:
    """Return a series of minutes second by second: a value is at the first of its minute."""
    minutes = _read(covered)
    seconds = (minutes.epoch_ms - covered.first_ms) // 1_000
    values = np.full(covered.points, np.nan)
    values[seconds] = series.values
    nothing: list[Any] = [None] * covered.points
    columns: dict[str, list[Any]] = {
        "id": [str(covered.first_ms + at * 1_000) for at in range(covered.points)],
        "value": [text_of(value) for value in values.tolist()],
        "traceID": nothing,
        "owner": nothing,
    }
    return {"metric": _labels(series), "values": Columns(columns)}


def _labels(series: ResultSeries) -> dict[str, Any]:
    return {"labels": [{"key": key, "value": value} for key, value in series.labels]}


def _owner(entity: EntityName) -> dict[str, Any]:
    names = {
        "serviceID": service_id(entity.service_name),
        "serviceName": entity.service_name,
        "normal": True,
        "serviceInstanceID": None,
        "serviceInstanceName": None,
        "endpointID": None,
        "endpointName": None,
    }
    if entity.scope == INSTANCE:
        names |= {"serviceInstanceID": entity.id, "serviceInstanceName": entity.own_name}
    elif entity.scope == ENDPOINT:
        names |= {"endpointID": entity.id, "endpointName": entity.own_name}
    return {"scope": _SCOPES.get(entity.scope), **names}
