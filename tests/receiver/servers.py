"""Fixtures: servers for the tests of recording; a test may be parametrized by `transport`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from recording import Server, Start, free_port
from serving import Serve, Serving


@pytest.fixture(scope="module")
def transport() -> str:
    return "uvicorn"


@pytest.fixture
def start(tmp_path: Path, transport: str) -> Iterator[Start]:
    servers: list[Server] = []

    def start_one(spool: Path = tmp_path / "spool", port: int = 0, **environment: str) -> Server:
        known = {"FRAMEWALK_GRPC_TRANSPORT": transport}
        servers.append(Server(spool, port, **known | environment))
        return servers[-1]

    yield start_one
    for server in servers:
        server.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Server]:
    """A server for all tests that leave it as it was."""
    server = Server(
        tmp_path_factory.mktemp("shared"),
        SW_TELEMETRY_PROMETHEUS_PORT=str(free_port()),
        FRAMEWALK_GRPC_TRANSPORT=transport,
    )
    yield server
    server.stop(signal.SIGKILL)


@pytest.fixture
def server(start: Start) -> Server:
    """A server that does not wait for the disk, and counts."""
    return start(FRAMEWALK_SPOOL_FSYNC="never", SW_TELEMETRY_PROMETHEUS_PORT=str(free_port()))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers with an engine, over one spool and one store."""
    servers: list[Serving] = []

    def start_one(*arguments: str | Path, **environment: str) -> Serving:
        known = {"FRAMEWALK_SQL": "-"}
        servers.append(Serving(tmp_path, *arguments, **known | environment))
        return servers[-1]

    yield start_one
    for server in servers:
        server.stop(signal.SIGKILL)
