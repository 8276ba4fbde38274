"""The entity table: which Service or Pod an IP address belongs to, at which port, and when.

It follows analysis.md section 2 ("Addresses to entities") and docs/semantics.md ("Entities"):
addresses are reused, so each holds for intervals of time. The rules are applied once, when the
table is built; a look-up is a few joins of what is distinct.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import polars as pl

from framewalk.engine.kubernetes.claims import (
    ANY_CALLED_PORT,
    ANY_NODE,
    ANY_PORT,
    NODE,
    NOT_DECLARED,
    address_rows,
)
from framewalk.engine.kubernetes.describing import (
    ALIASES_SCHEMA,
    PODS_SCHEMA,
    Described,
    alias_rows,
    pod_rows,
    shared_names,
    sightings_frame,
)
from framewalk.engine.kubernetes.dumps import read_dumps
from framewalk.engine.kubernetes.inventory import OPEN_END_NS, OPEN_START_NS, Inventory
from framewalk.engine.kubernetes.naming import names_of
from framewalk.engine.kubernetes.spelling import canonical_ips

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from os import PathLike
    from pathlib import Path

    from framewalk.engine.kubernetes.sources import Source

ADDRESS_SCHEMA: Final = pl.Schema(
    {
        "cluster": pl.String,
        "ip": pl.String,
        "port": pl.Int32,
        "start_ns": pl.Int64,
        "end_ns": pl.Int64,
        "kind": pl.String,
        "namespace": pl.String,
        "service": pl.String,
        "instance": pl.String,
        "reason": pl.String,
        "is_by_owner": pl.Boolean,
    }
)
_FOUND: Final = ("kind", "namespace", "service", "instance", "reason", "is_by_owner")
_DEFAULTS: Final = {
    "cluster": pl.lit(""),
    "port": pl.lit(0, pl.Int32),
    "is_called": pl.lit(value=True),
}
_KEY: Final = ("cluster", "ip", "port")

OUTSIDE: Final = "outside the cluster"
NOT_READ: Final = "not in what was read"


class Told(NamedTuple):
    """Something that an operator should know: what it is, and of whom."""

    event: str
    facts: Mapping[str, str]

    def __str__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        return f"{self.event}: {facts}"


@dataclass(frozen=True, eq=False, repr=False)
class Entities:
    """Who is at the addresses of some clusters.

    `addresses` has the columns of ADDRESS_SCHEMA and is sorted by (cluster, ip, port, start_ns);
    the intervals [start_ns, end_ns), in ns since 1970, of one (cluster, ip, port) do not overlap.
    `start_ns` is OPEN_START_NS and `end_ns` OPEN_END_NS where the interval is open. `port` is
    ANY_PORT where it does not matter, ANY_CALLED_PORT where it does not matter but the address is
    that of the called side only; `ip` is ANY_NODE for a port of all nodes. `service` is
    `name.namespace`, null with a `reason`; `instance` is a Pod's name, null for a Service's
    address; `is_by_owner` marks Pods that have the name of their owner.

    `pods` has PODS_SCHEMA, `service_aliases` ALIASES_SCHEMA. `told` are aliases and Pods of several
    Services, `warnings` what is odd in dumps.
    """

    addresses: pl.DataFrame
    pods: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PODS_SCHEMA))
    service_aliases: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=ALIASES_SCHEMA)
    )
    networks: frozenset[tuple[str, str]] = frozenset()
    told: tuple[Told, ...] = ()
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Entities({self.addresses.height} address intervals)"

    @classmethod
    def of(
        cls,
        inventories: Mapping[str, Inventory],
        warnings: Iterable[str] = (),
        *,
        by_owner: bool = False,
    ) -> Self:
        """Apply the rules to what is known of each cluster, by its name.

        `by_owner` names Pods without a Service after their owner.
        """
        rows: list[tuple[object, ...]] = []
        pods: list[tuple[object, ...]] = []
        aliases: list[tuple[object, ...]] = []
        told: list[Told] = []
        networks: set[tuple[str, str]] = set()
        for cluster, inventory in inventories.items():
            names = names_of(inventory, by_owner=by_owner)
            rows += (
                (cluster, ip, port, start_ns, end_ns, *holder)
                for ip, port, start_ns, end_ns, holder in address_rows(inventory, names)
            )
            pods += pod_rows(cluster, inventory, names)
            aliases += alias_rows(cluster, names)
            told += (Told(event, facts) for event, facts in shared_names(cluster, names))
            networks |= {(cluster, network) for network in _networks(inventory)}
        addresses = pl.DataFrame(rows, schema=ADDRESS_SCHEMA, orient="row")
        return cls(
            addresses.sort(*_KEY, "start_ns"),
            pl.DataFrame(pods, schema=PODS_SCHEMA, orient="row"),
            pl.DataFrame(aliases, schema=ALIASES_SCHEMA, orient="row"),
            frozenset(networks),
            tuple(told),
            tuple(warnings),
        )

    def described(self, inventories: Mapping[str, Inventory]) -> Described:
        """Return it with what it was made of; takes a while for a large cluster."""
        return Described(self.pods, self.service_aliases, sightings_frame(inventories))

    @classmethod
    def empty(cls) -> Self:
        """Return a table in which no address is known."""
        return cls(pl.DataFrame(schema=ADDRESS_SCHEMA))

    @classmethod
    def read(cls, file: str | PathLike[str]) -> Self:
        """Read the addresses that `write` wrote: names, without what is told about them."""
        return cls(pl.read_ipc(str(file)))

    def write(self, file: str | PathLike[str]) -> None:
        """Write the addresses as an Arrow file."""
        self.addresses.write_ipc(str(file))

    @cached_property
    def boundaries_ns(self) -> pl.Series:
        """The times at which any address changes: sorted, distinct, Int64, ns.

        Between two neighbours (the earlier included) every look-up gives the same answer.
        """
        return self._boundaries["boundary_ns"].unique().sort()

    def boundaries_of(self, ips: Iterable[pl.Series], first_ns: int, last_ns: int) -> pl.Series:
        """Return the times after the first and up to the last at which some of these change.

        `ips` are as sent; the times as in `boundaries_ns`.
        """
        after = pl.col("boundary_ns") > first_ns
        within = self._boundaries.filter(after & (pl.col("boundary_ns") <= last_ns))
        if within.is_empty():
            return within["boundary_ns"]
        sent = pl.concat([one.rename("ip") for one in ips]).unique()
        asked = pl.concat([canonical_ips(sent), pl.Series("ip", [ANY_NODE])])
        changing = within.join(asked.to_frame(), on="ip", how="semi")
        return changing["boundary_ns"].unique().sort()

    @cached_property
    def _boundaries(self) -> pl.DataFrame:
        """When which address changes."""
        both = pl.concat(
            self.addresses.select("ip", boundary_ns=end) for end in ("start_ns", "end_ns")
        )
        is_open = pl.col("boundary_ns").is_in([OPEN_START_NS, OPEN_END_NS])
        return both.filter(~is_open).unique()

    def lookup(self, addresses: pl.DataFrame) -> pl.DataFrame:
        """Resolve each (ip: String as sent, time_ns: Int64) of `addresses`.

        `cluster` is the `clusterName` of the node (default: none), `port` the address's (default:
        0, none), `is_called` whether this is the side that is called (default: it is).

        Returns (kind, namespace, service, instance, reason, is_by_owner) in the same row order.
        `service` is null where the address belongs to nobody who has a name, and `reason` is not.
        """
        missing = {name: each for name, each in _DEFAULTS.items() if name not in addresses.columns}
        asked = addresses.with_columns(**missing).select(
            canonical_ips(addresses["ip"]).alias("ip"),
            self._cluster(),
            pl.col("port").cast(pl.Int32),
            "is_called",
            "time_ns",
        )
        found = self._as_of(asked, self._keys_of(asked))
        found = self._with_ports_of_nodes(asked, found)
        return self._with_reasons(asked, found)

    @cached_property
    def _clusters(self) -> list[str]:
        """The clusters that have a name: only their nodes are looked up there."""
        return [one for one in self.addresses["cluster"].unique().to_list() if one]

    @cached_property
    def _keys(self) -> pl.DataFrame:
        """What can be looked up, and its number."""
        distinct = self.addresses.select(*_KEY).unique(maintain_order=True)
        return distinct.with_row_index("key")

    @cached_property
    def _intervals(self) -> pl.DataFrame:
        keyed = self.addresses.join(
            self._keys, on=list(_KEY), how="left", maintain_order="left", validate="m:1"
        )
        return keyed.select("key", "start_ns", "end_ns", *_FOUND)

    @cached_property
    def _ports(self) -> list[int]:
        """The kinds of keys that there are, those that know more first."""
        ports = self._keys["port"]
        called = [ANY_CALLED_PORT] if (ports == ANY_CALLED_PORT).any() else []
        return [0, *called] if (ports >= 0).any() else called

    def _cluster(self) -> pl.Expr:
        if not self._clusters:
            return pl.lit("").alias("cluster")
        known = pl.col("cluster").is_in(self._clusters)
        return pl.when(known).then("cluster").otherwise(pl.lit("")).alias("cluster")

    def _keys_of(self, asked: pl.DataFrame) -> pl.Series:
        """Return the number of the best key of each row, null where there is none."""
        key = self._key(asked, pl.lit(ANY_PORT, pl.Int32))
        for port in reversed(self._ports):
            wanted = pl.lit(port, pl.Int32) if port else pl.col("port")
            better = self._key(asked, pl.when("is_called").then(wanted))
            key = pl.select(pl.coalesce(better, key)).to_series()
        return key.alias("key")

    def _key(self, asked: pl.DataFrame, port: pl.Expr) -> pl.Series:
        wanted = asked.select("cluster", "ip", port.alias("port"))
        return wanted.join(self._keys, on=list(_KEY), how="left", maintain_order="left")["key"]

    def _as_of(self, asked: pl.DataFrame, key: pl.Series) -> pl.DataFrame:
        rows = asked.select("time_ns").with_columns(key).with_row_index("row")
        found = rows.sort("time_ns").join_asof(
            self._intervals,
            left_on="time_ns",
            right_on="start_ns",
            by="key",
            check_sortedness=False,  # polars cannot check it within groups, and says so
        )
        current = (pl.col("time_ns") < pl.col("end_ns")) | (pl.col("end_ns") == OPEN_END_NS)
        return found.sort("row").select(pl.when(current).then(name).alias(name) for name in _FOUND)

    def _with_ports_of_nodes(self, asked: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
        """Look up the ports that lead from each node to a Service, where a node was found."""
        is_node = asked["is_called"] & (found["kind"] == NODE).fill_null(value=False)
        if not is_node.any():
            return found
        nodes = asked.with_columns(
            ip=pl.when(is_node).then(pl.lit(ANY_NODE)), is_called=pl.lit(value=True)
        )
        better = self._as_of(nodes, self._key(nodes, pl.col("port")))
        has_port = better["kind"].is_not_null()
        return pl.select(
            pl.when(has_port).then(better[name]).otherwise(found[name]).alias(name)
            for name in _FOUND
        )

    def _with_reasons(self, asked: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
        """Say why an address is not in the table."""
        found = found.with_columns(pl.col("is_by_owner").fill_null(value=False))
        nobody = found["kind"].is_null()
        if not nobody.any():
            return found
        lost = asked.filter(nobody).select(
            "cluster", network=_network_of(asked["ip"].filter(nobody))
        )
        inside = lost.join(
            self._networks, on=["cluster", "network"], how="left", maintain_order="left"
        )["is_inside"].fill_null(value=False)
        reasons = pl.select(pl.when(inside).then(pl.lit(NOT_READ)).otherwise(pl.lit(OUTSIDE)))
        number = pl.when(nobody).then(nobody.cum_sum() - 1)
        reason = pl.coalesce(reasons.to_series().gather(pl.select(number).to_series()), "reason")
        return found.with_columns(reason=reason)

    @cached_property
    def _networks(self) -> pl.DataFrame:
        """The networks that clusters give addresses of."""
        schema = {"cluster": pl.String, "network": pl.String}
        networks = pl.DataFrame(list(self.networks), schema=schema, orient="row")
        return networks.with_columns(is_inside=pl.lit(value=True))


def read_entities(*sources: str | Path | Source, by_owner: bool = False) -> Entities:
    """Read the address table out of Kubernetes dumps: files or folders (see `read_dumps`).

    `NAME=PATH` is a dump of the cluster whose nodes send NAME as their `clusterName`. `by_owner`
    names Pods without a Service after their owner. Raises EntitiesError as `read_dumps` does.
    """
    dumps = read_dumps(sources)
    return Entities.of(dumps.inventories, dumps.warnings, by_owner=by_owner)


def _networks(inventory: Inventory) -> Iterator[str]:
    """Yield the networks that a cluster gives addresses of, as `_network_of` writes them."""
    for node in inventory.nodes:
        for network in node.newest.networks:
            yield _network_of_ip(network.partition("/")[0])
    for pod in (history.newest for history in inventory.pods):
        if not pod.host_network:
            yield from map(_network_of_ip, pod.ip_addresses)
    for service in inventory.services:
        yield from map(_network_of_ip, service.newest.ip_addresses)


def _network_of(ips: pl.Series) -> pl.Series:
    """Return the /16 of IPv4 addresses and the /64 of IPv6 addresses."""
    networks = ips.str.extract(r"^([0-9]+\.[0-9]+)\.[0-9]+\.[0-9]+$")
    six = ips.filter(ips.str.contains(":", literal=True)).unique().to_list()
    if not six:
        return networks
    known = {ip: _network_of_ip(ip) for ip in six}
    of_six = ips.replace_strict(known, default=None, return_dtype=pl.String)
    return pl.select(pl.coalesce(networks, of_six)).to_series()


def _network_of_ip(ip: str) -> str:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return ".".join(str(address).split(".")[:2])
    return str(ipaddress.ip_network((address, 64), strict=False))


__all__ = [
    "ADDRESS_SCHEMA",
    "ANY_PORT",
    "NOT_DECLARED",
    "NOT_READ",
    "OUTSIDE",
    "Entities",
    "Told",
    "read_entities",
]
