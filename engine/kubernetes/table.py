"""The table of addresses of some clusters, made again only where something has changed.

What is looked up in are frames: keys, intervals of them by number, and holders by row. An update
replaces the intervals of keys that have others now, and adds what is new; a frame that was given
away stays as it is.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from framewalk.engine.kubernetes.claims import ClusterClaims
from framewalk.engine.kubernetes.describing import (
    ALIASES_SCHEMA,
    PODS_SCHEMA,
    Described,
    alias_rows,
    pod_rows,
    shared_names,
    sightings_frame,
)
from framewalk.engine.kubernetes.inventory import (
    EndpointSlice,
    Inventory,
    Node,
    Pod,
    Service,
    place_of,
)
from framewalk.engine.kubernetes.naming import ClusterNames

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from framewalk.engine.kubernetes.claims import Holder, Key, Known, Row
    from framewalk.engine.kubernetes.inventory import AnyThing, History, Identity
    from framewalk.engine.kubernetes.naming import Alias

_KEYS_SCHEMA: Final = pl.Schema(
    {"cluster": pl.String, "ip": pl.String, "port": pl.Int32, "key": pl.UInt32}
)
_INTERVALS_SCHEMA: Final = pl.Schema(
    {"key": pl.UInt32, "start_ns": pl.Int64, "end_ns": pl.Int64, "holder": pl.UInt32}
)
HOLDERS_SCHEMA: Final = pl.Schema(
    {
        "kind": pl.String,
        "namespace": pl.String,
        "service": pl.String,
        "instance": pl.String,
        "reason": pl.String,
        "is_by_owner": pl.Boolean,
    }
)
_NETWORKS_SCHEMA: Final = pl.Schema({"cluster": pl.String, "network": pl.String})

# Chunks of a frame that grows by a few rows each time.
_MOST_CHUNKS: Final = 16
# Holders that nobody refers to any more.
_MOST_LEFT: Final = 20_000


class Told(NamedTuple):
    """Something that an operator should know: what it is, and of whom."""

    event: str
    facts: Mapping[str, str]

    def __str__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return f"{self.event}: {facts}"


class Lookups(NamedTuple):
    """What addresses are looked up in.

    `keys` has (cluster, ip, port, key), each once; `intervals` (key, start_ns, end_ns, holder),
    those of a key in the order of time; `holders` HOLDERS_SCHEMA, by their row; `networks`
    (cluster, network).
    """

    keys: pl.DataFrame
    intervals: pl.DataFrame
    holders: pl.DataFrame
    networks: pl.DataFrame


class Table:
    """Who is at the addresses of some clusters; `by_owner` names Pods without a Service."""

    def __init__(self, *, by_owner: bool = False) -> None:
        self._by_owner = by_owner
        self._clusters: dict[str, _Cluster] = {}
        self._frames = _Frames()

    def update(self, cluster: str, changes: Mapping[Identity, History[Any] | None]) -> None:
        """Learn what objects are by now; None: what is not known any more."""
        if cluster not in self._clusters:
            self._clusters[cluster] = _Cluster(by_owner=self._by_owner)
        for key, rows in self._clusters[cluster].update(changes):
            self._frames.put((cluster, *key), rows)

    def lookups(self) -> Lookups:
        """Return the frames as of now."""
        keys, intervals, holders = self._frames.written()
        networks = [
            (name, network) for name, one in self._clusters.items() for network in one.networks
        ]
        frame = pl.DataFrame(networks, schema=_NETWORKS_SCHEMA, orient="row")
        return Lookups(keys, intervals, holders, frame)

    def told(self) -> tuple[Told, ...]:
        """Return which Services share Pods or names."""
        return tuple(
            Told(event, facts)
            for cluster, one in self._clusters.items()
            for event, facts in one.shared(cluster)
        )

    def described(self, *, sightings: bool = True) -> Described:
        """Return what is made of the objects that changed since `is_kept` was called.

        That is all that is known of their names: an object that was made anew has the rows of the
        one before it, too.
        """
        pods: list[tuple[object, ...]] = []
        aliases: list[tuple[object, ...]] = []
        inventories: dict[str, Inventory] = {}
        for cluster, one in self._clusters.items():
            one.begin_describing()
            pods += one.pod_rows(cluster)
            aliases += alias_rows(cluster, one.aliases(one.describing))
            inventories[cluster] = one.inventory(one.describing) if sightings else Inventory()
        return Described(
            pl.DataFrame(pods, schema=PODS_SCHEMA, orient="row"),
            pl.DataFrame(aliases, schema=ALIASES_SCHEMA, orient="row"),
            sightings_frame(inventories),
        )

    def is_kept(self) -> None:
        """Learn that what `described` returned is kept somewhere."""
        for one in self._clusters.values():
            one.describing.clear()


class _Cluster:
    """One cluster: its objects by identity, their names, and who claims which address."""

    def __init__(self, *, by_owner: bool) -> None:
        self.known: Known = {Pod: {}, Service: {}, EndpointSlice: {}, Node: {}}
        self.names = ClusterNames(self.known[Pod], self.known[Service], by_owner=by_owner)
        self.networks: Counter[str] = Counter()
        # Kind, namespace and name of what is being described, and of what has changed since.
        self.describing: set[tuple[Any, ...]] = set()
        self._changed: set[tuple[Any, ...]] = set()
        self._claims = ClusterClaims(self.known, self.names)

    def update(
        self, changes: Mapping[Identity, History[Any] | None]
    ) -> Iterator[tuple[Key, list[Row]]]:
        """Learn what objects are by now; yields all rows of each key that has others."""
        before = {one: self.known[one[0]].get(one) for one in changes}
        owned = self._claims.before(changes)
        for one, history in changes.items():
            self._count_networks(before[one], history)
            if history is None:
                self.known[one[0]].pop(one, None)
            else:
                self.known[one[0]][one] = history
                self._changed.add(one[:3])
        renamed = self.names.update(before)
        self._changed.update(one[:3] for one in renamed)
        if len(self._changed) > 2 * sum(map(len, self.known.values())) + _MOST_LEFT:
            # Nobody describes them; what is forgotten has nothing to be described any more.
            self._changed &= {one[:3] for of_kind in self.known.values() for one in of_kind}
        yield from self._claims.rows(self._claims.changed(owned, renamed))

    def begin_describing(self) -> None:
        """Describe what has changed, and what was described and is not kept."""
        self.describing |= self._changed
        self._changed = set()

    def pod_rows(self, cluster: str) -> Iterator[tuple[object, ...]]:
        """Yield rows of PODS_SCHEMA of what is being described."""
        pods = self._named(Pod, self.describing)
        for pod in _in_order(pods):
            yield from pod_rows(cluster, pods[pod], self.names.pods[pod])

    def inventory(self, names: set[tuple[Any, ...]]) -> Inventory:
        """Return what is known of the objects with these names, in no order."""
        return Inventory(*(tuple(self._named(kind, names).values()) for kind in self.known))

    def aliases(self, names: set[tuple[Any, ...]] | None = None) -> list[Alias]:
        """Return when Services have been aliases; with `names` those only."""
        services = self.known[Service] if names is None else self._named(Service, names)
        aliases = self.names.aliases
        known = {one: services[one] for one in aliases if one in services}
        return [alias for one in _in_order(known) for alias in aliases[one]]

    def _named(self, kind: type[AnyThing], names: set[tuple[Any, ...]]) -> dict[Any, Any]:
        return {one: history for one, history in self.known[kind].items() if one[:3] in names}

    def shared(self, cluster: str) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield which Services are aliases, and which select the same Pods."""
        return shared_names(cluster, self.aliases(), self.names.shared)

    def _count_networks(self, before: History[Any] | None, after: History[Any] | None) -> None:
        old = () if before is None else _addresses_given(before.newest)
        new = () if after is None else _addresses_given(after.newest)
        if old == new:
            return
        self.networks.update(map(network_of_ip, new))
        for network in map(network_of_ip, old):
            self.networks[network] -= 1
            if not self.networks[network]:
                del self.networks[network]


