"""Endpoints of query protocols, as processes tell each other of them, and what is wanted of all."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass

from framewalk.receiver.transports import Tls  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from framewalk.queries.serving import Watcher


@dataclass(frozen=True, slots=True)
class SqlEndpoint:
    """The read-only SQL endpoint that the engine process serves.

    `metrics_url` is where the receiving process serves metrics, if it does.
    """

    host: str
    port: int
    token: str | None = field(repr=False)
    tls: Tls | None
    max_rows: int
    timeout_s: float
    metrics_url: str | None = None
    host_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestEndpoint:
    """A query protocol that the engine process serves beside SQL.

    Dashboards that are edited are kept if it `keeps_templates`; others are in `template_paths`.
    """

    host: str
    port: int
    token: str | None = field(repr=False)
    tls: Tls | None
    timeout_s: float
    host_names: tuple[str, ...] = ()
    keeps_templates: bool = False
    template_paths: tuple[Path, ...] = ()
    record_ttl_days: int = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """Which protocols are wanted over a store, None for none, and their bounds.

    Minutes, hours and days of metrics are kept for `ttl_days`. A store that `is_written` has its
    server told in a file beside it, and edited dashboards may be kept there.
    """

    sql: SqlEndpoint | None
    graphql: RestEndpoint | None
    promql: RestEndpoint | None
    ttl_days: tuple[int, int, int]
    archive_folder: Path | None = None
    memory_bytes: int = 1 << 29
    watcher: Watcher | None = None
    refused_s: Mapping[str, float] = field(default_factory=dict)
    is_written: bool = True
