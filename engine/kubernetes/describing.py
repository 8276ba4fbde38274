"""What is known beside addresses, as rows: Pods, aliases of Services, and sightings.

Sightings are kept with the metrics that they named. A row of them is a span of an object: what it
was from when it was seen first to when it was seen last.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from framewalk.engine.kubernetes.inventory import (
    OPEN_END_NS,
    OPEN_START_NS,
    EndpointSlice,
    Inventory,
    Node,
    Pod,
    Port,
    Seen,
    Service,
    Sighting,
)
from framewalk.engine.kubernetes.naming import controller_of, life_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from framewalk.engine.kubernetes.inventory import AnyThing, History
    from framewalk.engine.kubernetes.naming import Alias, Name

_LABEL: Final = pl.Struct({"key": pl.String, "value": pl.String})

# `from_ns` and `to_ns` are in ns since 1970, null where they are not known, or it goes on. A Pod
# has a row for each name that it had; `is_by_owner` marks a name that is not a Service's.
PODS_SCHEMA: Final = pl.Schema(
    {
        "cluster": pl.String(),
        "service": pl.String(),
        "instance": pl.String(),
        "namespace": pl.String(),
        "node": pl.String(),
        "addresses": pl.List(pl.String),
        "owner_kind": pl.String(),
        "owner_name": pl.String(),
        "version": pl.String(),
        "labels": pl.List(_LABEL),
        "is_by_owner": pl.Boolean(),
        "from_ns": pl.Int64(),
        "to_ns": pl.Int64(),
    }
)
# `alias` and `service` are names of Services with their namespace.
ALIASES_SCHEMA: Final = pl.Schema(
    {
        "alias": pl.String,
        "service": pl.String,
        "namespace": pl.String,
        "cluster": pl.String,
        "from_ns": pl.Int64,
        "to_ns": pl.Int64,
    }
)

_VERSION_LABELS: Final = ("app.kubernetes.io/version", "version")


def pod_rows(
    cluster: str, history: History[Pod], given: Iterable[Name]
) -> Iterator[tuple[object, ...]]:
    """Yield rows of PODS_SCHEMA of one Pod, one for each of its names."""
    pod = history.newest
    start_ns, end_ns = life_of(history)
    ips = dict.fromkeys(ip for span in history.spans for ip in span.thing.ip_addresses)
    described = (*_owner(pod), _version(pod))
    labels = [{"key": key, "value": value} for key, value in pod.labels.items()]
    for name in given:
        from_ns, to_ns = max(start_ns, name.start_ns), min(end_ns, name.end_ns)
        if from_ns < to_ns:
            yield (
                *(cluster, name.service, pod.name, pod.namespace, pod.node or None),
                *(list(ips), *described, labels, name.is_by_owner),
                *(_start_or_none(from_ns), _end_or_none(to_ns)),
            )


def alias_rows(cluster: str, aliases: Iterable[Alias]) -> Iterator[tuple[object, ...]]:
    """Yield rows of ALIASES_SCHEMA."""
    for one in aliases:
        yield (
            *(f"{one.alias}.{one.namespace}", one.service, one.namespace, cluster),
            *(_start_or_none(one.start_ns), _end_or_none(one.end_ns)),
        )


def shared_names(
    cluster: str, aliases: Iterable[Alias], shared: Iterable[tuple[str, ...]]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield which Services are aliases, and which select the same Pods, each once."""
    where = {"cluster": cluster} if cluster else {}
    others_of = dict.fromkeys((f"{one.alias}.{one.namespace}", one.service) for one in aliases)
    for alias, service in others_of:
        yield "a Service has the name of another", {"alias": alias, "service": service, **where}
    for service, *others in sorted(shared):
        # An alias has been told.
        left = [one for one in others if (one, service) not in others_of]
        if left:
            facts = {"service": service, "others": ", ".join(left), **where}
            yield "several Services select the same pods", facts


def _owner(pod: Pod) -> tuple[str | None, str | None]:
    return (None, None) if pod.owner is None else controller_of(*pod.owner, pod.labels)


