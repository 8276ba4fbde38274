"""Whose share a connection counts in: that of its address, or its own behind a proxy.

Who has an IPv6 address has all of its /64, so that is one peer; not where addresses are of a link
or of this machine, which belong to whoever is there.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SITE_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Peers:
    """Names peers; behind each of the `trusted_proxies` there are many."""

    trusted_proxies: Sequence[Network] = ()

    def name(self, host: str, port: int) -> str:
        """Return the peer's name: its address, or the /64 of one of IPv6.

        With the port where it is a trusted proxy's, which is the address itself.
        """
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return host
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if any(address in network for network in self.trusted_proxies):
            return f"{address}:{port}"
        if address.version == 4 or address.is_link_local or address.is_loopback:  # noqa: PLR2004 - of IP
            return str(address)
        return str(ipaddress.ip_network((address, _SITE_BITS), strict=False))
