"""The rows of the address table: who is at an address, at a port of it, and when.

An address alone names a Pod, a Service of the cluster or a node. A port is a key only for addresses
that need it: those of load balancers, of nodes, and of what is outside of the cluster. Such rows
are for the called side only, and are complete: where nobody has the port they say who has the
address.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from framewalk.engine.kubernetes.inventory import (
    OPEN_END_NS,
    OPEN_START_NS,
    EndpointSlice,
    Node,
    Pod,
    Service,
    place_of,
)
from framewalk.engine.kubernetes.owners import Claim, first_other_span, holders, owners_of, timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from framewalk.engine.kubernetes.inventory import AnyThing, History, Identity
    from framewalk.engine.kubernetes.naming import ClusterNames, Name
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
# From, to, holder.
Row = tuple[int, int, Holder]
Known: TypeAlias = "dict[type[AnyThing], dict[Identity, History[Any]]]"
_Owned: TypeAlias = "dict[Key, list[Owner]]"


class _Before(NamedTuple):
    """What an object owned of the `wanted` keys (None: of all) before a change."""

    wanted: set[Key] | None
    owned: _Owned


class ClusterClaims:
    """Who claims which address and port of a cluster.

    An update is `before`, a change of `known`, `changed` and `rows`; what it says nothing about is
    not looked at. The kind of an object and the port tell what a claim is: a Pod claims ANY_PORT of
    its own address, and another port of its node's.
    """

    def __init__(self, known: Known, names: ClusterNames) -> None:
        self._known = known
        self._names = names
        self._nodes = _Nodes()
        self._claiming: dict[Key, tuple[Identity, ...]] = {}
        self._ports: dict[str, set[int]] = defaultdict(set)
        self._bare: dict[tuple[str, str], set[Identity]] = defaultdict(set)
        self._slices: dict[tuple[str, str], set[Identity]] = defaultdict(set)
        self._owned: dict[Identity, _Owned] = {}

    def before(self, changes: Mapping[Identity, History[Any] | None]) -> dict[Identity, _Before]:
        """Return what is claimed so far and may be claimed otherwise, and forget it.

        That is what the changed objects claim, and what depends on them.
        """
        depending = self._depending_on(changes)
        # Of a node that changes, too, a Pod may have other addresses.
        is_usual = not any(one[0] is Node for one in changes)
        owned: dict[Identity, _Before] = {}
        for one in {**changes, **dict.fromkeys(depending)}:
            old, new = self._known[one[0]].get(one), changes.get(one)
            wanted = None
            if is_usual and old and new and one[0] is Pod:
                wanted = self._keys_changing(old, new)
            owned[one] = _Before(wanted, self._owned_by(one, old, wanted))
        # What is on nodes comes first, where they are last; and the other way round afterwards.
        for one in sorted(owned, key=lambda one: one[0] is Node):
            history = self._known[one[0]].get(one)
            if history is not None:
                self._note(one, history, -1)
        return owned

    def changed(self, owned: Mapping[Identity, _Before], renamed: set[Identity]) -> set[Key]:
        """Learn what is claimed now; returns the keys of which anything is different."""
        for one in sorted(owned, key=lambda one: one[0] is not Node):
            history = self._known[one[0]].get(one)
            if history is not None:
                self._note(one, history, 1)
        changed: set[Key] = set()
        for one, (wanted, before) in owned.items():
            now = self._owned_by(one, self._known[one[0]].get(one), wanted)
            self._owned[one] = now
            for key in before.keys() | now.keys():
                if before.get(key) != now.get(key):
                    changed.add(key)
                    self._claim(key, one, is_claimed=key in now)
        for one in renamed:
            # All keys of one that is new have changed already.
            if one not in owned or owned[one].wanted is not None or owned[one].owned:
                changed |= self._keys_of(one)
        for ip in self._nodes.changed_addresses():
            changed |= {(ip, ANY_PORT), (ip, ANY_CALLED_PORT)}
        return changed | self._depending_keys(changed)

    def _depending_keys(self, changed: Iterable[Key]) -> set[Key]:
        """Return the keys whose rows say who has the whole address."""
        found: set[Key] = set()
        for ip in {ip for ip, port in changed if port < 0}:
            found.update((ip, port) for port in self._ports.get(ip, ()))
            if ip in self._nodes.undeclared:
                found.add((ip, ANY_CALLED_PORT))
        return found

    def _keys_changing(self, before: History[Pod], after: History[Pod]) -> set[Key] | None:
        """Return the keys that a Pod may own otherwise, None for all."""
        since = first_other_span(before, after)
        if since == 0:
            return None
        pods = [span.thing for span in (*before.spans[since:], *after.spans[since:])]
        return {key for pod in pods for key in chain(_pod_keys(pod), self._nodes.ports(pod))}

    def _depending_on(self, changing: Iterable[Identity]) -> set[Identity]:
        """Return what claims other addresses when these objects change."""
        found: set[Identity] = set()
        for one in changing:
            if one[0] is Node:
                found |= self._nodes.pods_of(one[2])
            elif one[0] is Service:
                found |= self._slices.get((one[1], one[2]), set())
        return found

    def _keys_of(self, one: Identity) -> set[Key]:
        """Return what a Pod or a Service claims, with what its slices do."""
        keys = set(self._owned_by(one, self._known[one[0]].get(one)))
        if one[0] is Service:
            for of_service in self._slices.get((one[1], one[2]), ()):
                keys.update(self._owned_by(of_service, self._known[EndpointSlice].get(of_service)))
        return keys

    def rows(self, keys: Iterable[Key]) -> Iterator[tuple[Key, list[Row]]]:
        """Yield who has each of these keys; nobody has what has no rows. Ends an update.

        The best claim has each moment.
        """
        for key in keys:
            ip, port = key
            claims = self._claims(key)
            if claims and port != ANY_PORT:
                claims += self._claims((ip, ANY_PORT))
            if claims and port >= 0:
                claims += self._claims((ip, ANY_CALLED_PORT))
            yield key, list(timeline(claims))
        self._owned = {}

    def _claim(self, key: Key, one: Identity, *, is_claimed: bool) -> None:
        others = tuple(other for other in self._claiming.get(key, ()) if other != one)
        if is_claimed:
            self._claiming[key] = (*others, one)
        elif others:
            self._claiming[key] = others
        else:
            self._claiming.pop(key, None)
        ip, port = key
        if port == ANY_PORT:
            return
        if key in self._claiming:
            self._ports[ip].add(port)
        elif ip in self._ports:
            self._ports[ip].discard(port)
            if not self._ports[ip]:
                del self._ports[ip]

    def _note(self, one: Identity, history: History[Any], count: int) -> None:
        """Count what an object says of others, or with -1 take it back."""
        thing = history.newest
        if isinstance(thing, Pod):
            self._nodes.note_pod(one, history, count)
        elif isinstance(thing, Node):
            self._nodes.note_node(history, count)
        elif isinstance(thing, Service):
            if not thing.selector:
                _put(self._bare, (thing.namespace, thing.name), one, is_there=count > 0)
        else:
            _put(self._slices, (thing.namespace, thing.service), one, is_there=count > 0)

    def _owned_by(
        self, one: Identity, history: History[Any] | None, wanted: set[Key] | None = None
    ) -> _Owned:
        """Return what an object owns; with `wanted` of those keys only."""
        owned: _Owned = {}
        if history is not None:
            for key, owner in self._owners(one, history, wanted):
                owned.setdefault(key, []).append(owner)
        return owned

    def _owners(
        self, one: Identity, history: History[Any], wanted: set[Key] | None
    ) -> Iterator[tuple[Key, Owner]]:
        if one[0] is Pod:
            yield from owners_of(one, history, _pod_keys, wanted)
            if any(span.thing.host_ports for span in history.spans):
                yield from owners_of(one, history, self._nodes.ports, wanted)
        elif one[0] is Service:
            yield from owners_of(one, history, _cluster_keys)
            for (ip, port, is_tcp), owner in owners_of(one, history, _outer_keys):
                # Two may share an address and a port, one with UDP; logs are of TCP, mostly.
                yield (ip, port), owner if is_tcp else replace(owner, is_doubtful=True)
        elif one[0] is EndpointSlice:
            thing = history.newest
            services = self._bare.get((thing.namespace, thing.service))
            if services:
                known = self._known[Service]
                newest = max(services, key=lambda service: place_of(known[service]))
                yield from owners_of(newest, history, _slice_keys)

    def _owners_of(self, one: Identity, key: Key) -> list[Owner]:
        """Return how an object that claims a key owns it."""
        known = self._owned.get(one, {})
        if key not in known:
            known = self._owned[one] = self._owned_by(one, self._known[one[0]][one])
        return known[key]

    def _claims(self, key: Key) -> list[Claim]:
        """Return all claims to a key itself."""
        ip, port = key
        owners: dict[type, list[Owner]] = {Pod: [], Service: [], EndpointSlice: []}
        claiming: Iterable[Identity] = self._claiming.get(key, ())
        if len(self._claiming.get(key, ())) > 1:
            claiming = sorted(claiming, key=lambda one: place_of(self._known[one[0]][one]))
        for one in claiming:
            owners[one[0]] += self._owners_of(one, key)
        if port < 0 and ip in self._nodes.addresses:
            # Not every port of a node is meant.
            owners[EndpointSlice] = []
        claims = [
            claim
            for kind, of_kind in owners.items()
            if of_kind
            for start_ns, end_ns, holder in holders(of_kind)
            for claim in self._claims_of(kind, port, start_ns, end_ns, holder)
        ]
        if port == ANY_PORT and ip in self._nodes.addresses:
            claims.append(_always(_NODE, NODE))
        if port == ANY_CALLED_PORT and ip in self._nodes.undeclared:
            claims.append(_always(_NODE_CALLED, NOT_DECLARED))
        return claims

    def _claims_of(
        self, kind: type, port: int, start_ns: int, end_ns: int, one: Identity
    ) -> Iterator[Claim]:
        if kind is Pod:
            yield from self._pod_claims(port, start_ns, end_ns, one)
            return
        word, rank = _service_rank(kind, port)
        for first_ns, last_ns, name in _cut(start_ns, end_ns, self._names.services[one]):
            yield Claim(first_ns, last_ns, (rank,), Holder(word, one[1], name.service, None))

    def _pod_claims(self, port: int, start_ns: int, end_ns: int, one: Identity) -> Iterator[Claim]:
        kind, rank, rank_alone = (
            ("pod", _POD, _POD_ALONE)
            if port == ANY_PORT
            else ("host", _HOST_PORT, _HOST_PORT_ALONE)
        )
        _, namespace, pod, _ = one
        for first_ns, last_ns, name in _cut(start_ns, end_ns, self._names.pods[one]):
            reason = None if name.service else NO_SERVICE
            holder = Holder(kind, namespace, name.service, pod, reason, name.is_by_owner)
            yield Claim(first_ns, last_ns, (rank if name.service else rank_alone,), holder)


class _Nodes:
    """The addresses of nodes, and the Pods that have those of their node."""

    def __init__(self) -> None:
        self.addresses: Counter[str] = Counter()
        # Of nodes with a Pod of the host network that declares no port.
        self.undeclared: Counter[str] = Counter()
        self._of_name: dict[str, dict[tuple[Any, ...], tuple[str, ...]]] = defaultdict(dict)
        self._pods: dict[str, set[Identity]] = defaultdict(set)
        self._touched: dict[str, tuple[bool, bool]] = {}

    def pods_of(self, node: str) -> set[Identity]:
        """Return the Pods that have addresses or ports of a node."""
        return set(self._pods.get(node, ()))

    def changed_addresses(self) -> list[str]:
        """Return which addresses are or are not a node's now; tells each change once."""
        touched, self._touched = self._touched, {}
        return [ip for ip, before in touched.items() if before != self._state(ip)]

    def note_node(self, node: History[Node], count: int) -> None:
        """Count the addresses of a node, or take them back."""
        self._count(
            self.addresses, (ip for span in node.spans for ip in span.thing.ip_addresses), count
        )
        of_name = self._of_name[node.newest.name]
        if count > 0:
            of_name[place_of(node)] = node.newest.ip_addresses
        else:
            of_name.pop(place_of(node), None)

    def note_pod(self, one: Identity, pod: History[Pod], count: int) -> None:
        """Count what a Pod says of its node, or take it back."""
        newest = pod.newest
        self._count(self.addresses, newest.node_addresses, count)
        if newest.host_network:
            addresses = self._of_node(newest)
            self._count(self.addresses, addresses, count)
            if not newest.ports and not newest.is_over:
                self._count(self.undeclared, addresses, count)
        for thing in (span.thing for span in pod.spans):
            if thing.host_network or thing.host_ports:
                _put(self._pods, thing.node, one, is_there=count > 0)

    def ports(self, pod: Pod) -> Iterator[Key]:
        """Yield the ports of nodes that lead to a Pod."""
        if pod.host_ports:
            yield from ((ip, port) for ip in self._of_node(pod) for port in pod.host_ports)

    def _of_node(self, pod: Pod) -> tuple[str, ...]:
        """Return the addresses of a Pod's node."""
        own = pod.ip_addresses if pod.host_network else ()
        named = self._of_name.get(pod.node)
        nodes = named[max(named)] if named else ()
        return tuple(dict.fromkeys((*own, *pod.node_addresses, *nodes)))

    def _state(self, ip: str) -> tuple[bool, bool]:
        return ip in self.addresses, ip in self.undeclared

    def _count(self, counter: Counter[str], ips: Iterable[str], count: int) -> None:
        for ip in ips:
            self._touched.setdefault(ip, self._state(ip))
            counter[ip] += count
            if not counter[ip]:
                del counter[ip]


def _put(sets: dict[Any, set[Identity]], key: object, one: Identity, *, is_there: bool) -> None:
    if is_there:
        sets[key].add(one)
    elif key in sets:
        sets[key].discard(one)
        if not sets[key]:
            del sets[key]


def _always(rank: int, reason: str) -> Claim:
    return Claim(OPEN_START_NS, OPEN_END_NS, (rank,), Holder(NODE, "", None, None, reason))


def _service_rank(kind: type, port: int) -> tuple[str, int]:
    if kind is EndpointSlice:
        return "external", _SLICE if port >= 0 else _SLICE_ANY
    if port == ANY_PORT:
        return "service", _CLUSTER
    return "external", _OUTER if port >= 0 else _OUTER_ANY


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
