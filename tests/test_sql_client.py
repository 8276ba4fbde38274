"""`framewalk sql` and `framewalk snapshot` beside a running server, and without one.

Every test runs the real command in a process of its own.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from prepared import COMMAND, framewalk
from processes import ending
from sql_serving import (
    ENDLESS,
    ONE_AT_A_TIME,
    OPTIONS,
    is_busy,
    replay_into,
    serving,
    url,
)
from waiting import DEADLINE_S, wait_until

from framewalk.engine import Store
from framewalk.engine.oal.plan import Plan
from framewalk.queries.sql_endpoint.server import SqlServer, secure
from framewalk.queries.sql_endpoint.server_files import ServerFile, server_file, write_server_file

TOKEN = "secret"  # noqa: S105 - of a test


Served = tuple[duckdb.DuckDBPyConnection, Path]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> Path:
    """A store that nobody writes."""
    path = tmp_path_factory.mktemp("client") / "copy.duckdb"
    with Store(path, plan) as store:
        replay_into(store, "bookinfo")
    return path


@pytest.fixture(scope="module")
def server(copy: Path) -> Iterator[SqlServer]:
    """A server of the same store, in a file that this process has open for writing."""
    with (
        opened(copy, copy.with_name("served.duckdb")) as (connection, path),
        serving(connection, path, replace(OPTIONS, max_rows=5_000)) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def path(server: SqlServer, copy: Path) -> Path:
    """The store of the server."""
    assert server.port
    return copy.with_name("served.duckdb")


@pytest.fixture
def own(copy: Path, tmp_path: Path) -> Iterator[Served]:
    """A store for a server of a test's own."""
    with opened(copy, tmp_path / "own.duckdb") as served:
        yield served


@contextmanager
def opened(copy: Path, path: Path) -> Iterator[Served]:
    shutil.copy(copy, path)
    with duckdb.connect(str(path)) as connection:
        secure(connection)
        yield connection, path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A key and a certificate that vouches for itself, for another name than this machine's."""
    folder = tmp_path_factory.mktemp("tls")
    arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem"
    names = ["-subj", "/CN=elsewhere", "-out", "chain.pem"]
    command = ["openssl", *arguments.split(), *names]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "key.pem", folder / "chain.pem"


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return framewalk(*arguments, **environment)


