"""Whose share a connection counts in: that of its address, or its own behind a proxy."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Peers:
    """Names peers; behind each of the `trusted_proxies` there are many."""

    trusted_proxies: Sequence[Network] = ()

    def name(self, host: str, port: int) -> str:
        """Return the peer's name: the address, with the port where it is a trusted proxy's."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return host
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if any(address in network for network in self.trusted_proxies):
            return f"{address}:{port}"
        return str(address)
