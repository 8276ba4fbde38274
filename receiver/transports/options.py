"""How a gRPC server is to be opened."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network  # noqa: TC003 - as Path
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a TLS server, PEM; with `trusted_ca_path` clients must have a certificate."""

    key_path: Path
    certificate_chain_path: Path
    trusted_ca_path: Path | None


@dataclass(frozen=True, slots=True)
class GrpcServer:
    """A gRPC server as it is to be opened: plain text if `tls` is None, no limit if one is.

    Each connection of one of the `trusted_proxies` is a peer of its own. A connection that does not
    go on is given up after `patience_s`.
    """

    host: str
    port: int
    tls: Tls | None
    max_message_bytes: int
    max_calls_per_connection: int | None
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    max_connections: int = 2048
    max_connections_per_peer: int = 128
    patience_s: float = 20
