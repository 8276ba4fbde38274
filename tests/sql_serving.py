"""A served store, and ways to ask it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import httpx
from waiting import DEADLINE_S

from framewalk.engine import Store, read_entities, replay
from framewalk.engine.archive import Archive
from framewalk.engine.captures.format import find_captures
from framewalk.queries.sql_endpoint.server import SqlOptions, SqlServer

CAPTURES = Path(__file__).parent.parent / "fixtures" / "captures"
ARROW = "application/vnd.apache.arrow.stream"
OPTIONS = SqlOptions(
    host="127.0.0.1", port=0, token=None, ssl_context=None, max_rows=100_000, timeout_s=DEADLINE_S
)
ONE_AT_A_TIME = replace(OPTIONS, concurrent_queries=1, waiting_queries=1, timeout_s=1_000)
# Made once, as httpx would load all authorities for each request.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ENDLESS = "SELECT count(*) FROM range(1_000_000_000_000) AS t(i) WHERE i % 7 = 3"


def replay_into(store: Store, name: str, archive: Archive | None = None) -> None:
    folder = CAPTURES / name
    entities = read_entities(folder / "kubectl.yaml")
    replay(find_captures([folder]), entities, store, archive=archive)


@contextmanager
def serving(
    connection: duckdb.DuckDBPyConnection, path: Path, options: SqlOptions = OPTIONS
) -> Iterator[SqlServer]:
    server = SqlServer(connection, path, options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def url(server: SqlServer, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.port}"


def ask(server: SqlServer, query: str, **more: object) -> httpx.Response:
    content = {"query": query, **more}
    return httpx.post(f"{url(server)}/sql", json=content, timeout=DEADLINE_S, verify=NO_TLS)


def rows(server: SqlServer, query: str) -> list[dict[str, Any]]:
    response = ask(server, query)
    assert response.status_code == 200, response.text
    return list(response.json()["rows"])


def error_of(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    error = str(response.json()["error"])
    assert error.count("\n") == 0
    assert "; " in error
    return error


def is_busy(server: SqlServer) -> bool:
    """Tell whether somebody has the only slot; whoever comes meanwhile may wait."""
    return ask(server, "SELECT 1", timeout_s=0.2).status_code == 503
