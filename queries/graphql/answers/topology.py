"""Who calls whom: nodes and calls of services, of instances and of endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from framewalk.engine.oal import SCOPES
from framewalk.engine.states import component_names, detect_point_names
from framewalk.engine.views import RESOLUTIONS, literal, rolled_table, states_table
from framewalk.queries.metrics import (
    ENDPOINT,
    ENDPOINT_RELATION,
    INSTANCE_RELATION,
    KEYS,
    SERVICE,
    SERVICE_RELATION,
    EntityName,
    entity_of_id,
    service_id,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import duckdb

    from framewalk.queries.graphql.answers.durations import Range
    from framewalk.queries.metrics import StoredEntity

UNKNOWN: Final = "Unknown"
LAYER: Final = "K8S_SERVICE"
MESH: Final = "MESH"
UNDEFINED: Final = "UNDEFINED"
EMPTY: Final[Mapping[str, Any]] = {"nodes": [], "calls": [], "debuggingTrace": None}

_COMPONENTS: Final = {
    "49": "http",
    "110": "tcp",
    "129": "https",
    "130": "tls",
    "142": "mtls",
    "162": "ztunnel",
}
# Of several components of a node, the one that tells most.
_BY_PRIORITY: Final = ("https", "http", "mtls", "tls", "tcp", "ztunnel")
_COMPONENT_BITS: Final = {bit: _COMPONENTS[name] for bit, name in component_names().items()}
_POINT_BITS: Final = {bit: name.upper() for bit, name in detect_point_names().items()}
_CLIENT, _SERVER = "CLIENT", "SERVER"
_BOTH: Final = (_CLIENT, _SERVER)
# Those of services only are told.
_NO_COMPONENTS: Final[Mapping[str, list[str]]] = {"sourceComponents": [], "targetComponents": []}
_ZTUNNEL: Final = 162
_SCOPES: Final = {scope.view: scope for scope in SCOPES.values()}
_RESOLUTIONS: Final = {one.name: one for one in RESOLUTIONS}


class _Edge(NamedTuple):
    """A relation in the range, and what its connections are like."""

    entity: EntityName
    points: list[str]
    components: list[str]


def layers_of(entity: StoredEntity) -> list[str]:
    """Return the layers of a service or an instance: what ztunnel carries for is in a mesh, too."""
    return [MESH, LAYER] if _ZTUNNEL in entity.component_ids else [LAYER]


def service_topology(
    cursor: duckdb.DuckDBPyConnection,
    covered: Range,
    services: Collection[str] | None,
    registered: Mapping[str, StoredEntity],
) -> dict[str, Any]:
    """Return the calls that touch one of some services, or all; nodes are what they lead to.

    `registered` are the services that are one's own, by name.
    """
    condition, values = "", []
    if services is not None:
        condition = "source_service IN (SELECT unnest($1)) OR dest_service IN (SELECT unnest($1))"
        values = [list(services)]
    edges = _edges(cursor, SERVICE_RELATION, covered, condition, values)
    names = _in_order(name for edge in edges for name in edge.entity.names)
    served = _served_components(edges)
    unseen = [name for name in names if name not in served and name in registered]
    if unseen:
        # Who only calls in this answer is called by others.
        condition = "dest_service IN (SELECT unnest($1))"
        more = _edges(cursor, SERVICE_RELATION, covered, condition, [unseen])
        served |= _served_components(more)
    nodes = [
        {
            "id": service_id(name),
            "name": name,
            "type": _most(served.get(name, ())),
            "isReal": True,
            "layers": layers_of(registered[name])
            if name in registered and name != UNKNOWN
            else [UNDEFINED],
        }
        for name in names
    ]
    return _graph(nodes, [_call(edge) for edge in edges])


def instance_topology(
    cursor: duckdb.DuckDBPyConnection, covered: Range, one: str, other: str
) -> dict[str, Any]:
    """Return the calls between the instances of two services, whoever calls whom."""
    condition = (
        "source_service = $1 AND dest_service = $2 OR source_service = $2 AND dest_service = $1"
    )
    edges = _edges(cursor, INSTANCE_RELATION, covered, condition, [one, other])
    sides = _in_order(side for edge in edges for side in (edge.entity.source, edge.entity.dest))
    calls = [{**_call(edge), **_NO_COMPONENTS} for edge in edges]
    return _graph([_inner_node(side) for side in sides], calls)


def endpoint_dependencies(
    cursor: duckdb.DuckDBPyConnection, covered: Range, endpoint: EntityName
) -> dict[str, Any]:
    """Return the endpoints that call an endpoint, and those that it calls."""
    condition = (
        "source_service = $1 AND source_endpoint = $2 OR dest_service = $1 AND dest_endpoint = $2"
    )
    edges = _edges(cursor, ENDPOINT_RELATION, covered, condition, list(endpoint.names))
    sides = _in_order(side for edge in edges for side in (edge.entity.source, edge.entity.dest))
    calls = {
        edge.entity.id: {
            "id": edge.entity.id,
            "source": edge.entity.source.id,
            "target": edge.entity.dest.id,
            "detectPoints": [_SERVER],
            **_NO_COMPONENTS,
        }
        # Relations of several derivations are one call.
        for edge in edges
    }
    return _graph([_inner_node(side) for side in sides], list(calls.values()))


def endpoint_of(identifier: str) -> EntityName | None:
    """Return the endpoint that an identifier is of."""
    return entity_of_id(ENDPOINT, identifier)


def service_of(identifier: str) -> str | None:
    """Return the name of the service that an identifier is of."""
    found = entity_of_id(SERVICE, identifier)
    return None if found is None else found.service_name


def _edges(
    cursor: duckdb.DuckDBPyConnection,
    view: str,
    covered: Range,
    condition: str,
    values: Sequence[object],
) -> list[_Edge]:
    if covered.is_seconds:
        covered_times = (covered.buckets.first, covered.buckets.last)
    else:
        covered_times = (covered.first, covered.last)
    scope = _SCOPES[view]
    resolution = _RESOLUTIONS[covered.buckets.step.resolution]
    # Rows that are not rolled up yet are of minutes.
    unit = literal(resolution.name)
    first, last = (f"${len(values) + at}" for at in (1, 2))
    names = ", ".join(KEYS[view])
    rows = cursor.execute(
        f"SELECT {names}, bit_or(traits) FROM ("  # noqa: S608 - names of tables and columns
        f"SELECT entity, traits FROM {rolled_table(scope, resolution)} "
        f"WHERE time_bucket BETWEEN {first} AND {last} UNION ALL "
        f"SELECT entity, traits FROM {states_table(scope)} "
        f"WHERE date_trunc({unit}, time_bucket) BETWEEN {first} AND {last}) "
        f"JOIN internal.{view}_entities USING (entity) "
        f"{f'WHERE {condition}' if condition else ''} GROUP BY ALL ORDER BY ALL",
        [*values, *covered_times],
    ).fetchall()
    return [
        _Edge(
            EntityName(view, tuple(own)),
            [name for bit, name in _POINT_BITS.items() if traits & bit and name in _BOTH],
            [name for bit, name in _COMPONENT_BITS.items() if traits & bit],
        )
        for *own, traits in rows
    ]


def _call(edge: _Edge) -> dict[str, Any]:
    return {
        "id": edge.entity.id,
        "source": edge.entity.source.id,
        "target": edge.entity.dest.id,
        "detectPoints": edge.points,
        "sourceComponents": edge.components if _CLIENT in edge.points else [],
        "targetComponents": edge.components if _SERVER in edge.points else [],
    }


def _inner_node(entity: EntityName) -> dict[str, Any]:
    service = entity.service_name
    return {
        "id": entity.id,
        "name": entity.own_name,
        "serviceId": service_id(service),
        "serviceName": service,
        "type": "",
        "isReal": True,
    }


def _served_components(edges: Iterable[_Edge]) -> dict[str, set[str]]:
    """Return the components by which each service was called, as it saw it itself."""
    found: dict[str, set[str]] = {}
    for edge in edges:
        if _SERVER in edge.points:
            found.setdefault(edge.entity.dest.service_name, set()).update(edge.components)
    return found


def _most(components: Collection[str]) -> str | None:
    return next((name for name in _BY_PRIORITY if name in components), None)


def _in_order(things: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(things))


def _graph(nodes: list[dict[str, Any]], calls: list[dict[str, Any]]) -> dict[str, Any]:
    return {"nodes": nodes, "calls": calls, "debuggingTrace": None}
