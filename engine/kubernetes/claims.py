"""The rows of the address table: who is at an address, at a port of it, and when.

An address alone names a Pod, a Service of the cluster or a node. A port is a key only for addresses
that need it: those of load balancers, of nodes, and of what is outside of the cluster. Such rows
are for the called side only, and are complete: where nobody has the port they say who has the
address.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from framewalk.engine.kubernetes.inventory import OPEN_END_NS, OPEN_START_NS
from framewalk.engine.kubernetes.owners import Claim, holders, owners_of, timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from framewalk.engine.kubernetes.inventory import EndpointSlice, Inventory, Pod, Service
    from framewalk.engine.kubernetes.naming import Name, Names
    from framewalk.engine.kubernetes.owners import Owner

# In place of a port: all of an address, for both sides or for the called one.
ANY_PORT: Final = -1
ANY_CALLED_PORT: Final = -2
# In place of an address: all nodes.
ANY_NODE: Final = "*"

NODE: Final = "node"
NO_SERVICE: Final = "pod without a Service"
NOT_DECLARED: Final = "host network, port not declared"

_CLUSTER, _OUTER, _HOST_PORT, _POD, _SLICE, _SLICE_ANY = 10, 9, 8, 7, 6, 5
_HOST_PORT_ALONE, _POD_ALONE, _NODE_CALLED, _NODE, _OUTER_ANY = 4, 3, 2, 1, 0


class Holder(NamedTuple):
    """Who has an address; `service` is `name.namespace`, null with a `reason`."""

    kind: str
    namespace: str
    service: str | None
    instance: str | None
    reason: str | None = None
    is_by_owner: bool = False


Key = tuple[str, int]
Row = tuple[str, int, int, int, Holder]
_Owners = defaultdict[Key, "list[Owner]"]


def address_rows(inventory: Inventory, names: Names) -> Iterator[Row]:
    """Yield (ip, port, from, to, holder) of one cluster; rows of (ip, port) do not overlap."""
    claims = _Claims(inventory, names)
    claims.add_pods()
    claims.add_services()
    claims.add_slices()
    claims.add_nodes()
    yield from claims.rows()


class _Claims:
    def __init__(self, inventory: Inventory, names: Names) -> None:
        self._inventory = inventory
        self._names = names
        self._claims: dict[Key, list[Claim]] = defaultdict(list)
        self._node_addresses = {
            ip
            for history in inventory.nodes
            for span in history.spans
            for ip in span.thing.ip_addresses
        }
        self._undeclared: set[str] = set()

    def rows(self) -> Iterator[Row]:
        """Let the best claim have each moment."""
        for (ip, port), claims in self._claims.items():
            everywhere = self._claims.get((ip, ANY_PORT), []) if port != ANY_PORT else []
            called = self._claims.get((ip, ANY_CALLED_PORT), []) if port >= 0 else []
            for start_ns, end_ns, holder in timeline([*claims, *everywhere, *called]):
                yield ip, port, start_ns, end_ns, holder

    def add_pods(self) -> None:
        """Pods have their addresses, and the ports of nodes that they declare."""
        pods = self._inventory.pods
        by_address: _Owners = defaultdict(list)
        by_port: _Owners = defaultdict(list)
        nodes = _addresses_by_node(self._inventory)
        for number, history in enumerate(pods):
            for key, owner in owners_of(number, history, _pod_keys):
                by_address[key].append(owner)
            for key, owner in owners_of(number, history, _node_ports(nodes)):
                by_port[key].append(owner)
            self._note_nodes(history.newest, nodes)
        self._add(by_address, self._pod_claims("pod", _POD, _POD_ALONE))
        self._add(by_port, self._pod_claims("host", _HOST_PORT, _HOST_PORT_ALONE))

    def add_services(self) -> None:
        """Services have addresses of the cluster, ports of other addresses, and of all nodes."""
        by_address: _Owners = defaultdict(list)
        by_port: _Owners = defaultdict(list)
        for number, history in enumerate(self._inventory.services):
            for key, owner in owners_of(number, history, _cluster_keys):
                by_address[key].append(owner)
            for key, owner in owners_of(number, history, _outer_keys):
                ip, port, is_tcp = key
                # Two may share an address and a port, one with UDP; logs are of TCP, mostly.
                by_port[ip, port].append(owner if is_tcp else replace(owner, is_doubtful=True))
        self._add(by_address, self._service_claims("service", lambda _: _CLUSTER))
        self._add(
            by_port,
            self._service_claims("external", lambda port: _OUTER if port >= 0 else _OUTER_ANY),
        )

    def add_slices(self) -> None:
        """Services without a selector have what their slices list."""
        services = {
            (one.newest.namespace, one.newest.name): number
            for number, one in enumerate(self._inventory.services)
            if not one.newest.selector
        }
        owners: _Owners = defaultdict(list)
        nodes = self._node_addresses
        for history in self._inventory.slices:
            number = services.get((history.newest.namespace, history.newest.service))
            if number is not None:
                for key, owner in owners_of(number, history, _slice_keys):
                    # Not every port of a node is meant.
                    if key[1] >= 0 or key[0] not in nodes:
                        owners[key].append(owner)
        rank: Callable[[int], int] = lambda port: _SLICE if port >= 0 else _SLICE_ANY  # noqa: E731
        self._add(owners, self._service_claims("external", rank))

    def add_nodes(self) -> None:
        """Nodes have the rest."""
        for ip in self._node_addresses:
            self._always((ip, ANY_PORT), _NODE, Holder(NODE, "", None, None, NODE))
        for ip in self._undeclared:
            holder = Holder(NODE, "", None, None, NOT_DECLARED)
            self._always((ip, ANY_CALLED_PORT), _NODE_CALLED, holder)

    def _always(self, key: Key, rank: int, holder: Holder) -> None:
        self._claims[key].append(Claim(OPEN_START_NS, OPEN_END_NS, (rank,), holder))

    def _note_nodes(self, pod: Pod, nodes: dict[str, tuple[str, ...]]) -> None:
        self._node_addresses.update(pod.node_addresses)
        if pod.host_network:
            addresses = _of_node(pod, nodes)
            self._node_addresses.update(addresses)
            if not pod.ports and not pod.is_over:
                self._undeclared.update(addresses)

    def _add(
        self, owners: _Owners, claims: Callable[[Key, int, int, Any], Iterable[Claim]]
    ) -> None:
        for key, of_key in owners.items():
            for start_ns, end_ns, number in holders(of_key):
                self._claims[key].extend(claims(key, start_ns, end_ns, number))

    def _pod_claims(
        self, kind: str, rank: int, rank_alone: int
    ) -> Callable[[Key, int, int, int], Iterator[Claim]]:
        def claims(_key: Key, start_ns: int, end_ns: int, number: int) -> Iterator[Claim]:
            pod = self._inventory.pods[number].newest
            for first_ns, last_ns, name in _cut(start_ns, end_ns, self._names.pods[number]):
                reason = None if name.service else NO_SERVICE
                holder = Holder(
                    kind, pod.namespace, name.service, pod.name, reason, name.is_by_owner
                )
                yield Claim(first_ns, last_ns, (rank if name.service else rank_alone,), holder)

        return claims

    def _service_claims(
        self, kind: str, rank: Callable[[int], int]
    ) -> Callable[[Key, int, int, int], Iterator[Claim]]:
        def claims(key: Key, start_ns: int, end_ns: int, number: int) -> Iterator[Claim]:
            service = self._inventory.services[number].newest
            for first_ns, last_ns, name in _cut(start_ns, end_ns, self._names.services[number]):
                holder = Holder(kind, service.namespace, name.service, None)
                yield Claim(first_ns, last_ns, (rank(key[1]),), holder)

        return claims


def _cut(start_ns: int, end_ns: int, names: list[Name]) -> Iterator[tuple[int, int, Name]]:
    """Yield what falls into each name; the first and the last reach as far as is asked."""
    for number, name in enumerate(names):
        first_ns = start_ns if number == 0 else max(start_ns, name.start_ns)
        last_ns = end_ns if number == len(names) - 1 else min(end_ns, name.end_ns)
        if first_ns < last_ns:
            yield first_ns, last_ns, name


def _pod_keys(pod: Pod) -> Iterator[Key]:
    if not pod.host_network:
        yield from ((ip, ANY_PORT) for ip in pod.ip_addresses)


def _node_ports(nodes: dict[str, tuple[str, ...]]) -> Callable[[Pod], Iterator[Key]]:
    def keys(pod: Pod) -> Iterator[Key]:
        if pod.host_ports:
            yield from ((ip, port) for ip in _of_node(pod, nodes) for port in pod.host_ports)

    return keys


def _of_node(pod: Pod, nodes: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the addresses of a Pod's node."""
    own = pod.ip_addresses if pod.host_network else ()
    return tuple(dict.fromkeys((*own, *pod.node_addresses, *nodes.get(pod.node, ()))))


def _addresses_by_node(inventory: Inventory) -> dict[str, tuple[str, ...]]:
    return {one.newest.name: one.newest.ip_addresses for one in inventory.nodes}


def _cluster_keys(service: Service) -> Iterator[Key]:
    return ((ip, ANY_PORT) for ip in service.ip_addresses)


def _outer_keys(service: Service) -> Iterator[tuple[str, int, bool]]:
    for port in service.ports:
        yield from ((ip, port.number, port.is_tcp) for ip in service.outer_addresses)
        if port.node_port:
            yield ANY_NODE, port.node_port, port.is_tcp
    if not service.ports:
        yield from ((ip, ANY_CALLED_PORT, True) for ip in service.outer_addresses)


def _slice_keys(found: EndpointSlice) -> Iterator[Key]:
    for ip in found.ip_addresses:
        yield from ((ip, port) for port in found.ports or (ANY_CALLED_PORT,))
