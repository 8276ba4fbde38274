"""The one spelling of an IP address."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import polars as pl

# What the usual spelling of an IPv4 address does not have.
_UNUSUAL: Final = r"[^0-9.]|(?:^|\.)0[0-9]"


def canonical_ip(text: str) -> str:
    """Write an IP address in its canonical form, an IPv4 address mapped into IPv6 as IPv4.

    Numbers with leading zeros are decimal, as Kubernetes reads them. A zone (`%eth0`), and the
    brackets of `[fd00::1]`, are no part of the address. Raises ValueError where `text` is not an
    IP address.
    """
    plain = text.strip().removeprefix("[").removesuffix("]").partition("%")[0]
    head, colon, tail = plain.rpartition(":")
    address = ipaddress.ip_address(f"{head}{colon}{_decimal(tail) if '.' in tail else tail}")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def canonical_ips(ips: pl.Series) -> pl.Series:
    """Put each distinct address into its one form; what is no address stays as it is."""
    spelt = ips.filter(ips.str.contains(_UNUSUAL)).unique().to_list()
    if not spelt:
        return ips
    return ips.replace({text: _canonical_or_same(text) for text in spelt})


def _decimal(dotted: str) -> str:
    return ".".join(part.lstrip("0") or part[:1] for part in dotted.split("."))


def _canonical_or_same(text: str) -> str:
    try:
        return canonical_ip(text)
    except ValueError:
        return text
