"""`framewalk mcp`, asked by the client of the package that it is made with."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from mcp import Client, StdioServerParameters
from mcp.server import MCPServer
from processes import ending
from sql_serving import replay_into, serving, url
from typer.core import TyperCommand
from waiting import DEADLINE_S, wait_until

from framewalk.cli.mcp import Stores
from framewalk.cli.sources import Asked
from framewalk.engine import Plan, Store
from framewalk.queries.mcp import make_server
from framewalk.queries.sql_endpoint.server import secure

FRAMEWALK = str(Path(sys.executable).with_name("framewalk"))
PRODUCTPAGE = "productpage.bookinfo"
# Each tool with arguments, and columns that its rows have.
CALLS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("time_range", {}, {"since", "until"}),
    ("service_map", {"limit": 2}, {"source", "dest", "calls_per_minute"}),
    ("services", {"namespace": "bookinfo", "last": "5m"}, {"service", "success_percent"}),
    ("changes", {"last": "2m"}, {"service", "p99_ms", "p99_ms_before"}),
    ("slowest", {"service": PRODUCTPAGE}, {"endpoint", "average_ms"}),
    ("failing", {}, {"endpoint", "failed"}),
    ("unknown_peers", {}, {"address", "reason"}),
    ("retransmits", {}, {"packages", "retransmitted_percent"}),
    ("service", {"service": PRODUCTPAGE}, {"metric", "value", "unit"}),
    ("edge", {"source": PRODUCTPAGE, "dest": "reviews.bookinfo"}, {"metric", "value"}),
    ("metrics", {"name_contains": "apdex"}, {"name", "definition"}),
    ("sql", {"query": "SELECT count(*) AS n FROM service_minute"}, {"n"}),
    (
        "sql",
        {"query": "FROM service_between($since, $until) ORDER BY service", "last": "1m"},
        {"service"},
    ),
]
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("service", {}, "service"),
    ("services", {"limit": 0}, "limit"),
    ("services", {"limit": 100_000}, "limit"),
    ("services", {"limit": "many"}, "limit"),
    ("services", {"last": "x"}, "30m"),
    ("services", {"last": "1h", "since": "2026-01-01T00:00"}, "one of them"),
    ("services", {"since": "yesterday"}, "2026"),
    ("sql", {"query": ""}, "SQL"),
    ("sql", {"query": "SELECT 1 FROM nowhere"}, "nowhere"),
    ("sql", {"query": "SELECT 1; SELECT 2"}, "one"),
    ("sql", {"query": "DROP TABLE internal.newest"}, "SELECT or FROM"),
    ("sql", {"query": "SELECT * FROM read_text('/etc/passwd')"}, "read_text"),
    ("sql", {"query": "/etc/passwd"}, ""),
    ("sql", {"query": "-"}, ""),
    ("sql", {"query": "SET memory_limit = '1TB'"}, "SELECT or FROM"),
    ("sql", {"query": "SELECT $other"}, "$other"),
    ("sql", {"query": "x" * 30_000}, "20000"),
    ("nothing", {}, "nothing"),
]


@pytest.fixture(scope="module")
def store(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mcp") / "metrics.duckdb"
    with Store(path, plan) as made:
        replay_into(made, "bookinfo")
    return path


def command(*options: str | Path) -> StdioServerParameters:
    return StdioServerParameters(
        command=FRAMEWALK, args=["mcp", *map(str, options)], env=dict(os.environ)
    )


def within(store: Path) -> MCPServer[Any]:
    """Return the server of the command, to be asked in this process."""
    context = typer.Context(TyperCommand("mcp"))
    return make_server(Stores(Asked(context, store, None, None, None, None, None), store))


async def call(client: Client, name: str, arguments: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether it is an error, and the text that an agent reads."""
    result = await client.call_tool(name, dict(arguments))
    (content,) = result.content
    return bool(result.is_error), str(content.text)


