"""The entities of a store: which there are, since when, and what they are like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb

from framewalk.engine.oal import SCOPES
from framewalk.engine.store import entities_select
from framewalk.engine.views import literal, quoted
from framewalk.queries.metrics.identifiers import KEYS, EntityName
from framewalk.queries.metrics.statements import Reader, Statement, rows_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

_SCOPES: Final = {scope.view: scope for scope in SCOPES.values()}
_CLUSTER_END: Final = "::"


@dataclass(frozen=True, slots=True)
class StoredEntity:
    """An entity of a store; the times are minutes (UTC, naive)."""

    name: EntityName
    layer: str
    first_seen: dt.datetime
    last_seen: dt.datetime
    component_ids: tuple[int, ...]
    tls_modes: tuple[str, ...]
    detect_points: tuple[str, ...]


def catalogue_of(reader: Reader, scope: str) -> str:
    """Return what has the entities of a scope, with the columns of the view `entities`.

    That is this view, but for a store's connection the part of it that the scope is: DuckDB binds
    all of a view each time, whatever is asked.
    """
    if isinstance(reader, duckdb.DuckDBPyConnection):
        return f"({entities_select(_SCOPES[scope])})"
    return "entities"


def list_entities(
    reader: Reader,
    scope: str,
    *,
    service: str | None = None,
    named: Sequence[EntityName] | None = None,
) -> list[StoredEntity]:
    """Return the entities of a scope, by name.

    With `service` those of it only; of relations those with it on either side. With `named` those
    of these that there are. One statement. Raises duckdb.Error.
    """
    if named is not None and not named:
        return []
    keys = KEYS[scope]
    columns = [f"names[{literal(key)}]" for key in keys]
    conditions = [f"scope = {literal(_SCOPES[scope].name)}"]
    parameters: list[object] = []
    if service is not None:
        sides = [at for key, at in zip(keys, columns, strict=True) if key.endswith("service")]
        conditions.append(f"({' OR '.join(f'{side} = ?' for side in sides)})")
        parameters += [service] * len(sides)
    if named is not None:
        row = f"({', '.join('?' * len(keys))})"
        rows = ", ".join([row] * len(named))
        conditions.append(f"({', '.join(columns)}) IN ({rows})")
        parameters += [name for entity in named for name in entity.names]
    shown = [f"{at} AS {quoted(key)}" for key, at in zip(keys, columns, strict=True)]
    names = ", ".join(map(quoted, keys))
    sql = (
        f"SELECT {', '.join(shown)}, any_value(layer), min(first_seen), max(last_seen), "
        "flatten(list(component_ids)), flatten(list(tls_modes)), flatten(list(detect_points)) "
        f"FROM {catalogue_of(reader, scope)} WHERE {' AND '.join(conditions)} "
        f"GROUP BY {names} ORDER BY {names}"
    )
    return [
        _entity(scope, tuple(row[: len(keys)]), row[len(keys) :])
        for row in rows_of(reader, Statement(sql, parameters))
    ]


def cluster_of(service: str) -> str:
    """Return the cluster in a service's name, empty if none is named."""
    return service.rpartition(_CLUSTER_END)[0]


def short_name_of(service: str) -> str:
    """Return a service's name without its cluster."""
    return service.rpartition(_CLUSTER_END)[2]


def namespace_of(service: str) -> str:
    """Return the namespace in a service's name, empty if none is named."""
    return short_name_of(service).rpartition(".")[2] if "." in service else ""


def _entity(scope: str, names: tuple[str, ...], row: tuple[Any, ...]) -> StoredEntity:
    layer, first_seen, last_seen, *lists = row
    component_ids, tls_modes, detect_points = (tuple(sorted(set(one))) for one in lists)
    name = EntityName(scope, names)
    return StoredEntity(name, layer, first_seen, last_seen, component_ids, tls_modes, detect_points)
