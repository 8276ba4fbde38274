"""Where the SQL endpoint listens, whom it answers, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from pathlib import Path


class Watcher(Protocol):
    """Whoever can end the process that queries run in; called from several threads."""

    def began(self, name: str) -> None:
        """A statement is about to run."""
        ...

    def ended(self, name: str) -> None:
        """It has ended, in whatever way."""
        ...

    def outlived(self, name: str) -> None:
        """It goes on though it was interrupted seconds ago."""
        ...


@dataclass(frozen=True, slots=True)
class SqlOptions:
    """What an SQL endpoint is made of. A request may ask for fewer rows and less time.

    `ssl_context` turns TLS on; `certificate` is its PEM file, by which clients on this machine
    know the server; `metrics_url` is where the server says how it is. `memory_bytes` is what the
    sorts and tables of one query may take before they go to disk. A request that is not whole after
    `patience_s`, and an answer of which nothing is read for as long, cost their connection.
    `watcher` is told of statements by what `asked` returns, and `refused_s` are the digests and
    peers that are refused, for so many seconds.
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
    watcher: Watcher | None = None
    refused_s: Mapping[str, float] = field(default_factory=dict)
    patience_s: float = 20
