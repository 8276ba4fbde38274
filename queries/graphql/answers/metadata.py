"""Services, instances and endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from graphql import GraphQLError

from framewalk.queries.graphql.answers.durations import range_of
from framewalk.queries.graphql.answers.topology import (
    LAYER,
    MESH,
    UNKNOWN,
    endpoint_of,
    layers_of,
    service_of,
)
from framewalk.queries.metrics import (
    ENDPOINT,
    INSTANCE,
    EntityName,
    StoredEntity,
    cluster_of,
    entity_of_id,
    list_entities,
    namespace_of,
    service_id,
    short_name_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from framewalk.queries.graphql.answers.asked import Asked
    from framewalk.queries.graphql.answers.durations import Range

_MOST_ENDPOINTS: Final = 10_000


def services_of_layer(asked: Asked, layer: str | None = None) -> list[dict[str, Any]]:
    """Return the services of a layer, of all without one."""
    found = _services(asked, lambda one: not layer or layer in layers_of(one))
    # As an OAP answers: who asks for the lowest layer sees none above it.
    return [one | {"layers": [LAYER]} for one in found] if layer == LAYER else found


def all_services(
    asked: Asked, duration: Mapping[str, Any], group: str | None = None
) -> list[dict[str, Any]]:
    """Return the services of a group, all without one; the range makes no difference."""
    range_of(duration)
    return _services(asked, lambda one: not group or cluster_of(one.name.service_name) == group)


def search_services(
    asked: Asked, duration: Mapping[str, Any], keyword: str
) -> list[dict[str, Any]]:
    """Return the services that have a keyword in their names."""
    range_of(duration)
    return _services(asked, lambda one: keyword in one.name.service_name)


def service_by_id(asked: Asked, serviceId: str) -> dict[str, Any] | None:
    """Return a service, null where there is none."""
    name = service_of(serviceId)
    return None if name is None else _service_or_null(asked, name)


def service_by_name(asked: Asked, serviceName: str) -> dict[str, Any] | None:
    """Return a service, null where there is none."""
    return _service_or_null(asked, serviceName)


def service_by_code(asked: Asked, serviceCode: str) -> dict[str, Any] | None:
    """Return a service, null where there is none."""
    return _service_or_null(asked, serviceCode)


def instances(
    asked: Asked,
    duration: Mapping[str, Any],
    serviceId: str,
) -> list[dict[str, Any]]:
    """Return the instances of a service that were seen in a range."""
    covered, name = range_of(duration), service_of(serviceId)
    return [] if name is None else _instances(asked, covered, name)


def instances_by_name(
    asked: Asked, duration: Mapping[str, Any], service: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the instances of a service that were seen in a range."""
    return _instances(asked, range_of(duration), service["serviceName"])


def instance_by_id(asked: Asked, instanceId: str) -> dict[str, Any] | None:
    """Return an instance, null where there is none."""
    name = entity_of_id(INSTANCE, instanceId)
    if name is None or not list_entities(asked.cursor, INSTANCE, named=[name]):
        return None
    return _instance(name)


def endpoints(
    asked: Asked,
    serviceId: str,
    limit: int,
    keyword: str | None = None,
    duration: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return the newest endpoints of a service that have a keyword in their names."""
    covered = None if duration is None else range_of(duration)
    name = service_of(serviceId)
    return [] if name is None else _endpoints(asked, name, keyword or "", limit, covered)


def endpoints_by_name(
    asked: Asked,
    service: Mapping[str, Any],
    limit: int,
    keyword: str | None = None,
    duration: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return the same of a service by its name."""
    covered = None if duration is None else range_of(duration)
    return _endpoints(asked, service["serviceName"], keyword or "", limit, covered)


def endpoint_info(_asked: Asked, endpointId: str) -> dict[str, Any]:
    """Return what an identifier says; raise GraphQLError where it is none."""
    name = endpoint_of(endpointId)
    if name is None:
        message = f"{endpointId[:200]!r} is no identifier of an endpoint."
        raise GraphQLError(message)
    return {
        "id": endpointId,
        "name": name.own_name,
        "serviceId": service_id(name.service_name),
        "serviceName": name.service_name,
    }


def service_hierarchy(asked: Asked, serviceId: str, layer: str) -> dict[str, Any]:
    """Return that a service of a mesh stands above itself in Kubernetes."""
    entity = asked.services.get(service_of(serviceId) or "")
    return _hierarchy(entity, layer, "Service", {"id": serviceId})


def instance_hierarchy(asked: Asked, instanceId: str, layer: str) -> dict[str, Any]:
    """Return the same of an instance."""
    name = entity_of_id(INSTANCE, instanceId)
    found = [] if name is None else list_entities(asked.cursor, INSTANCE, named=[name])
    of_service = {"id": instanceId}
    if name is not None:
        service = name.service_name
        of_service |= {"serviceId": service_id(service), "serviceName": service}
    return _hierarchy(found[0] if found else None, layer, "Instance", of_service)


def _hierarchy(
    entity: StoredEntity | None, layer: str, kind: str, shown: Mapping[str, str]
) -> dict[str, Any]:
    layers = [] if entity is None else layers_of(entity)
    if entity is None or MESH not in layers or layer not in layers:
        return {"relations": []}
    upper, lower = (
        {**shown, "name": entity.name.own_name, "layer": one, "normal": True}
        for one in (MESH, LAYER)
    )
    return {"relations": [{f"upper{kind}": upper, f"lower{kind}": lower}]}


def _services(asked: Asked, is_wanted: Callable[[StoredEntity], bool]) -> list[dict[str, Any]]:
    return [
        _service(one) for name, one in asked.services.items() if name != UNKNOWN and is_wanted(one)
    ]


def _service_or_null(asked: Asked, name: str) -> dict[str, Any] | None:
    return _service(asked.services[name]) if name in asked.services and name != UNKNOWN else None


def _service(entity: StoredEntity) -> dict[str, Any]:
    name = entity.name.service_name
    return {
        "id": service_id(name),
        "name": name,
        "group": cluster_of(name),
        "shortName": short_name_of(name),
        "layers": layers_of(entity),
        "normal": True,
    }


def _instances(asked: Asked, covered: Range, service: str) -> list[dict[str, Any]]:
    found = list_entities(asked.cursor, INSTANCE, service=service)
    return [_instance(one.name) for one in _seen(found, covered)]


def _instance(name: EntityName) -> dict[str, Any]:
    attributes = {"pod": name.own_name, "namespace": namespace_of(name.service_name)}
    return {
        "id": name.id,
        "name": name.own_name,
        "attributes": [{"name": key, "value": value} for key, value in attributes.items() if value],
        "language": "UNKNOWN",
        "instanceUUID": name.id,
    }


def _endpoints(
    asked: Asked, service: str, keyword: str, limit: int, covered: Range | None
) -> list[dict[str, Any]]:
    found = list_entities(asked.cursor, ENDPOINT, service=service)
    wanted = [
        one
        for one in (found if covered is None else _seen(found, covered))
        if keyword in one.name.own_name
    ]
    # By name where they are as new as each other.
    wanted.sort(key=lambda one: one.last_seen, reverse=True)
    most = max(0, min(limit, _MOST_ENDPOINTS))
    return [{"id": one.name.id, "name": one.name.own_name} for one in wanted[:most]]


def _seen(found: Iterable[StoredEntity], covered: Range) -> list[StoredEntity]:
    first, end = covered.buckets.first, covered.end
    return [one for one in found if one.first_seen < end and one.last_seen >= first]
