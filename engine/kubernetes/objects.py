"""Kubernetes objects out of what an API server says of them: Pods, Services, slices, nodes.

Of a Pod's times this keeps what they are evidence of: from when on it had its addresses, and when
it ended. Times that cannot be are passed over (docs/semantics.md, "Entities").
"""

from __future__ import annotations

import ipaddress
from sys import intern
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from framewalk.engine.kubernetes.inventory import (
    OPEN_START_NS,
    AnyThing,
    EndpointSlice,
    Node,
    Pod,
    Port,
    Service,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from framewalk.engine.kubernetes.documents import Field

# Clocks of a node and of the API server may differ by so much: a Pod that started before it was
# created by less did start then.
_CLOCK_NS: Final = 60 * 10**9
_STATUSES: Final = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
_NETWORK: Final = ("PodReadyToStartContainers", "PodHasNetwork")
_READY: Final = ("ContainersReady", "Ready")
_ADDRESS_TYPES: Final = ("InternalIP", "ExternalIP")


class Read(NamedTuple):
    """An object, its resourceVersion (-1: none), and the latest time that it shows."""

    thing: AnyThing
    version: int
    latest_ns: int


def kind_of(root: Field) -> str:
    """Return the kind; with the group and version for what is outside the core API."""
    kind, version = (" ".join(root[key].text().split()) for key in ("kind", "apiVersion"))
    return f"{kind} ({version})" if kind and version not in ("", "v1") else kind


def is_known(kind: str) -> bool:
    """Tell whether objects of a kind say something about addresses."""
    return _reader(kind) is not None


def read_object(kind: str, root: Field) -> Read:
    """Read an object of a kind that is known.

    Raises EntitiesError where a field has the wrong type, or the name is missing.
    """
    reader = _reader(kind)
    if reader is None:
        root.refuse(f"{kind} says nothing about addresses")
    thing, times_ns = reader(root)
    version = root["metadata"]["resourceVersion"].number(-1)
    known = [time_ns for time_ns in (thing.created_ns, *times_ns) if time_ns is not None]
    return Read(thing, version, max(known, default=OPEN_START_NS))


def _reader(kind: str) -> _Reader | None:
    if kind.startswith("EndpointSlice (discovery.k8s.io/") or kind == "EndpointSlice":
        return _slice
    return _READERS.get(kind)


def _pod(root: Field) -> tuple[Pod, list[int | None]]:
    metadata, spec, status = root["metadata"], root["spec"], root["status"]
    created_ns = metadata["creationTimestamp"].time_ns()
    times = _Times(root, created_ns)
    got_ns, is_exact = times.got()
    started_ns = times.plausible(status["startTime"])
    begun_ns = created_ns if started_ns is None else started_ns
    # Of one that does not say when it was made, nobody knows since when.
    start_ns = None if begun_ns is None else _least(begun_ns, got_ns)
    addresses = [status["podIP"], *(address["ip"] for address in status["podIPs"].elements())]
    hosts = [status["hostIP"], *(address["ip"] for address in status["hostIPs"].elements())]
    host_network = spec["hostNetwork"].flag()
    ports, host_ports = _declared_ports(spec)
    pod = Pod(
        namespace=intern(metadata["namespace"].text() or "default"),
        name=_name(root),
        uid=metadata["uid"].text(),
        # Many Pods have them in common.
        labels={intern(key): intern(value) for key, value in metadata["labels"].texts().items()},
        created_ns=created_ns,
        start_ns=start_ns,
        got_ns=got_ns,
        is_exact=is_exact,
        ended_ns=times.ended(),
        is_over=times.is_over,
        ip_addresses=_distinct(addresses),
        host_network=host_network,
        node=intern(spec["nodeName"].text()),
        node_addresses=_distinct(hosts),
        ports=ports,
        host_ports=ports if host_network else host_ports,
        owner=_owner(metadata),
    )
    return pod, times.all


class _Times:
    """The times of a Pod."""

    def __init__(self, pod: Field, created_ns: int | None) -> None:
        self._pod = pod
        self._earliest_ns = OPEN_START_NS if created_ns is None else created_ns - _CLOCK_NS
        self._created_ns = OPEN_START_NS if created_ns is None else created_ns
        status = pod["status"]
        self.is_over = status["phase"].text() in ("Succeeded", "Failed")
        self._containers = [one for name in _STATUSES for one in status[name].elements()]
        self._conditions = {
            one["type"].text(): (one["status"].text(), self.plausible(one["lastTransitionTime"]))
            for one in status["conditions"].elements()
        }
        starts = [
            container[state][kind]["startedAt"]
            for container in self._containers
            for state, kind in (
                ("state", "running"),
                ("state", "terminated"),
                ("lastState", "terminated"),
            )
        ]
        self._starts_ns = [self.plausible(start) for start in starts]
        self.all: list[int | None] = [
            *(time_ns for _, time_ns in self._conditions.values()),
            *self._starts_ns,
        ]

    def plausible(self, field: Field) -> int | None:
        """Return a time if it is one, and not before the Pod."""
        time_ns = field.plausible_ns()
        return time_ns if time_ns is not None and time_ns >= self._earliest_ns else None

    def got(self) -> tuple[int | None, bool]:
        """Return when it got its addresses, or when it had them, and whether it is the former."""
        for name in _NETWORK:
            status, time_ns = self._conditions.get(name, ("", None))
            if status == "True" and time_ns is not None:
                return time_ns, True
        known = [time_ns for time_ns in self._starts_ns if time_ns is not None]
        if not known:
            ready = (self._conditions.get(name, ("", None)) for name in _READY)
            known = [ns for status, ns in ready if status == "True" and ns is not None]
        return min(known, default=None), False

    def ended(self) -> int | None:
        """Return when its last container finished, or the next best that is known."""
        if not self.is_over:
            return None
        ended = [
            container["state"]["terminated"]
            for container in self._containers
            if container["state"]["terminated"].value is not None
        ]
        finished = [self._end(state["finishedAt"]) for state in ended]
        known = [time_ns for time_ns in finished if time_ns is not None]
        if known and len(known) == len(finished):
            return max(known)
        known += [
            time_ns
            for name in (*_NETWORK, *_READY)
            for status, time_ns in [self._conditions.get(name, ("", None))]
            if status == "False" and time_ns is not None and time_ns >= self._created_ns
        ]
        if known:
            return max(known)
        return self._end(self._pod["metadata"]["deletionTimestamp"])

    def _end(self, field: Field) -> int | None:
        time_ns = field.plausible_ns()
        return time_ns if time_ns is not None and time_ns >= self._created_ns else None


def _declared_ports(spec: Field) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ports of containers and those of the node that lead to them, TCP's."""
    declared = [
        port
        for name in ("containers", "initContainers")
        for container in spec[name].elements()
        for port in container["ports"].elements()
        if port["protocol"].text() in ("", "TCP")
    ]
    ports = (port["containerPort"].number() for port in declared)
    host_ports = (port["hostPort"].number() for port in declared)
    return _numbers(ports), _numbers(host_ports)


def _owner(metadata: Field) -> tuple[str, str] | None:
    references = metadata["ownerReferences"].elements()
    controllers = [one for one in references if one["controller"].value is True]
    if not controllers and len(references) == 1:
        controllers = references
    return (controllers[0]["kind"].text(), controllers[0]["name"].text()) if controllers else None


def _service(root: Field) -> tuple[Service, list[int | None]]:
    metadata, spec = root["metadata"], root["spec"]
    balancers = root["status"]["loadBalancer"]["ingress"].elements()
    cluster = [spec["clusterIP"], *spec["clusterIPs"].elements()]
    outer = [*spec["externalIPs"].elements(), *(point["ip"] for point in balancers)]
    service = Service(
        namespace=metadata["namespace"].text() or "default",
        name=_name(root),
        uid=metadata["uid"].text(),
        selector=spec["selector"].texts(),
        created_ns=metadata["creationTimestamp"].time_ns(),
        ip_addresses=_distinct(cluster),
        outer_addresses=_distinct(outer),
        ports=tuple(
            Port(
                port["port"].number(),
                port["nodePort"].number(),
                port["protocol"].text() in ("", "TCP"),
            )
            for port in spec["ports"].elements()
        ),
    )
    return service, []


def _slice(root: Field) -> tuple[EndpointSlice, list[int | None]]:
    metadata = root["metadata"]
    found = EndpointSlice(
        namespace=metadata["namespace"].text() or "default",
        name=_name(root),
        uid=metadata["uid"].text(),
        service=metadata["labels"]["kubernetes.io/service-name"].text(),
        created_ns=metadata["creationTimestamp"].time_ns(),
        ip_addresses=_distinct(_endpoints(root)),
        ports=_numbers(
            port["port"].number()
            for port in root["ports"].elements()
            if port["protocol"].text() in ("", "TCP")
        ),
    )
    return found, []


def _endpoints(root: Field) -> Iterable[Field]:
    if root["addressType"].text() == "FQDN":
        return
    for endpoint in root["endpoints"].elements():
        yield from endpoint["addresses"].elements()


def _node(root: Field) -> tuple[Node, list[int | None]]:
    metadata, spec, status = root["metadata"], root["spec"], root["status"]
    addresses = [
        address["address"]
        for address in status["addresses"].elements()
        if address["type"].text() in _ADDRESS_TYPES
    ]
    networks = [spec["podCIDR"], *spec["podCIDRs"].elements()]
    node = Node(
        name=_name(root),
        uid=metadata["uid"].text(),
        created_ns=metadata["creationTimestamp"].time_ns(),
        ip_addresses=_distinct(addresses),
        networks=tuple(dict.fromkeys(one.text() for one in networks if _is_network(one.text()))),
    )
    beats = [one["lastHeartbeatTime"].plausible_ns() for one in status["conditions"].elements()]
    return node, list(beats)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _name(root: Field) -> str:
    name = root["metadata"]["name"]
    if not name.text():
        name.refuse("metadata.name is missing")
    return name.text()


def _distinct(addresses: Iterable[Field]) -> tuple[str, ...]:
    known = (address.ip_address() for address in addresses)
    return tuple(dict.fromkeys(ip for ip in known if ip is not None))


def _numbers(numbers: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(number for number in numbers if number))


def _least(*times_ns: int | None) -> int | None:
    return min((time_ns for time_ns in times_ns if time_ns is not None), default=None)


_Reader: TypeAlias = "Callable[[Field], tuple[AnyThing, list[int | None]]]"
_READERS: Final[dict[str, _Reader]] = {"Pod": _pod, "Service": _service, "Node": _node}
