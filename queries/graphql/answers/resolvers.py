"""The table of what answers each field at the top of a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from graphql import GraphQLError

from framewalk.queries.graphql.answers import fixed, metadata, older
from framewalk.queries.graphql.answers.durations import range_of
from framewalk.queries.graphql.answers.topology import (
    EMPTY,
    endpoint_dependencies,
    endpoint_of,
    instance_topology,
    layers_of,
    service_of,
    service_topology,
)
from framewalk.queries.metrics import EntityName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from framewalk.queries.graphql.answers.asked import Asked

Resolver = Callable[..., Any]
_Duration = Mapping[str, Any]


def _global(
    asked: Asked, duration: _Duration, layer: str | None = None, **_options: object
) -> Mapping[str, Any]:
    covered = range_of(duration)
    if layer in {None, ""}:
        return service_topology(asked.cursor, covered, None, asked.services)
    services = [name for name, one in asked.services.items() if layer in layers_of(one)]
    return _of_services(asked, services, duration)


def _of_service(
    asked: Asked,
    serviceId: str,
    duration: _Duration,
    **_options: object,
) -> Mapping[str, Any]:
    return _of_ids(asked, [serviceId], duration)


def _of_ids(
    asked: Asked,
    serviceIds: Sequence[str],
    duration: _Duration,
    **_options: object,
) -> Mapping[str, Any]:
    named = [name for one in serviceIds if (name := service_of(one)) is not None]
    return _of_services(asked, named, duration)


def _of_name(
    asked: Asked, service: Mapping[str, Any], duration: _Duration, **_options: object
) -> Mapping[str, Any]:
    return _of_services(asked, [service["serviceName"]], duration)


def _of_names(
    asked: Asked, services: Sequence[Mapping[str, Any]], duration: _Duration, **_options: object
) -> Mapping[str, Any]:
    return _of_services(asked, [one["serviceName"] for one in services], duration)


def _of_services(asked: Asked, services: list[str], duration: _Duration) -> Mapping[str, Any]:
    covered = range_of(duration)
    if not services:
        return EMPTY
    return service_topology(asked.cursor, covered, services, asked.services)


def _of_instances(
    asked: Asked,
    clientServiceId: str,
    serverServiceId: str,
    duration: _Duration,
    **_options: object,
) -> Mapping[str, Any]:
    covered = range_of(duration)
    client, server = service_of(clientServiceId), service_of(serverServiceId)
    if client is None or server is None:
        return EMPTY
    return instance_topology(asked.cursor, covered, client, server)


def _of_instances_by_name(
    asked: Asked,
    clientService: Mapping[str, Any],
    serverService: Mapping[str, Any],
    duration: _Duration,
    **_options: object,
) -> Mapping[str, Any]:
    names = (clientService["serviceName"], serverService["serviceName"])
    return instance_topology(asked.cursor, range_of(duration), *names)


def _dependencies(
    asked: Asked,
    endpointId: str,
    duration: _Duration,
    **_options: object,
) -> Mapping[str, Any]:
    covered, endpoint = range_of(duration), endpoint_of(endpointId)
    return EMPTY if endpoint is None else endpoint_dependencies(asked.cursor, covered, endpoint)


def _dependencies_by_name(
    asked: Asked, endpoint: Mapping[str, Any], duration: _Duration, **_options: object
) -> Mapping[str, Any]:
    named = EntityName.endpoint(endpoint["serviceName"], endpoint["endpointName"])
    return endpoint_dependencies(asked.cursor, range_of(duration), named)


def _endpoint_topology(
    asked: Asked,
    endpointId: str,
    duration: _Duration,
) -> Mapping[str, Any]:
    found = _dependencies(asked, endpointId, duration)
    nodes = [
        {"id": one["id"], "name": one["name"], "type": "", "isReal": True, "layers": []}
        for one in found["nodes"]
    ]
    return {**found, "nodes": nodes}


def _empty_topology(_asked: Asked, duration: _Duration, **_arguments: object) -> Mapping[str, Any]:
    range_of(duration)
    return EMPTY


def _no_records(_asked: Asked, duration: _Duration, **_arguments: object) -> list[Any]:
    range_of(duration)
    return []


def _templates(asked: Asked) -> list[dict[str, str]]:
    return asked.templates.all()


def _template(asked: Asked, id: str) -> dict[str, str]:  # noqa: A002 - as the schema has it
    found = asked.templates.get(id)
    if found is None:
        message = f"There is no dashboard {id[:200]!r}."
        raise GraphQLError(message)
    return found


def _add_template(asked: Asked, setting: Mapping[str, Any]) -> dict[str, Any]:
    return asked.templates.add(setting["configuration"])


def _change_template(asked: Asked, setting: Mapping[str, Any]) -> dict[str, Any]:
    return asked.templates.change(setting["id"], setting["configuration"])


def _disable_template(asked: Asked, id: str) -> dict[str, Any]:  # noqa: A002 - as above
    return asked.templates.hide(id)


_METADATA: Final[Mapping[str, Resolver]] = {
    "listServices": metadata.services_of_layer,
    "getService": metadata.service_by_id,
    "findService": metadata.service_by_name,
    "listInstances": metadata.instances,
    "listInstancesByName": metadata.instances_by_name,
    "getInstance": metadata.instance_by_id,
    "findEndpoint": metadata.endpoints,
    "findEndpointByName": metadata.endpoints_by_name,
    "getEndpointInfo": metadata.endpoint_info,
    "getAllServices": metadata.all_services,
    "searchServices": metadata.search_services,
    "searchService": metadata.service_by_code,
    "getServiceInstances": metadata.instances,
    "searchEndpoint": metadata.endpoints,
    "getAllBrowserServices": _no_records,
    "searchBrowserService": fixed.nothing,
    "listProcesses": _no_records,
    "getProcess": fixed.nothing,
    "estimateProcessScale": fixed.none,
    "getServiceHierarchy": metadata.service_hierarchy,
    "getInstanceHierarchy": metadata.instance_hierarchy,
}
_TOPOLOGY: Final[Mapping[str, Resolver]] = {
    "getGlobalTopology": _global,
    "getServiceTopology": _of_service,
    "getServiceTopologyByName": _of_name,
    "getServicesTopology": _of_ids,
    "getServicesTopologyByNames": _of_names,
    "getServiceInstanceTopology": _of_instances,
    "getServiceInstanceTopologyByName": _of_instances_by_name,
    "getEndpointTopology": _endpoint_topology,
    "getEndpointDependencies": _dependencies,
    "getEndpointDependenciesByName": _dependencies_by_name,
    "getProcessTopology": _empty_topology,
    "getProcessTopologyByName": _empty_topology,
}
_METRICS: Final[Mapping[str, Resolver]] = {
    "typeOfMetrics": older.metric_type,
    "listMetrics": older.metrics,
    "readMetricsValue": older.value,
    "readNullableMetricsValue": older.nullable_value,
    "readMetricsValues": older.values,
    "readLabeledMetricsValues": older.labelled_values,
    "readHeatMap": older.heat_map,
    "sortMetrics": older.sorted_metrics,
    "readSampledRecords": _no_records,
    "readRecords": _no_records,
    "getValues": older.values_of_ids,
    "getLinearIntValues": older.linear_values,
    "getServiceTopN": older.top_services,
}
_OTHERS: Final[Mapping[str, Resolver]] = {
    "version": fixed.version,
    "checkHealth": fixed.health,
    "getTimeInfo": fixed.time_info,
    "getRecordsTTL": fixed.records_ttl,
    "getMetricsTTL": fixed.metrics_ttl,
    "listLayers": fixed.layers,
    "listLayerLevels": fixed.layer_levels,
    "getMenuItems": fixed.menu,
    "getAlarm": fixed.no_alarms,
    "queryAlarms": fixed.no_alarms,
    "queryAlarmTagAutocompleteKeys": fixed.nobody,
    "queryAlarmTagAutocompleteValues": fixed.nobody,
    "queryEvents": fixed.no_events,
    "supportQueryLogsByKeywords": fixed.no,
    "hasQueryTracesV2Support": fixed.no,
    "getTemplate": _template,
    "getAllTemplates": _templates,
    "listContainers": fixed.containers,
    "queryPrepareCreateEBPFProfilingTaskData": fixed.no_profiling,
    "queryEBPFProfilingTasks": fixed.nobody,
    "addTemplate": _add_template,
    "changeTemplate": _change_template,
    "disableTemplate": _disable_template,
}
RESOLVERS: Final[Mapping[str, Resolver]] = {**_METADATA, **_TOPOLOGY, **_METRICS, **_OTHERS}
