"""Where the SQL endpoint listens, whom it answers, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class SqlOptions:
    """What an SQL endpoint is made of. A request may ask for fewer rows and less time.

    `ssl_context` turns TLS on; `certificate` is its PEM file, by which clients on this machine
    know the server; `metrics_url` is where the server says how it is. `memory_bytes` is what the
    sorts and tables of one query may take before they go to disk.
    """

    host: str
    port: int
    token: str | None = field(repr=False)
    ssl_context: ssl.SSLContext | None
    max_rows: int
    timeout_s: float
    certificate: Path | None = None
    metrics_url: str | None = None
    concurrent_queries: int = 4
    waiting_queries: int = 16
    max_statement_bytes: int = 1 << 18
    memory_bytes: int = 1 << 29
