"""The address table: which Service or Pod an IP address belongs to, and when.

It follows analysis.md section 2 ("Addresses to entities") and docs/semantics.md ("Entities"):
addresses are reused, so each holds for intervals of time. The rules are applied once, when the
table is built; a look-up is one as-of join.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import polars as pl

from framewalk.engine.kubernetes.dumps import canonical_ip, read_dump

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from framewalk.engine.kubernetes.inventory import Inventory, Pod, Service

ADDRESS_SCHEMA: Final = pl.Schema(
    {
        "ip": pl.String,
        "start_ns": pl.Int64,
        "end_ns": pl.Int64,
        "namespace": pl.String,
        "service": pl.String,
        "instance": pl.String,
    }
)
OPEN_START_NS: Final = -(2**63)
OPEN_END_NS: Final = 2**63 - 1

_NAMES: Final = ("namespace", "service", "instance")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Entities:
    """The addresses of a cluster's Services and Pods.

    `addresses` has the columns of ADDRESS_SCHEMA and is sorted by (ip, start_ns); the intervals
    [start_ns, end_ns), in ns since 1970, of one ip do not overlap. `start_ns` is OPEN_START_NS
    and `end_ns` OPEN_END_NS where the interval is open. `service` is `name.namespace`, null for
    a Pod that no Service selects; `instance` is the Pod's name, null for a Service's address.
    """

    addresses: pl.DataFrame

    def __repr__(self) -> str:
        return f"Entities({self.addresses.height} address intervals)"

    @classmethod
    def from_inventory(cls, inventory: Inventory) -> Self:
        """Apply the rules to the Pods and Services of `inventory`."""
        rows = _intervals(_service_claims(inventory.services), _pod_claims(inventory))
        addresses = pl.DataFrame(list(rows), schema=ADDRESS_SCHEMA, orient="row")
        return cls(addresses.sort("ip", "start_ns"))

    @classmethod
    def empty(cls) -> Self:
        """Return a table in which no address is known."""
        return cls(pl.DataFrame(schema=ADDRESS_SCHEMA))

    @property
    def boundaries_ns(self) -> pl.Series:
        """The times at which any address changes: sorted, distinct, Int64, ns.

        Between two neighbours (the earlier included) every look-up gives the same answer.
        """
        both = pl.concat([self.addresses["start_ns"], self.addresses["end_ns"]])
        closed = both.filter((both != OPEN_START_NS) & (both != OPEN_END_NS))
        return closed.unique().sort().rename("boundary_ns")

    def lookup(self, addresses: pl.DataFrame) -> pl.DataFrame:
        """Resolve each (ip: String as sent, time_ns: Int64) of `addresses`.

        Returns (namespace, service, instance), all String, in the same row order; all three
        are null where the address belongs to nobody at that time.
        """
        asked = addresses.select(_canonical(addresses["ip"]), "time_ns").with_row_index("row")
        found = asked.sort("time_ns").join_asof(
            self.addresses,
            left_on="time_ns",
            right_on="start_ns",
            by="ip",
            check_sortedness=False,  # polars cannot check it within groups, and says so
        )
        current = (pl.col("time_ns") < pl.col("end_ns")) | (pl.col("end_ns") == OPEN_END_NS)
        return found.sort("row").select(pl.when(current).then(name).alias(name) for name in _NAMES)


def read_entities(*paths: str | Path) -> Entities:
    """Read the address table out of Kubernetes dumps: files or folders (see `read_dump`).

    Raises EntitiesError as `read_dump` does.
    """
    return Entities.from_inventory(read_dump(paths))


def _canonical(ips: pl.Series) -> pl.Series:
    """Put each distinct IPv6 address into its one form; IPv4 has no other."""
    spelt = ips.filter(ips.str.contains(":", literal=True)).unique().to_list()
    return ips.replace({text: _canonical_or_same(text) for text in spelt})


def _canonical_or_same(text: str) -> str:
    try:
        return canonical_ip(text)
    except ValueError:
        return text


class _Claim(NamedTuple):
    """An object's claim to an address; claims compare by (start, namespace, name)."""

    start_ns: int
    namespace: str
    name: str
    end_ns: int
    uid: str
    service: str | None
    instance: str | None


