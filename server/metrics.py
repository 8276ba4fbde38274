"""Where a process serves its own metrics."""

from __future__ import annotations

import logging
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import make_asgi_app

from framewalk.engine.errors import InputError
from framewalk.engine.telling import tell
from framewalk.queries.plain_http import Http1Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

    from framewalk.server.config import Telemetry as TelemetryBlock


@contextmanager
def metrics_served(block: TelemetryBlock | None, registry: CollectorRegistry) -> Iterator[None]:
    """Serve what a registry has until the end of the block. Raises InputError without its port."""
    if block is None:
        yield
        return
    try:
        family = socket.getaddrinfo(block.host, block.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((block.host, block.port), family=family)
    except OSError as error:
        # What Python adds to the system's words says the address again.
        reason = (error.strerror or str(error)).lower().partition(" (while ")[0]
        place = f"{block.host}:{block.port}"
        remedy = "name another port in SW_TELEMETRY_PROMETHEUS_PORT"
        raise InputError(place, f"metrics: {reason}", remedy) from error
    server = Http1Server(make_asgi_app(registry), listener)
    server.start()
    tell(logging.INFO, "metrics served", host=block.host, port=block.port)
    try:
        yield
    finally:
        server.stop()
