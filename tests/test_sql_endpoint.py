"""The SQL endpoint of a server: its answers, whom it gives them, its limits, writers beside it."""

from __future__ import annotations

import json
import re
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow as pa
import pytest
from sql_serving import (
    ARROW,
    ENDLESS,
    NO_TLS,
    ONE_AT_A_TIME,
    OPTIONS,
    ask,
    error_of,
    is_busy,
    replay_into,
    rows,
    serving,
    url,
)
from waiting import DEADLINE_S, wait_until

from framewalk.engine import Store
from framewalk.engine.errors import InputError
from framewalk.engine.oal.plan import Plan, make_plan
from framewalk.queries.sql_endpoint.client import SqlClient
from framewalk.queries.sql_endpoint.server import SqlServer, secure


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("endpoint") / "metrics.duckdb"


@pytest.fixture(scope="module")
def store(path: Path, plan: Plan) -> Iterator[Store]:
    """A store that is open for writing, as an engine has it; with few metrics it is soon made."""
    with Store(path, make_plan(plan.metrics[::12])) as store:
        replay_into(store, "bookinfo")
        secure(store.connection)
        yield store


@pytest.fixture(scope="module")
def server(store: Store, path: Path) -> Iterator[SqlServer]:
    with serving(store.connection, path) as server:
        yield server


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A database of two tables that always grow together, and a view."""
    path = tmp_path / "small.duckdb"
    with duckdb.connect(str(path)) as connection:
        for table in ("ones", "others"):
            connection.execute(f"CREATE TABLE {table} AS FROM range(200_000) AS t(i)").fetchall()
        connection.execute("CREATE VIEW pairs AS FROM ones JOIN others USING (i)").fetchall()
        secure(connection)
        yield connection, path


# Answers


def test_json_values(server: SqlServer) -> None:
    query = """SELECT 9223372036854775807 AS big, sum(170141183460469231731687303715884105727)
        OVER () AS huge, TIMESTAMP '2026-01-02 03:04:05' AS at, DATE '2026-01-02' AS day,
        {'a': 1, 'b': [1.5, NULL]} AS struct, MAP {1: 'x'} AS map, 'NaN'::DOUBLE AS nan,
        'é"' AS text, NULL AS nothing, 1 AS big"""
    (row,) = rows(server, query)
    assert row == {
        "big": 9223372036854775807,
        "huge": 170141183460469231731687303715884105727,
        "at": "2026-01-02T03:04:05",
        "day": "2026-01-02",
        "struct": {"a": 1, "b": [1.5, None]},
        "map": {"1": "x"},
        "nan": None,
        "text": 'é"',
        "nothing": None,
        "big_1": 1,
    }


def test_columns_have_names_and_types(server: SqlServer) -> None:
    answer = ask(server, "SELECT 1 AS a, [now()] AS b WHERE false").json()
    types = [("a", "INTEGER"), ("b", "TIMESTAMP WITH TIME ZONE[]")]
    assert answer == {
        "columns": [{"name": name, "type": kind} for name, kind in types],
        "rows": [],
        "truncated": False,
    }


@pytest.mark.parametrize("max_rows", [0, 1, 499, 500, 501, 9_999, 10_000, 10_001])
def test_rows_beyond_the_limit_are_left_out(server: SqlServer, max_rows: int) -> None:
    for there in (max_rows, max_rows + 1):
        query = f"FROM range({there})"
        answer = ask(server, query, max_rows=max_rows).json()
        assert answer["rows"] == [{"range": i} for i in range(max_rows)]
        assert answer["truncated"] is (there > max_rows)
        content = {"query": query, "max_rows": max_rows}
        response = httpx.post(
            f"{url(server)}/sql",
            json=content,
            headers={"Accept": ARROW},
            timeout=DEADLINE_S,
            verify=NO_TLS,
        )
        table, end = read_arrow(response.content)
        assert table["range"].to_pylist() == list(range(max_rows))
        assert end == {"truncated": there > max_rows}


def read_arrow(content: bytes) -> tuple[pa.Table, dict[str, Any]]:
    reader = pa.ipc.open_stream(content)
    batches, metadata = [], None
    with suppress(StopIteration):
        while True:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
            batches.append(batch)
    assert metadata is not None
    return pa.Table.from_batches(batches), json.loads(metadata[b"framewalk"])


def test_arrow_has_the_types_of_duckdb(server: SqlServer) -> None:
    content = {"query": "SELECT sum(1) AS a, 'x' AS b"}
    response = httpx.post(
        f"{url(server)}/sql",
        json=content,
        headers={"Accept": ARROW},
        timeout=DEADLINE_S,
        verify=NO_TLS,
    )
    assert response.headers["content-type"] == ARROW
    table, _ = read_arrow(response.content)
    types = [field.metadata[b"duckdb_type"] for field in table.schema]
    assert types == [b"HUGEINT", b"VARCHAR"]


def test_every_type(server: SqlServer) -> None:
    described = duckdb.sql("DESCRIBE FROM test_all_types()").fetchall()
    client = SqlClient(url(server), None)
    for name, *_ in described:
        query = f'SELECT "{name}" FROM test_all_types()'
        assert len(rows(server, query)) == 3
        if name in {"bit", "time_tz", "uhugeint"}:
            with pytest.raises(InputError, match="Arrow"):
                client.ask(query)
        elif name != "tuple":
            assert repr(client.ask(query).rows) == repr(duckdb.sql(query).fetchall())


def test_no_request_gets_more_than_the_server_gives(store: Store, path: Path) -> None:
    with serving(store.connection, path, replace(OPTIONS, max_rows=5)) as server:
        answer = ask(server, "FROM range(9)", max_rows=100).json()
        assert (len(answer["rows"]), answer["truncated"]) == (5, True)
    with serving(store.connection, path, replace(OPTIONS, timeout_s=0.3)) as server:
        error = error_of(ask(server, ENDLESS, timeout_s=100), 408)
    assert error.startswith("the query took longer than 0.3 seconds; ")


@pytest.mark.parametrize("form", ["application/json", ARROW])
def test_an_answer_that_breaks_off_says_so(server: SqlServer, form: str) -> None:
    # Rows come long before the one that fails.
    query = (
        "SELECT if(i = 30_000, error('of the query'), repeat('x', 1_000)) AS text "
        "FROM range(31_000) AS t(i)"
    )
    content = {"query": query}
    came = bytearray()

    def receive() -> None:
        headers = {"Accept": form}
        with httpx.stream(
            "POST",
            f"{url(server)}/sql",
            json=content,
            headers=headers,
            timeout=DEADLINE_S,
            verify=NO_TLS,
        ) as response:
            assert response.status_code == 200
            for chunk in response.iter_raw():
                came.extend(chunk)

    with pytest.raises(httpx.RemoteProtocolError):
        receive()
    assert b"of the query" in came[-1000:]
    assert len(came) > 1_000_000


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        (b"FROM metrics", {"Content-Type": "text/plain; charset=utf-8"}, 200, "rows"),
        (b"FROM metrics", {}, 415, "Content-Type"),
        (b"query=1", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "x-www-form"),
        (b"{", {"Content-Type": "application/json"}, 400, "json"),
        (b'{"query": 1}', {"Content-Type": "application/json"}, 400, "query"),
        (b'{"query": "FROM a", "row": 1}', {"Content-Type": "application/json"}, 400, "row"),
        (b'{"query": "FROM a", "max_rows": -1}', {"Content-Type": "application/json"}, 400, "max"),
        (b'{"query": "FROM a", "timeout_s": 0}', {"Content-Type": "application/json"}, 400, "time"),
        (b"\xff", {"Content-Type": "text/plain"}, 400, "UTF-8"),
        (b"x" * 300_000, {"Content-Type": "text/plain"}, 413, "longer"),
    ],
)
def test_requests(
    server: SqlServer, content: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    response = httpx.post(
        f"{url(server)}/sql", content=content, headers=headers, timeout=DEADLINE_S, verify=NO_TLS
    )
    assert response.status_code == status
    assert words in response.text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("it's; DROP TABLE x --", "it's; DROP TABLE x --"),
        ("$other", "$other"),
        (7, 7),
        (-2.5, -2.5),
        (True, True),
        (None, None),
    ],
)
def test_parameters_are_values(server: SqlServer, value: object, expected: object) -> None:
    query = "SELECT $a AS a, '$a' AS text, $other AS other"
    answer = ask(server, query, parameters={"a": value, "other": 1})
    assert answer.json()["rows"] == [{"a": expected, "text": "$a", "other": 1}]


@pytest.mark.parametrize(
    ("query", "parameters", "status", "words"),
    [
        ("SELECT $a", {}, 400, "the query asks for $a; give it in parameters"),
        ("SELECT 1", {"a": 1}, 400, "the query has no $a; leave it out of parameters"),
        ("SELECT $a", {"a": [1]}, 400, "parameters.a"),
        ("SELECT " + ", ".join(["$a"] * 5_000), {"a": "x" * 1_000}, 413, "too long"),
        ("FROM $a", {"a": "/etc/passwd"}, 400, "error"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    server: SqlServer, query: str, parameters: dict[str, object], status: int, words: str
) -> None:
    answer = ask(server, query, parameters=parameters)
    assert (answer.status_code, words in answer.text) == (status, True), answer.text


def test_a_query_in_the_address(server: SqlServer) -> None:
    asked = {"query": "FROM range(9)", "max_rows": "2"}
    answer = httpx.get(f"{url(server)}/sql", params=asked, timeout=DEADLINE_S, verify=NO_TLS).json()
    assert (len(answer["rows"]), answer["truncated"]) == (2, True)
    about = httpx.get(url(server), timeout=DEADLINE_S, verify=NO_TLS)
    assert "POST a query to /sql" in about.text


# Whom it answers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic secret"}, 401),
        ({"authentication": "wrong"}, 401),
        ({"Authorization": "Bearer é".encode()}, 401),  # type: ignore[dict-item]
        ({"Authorization": "bearer secret"}, 200),
        ({"authentication": "secret"}, 200),
        ({"authentication": "secret", "Host": "metrics.example"}, 200),
        ({"authentication": "secret", "Origin": "http://127.0.0.1"}, 403),
    ],
)
def test_token(store: Store, path: Path, headers: dict[str, str], status: int) -> None:
    with serving(store.connection, path, replace(OPTIONS, token="secret")) as server:  # noqa: S106
        for place in ("/sql?query=FROM metrics", "/snapshot"):
            assert (
                httpx.get(
                    f"{url(server)}{place}", headers=headers, timeout=DEADLINE_S, verify=NO_TLS
                ).status_code
                == status
            )
        assert httpx.get(url(server), timeout=DEADLINE_S, verify=NO_TLS).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:80"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "[::1"}, 421),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:1"}, 200),
        ({"Host": "10.1.2.3"}, 200),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": "http://page.example:9", "Host": "page.example:9"}, 421),
        ({"Origin": "http://127.0.0.1:9", "Host": "127.0.0.1:9"}, 200),
        (
            {
                "Origin": "http://127.0.0.1:9",
                "Host": "127.0.0.1:9",
                "Sec-Fetch-Site": "same-origin",
            },
            200,
        ),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
def test_web_pages_are_not_answered(
    server: SqlServer, headers: dict[str, str], status: int
) -> None:
    for place in ("/", "/sql?query=FROM metrics", "/snapshot"):
        response = httpx.get(
            f"{url(server)}{place}", headers=headers, timeout=DEADLINE_S, verify=NO_TLS
        )
        assert response.status_code == status
        assert "access-control-allow-origin" not in response.headers


def test_tls(store: Store, path: Path, certificate: tuple[Path, Path]) -> None:
    key, chain = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    trust = ssl.create_default_context(cafile=chain)
    with serving(store.connection, path, replace(OPTIONS, ssl_context=context)) as server:
        place = f"{url(server, 'https')}/sql?query=FROM metrics"
        assert httpx.get(place, timeout=DEADLINE_S, verify=trust).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(place, timeout=DEADLINE_S)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem"
    names = ["-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1", "-out", "chain.pem"]
    command = ["openssl", *arguments.split(), *names]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "key.pem", folder / "chain.pem"


# Limits


@contextmanager
def asking(server: SqlServer, query: str) -> Iterator[None]:
    """Ask for something endless, until the client leaves."""
    body = query.encode()
    head = f"POST /sql HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"{head}Content-Type: text/plain\r\n\r\n".encode() + body)
        wait_until(lambda: is_busy(server))
        yield


def ask_until_there_is_a_place(server: SqlServer, query: str) -> httpx.Response:
    while (answer := ask(server, query)).status_code == 503:
        pass
    return answer


def test_more_queries_than_may_wait(store: Store, path: Path) -> None:
    late = "other queries took all the time that this one had; "
    full = "as many queries wait as this server lets; "
    with (
        serving(store.connection, path, ONE_AT_A_TIME) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        with asking(server, ENDLESS):
            assert error_of(ask(server, "SELECT 1", timeout_s=0.1), 503).startswith(late)
            waiting = threads.submit(ask_until_there_is_a_place, server, "SELECT 1 AS one")
            wait_until(lambda: full in ask(server, "SELECT 1", timeout_s=0.1).text)
            # Who finds no place does not wait, whatever time it has.
            assert error_of(ask(server, "SELECT 1"), 503).startswith(full)
            assert not waiting.done()
        assert waiting.result().json()["rows"] == [{"one": 1}]


def test_a_client_that_leaves_cancels_its_query(store: Store, path: Path) -> None:
    # What a socket holds must not be all of the answer: then nobody would be busy with it.
    options = replace(ONE_AT_A_TIME, max_rows=1_000_000_000)
    with serving(store.connection, path, options) as server:
        for query in (ENDLESS, "FROM range(1_000_000_000_000)"):
            with asking(server, query):
                pass
            wait_until(lambda: not is_busy(server))


def test_a_stop_cancels_what_runs(store: Store, path: Path) -> None:
    server = SqlServer(store.connection, path, ONE_AT_A_TIME)
    server.start()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(ask, server, ENDLESS)
        wait_until(lambda: is_busy(server))
        started_s = time.monotonic()
        server.stop()
        assert time.monotonic() - started_s < ONE_AT_A_TIME.timeout_s / 2
        assert answer.exception() or answer.result().status_code == 503


def test_large_sorts_go_to_disk(tmp_path: Path) -> None:
    path = tmp_path / "small.duckdb"
    with duckdb.connect(str(path)) as connection:
        secure(connection)
        distinct = "SELECT DISTINCT md5(i::VARCHAR) FROM range(2_000_000) AS t(i)"
        query = f"SELECT count(*) AS n FROM ({distinct})"
        with serving(connection, path, replace(OPTIONS, memory_bytes=30_000_000)) as server:
            assert rows(server, query) == [{"n": 2_000_000}]


def test_a_port_in_use(server: SqlServer, store: Store, path: Path) -> None:
    taken = SqlServer(store.connection, path, replace(OPTIONS, port=server.port))
    with pytest.raises(InputError, match=rf"^127\.0\.0\.1:{server.port}: cannot be listened on"):
        taken.start()


# Beside a writer


@contextmanager
def writing(connection: duckdb.DuckDBPyConnection) -> Iterator[list[int]]:
    """Commit rows to both tables, again and again; gives the number of commits in a list."""
    stopped = threading.Event()
    commits = [0]
    frame = pa.table({"i": range(1_000)})

    def write() -> None:
        while not stopped.wait(0.002):
            connection.execute("BEGIN").fetchall()
            for table in ("ones", "others"):
                connection.register("inserted", frame)
                connection.execute(f"INSERT INTO {table} FROM inserted").fetchall()
                connection.unregister("inserted")
            connection.execute("COMMIT").fetchall()
            commits[0] += 1
            if commits[0] % 20 == 0:
                connection.execute("CHECKPOINT").fetchall()

    with ThreadPoolExecutor(1) as thread:
        writer = thread.submit(write)
        try:
            yield commits
        finally:
            stopped.set()
        writer.result()


def test_queries_see_whole_commits(small: tuple[duckdb.DuckDBPyConnection, Path]) -> None:
    connection, path = small
    query = "SELECT (SELECT count(*) FROM ones) AS a, (SELECT count(*) FROM others) AS b"
    with serving(connection, path) as server, writing(connection) as commits:
        wait_until(lambda: commits[0] > 0)
        seen: list[int] = []

        def has_seen_many() -> bool:
            (row,) = rows(server, query)
            assert row["a"] == row["b"]
            assert (row["a"] - 200_000) % 1_000 == 0
            seen.append(row["a"])
            return len(set(seen)) > 10

        wait_until(has_seen_many)
    assert seen == sorted(seen)


def test_a_snapshot_is_one_commit(
    small: tuple[duckdb.DuckDBPyConnection, Path], tmp_path: Path
) -> None:
    connection, path = small
    sizes = []
    with serving(connection, path) as server, writing(connection) as commits:
        for number in range(3):
            before = commits[0]
            response = httpx.get(f"{url(server)}/snapshot", timeout=DEADLINE_S, verify=NO_TLS)
            assert response.status_code == 200
            assert commits[0] > before
            copy = tmp_path / f"copy{number}.duckdb"
            copy.write_bytes(response.content)
            with duckdb.connect(str(copy), read_only=True) as opened:
                query = "SELECT (SELECT count(*) FROM ones), (SELECT count(*) FROM others)"
                ((ones, others),) = opened.execute(query).fetchall()
                assert opened.execute("SELECT count(*) FROM pairs").fetchall()[0][0] >= ones
            assert ones == others
            sizes.append((ones - 200_000) / 1_000)
    assert sizes == sorted(sizes)
    assert all(size.is_integer() for size in sizes)
    assert not list(path.parent.glob("*.snapshot"))


def test_a_snapshot_has_all_that_the_store_has(
    server: SqlServer, store: Store, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.duckdb"
    copy.write_bytes(
        httpx.get(f"{url(server)}/snapshot", timeout=DEADLINE_S, verify=NO_TLS).content
    )
    views = (
        "SELECT view_name, comment FROM duckdb_views() "
        "WHERE NOT internal AND schema_name = 'main' ORDER BY ALL"
    )
    queries = [f"FROM {name} ORDER BY ALL" for name in ("metrics", "entities", "service_minute")]
    with duckdb.connect(str(copy), read_only=True) as opened:
        for query in (views, *queries):
            assert opened.execute(query).fetchall() == store.query(query).fetchall()
        # DuckDB writes the text of a view in an order of its own.
        for name, _ in store.query(views).fetchall():
            columns = f"DESCRIBE {name}"
            assert opened.execute(columns).fetchall() == store.query(columns).fetchall()


def test_one_snapshot_at_a_time(small: tuple[duckdb.DuckDBPyConnection, Path]) -> None:
    connection, path = small
    with serving(connection, path) as server:
        place = f"{url(server)}/snapshot"
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: httpx.get(place, timeout=DEADLINE_S), range(4)))
        statuses = {answer.status_code for answer in answers}
        assert 200 in statuses
        assert statuses <= {200, 503}
        wait_until(lambda: httpx.get(place, timeout=DEADLINE_S, verify=NO_TLS).status_code == 200)


def test_a_client_that_leaves_a_snapshot_leaves_no_file(
    small: tuple[duckdb.DuckDBPyConnection, Path],
) -> None:
    connection, path = small
    folder = path.with_name("small.duckdb.snapshot")
    with serving(connection, path) as server:
        request = b"GET /snapshot HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request)
            wait_until(folder.exists)
        place = f"{url(server)}/snapshot"
        wait_until(lambda: httpx.get(place, timeout=DEADLINE_S, verify=NO_TLS).status_code == 200)
        assert not list(folder.glob("*"))
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


# The file beside the store


def test_the_file_of_the_server(small: tuple[duckdb.DuckDBPyConnection, Path]) -> None:
    connection, path = small
    file = path.with_name("small.duckdb.server.json")
    with serving(connection, path, replace(OPTIONS, token="secret")) as server:  # noqa: S106
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        content = file.read_text(encoding="utf-8")
        assert "secret" not in content
        told = json.loads(content)
        assert (told["url"], told["token"]) == (url(server), True)
        assert re.fullmatch("[0-9a-f]{32}", told["instance"])
    assert not file.exists()