_Claims = defaultdict[str, list[_Claim]]
_Row = tuple[str, int, int, str, str | None, str | None]


def _service_claims(services: Iterable[Service]) -> _Claims:
    claims: _Claims = defaultdict(list)
    for service in services:
        claim = _Claim(
            start_ns=_start_ns(service.created_ns),
            namespace=service.namespace,
            name=service.name,
            end_ns=OPEN_END_NS,
            uid=service.uid,
            service=_service_name(service),
            instance=None,
        )
        for ip in service.ip_addresses:
            claims[ip].append(claim)
    return claims


def _pod_claims(inventory: Inventory) -> _Claims:
    selectors = _Selectors(inventory.services)
    claims: _Claims = defaultdict(list)
    for pod in inventory.pods:
        if pod.host_network or not pod.ip_addresses:
            continue
        claim = _Claim(
            start_ns=_start_ns(pod.created_ns),
            namespace=pod.namespace,
            name=pod.name,
            end_ns=OPEN_END_NS if pod.ended_ns is None else pod.ended_ns,
            uid=pod.uid,
            service=selectors.first_service(pod),
            instance=pod.name,
        )
        for ip in pod.ip_addresses:
            claims[ip].append(claim)
    return claims


def _intervals(services: _Claims, pods: _Claims) -> Iterator[_Row]:
    """Cut the claims so that they do not overlap: Services go before Pods, late before early."""
    for ip, claims in services.items():
        yield from _successive(ip, claims, OPEN_END_NS)
    for ip, claims in pods.items():
        taken_ns = min((claim.start_ns for claim in services.get(ip, ())), default=OPEN_END_NS)
        yield from _successive(ip, claims, taken_ns)


def _successive(ip: str, claims: list[_Claim], until_ns: int) -> Iterator[_Row]:
    """Let each claim end where the next one begins, at the latest at `until_ns`."""
    in_order = sorted(claims, key=lambda claim: claim[:5])
    next_starts_ns = [claim.start_ns for claim in in_order[1:]]
    for claim, next_start_ns in zip(in_order, [*next_starts_ns, until_ns], strict=True):
        end_ns = min(claim.end_ns, next_start_ns, until_ns)
        if claim.start_ns < end_ns:
            yield ip, claim.start_ns, end_ns, claim.namespace, claim.service, claim.instance


class _Selectors:
    """Finds the Services that select a Pod without trying all of them.

    Each Service lies under the rarest (key, value) of its selector in its namespace; only
    those under one of the Pod's own labels can select it.
    """

    def __init__(self, services: Iterable[Service]) -> None:
        selecting = [service for service in services if service.selector]
        uses = Counter(label for service in selecting for label in _labels(service))
        self._services: defaultdict[tuple[str, str, str], list[Service]] = defaultdict(list)
        for service in selecting:
            rarest = min(_labels(service), key=lambda label: (uses[label], label))
            self._services[rarest].append(service)

    def first_service(self, pod: Pod) -> str | None:
        """Return the `name.namespace` of the first Service by name that selects `pod`."""
        candidates = (
            service
            for key, value in pod.labels.items()
            for service in self._services.get((pod.namespace, key, value), ())
            if service.selector.items() <= pod.labels.items()
        )
        first = min(candidates, key=lambda service: service.name, default=None)
        return None if first is None else _service_name(first)


def _labels(service: Service) -> list[tuple[str, str, str]]:
    return [(service.namespace, key, value) for key, value in service.selector.items()]


def _service_name(service: Service) -> str:
    return f"{service.name}.{service.namespace}"


def _start_ns(created_ns: int | None) -> int:
    return OPEN_START_NS if created_ns is None else created_ns
