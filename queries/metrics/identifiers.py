"""Entities by name, and the identifiers that clients know them by (graphql.md, section 3)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

SERVICE: Final = "service"
INSTANCE: Final = "service_instance"
ENDPOINT: Final = "endpoint"
SERVICE_RELATION: Final = "service_relation"
INSTANCE_RELATION: Final = "service_instance_relation"
ENDPOINT_RELATION: Final = "endpoint_relation"

# The columns that name an entity in the views of its scope; derivations are not told apart.
KEYS: Final = {
    SERVICE: ("service",),
    INSTANCE: ("service", "instance"),
    ENDPOINT: ("service", "endpoint"),
    SERVICE_RELATION: ("source_service", "dest_service"),
    INSTANCE_RELATION: ("source_service", "source_instance", "dest_service", "dest_instance"),
    ENDPOINT_RELATION: ("source_service", "source_endpoint", "dest_service", "dest_endpoint"),
}

_REAL: Final = ".1"
# What a blank name is encoded as.
_BLANK: Final = "_blank"


@dataclass(frozen=True, slots=True)
class EntityName:
    """An entity: the scope's name in the store, and its names in the order of KEYS."""

    scope: str
    names: tuple[str, ...]

    @classmethod
    def service(cls, service: str) -> EntityName:
        """Name a service."""
        return cls(SERVICE, (service,))

    @classmethod
    def instance(cls, service: str, instance: str) -> EntityName:
        """Name an instance of a service."""
        return cls(INSTANCE, (service, instance))

    @classmethod
    def endpoint(cls, service: str, endpoint: str) -> EntityName:
        """Name an endpoint of a service."""
        return cls(ENDPOINT, (service, endpoint))

    @property
    def is_relation(self) -> bool:
        """Whether it has two sides."""
        return self.scope in _OF_RELATIONS

    @property
    def service_name(self) -> str:
        """The name of its service; of a relation that of the source."""
        return self.names[0]

    @property
    def own_name(self) -> str:
        """The last of its names: that of the instance or endpoint, or of the service itself."""
        return self.names[-1]

    @property
    def source(self) -> EntityName:
        """The source of a relation."""
        return EntityName(_OF_RELATIONS[self.scope], self.names[: len(self.names) // 2])

    @property
    def dest(self) -> EntityName:
        """The destination of a relation."""
        return EntityName(_OF_RELATIONS[self.scope], self.names[len(self.names) // 2 :])

    @property
    def id(self) -> str:
        """What clients know it by."""
        if self.scope == ENDPOINT_RELATION:
            return "-".join(
                [
                    service_id(self.names[0]),
                    _encoded(self.names[1]),
                    service_id(self.names[2]),
                    _encoded(self.names[3]),
                ]
            )
        if self.is_relation:
            return f"{self.source.id}-{self.dest.id}"
        own = "".join(f"_{_encoded(name)}" for name in self.names[1:])
        return service_id(self.names[0]) + own

    def __str__(self) -> str:
        """Return it as a person reads it."""
        if self.is_relation:
            return f"{self.source} -> {self.dest}"
        return " ".join(self.names)


_OF_RELATIONS: Final = {
    SERVICE_RELATION: SERVICE,
    INSTANCE_RELATION: INSTANCE,
    ENDPOINT_RELATION: ENDPOINT,
}


def service_id(name: str) -> str:
    """Return the identifier of a service."""
    return _encoded(name) + _REAL


def entity_of_id(scope: str, text: str) -> EntityName | None:
    """Return the entity of a scope with this identifier, None if it is none."""
    names = _names_of_id(scope, text)
    if names is None or any(name is None for name in names):
        return None
    return EntityName(scope, tuple(name for name in names if name is not None))


def _names_of_id(scope: str, text: str) -> list[str | None] | None:
    if scope == ENDPOINT_RELATION:
        parts = text.split("-")
        if len(parts) != len(KEYS[scope]):
            return None
        return [_service(part) if at % 2 == 0 else _decoded(part) for at, part in enumerate(parts)]
    if scope in _OF_RELATIONS:
        sides = text.split("-")
        if len(sides) != 2:  # noqa: PLR2004 - a relation has two sides
            return None
        found = [_names_of_id(_OF_RELATIONS[scope], side) for side in sides]
        return None if None in found else [name for side in found for name in side or ()]
    service, *own = text.split("_", len(KEYS[scope]) - 1)
    names = [_service(service), *map(_decoded, own)]
    return names if len(names) == len(KEYS[scope]) else None


def _encoded(name: str) -> str:
    return base64.b64encode((name or _BLANK).encode()).decode()


def _service(text: str) -> str | None:
    return _decoded(text.removesuffix(_REAL)) if text.endswith(_REAL) else None


def _decoded(text: str) -> str | None:
    try:
        return base64.b64decode(text, validate=True).decode() or None
    except (binascii.Error, UnicodeError, ValueError):
        return None