class _Frames:
    """The frames of look-ups, and what is to be changed in them."""

    def __init__(self) -> None:
        self._keys = pl.DataFrame(schema=_KEYS_SCHEMA)
        self._intervals = pl.DataFrame(schema=_INTERVALS_SCHEMA)
        self._holders = pl.DataFrame(schema=HOLDERS_SCHEMA)
        self._numbers: dict[tuple[str, str, int], int] = {}
        self._next = 0
        self._changed: dict[tuple[str, str, int], list[Row]] = {}

    def put(self, key: tuple[str, str, int], rows: list[Row]) -> None:
        """Have other rows for a key; none: nobody has it."""
        if rows or key in self._numbers:
            self._changed[key] = rows
        else:
            self._changed.pop(key, None)

    def written(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """Return keys, intervals and holders with all that was put."""
        if self._changed:
            self._replace_keys()
            self._replace_intervals()
            self._changed = {}
        return self._keys, self._intervals, self._holders

    def _replace_keys(self) -> None:
        gone = [self._numbers[key] for key, rows in self._changed.items() if not rows]
        if gone:
            # Their intervals go, too, as those of all that has changed.
            self._keys = self._keys.filter(~pl.col("key").is_in(gone))
        new = [key for key, rows in self._changed.items() if rows and key not in self._numbers]
        if new:
            numbers = range(self._next, self._next + len(new))
            self._next += len(new)
            self._numbers.update(zip(new, numbers, strict=True))
            rows = [(*key, number) for key, number in zip(new, numbers, strict=True)]
            added = pl.DataFrame(rows, schema=_KEYS_SCHEMA, orient="row")
            self._keys = _joined(self._keys, added)

    def _replace_intervals(self) -> None:
        changed = [self._numbers[key] for key in self._changed]
        kept = self._intervals.filter(~pl.col("key").is_in(changed))
        numbers: dict[Holder, int] = {}
        height = self._holders.height
        rows = [
            (
                self._numbers[key],
                start_ns,
                end_ns,
                height + numbers.setdefault(holder, len(numbers)),
            )
            for key, of_key in self._changed.items()
            for start_ns, end_ns, holder in of_key
        ]
        added = pl.DataFrame(rows, schema=_INTERVALS_SCHEMA, orient="row")
        holders = pl.DataFrame(list(numbers), schema=HOLDERS_SCHEMA, orient="row")
        self._intervals = pl.concat([kept, added], rechunk=True)
        self._holders = _joined(self._holders, holders)
        for key, of_key in self._changed.items():
            if not of_key:
                del self._numbers[key]
        if self._holders.height > 2 * self._intervals.height + _MOST_LEFT:
            self._forget_holders()

    def _forget_holders(self) -> None:
        used = self._intervals["holder"].unique().sort()
        self._holders = self._holders[used]
        places = used.search_sorted(self._intervals["holder"])
        numbers = pl.Series("holder", places, dtype=pl.UInt32)
        self._intervals = self._intervals.with_columns(numbers)


def _joined(frame: pl.DataFrame, added: pl.DataFrame) -> pl.DataFrame:
    both = frame.vstack(added)
    return both.rechunk() if both.n_chunks() > _MOST_CHUNKS else both


def _in_order(known: Mapping[Identity, History[Any]]) -> list[Identity]:
    return sorted(known, key=lambda one: place_of(known[one]))


def _addresses_given(thing: AnyThing) -> tuple[str, ...]:
    """Return addresses whose networks are the cluster's."""
    if isinstance(thing, Node):
        return tuple(network.partition("/")[0] for network in thing.networks)
    if isinstance(thing, Service) or (isinstance(thing, Pod) and not thing.host_network):
        return thing.ip_addresses
    return ()


def network_of_ip(ip: str) -> str:
    """Return the /16 of an IPv4 address, the /64 of an IPv6 address; empty for what is none."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return ".".join(str(address).split(".")[:2])
    return str(ipaddress.ip_network((address, 64), strict=False))


def lookups_of(rows: Mapping[tuple[str, str, int], list[Row]]) -> Lookups:
    """Return what is looked up in rows by (cluster, ip, port)."""
    frames = _Frames()
    for key, of_key in rows.items():
        frames.put(key, of_key)
    return Lookups(*frames.written(), pl.DataFrame(schema=_NETWORKS_SCHEMA))
