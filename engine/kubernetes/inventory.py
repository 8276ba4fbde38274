"""A cluster's Pods and Services, each once, out of what was seen of them.

Several dumps of one cluster may show the same object at different times. Sightings agree in
namespace, name and uid; one without a uid is of the object with the same creationTimestamp. They
are put in the order of their resourceVersion (then of their labels), and the last one that knows
a field decides it; addresses are collected from all. So the order of files does not matter, and
an end seen once stays known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod: times in ns since 1970 (None: not known), addresses in canonical text form.

    `ended_ns` is when the last container of a Pod in phase Succeeded or Failed finished.
    `uid` is empty where the dumps have none.
    """

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str]
    created_ns: int | None
    ended_ns: int | None
    ip_addresses: tuple[str, ...]
    host_network: bool


@dataclass(frozen=True, slots=True)
class Service:
    """A Service: its cluster and load-balancer addresses in canonical text form.

    `created_ns` is in ns since 1970 (None: not known). `uid` is empty where the dumps have none.
    """

    namespace: str
    name: str
    selector: Mapping[str, str]
    created_ns: int | None
    ip_addresses: tuple[str, ...]
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a cluster's dumps hold: each object once, ordered by (namespace, name, created_ns)."""

    pods: tuple[Pod, ...]
    services: tuple[Service, ...]


_Thing = TypeVar("_Thing", Pod, Service)


@dataclass(frozen=True, slots=True)
class Sighting(Generic[_Thing]):
    """An object as one dump shows it, and the resourceVersion it had (-1: not known)."""

    resource_version: int
    thing: _Thing


def merge_sightings(pods: list[Sighting[Pod]], services: list[Sighting[Service]]) -> Inventory:
    """Return each object once."""
    merged_pods = [
        replace(_merge(seen), ended_ns=_last_known(pod.ended_ns for pod in seen))
        for seen in _by_object(pods)
    ]
    return Inventory(_in_order(merged_pods), _in_order(map(_merge, _by_object(services))))


def _by_object(sightings: list[Sighting[_Thing]]) -> list[list[_Thing]]:
    """Group by object, and order each group by how recent the knowledge is."""
    uids: dict[object, str] = {}
    for thing in (one.thing for one in sightings):
        known = (thing.namespace, thing.name, thing.created_ns)
        uids[known] = max(thing.uid, uids.get(known, ""))
    groups: dict[object, list[_Thing]] = {}
    for thing in (one.thing for one in sorted(sightings, key=_recency)):
        uid = thing.uid or uids[thing.namespace, thing.name, thing.created_ns]
        identity = (thing.namespace, thing.name, uid or thing.created_ns)
        groups.setdefault(identity, []).append(thing)
    return list(groups.values())


def _recency(sighting: Sighting[_Thing]) -> tuple[Any, ...]:
    thing = sighting.thing
    labels = thing.labels if isinstance(thing, Pod) else thing.selector
    rest = (str(thing.ended_ns), thing.host_network) if isinstance(thing, Pod) else ()
    addresses = thing.ip_addresses
    return sighting.resource_version, sorted(labels.items()), str(thing.created_ns), addresses, rest


def _merge(seen: list[_Thing]) -> _Thing:
    return replace(
        seen[-1],
        uid=max(one.uid for one in seen),
        created_ns=_last_known(one.created_ns for one in seen),
        ip_addresses=tuple(dict.fromkeys(ip for one in seen for ip in one.ip_addresses)),
    )


def _last_known(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return known[-1] if known else None


def _in_order(things: Iterable[_Thing]) -> tuple[_Thing, ...]:
    def key(thing: _Thing) -> tuple[Any, ...]:
        created_ns = -(2**63) if thing.created_ns is None else thing.created_ns
        return thing.namespace, thing.name, created_ns, thing.uid

    return tuple(sorted(things, key=key))
