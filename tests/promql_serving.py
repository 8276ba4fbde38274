"""A store that is served to Grafana, and ways to ask it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import duckdb
import httpx
from sql_serving import NO_TLS
from waiting import DEADLINE_S

from framewalk.queries.promql import routes
from framewalk.queries.reading import secure
from framewalk.queries.serving import Endpoint, ProtocolServer, Serving, ServingOptions

OPTIONS = ServingOptions(
    host="127.0.0.1", port=0, token=None, ssl_context=None, timeout_s=DEADLINE_S
)

# Whatever an answer holds.
Json: TypeAlias = Any
Parameters: TypeAlias = Mapping[str, str | Sequence[str]]


class Asked:
    """A served store, and a client of it."""

    def __init__(self, port: int, client: httpx.Client) -> None:
        self.port = port
        self._client = client

    def get(self, path: str, parameters: Parameters | None = None) -> httpx.Response:
        return self._client.get(path, params=_pairs(parameters or {}))

    def post(self, path: str, form: Parameters | None = None) -> httpx.Response:
        return self._client.post(path, data=form or {})

    def send(self, method: str, path: str, **given: Json) -> httpx.Response:
        return self._client.request(method, path, **given)

    def data(self, path: str, **parameters: str | Sequence[str]) -> Json:
        """Return the data of an answer that is none of an error."""
        response = self.get(f"/api/v1/{path}", _named(parameters))
        assert response.status_code == 200, response.text
        return response.json()["data"]

    def error(self, path: str, **parameters: str | Sequence[str]) -> tuple[int, str, str]:
        """Return status, kind and text of an error."""
        response = self.get(f"/api/v1/{path}", _named(parameters))
        content = response.json()
        assert content["status"] == "error", response.text
        return response.status_code, content["errorType"], content["error"]


def _named(parameters: Parameters) -> Parameters:
    return {("match[]" if name == "match" else name): one for name, one in parameters.items()}


def _pairs(parameters: Parameters) -> list[tuple[str, str]]:
    return [
        (name, one)
        for name, values in parameters.items()
        for one in ([values] if isinstance(values, str) else values)
    ]


@contextmanager
def asked(
    connection: duckdb.DuckDBPyConnection, options: ServingOptions = OPTIONS
) -> Iterator[Asked]:
    """Serve a store until the end of the block."""
    secure(connection)
    serving = Serving(connection, options)
    endpoint = Endpoint("PromQL", serving, routes(serving))
    server = ProtocolServer([endpoint])
    server.start()
    url = f"http://127.0.0.1:{endpoint.port}"
    try:
        with httpx.Client(base_url=url, timeout=DEADLINE_S, verify=NO_TLS) as client:
            yield Asked(endpoint.port, client)
    finally:
        server.stop()