def _version(pod: Pod) -> str | None:
    return next((pod.labels[name] for name in _VERSION_LABELS if pod.labels.get(name)), None)


def _start_or_none(time_ns: int) -> int | None:
    return None if time_ns == OPEN_START_NS else time_ns


def _end_or_none(time_ns: int) -> int | None:
    return None if time_ns == OPEN_END_NS else time_ns


# `first` and `last` are when it was seen, `gone` when it was there no more (null: it may still be);
# each as the resourceVersion of the cluster and the time in ns since 1970. `thing` is JSON.
SIGHTINGS_SCHEMA: Final = pl.Schema(
    {
        "cluster": pl.String,
        "kind": pl.String,
        "namespace": pl.String,
        "name": pl.String,
        "uid": pl.String,
        "created_ns": pl.Int64,
        "first_version": pl.Int64,
        "first_ns": pl.Int64,
        "last_version": pl.Int64,
        "last_ns": pl.Int64,
        "version": pl.Int64,
        "gone_version": pl.Int64,
        "gone_ns": pl.Int64,
        "thing": pl.String,
    }
)
# What tells a span from all others.
SIGHTING_KEYS: Final = tuple(SIGHTINGS_SCHEMA)[:8]

_KINDS: Final[dict[str, type[AnyThing]]] = {
    kind.__name__: kind for kind in (Pod, Service, EndpointSlice, Node)
}


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of Pods and names beside addresses, and the sightings it is made of.

    `pods` has PODS_SCHEMA, `service_aliases` ALIASES_SCHEMA, `sightings` SIGHTINGS_SCHEMA.
    """

    pods: pl.DataFrame
    service_aliases: pl.DataFrame
    sightings: pl.DataFrame


def sightings_frame(inventories: Mapping[str, Inventory]) -> pl.DataFrame:
    """Return SIGHTINGS_SCHEMA of what is known of each cluster, by its name."""
    rows = [
        row
        for cluster, inventory in inventories.items()
        for history in inventory.histories
        for row in _rows(cluster, history)
    ]
    return pl.DataFrame(rows, schema=SIGHTINGS_SCHEMA, orient="row")


def inventories_of(sightings: pl.DataFrame) -> dict[str, Inventory]:
    """Return what rows of SIGHTINGS_SCHEMA say of each cluster."""
    seen: dict[str, list[Sighting[Any]]] = {}
    for row in sightings.iter_rows(named=True):
        seen.setdefault(row["cluster"], []).extend(_sightings(row))
    return {cluster: Inventory.of(all_of_it) for cluster, all_of_it in seen.items()}


def _rows(cluster: str, history: History[Any]) -> Iterator[tuple[object, ...]]:
    for span in history.spans:
        thing = span.thing
        gone = history.gone if span is history.spans[-1] else None
        yield (
            *(cluster, type(thing).__name__, thing.namespace, thing.name, thing.uid),
            OPEN_START_NS if thing.created_ns is None else thing.created_ns,
            *(*span.first, *span.last, span.version, *(gone or (None, None))),
            json.dumps(asdict(thing), separators=(",", ":"), sort_keys=True),
        )


def _sightings(row: Mapping[str, Any]) -> Iterator[Sighting[Any]]:
    thing = _thing(row["kind"], json.loads(row["thing"]))
    first, last = (Seen(row[f"{end}_version"], row[f"{end}_ns"]) for end in ("first", "last"))
    yield Sighting(first, thing, row["version"])
    if last != first:
        yield Sighting(last, thing, row["version"])
    if row["gone_ns"] is not None:
        yield Sighting(Seen(row["gone_version"], row["gone_ns"]), thing, is_gone=True)


def _thing(kind: str, fields: dict[str, Any]) -> AnyThing:
    made: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in fields.items()
    }
    if kind == Service.__name__:
        made["ports"] = tuple(Port(*port) for port in made["ports"])
    return _KINDS[kind](**made)
