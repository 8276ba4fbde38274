"""Where a query protocol listens, whom it answers, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """What the endpoint of a protocol is made of.

    Beside addresses and the names of this machine it answers to `host_names`, in lower case; and
    web pages of its own names if it `answers_pages`. `ssl_context` turns TLS on. `memory_bytes` is
    what the sorts and tables of one query may take before they go to disk. A request that is not
    whole after `patience_s`, and an answer of which nothing is read for as long, cost their
    connection. `watcher` is told of statements by what `asked` returns, and `refused_s` are the
    digests and peers that are refused, for so many seconds.
    """

    host: str
    port: int
    token: str | None = field(repr=False)
    ssl_context: ssl.SSLContext | None
    timeout_s: float
    host_names: tuple[str, ...] = ()
    answers_pages: bool = False
    concurrent_queries: int = 4
    waiting_queries: int = 16
    memory_bytes: int = 1 << 29
    watcher: Watcher | None = None
    refused_s: Mapping[str, float] = field(default_factory=dict)
    patience_s: float = 20
