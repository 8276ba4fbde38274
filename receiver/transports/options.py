"""How a gRPC server is to be opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a TLS server, PEM; with `trusted_ca_path` clients must have a certificate."""

    key_path: Path
    certificate_chain_path: Path
    trusted_ca_path: Path | None


@dataclass(frozen=True, slots=True)
class GrpcServer:
    """A gRPC server as it is to be opened: plain text if `tls` is None, no limit if one is."""

    host: str
    port: int
    tls: Tls | None
    max_message_bytes: int
    max_calls_per_connection: int | None
