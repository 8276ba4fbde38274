"""The entity table: which Service or Pod an IP address belongs to, at which port, and when.

It follows analysis.md section 2 ("Addresses to entities") and docs/semantics.md ("Entities"):
addresses are reused, so each holds for intervals of time. The rules are applied once, when the
table is built; a look-up is a few joins of what is distinct.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Final, Self

import polars as pl

from framewalk.engine.errors import EntitiesError
from framewalk.engine.kubernetes.claims import (
    ANY_CALLED_PORT,
    ANY_NODE,
    ANY_PORT,
    NODE,
    NOT_DECLARED,
    Holder,
)
from framewalk.engine.kubernetes.describing import (
    ALIASES_SCHEMA,
    PODS_SCHEMA,
    Described,
    sightings_frame,
)
from framewalk.engine.kubernetes.dumps import read_dumps
from framewalk.engine.kubernetes.inventory import OPEN_END_NS, OPEN_START_NS
from framewalk.engine.kubernetes.spelling import canonical_ips
from framewalk.engine.kubernetes.table import (
    HOLDERS_SCHEMA,
    Lookups,
    Table,
    Told,
    lookups_of,
    network_of_ip,
)
from framewalk.engine.paths import one_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from framewalk.engine.kubernetes.claims import Row
    from framewalk.engine.kubernetes.dumps import Source
    from framewalk.engine.kubernetes.inventory import Inventory

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
_FOUND: Final = tuple(HOLDERS_SCHEMA)
_DEFAULTS: Final = {
    "cluster": pl.lit(""),
    "port": pl.lit(0, pl.Int32),
    "is_called": pl.lit(value=True),
}
_KEY: Final = ("cluster", "ip", "port")

OUTSIDE: Final = "outside the cluster"
NOT_READ: Final = "not in what was read"


@dataclass(frozen=True, eq=False, repr=False)
class Entities:
    """Who is at the addresses of some clusters.

    `lookups` are the frames of a `Table`. `pods` has PODS_SCHEMA, `service_aliases` ALIASES_SCHEMA;
    of clusters that are watched they are apart (`LiveEntities.to_keep`), and empty here. `told` are
    aliases and Pods of several Services, `warnings` what is odd in dumps.
    """

    lookups: Lookups
    pods: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PODS_SCHEMA))
    service_aliases: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema=ALIASES_SCHEMA)
    )
    told: tuple[Told, ...] = ()
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Entities({self.lookups.intervals.height} address intervals)"

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
        table = Table(by_owner=by_owner)
        for cluster, inventory in inventories.items():
            table.update(cluster, {one.identity: one for one in inventory.histories})
        described = table.described(sightings=False)
        return cls(
            table.lookups(),
            described.pods,
            described.service_aliases,
            table.told(),
            tuple(warnings),
        )

    @cached_property
    def addresses(self) -> pl.DataFrame:
        """All of it as rows of ADDRESS_SCHEMA, sorted by (cluster, ip, port, start_ns).

        The intervals [start_ns, end_ns), in ns since 1970, of one (cluster, ip, port) do not
        overlap. `start_ns` is OPEN_START_NS and `end_ns` OPEN_END_NS where the interval is open.
        `port` is ANY_PORT where it does not matter, ANY_CALLED_PORT where it does not matter but
        the address is that of the called side only; `ip` is ANY_NODE for a port of all nodes.
        `service` is `name.namespace`, null with a `reason`; `instance` is a Pod's name, null for a
        Service's address; `is_by_owner` marks Pods that have the name of their owner.
        """
        keys, intervals, holders, _ = self.lookups
        found = holders.select(pl.all().gather(intervals["holder"]))
        rows = pl.concat([intervals.drop("holder"), found], how="horizontal")
        return rows.join(keys, on="key").select(ADDRESS_SCHEMA.names()).sort(*_KEY, "start_ns")

    def described(self, inventories: Mapping[str, Inventory]) -> Described:
        """Return it with what it was made of; takes a while for a large cluster."""
        return Described(self.pods, self.service_aliases, sightings_frame(inventories))

    @classmethod
    def empty(cls) -> Self:
        """Return a table in which no address is known."""
        return cls(Table().lookups())

    @classmethod
    def read(cls, file: str | PathLike[str]) -> Self:
        """Read the addresses that `write` wrote: names, without what is told about them."""
        rows: dict[tuple[str, str, int], list[Row]] = {}
        for cluster, ip, port, start_ns, end_ns, *holder in pl.read_ipc(str(file)).iter_rows():
            rows.setdefault((cluster, ip, port), []).append((start_ns, end_ns, Holder(*holder)))
        return cls(lookups_of(rows))

    def write(self, file: str | PathLike[str]) -> None:
        """Write the addresses as an Arrow file."""
        self.addresses.write_ipc(str(file))

    @cached_property
    def boundaries_ns(self) -> pl.Series:
        """The times at which any address changes: sorted, distinct, Int64, ns.

        Between two neighbours (the earlier included) every look-up gives the same answer.
        """
        return self._changes(OPEN_START_NS, OPEN_END_NS)["boundary_ns"].unique().sort()

    def boundaries_of(self, ips: Iterable[pl.Series], first_ns: int, last_ns: int) -> pl.Series:
        """Return the times after the first and up to the last at which some of these change.

        `ips` are as sent; the times as in `boundaries_ns`.
        """
        within = self._changes(first_ns, last_ns)
        if within.is_empty():
            return within["boundary_ns"]
        sent = pl.concat([one.rename("ip") for one in ips]).unique()
        asked = pl.concat([canonical_ips(sent), pl.Series("ip", [ANY_NODE])])
        # Few addresses change in a while, and most of them are not asked for.
        changing = self.lookups.keys.filter(pl.col("key").is_in(within["key"].unique().implode()))
        concerned = changing.join(asked.to_frame(), on="ip", how="semi")
        return within.join(concerned, on="key", how="semi")["boundary_ns"].unique().sort()

    def _changes(self, first_ns: int, last_ns: int) -> pl.DataFrame:
        """Return which keys change after the first and up to the last of two times."""
        time_ns = pl.col("boundary_ns")
        is_within = (time_ns > first_ns) & (time_ns <= last_ns) & (time_ns < OPEN_END_NS)
        both = (
            self.lookups.intervals.lazy().select("key", boundary_ns=end).filter(is_within)
            for end in ("start_ns", "end_ns")
        )
        return pl.concat(both).collect()

    def changes(self, first_ns: int, last_ns: int) -> pl.DataFrame:
        """Return what changes hands from the first time to the last.

        Columns: cluster, ip, port (as in `addresses`) and boundary_ns (Int64).
        """
        within = self._changes(first_ns - 1, last_ns).unique()
        return within.join(self.lookups.keys, on="key").select(*_KEY, "boundary_ns")

    def changes_of(self, addresses: pl.DataFrame, within: pl.DataFrame) -> pl.DataFrame:
        """Return when some addresses change hands, of `within` (see `changes`).

        `addresses` are those of `lookup`, without a time, all columns given. Returns (row: UInt32,
        boundary_ns: Int64); what changes at one port only is told of what has that port.
        """
        asked = addresses.select(
            pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"),
            canonical_ips(addresses["ip"]).alias("ip"),
            self._cluster(),
            pl.col("port").cast(pl.Int32),
            "is_called",
        ).join(within, on=["cluster", "ip"], how="semi")
        wanted = {
            ANY_PORT: pl.lit(ANY_PORT, pl.Int32),
            ANY_CALLED_PORT: pl.when("is_called").then(pl.lit(ANY_CALLED_PORT, pl.Int32)),
            0: pl.when("is_called").then(pl.col("port")),
        }
        kinds = within["port"].clip(upper_bound=0).unique()
        found = [
            asked.select("row", "cluster", "ip", port=wanted[kind])
            .join(within, on=list(_KEY))
            .select("row", "boundary_ns")
            for kind in kinds
        ]
        return pl.concat(found).unique()

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
        return [one for one in self.lookups.keys["cluster"].unique().to_list() if one]

    @cached_property
    def _ports(self) -> list[int]:
        """The kinds of keys that there are, those that know more first."""
        ports = self.lookups.keys["port"]
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
        keys = self.lookups.keys
        return wanted.join(keys, on=list(_KEY), how="left", maintain_order="left")["key"]

    def _as_of(self, asked: pl.DataFrame, key: pl.Series) -> pl.DataFrame:
        rows = asked.select("time_ns").with_columns(key).with_row_index("row")
        found = rows.sort("time_ns").join_asof(
            self.lookups.intervals,
            left_on="time_ns",
            right_on="start_ns",
            by="key",
            check_sortedness=False,  # polars cannot check it within groups, and says so
        )
        current = (pl.col("time_ns") < pl.col("end_ns")) | (pl.col("end_ns") == OPEN_END_NS)
        holder = found.sort("row").select(pl.when(current).then("holder")).to_series()
        return self.lookups.holders.select(pl.all().gather(holder))

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
            self.lookups.networks.with_columns(is_inside=pl.lit(value=True)),
            on=["cluster", "network"],
            how="left",
            maintain_order="left",
        )["is_inside"].fill_null(value=False)
        reasons = pl.select(pl.when(inside).then(pl.lit(NOT_READ)).otherwise(pl.lit(OUTSIDE)))
        number = pl.when(nobody).then(nobody.cum_sum() - 1)
        reason = pl.coalesce(reasons.to_series().gather(pl.select(number).to_series()), "reason")
        return found.with_columns(reason=reason)


def read_entities(*sources: str | Path | Source, by_owner: bool = False) -> Entities:
    """Read the address table out of Kubernetes dumps: files or folders (see `read_dumps`).

    `NAME=PATH` is a dump of the cluster whose nodes send NAME as their `clusterName`. `by_owner`
    names Pods without a Service after their owner. Raises EntitiesError as `read_dumps` does.
    """
    for source in sources:
        if isinstance(source, str | PathLike):
            one_path(source, EntitiesError)
    dumps = read_dumps(sources)
    return Entities.of(dumps.inventories, dumps.warnings, by_owner=by_owner)


def _network_of(ips: pl.Series) -> pl.Series:
    """Return the /16 of IPv4 addresses and the /64 of IPv6 addresses."""
    networks = ips.str.extract(r"^([0-9]+\.[0-9]+)\.[0-9]+\.[0-9]+$")
    six = ips.filter(ips.str.contains(":", literal=True)).unique().to_list()
    if not six:
        return networks
    known = {ip: network_of_ip(ip) for ip in six}
    of_six = ips.replace_strict(known, default=None, return_dtype=pl.String)
    return pl.select(pl.coalesce(networks, of_six)).to_series()


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
