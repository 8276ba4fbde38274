"""Fixtures: servers for the tests of recording; a test may be parametrized by `transport`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from processes import free_port
from recording import Server, Start
from serving import Serve, Serving


@pytest.fixture(scope="module")
def transport() -> str:
    return "uvicorn"


@pytest.fixture
def start(tmp_path: Path, transport: str) -> Iterator[Start]:
    with ExitStack() as servers:

        def start_one(
            spool: Path = tmp_path / "spool", port: int = 0, **environment: str
        ) -> Server:
            known = {"FRAMEWALK_GRPC_TRANSPORT": transport}
            return servers.enter_context(Server(spool, port, **known | environment))

        yield start_one


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Server]:
    """A server for all tests that leave it as it was."""
    with Server(
        tmp_path_factory.mktemp("shared"),
        SW_TELEMETRY_PROMETHEUS_PORT=str(free_port()),
        FRAMEWALK_GRPC_TRANSPORT=transport,
    ) as server:
        yield server


@pytest.fixture
def server(start: Start) -> Server:
    """A server that does not wait for the disk, and counts."""
    return start(FRAMEWALK_SPOOL_FSYNC="never", SW_TELEMETRY_PROMETHEUS_PORT=str(free_port()))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers with an engine, over one spool and one store."""
    with ExitStack() as servers:

        def start_one(*arguments: str | Path, **environment: str) -> Serving:
            known = {"FRAMEWALK_SQL": "-"}
            return servers.enter_context(Serving(tmp_path, *arguments, **known | environment))

        yield start_one