async def answer(client: Client, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    is_error, text = await call(client, name, arguments)
    assert not is_error, text
    found: dict[str, Any] = json.loads(text)
    return found


def test_every_tool_answers_with_the_sql_that_made_it(store: Path) -> None:
    async def ask() -> None:
        async with Client(within(store)) as client:
            tools = (await client.list_tools()).tools
            assert {one.name for one in tools} == {name for name, *_ in CALLS}
            for tool in tools:
                assert tool.description
                assert tool.annotations is not None
                assert tool.annotations.read_only_hint
            for name, arguments, columns in CALLS:
                found = await answer(client, name, arguments)
                assert found["rows"], name
                assert columns <= set(found["rows"][0]), (name, found["rows"][0])
                assert len(found["rows"]) <= arguments.get("limit", 200)
                # What is told as the SQL gives the same when it is asked itself.
                again = await answer(client, "sql", {"query": found["sql"], "limit": 200})
                assert again["rows"] == found["rows"][:200] or "cut" in found, name

    asyncio.run(ask())


def test_answers_are_bounded_and_say_so(store: Path) -> None:
    async def ask() -> None:
        async with Client(within(store)) as client:
            found = await answer(client, "sql", {"query": "FROM range(1000)", "limit": 5})
            assert [row["range"] for row in found["rows"]] == [0, 1, 2, 3, 4]
            assert "more than these 5 rows" in found["cut"]
            wide = "SELECT repeat('x', 900) AS a FROM range(200)"
            found = await answer(client, "sql", {"query": wide, "limit": 200})
            assert 0 < len(json.dumps(found)) < 60_000
            assert "cut" in found
            long = await answer(client, "sql", {"query": "SELECT repeat('x', 100000) AS a"})
            assert len(long["rows"][0]["a"]) < 1_100

    asyncio.run(ask())


def test_bad_arguments_are_errors_that_an_agent_can_read(store: Path) -> None:
    async def ask() -> None:
        async with Client(within(store)) as client:
            for name, arguments, told in BAD:
                is_error, text = await call(client, name, arguments)
                assert is_error, (name, arguments, text)
                assert told in text, (name, arguments, text)
                assert "Traceback" not in text
                assert "root:" not in text
            assert (await answer(client, "time_range", {}))["rows"]

    asyncio.run(ask())


def test_a_store_that_is_not_there_is_told_and_comes_back(store: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.duckdb"

    async def ask() -> None:
        async with Client(command("--store", later)) as client:
            is_error, text = await call(client, "services", {})
            assert is_error
            assert "later.duckdb" in text
            shutil.copy(store, later)
            assert (await answer(client, "services", {}))["rows"]

    asyncio.run(ask())


def test_a_wrong_path_is_told_at_the_start(tmp_path: Path) -> None:
    command = [FRAMEWALK, "mcp", "--store", tmp_path / "none.duckdb"]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    assert "none.duckdb: there is no such file" in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_a_running_server_is_asked_and_one_that_is_down_is_told(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "metrics.duckdb"
    with Store(path, plan) as made:
        replay_into(made, "bookinfo")
        secure(made.connection)

        async def ask() -> None:
            with serving(made.connection, path) as server:
                address = url(server)
                async with Client(command("--server", address)) as client:
                    found = await answer(client, "services", {"since": "2020-01-01T00:00"})
                    assert found["rows"]
                    server.stop()
                    is_error, text = await call(client, "services", {})
                    assert is_error
                    assert address in text

        asyncio.run(ask())


@contextmanager
def over_http(store: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["mcp", "--store", str(store), "--http", str(port)]
    starting = subprocess.Popen([FRAMEWALK, *options], stderr=subprocess.DEVNULL)
    with ending(starting) as process:
        wait_until(lambda: _listens(port) or process.poll() is not None)
        yield f"http://127.0.0.1:{port}/mcp"
        process.terminate()
        process.wait(DEADLINE_S)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_http_is_for_this_machine(store: Path) -> None:
    async def ask(address: str) -> None:
        async with Client(address) as client:
            assert (await answer(client, "services", {}))["rows"]

    with over_http(store) as address:
        asyncio.run(ask(address))
        port = address.removesuffix("/mcp").rpartition(":")[2]
        with socket.create_connection(("127.0.0.1", int(port)), DEADLINE_S) as strange:
            strange.sendall(
                b"POST /mcp HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json\r\n"
                b"Accept: application/json\r\nContent-Length: 2\r\n\r\n{}"
            )
            status = strange.recv(100).split(b"\r\n")[0]
        assert b" 421 " in status or b" 403 " in status, status


def test_without_the_package_it_is_told_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['mcp'] = None; sys.argv = ['framewalk', 'mcp']; "
        "from framewalk.cli import program; sys.exit(program())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'framewalk[mcp]'" in done.stderr
    assert "Traceback" not in done.stderr
