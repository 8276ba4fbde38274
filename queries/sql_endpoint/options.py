"""Where the SQL endpoint listens, whom it answers, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from framewalk.queries.serving import ServingOptions

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlOptions(ServingOptions):
    """What an SQL endpoint is made of. A request may ask for fewer rows and less time.

    Where it `is_announced`, a file beside the store tells other commands of it. `certificate` is
    the PEM file of its TLS, by which clients on this machine know the server; `metrics_url` is
    where the server says how it is.
    """

    max_rows: int
    # Its own page asks it.
    answers_pages: bool = True
    certificate: Path | None = None
    metrics_url: str | None = None
    max_statement_bytes: int = 1 << 18
    is_announced: bool = True
