"""Queries that nothing else ends: the engine is, and goes on with nothing lost or counted twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from comparison import Values, differences, read_views
from recording import collect, recorded, wait_until
from serving import BOOKINFO, Serving, part_of_bookinfo

from framewalk.engine import Store, read_entities, replay
from framewalk.engine.oal.plan import Plan

DUMP = BOOKINFO / "kubectl.yaml"
PART = part_of_bookinfo()
MESSAGES = sum(map(len, recorded(PART)))
LONG_S = 600
# One value: DuckDB looks for an interrupt between values only.
ENDLESS = "SELECT jaro_similarity(repeat('a', 2_000_000), repeat('b', 2_000_000)) AS x"
LARGE = "SELECT list_sum(range(1_000_000_000)) AS x"
LARGE_BYTES = 16_000_000_000
LINE = "a query ends the engine, it is started again at once"

Serve = Callable[..., Serving]


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as servers:

        def start(**environment: str) -> Serving:
            server = Serving(tmp_path, "--entities", DUMP, **environment)
            servers.enter_context(server)
            wait_until(lambda: server.find("engine ready"), LONG_S)
            return server

        yield start


def ask(server: Serving, query: str, **bounds: float) -> httpx.Response | None:
    """Ask a server; None where it breaks off, or does not listen just now."""
    url = f"http://127.0.0.1:{server.environment['FRAMEWALK_SQL_LISTEN_PORT']}/sql"
    try:
        return httpx.post(url, json={"query": query, **bounds}, timeout=LONG_S)
    except httpx.TransportError:
        return None


def answered(server: Serving, query: str) -> httpx.Response:
    answers: list[httpx.Response] = []

    def comes() -> bool:
        answer = ask(server, query)
        answers.extend([] if answer is None else [answer])
        return answer is not None

    wait_until(comes, LONG_S)
    return answers[-1]


def is_refused(answer: httpx.Response) -> bool:
    return answer.status_code == 400 and "had to be ended for this query" in answer.text


@pytest.mark.parametrize(
    ("query", "memory_bytes", "why"),
    [(ENDLESS, LARGE_BYTES, "does not end"), (LARGE, 900_000_000, "took too much memory")],
    ids=["endless", "large"],
)
def test_a_query_that_nothing_ends_ends_the_engine_and_is_refused(
    serve: Serve, plan: Plan, query: str, memory_bytes: int, why: str
) -> None:
    server = serve(FRAMEWALK_ENGINE_MEMORY_BYTES=str(memory_bytes))
    # On a slow machine a large one needs its time to grow.
    timeout_s = 1 if query == ENDLESS else LONG_S
    streams = recorded(PART)
    sent = threading.Event()

    def send() -> None:
        for stream in streams[: len(streams) // 2]:
            collect(server.address, stream)
        while not sent.wait(0.05) and not server.find(LINE):
            pass
        # Each is acknowledged while there is no engine, too.
        for stream in streams[len(streams) // 2 :]:
            collect(server.address, stream)

    with ThreadPoolExecutor(2) as threads:
        sending = threads.submit(send)
        asked = threads.submit(ask, server, query, timeout_s=timeout_s)
        try:
            wait_until(lambda: server.find(LINE), LONG_S)
            assert server.find(LINE)["why"] == why
        finally:
            sent.set()
        sending.result()
        answer = asked.result()
    # Who waits is told in words, or by the end of the connection.
    assert answer is None or answer.status_code == 408
    assert is_refused(answered(server, query))
    assert is_refused(answered(server, f"  {query.replace(' AS ', '  as ')}\n"))
    assert answered(server, "SELECT 1 AS one").json()["rows"] == [{"one": 1}]
    assert server.find("engine died, it is started again") == {}
    wait_until(server.has_stored_all, LONG_S)
    assert server.metrics()["k8s_als_in_count"] == MESSAGES
    assert server.stop() == 0
    assert differences(stored(server, plan), replayed(plan)) == []


def stored(server: Serving, plan: Plan) -> Values:
    with Store(server.store, plan) as store:
        return read_views(store)


def replayed(plan: Plan) -> Values:
    with Store(":memory:", plan) as store:
        replay([PART], read_entities(DUMP), store)
        return read_views(store)


def test_what_runs_beside_it_is_not_refused(serve: Serve) -> None:
    server = serve()
    with ThreadPoolExecutor(2) as threads:
        asked = threads.submit(ask, server, ENDLESS, timeout_s=1)
        beside = "SELECT count(*) AS n FROM range(1_000_000_000_000) AS t(i) WHERE i % 7 = 3"
        other = threads.submit(ask, server, beside, timeout_s=LONG_S)
        wait_until(lambda: server.find(LINE), LONG_S)
        asked.result()
        other.result()
    answer = answered(server, "SELECT count(*) AS n FROM service_minute")
    assert answer.status_code == 200
    late = None
    while late is None:
        late = ask(server, beside, timeout_s=0.2)
    assert late.status_code == 408
    assert is_refused(answered(server, ENDLESS))
