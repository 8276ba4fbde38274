"""What all query protocols share: who is answered, by which names, and with what."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import duckdb
import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from waiting import DEADLINE_S, wait_until

from framewalk.queries.reading import asked, secure
from framewalk.queries.serving import Endpoint, ProtocolServer, Refusal, Serving, ServingOptions

OPTIONS = ServingOptions(
    host="127.0.0.1",
    port=0,
    token=None,
    ssl_context=None,
    timeout_s=DEADLINE_S,
    host_names=("framewalk.shop",),
    answers_pages=True,
    patience_s=DEADLINE_S,
)
ENDLESS = "SELECT count(*) FROM range(1_000_000_000_000) AS t(i) WHERE i % 7 = 3"


def routes(serving: Serving) -> list[Route]:
    async def answer(request: Request) -> Response:
        text = (await request.body()).decode() or "SELECT 1"
        seconds = float(request.query_params.get("seconds", DEADLINE_S))
        found = await serving.read(
            request, text, lambda cursor: cursor.execute(text).fetchall(), seconds
        )
        return JSONResponse({"rows": found})

    async def fail(_request: Request) -> Response:
        raise Refusal(418, "no", "tea")  # type: ignore[arg-type]

    return [Route("/", answer, methods=["GET", "POST"]), Route("/fail", fail, methods=["GET"])]


@contextmanager
def served(connection: duckdb.DuckDBPyConnection, *options: ServingOptions) -> Iterator[list[str]]:
    endpoints = []
    for number, one in enumerate(options):
        serving = Serving(connection, one)
        endpoints.append(Endpoint(f"protocol {number}", serving, routes(serving)))
    server = ProtocolServer(endpoints)
    server.start()
    try:
        yield [f"http://127.0.0.1:{one.port}/" for one in endpoints]
    finally:
        server.stop()


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    path = tmp_path_factory.mktemp("store") / "some.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE one AS SELECT 1 AS i")
        secure(connection)
        yield connection


@pytest.fixture(scope="module")
def url(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    with served(connection, OPTIONS) as (one,):
        yield one


def ask(url: str, text: str = "SELECT 1", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(url, content=text, headers=named, timeout=DEADLINE_S)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "framewalk.shop:9090"}, 200),
        ({"host": "FRAMEWALK.shop"}, 200),
        ({"host": "framewalk"}, 421),
        ({"host": "10.0.0.1:9090"}, 200),
        # A page under the same address as the answers, behind a proxy that keeps the Host.
        ({"host": "localhost:8080", "origin": "http://localhost:8080"}, 200),
        ({"host": "localhost:8080", "origin": "http://localhost:3000"}, 403),
        ({"host": "10.0.0.1:80", "origin": "http://10.0.0.2"}, 403),
        # Behind one that does not, it is known by its name.
        ({"host": "127.0.0.1:1", "origin": "https://framewalk.shop"}, 200),
        ({"origin": "https://framewalk.shop.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "same-origin", "origin": "http://other"}, 200),
        ({"sec_fetch_site": "cross-site", "origin": "http://evil.example"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        # Whoever lets a name of theirs point here is not one of us, whatever page it is.
        ({"host": "evil.example", "origin": "http://evil.example"}, 421),
    ],
)
def test_who_is_answered_by_which_name(url: str, headers: dict[str, str], status: int) -> None:
    answer = ask(url, **headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ("Bearer secret", 200),
        (basic("anybody", "secret"), 200),
        (basic("secret", "other"), 401),
        ("Basic secret", 401),
        ("Basic !", 401),
        ("", 401),
    ],
)
def test_a_token_is_shown_in_each_way_that_clients_have(
    connection: duckdb.DuckDBPyConnection, shown: str, status: int
) -> None:
    with served(connection, replace(OPTIONS, token="secret")) as (url,):  # noqa: S106
        answer = httpx.get(f"{url}fail", headers={"Authorization": shown}, timeout=DEADLINE_S)
        assert answer.status_code == (418 if status == 200 else status)


@contextmanager
def asking(url: str, text: str) -> Iterator[None]:
    """Have a query under way whose answer nobody has yet."""
    port = httpx.URL(url).port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
        head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(text)}\r\n\r\n"
        client.sendall(f"{head}{text}".encode())
        yield


def test_each_protocol_has_its_port_its_guard_and_its_slots(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    one = replace(OPTIONS, concurrent_queries=1, waiting_queries=0)
    other = replace(one, token="secret")  # noqa: S106
    with served(connection, one, other) as (first, second), asking(first, ENDLESS):
        wait_until(lambda: not is_free(first))
        guarded = f"{second}fail"
        assert httpx.get(guarded, timeout=DEADLINE_S).status_code == 401
        assert ask(second, authentication="secret").status_code == 200


def is_free(url: str) -> bool:
    return ask(f"{url}?seconds=0.2").status_code == 200


def test_who_is_late_is_told_and_gives_the_place_back(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    one = replace(OPTIONS, concurrent_queries=1, waiting_queries=0)
    with served(connection, one) as (url,):
        answer = ask(f"{url}?seconds=0.2", ENDLESS)
        assert answer.status_code == 408
        assert answer.json()["kind"] == "late"
        wait_until(lambda: is_free(url))


def test_whose_client_goes_is_cancelled(connection: duckdb.DuckDBPyConnection) -> None:
    one = replace(OPTIONS, concurrent_queries=1, waiting_queries=0)
    with served(connection, one) as (url,):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, content=ENDLESS, timeout=0.3)
        wait_until(lambda: is_free(url))


def test_nothing_is_written(url: str) -> None:
    answer = ask(url, "INSERT INTO one VALUES (2)")
    assert answer.status_code == 500
    assert ask(url, "FROM one").json() == {"rows": [[1]]}


def test_what_endangered_an_engine_is_refused_in_every_protocol(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    name = asked("SELECT 7", "127.0.0.1").split()[0]
    with served(connection, replace(OPTIONS, refused_s={name: 600.0})) as (url,):
        answer: Any = ask(url, "select  7")
        assert answer.status_code == 400
        assert "had to be ended for this query" in answer.json()["problem"]
        assert ask(url, "SELECT 8").status_code == 200
