"""What is asked: an expression about an entity, whose names may be missing (graphql.md, 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from framewalk.queries.metrics import (
    ENDPOINT,
    ENDPOINT_RELATION,
    INSTANCE,
    INSTANCE_RELATION,
    KEYS,
    SERVICE,
    SERVICE_RELATION,
    EntityName,
)

if TYPE_CHECKING:
    from framewalk.queries.metrics import Buckets


@dataclass(frozen=True, slots=True)
class Entity:
    """The names that a client gives; None is missing.

    `normal` false stands for services that only others told of, and no store has any.
    """

    service: str | None = None
    normal: bool | None = None
    instance: str | None = None
    endpoint: str | None = None
    dest_service: str | None = None
    dest_normal: bool | None = None
    dest_instance: str | None = None
    dest_endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """An expression about an entity, in buckets."""

    expression: str
    entity: Entity
    buckets: Buckets


_SIDE: Final = ("service", "normal")
_NEEDED: Final = {
    SERVICE: _SIDE,
    INSTANCE: (*_SIDE, "instance"),
    ENDPOINT: (*_SIDE, "endpoint"),
    SERVICE_RELATION: (*_SIDE, "dest_service", "dest_normal"),
    INSTANCE_RELATION: (*_SIDE, "dest_service", "dest_normal", "instance", "dest_instance"),
    ENDPOINT_RELATION: (*_SIDE, "dest_service", "dest_normal", "endpoint", "dest_endpoint"),
}
# As GraphQL calls them.
_NAMES: Final = {
    "service": "serviceName",
    "normal": "normal",
    "instance": "serviceInstanceName",
    "endpoint": "endpointName",
    "dest_service": "destServiceName",
    "dest_normal": "destNormal",
    "dest_instance": "destServiceInstanceName",
    "dest_endpoint": "destEndpointName",
}


def missing_names(entity: Entity, scope: str) -> list[str]:
    """Return what a metric of a scope needs and an entity does not name, as GraphQL calls it."""
    return [_NAMES[name] for name in _NEEDED.get(scope, ()) if getattr(entity, name) is None]


def entity_name(entity: Entity, scope: str) -> EntityName | None:
    """Return the entity of a scope, None where it is one that no store has.

    All names that the scope needs are given.
    """
    if scope not in KEYS or entity.normal is False:
        return None
    if scope in _OF_RELATIONS and entity.dest_normal is False:
        return None
    return EntityName(scope, tuple(getattr(entity, _FIELDS.get(key, key)) for key in KEYS[scope]))


_OF_RELATIONS: Final = (SERVICE_RELATION, INSTANCE_RELATION, ENDPOINT_RELATION)
_FIELDS: Final = {
    "source_service": "service",
    "source_instance": "instance",
    "source_endpoint": "endpoint",
}
