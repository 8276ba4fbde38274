"""A store that is served in GraphQL, and ways to ask it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import duckdb
import httpx
from waiting import DEADLINE_S

from framewalk.queries import graphql
from framewalk.queries.reading import secure
from framewalk.queries.serving import Endpoint, ProtocolServer, Serving

OPTIONS = graphql.GraphqlOptions(
    host="127.0.0.1",
    port=0,
    token=None,
    ssl_context=None,
    timeout_s=DEADLINE_S,
    answers_pages=True,
    patience_s=DEADLINE_S,
)


class Asked:
    """A served store."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:  # noqa: ANN401
        """Send a request as it is."""
        # To make one for each request would load what httpx trusts.
        with httpx.Client(timeout=DEADLINE_S, verify=False) as client:  # noqa: S501 - no TLS
            return client.request(method, self.url + path, content=body, headers=headers)

    def ask(self, query: str, status: int = 200, **variables: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask a document, and return the whole answer."""
        with httpx.Client(timeout=DEADLINE_S, verify=False) as client:  # noqa: S501 - as above
            content = {"query": query, "variables": variables}
            answer = client.post(f"{self.url}/graphql", json=content)
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def data(self, query: str, **variables: Any) -> dict[str, Any]:  # noqa: ANN401
        """Ask a document that is answered without errors, and return the data."""
        answer = self.ask(query, **variables)
        assert "errors" not in answer, answer
        found: dict[str, Any] = answer["data"]
        return found


@contextmanager
def served(
    connection: duckdb.DuckDBPyConnection,
    shown_port: int = 0,
    **options: Any,  # noqa: ANN401
) -> Iterator[Asked]:
    """Serve a store at a free port; what tells its port tells `shown_port`."""
    secure(connection)
    used = replace(OPTIONS, **options)
    serving = Serving(connection, used)
    shown = replace(used, port=shown_port)
    server = ProtocolServer([Endpoint("GraphQL", serving, graphql.routes(serving, shown))])
    server.start()
    try:
        yield Asked(server.endpoints[0].port)
    finally:
        server.stop()