def printed(*arguments: str | Path, **environment: str) -> str:
    done = run(*arguments, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def complaint(*arguments: str | Path, **environment: str) -> str:
    done = run(*arguments, **environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(
    ("query", "form"),
    [
        ("dropped", "table"),
        ("metrics", "json"),
        pytest.param(
            "SELECT sum(1) AS a, [sum(2)] AS b, 'dcfa93c0-3aa4-4f03-8cb3-5e1cb6d2f5a0'::UUID AS c, "
            "1.50::DECIMAL(9, 2) AS d, now() IS NULL AS e, {'a': MAP {1: 2}} AS f, NULL AS g, "
            "INTERVAL 1 DAY AS h, 'x'::BLOB AS i, 1 AS a, DATE '2026-01-02' AS j, 1e300 AS k",
            "table",
            id="types",
        ),
    ],
)
def test_a_server_answers_as_a_file_does(path: Path, copy: Path, query: str, form: str) -> None:
    beside = printed("sql", query, "--store", path, "--format", form)
    assert beside == printed("sql", query, "--store", copy, "--format", form)
    assert beside


def test_the_last_hour_of_a_server_ends_now_and_that_of_a_file_with_its_newest_minute(
    path: Path, copy: Path
) -> None:
    query = ["sql", "service_map", "--last", "1h", "--format", "json", "--store"]
    begin = dt.datetime.now(dt.UTC).replace(microsecond=0)
    beside, alone = run(*query, path), run(*query, copy)
    assert (beside.returncode, alone.returncode) == (0, 0)
    live, still = json.loads(beside.stdout), json.loads(alone.stdout)
    assert begin <= dt.datetime.fromisoformat(live["to"]) <= dt.datetime.now(dt.UTC)
    assert still["to"] == "2026-11-02T09:06:00Z"
    assert still["from"] == "2026-11-02T08:06:00Z"
    assert still["rows"]
    assert not still["truncated"]
    assert alone.stderr == "from 2026-11-02T08:06:00Z to 2026-11-02T09:06:00Z\n"
    assert beside.stderr == f"from {live['from']} to {live['to']}\n"


def test_a_server_answers_of_a_range_as_a_file_does(path: Path, copy: Path) -> None:
    query = ["sql", "services", "--to", "2026-11-02T09:04", "--namespace", "bookinfo", "--store"]
    beside, alone = run(*query, path), run(*query, copy)
    assert (beside.returncode, alone.returncode) == (0, 0)
    assert beside.stdout == alone.stdout
    assert beside.stdout.count(".bookinfo,") == 5


@pytest.mark.parametrize(
    "query",
    ["SELECT nope FROM metrics", "no_such_name", ""],
)
def test_a_server_complains_as_a_file_does(path: Path, copy: Path, query: str) -> None:
    beside = complaint("sql", query, "--store", path)
    assert beside == complaint("sql", query, "--store", copy)


def test_what_a_server_refuses(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.sql"
    file.write_text("DROP VIEW metrics", encoding="utf-8")
    problem = "this would change the store, and framewalk sql only reads"
    expected = f"error: {file}: {problem}; ask with SELECT or FROM\n"
    assert complaint("sql", file, "--store", path) == expected
    several = complaint("sql", "SELECT 1; SELECT 2", "--store", path)
    assert several.startswith("error: query: it has several statements; ")


def test_rows_that_are_left_out(path: Path) -> None:
    query = "SELECT i, repeat('x', 1000) AS text FROM range(5_001) AS t(i)"
    done = run("sql", query, "--store", path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == [f"{i},{'x' * 1000}" for i in range(5_000)]
    assert done.stderr.startswith("warning: these are the first 5,000 rows, ")


def test_a_named_server(server: SqlServer, tmp_path: Path, copy: Path) -> None:
    nowhere = tmp_path / "nowhere.duckdb"
    count = "SELECT count(*) AS n FROM metrics"
    expected = printed("sql", count, FRAMEWALK_STORE_PATH=str(copy))
    assert printed("sql", count, "--server", url(server)) == expected
    known = {"FRAMEWALK_SQL_SERVER": f"{url(server)}/"}
    assert printed("sql", count, **known) == expected
    # A store that is typed is meant, whatever the environment says.
    assert "there is no such file" in complaint("sql", count, "--store", nowhere, **known)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "127.0.0.1:11801", "http://["])
def test_no_server_there(address: str) -> None:
    assert complaint("sql", "SELECT 1", "--server", address).startswith(f"error: {address}: ")


def test_what_a_server_leaves_behind(copy: Path, server: SqlServer) -> None:
    """A file of a server that was killed; its port may belong to another one now."""
    for address in ("http://127.0.0.1:1", url(server)):
        gone = ServerFile(url=address, pid=1, instance="0" * 32, token=False, certificate=None)
        write_server_file(copy, gone)
        assert printed("sql", "SELECT 1 AS a", "--store", copy) == "a\n1\n"
    server_file(copy).write_text("{", encoding="utf-8")
    assert printed("sql", "SELECT 1 AS a", "--store", copy) == "a\n1\n"
    server_file(copy).unlink()


def test_token(own: Served) -> None:
    connection, path = own
    with serving(connection, path, replace(OPTIONS, token=TOKEN)):
        assert "asks for a token" in complaint("sql", "SELECT 1", "--store", path)
        assert printed("sql", "SELECT 1 AS a", "--store", path, "--token", TOKEN) == "a\n1\n"
        known = {"SW_AUTHENTICATION": TOKEN}
        assert printed("sql", "SELECT 1 AS a", "--store", path, **known) == "a\n1\n"
        assert TOKEN not in printed("sql", "--help", **known)


def test_tls(own: Served, certificate: tuple[Path, Path]) -> None:
    connection, path = own
    key, chain = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    options = replace(OPTIONS, ssl_context=context, certificate=chain)
    with serving(connection, path, options) as server:
        # Beside its store, a server is known by its certificate, whatever name is in it.
        assert printed("sql", "SELECT 1 AS a", "--store", path) == "a\n1\n"
        named = ["sql", "SELECT 1", "--server", url(server, "https")]
        assert "certificate" in complaint(*named)
        assert "certificate" in complaint(*named, "--tls-ca", chain)
        assert complaint(*named, "--tls-ca", key).startswith(f"error: {key}: ")


def test_a_locked_store_without_an_endpoint(own: Served) -> None:
    _, path = own
    error = complaint("sql", "SELECT 1", "--store", path)
    assert error.startswith(f"error: {path}: another process has it open")
    assert "framewalk serve answers meanwhile if its module sql is on" in error
    assert complaint("snapshot", path.with_name("x.duckdb"), "--store", path) == error


def test_ctrl_c_cancels_on_the_server(own: Served) -> None:
    connection, path = own
    with serving(connection, path, ONE_AT_A_TIME) as server:
        command = [COMMAND, "sql", ENDLESS, "--store", str(path)]
        with ending(subprocess.Popen(command, stderr=subprocess.PIPE, text=True)) as process:
            wait_until(lambda: is_busy(server))
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=DEADLINE_S)
            assert (process.returncode, said) == (130, "error: interrupted\n")
        wait_until(lambda: not is_busy(server))


# Snapshots


@pytest.mark.parametrize("beside", ["a server", "nobody"])
def test_snapshot(server: SqlServer, path: Path, copy: Path, tmp_path: Path, beside: str) -> None:
    source, place = (path, url(server)) if beside == "a server" else (copy, str(copy))
    file = tmp_path / "snapshot.duckdb"
    lines = printed("snapshot", file, "--store", source).splitlines()
    size = f"{file.stat().st_size:,}"
    assert lines == [f"snapshot\t{file}", f"of\t{place}", f"bytes\t{size}"]
    assert list(tmp_path.iterdir()) == [file]
    query = "FROM service_minute ORDER BY ALL"
    with (
        duckdb.connect(str(file), read_only=True) as taken,
        duckdb.connect(str(copy), read_only=True) as expected,
    ):
        assert taken.execute(query).fetchall() == expected.execute(query).fetchall()


def test_a_snapshot_overwrites_nothing_by_itself(
    server: SqlServer, path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "snapshot.duckdb"
    log = tmp_path / "snapshot.duckdb.wal"
    for existing in (file, log):
        existing.write_text("precious", encoding="utf-8")
    asked = ["snapshot", file, "--server", url(server)]
    assert "overwrite it with --force" in complaint(*asked)
    assert file.read_text(encoding="utf-8") == "precious"
    printed(*asked, "--force")
    assert not log.exists()
    assert printed("sql", "SELECT 1 AS a", "--store", file) == "a\n1\n"
    assert "the store itself" in complaint("snapshot", path, "--store", path, "--force")


def test_a_snapshot_that_fails_leaves_nothing(copy: Path, tmp_path: Path) -> None:
    file = tmp_path / "missing" / "snapshot.duckdb"
    error = complaint("snapshot", file, "--store", copy)
    assert re.match(rf"error: {file}\S*: its folder does not exist; ", error)
    assert "there is no such file" in complaint(
        "snapshot", tmp_path / "x.duckdb", "--store", tmp_path / "none.duckdb"
    )
    assert list(tmp_path.iterdir()) == []
