"""The SQL endpoint beside a writer: a thread of its own, over cursors of the writer's connection.

secure(store.connection)
server = SqlServer(store.connection, store.path, SqlOptions(...))
server.start()
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

import uvicorn

from framewalk.engine.errors import InputError
from framewalk.engine.telling import Tally, tell_exhausted
from framewalk.queries.plain_http import patient_http1
from framewalk.queries.reading import database_path, remove_copy, secure, snapshot_folder
from framewalk.queries.sql_endpoint.app import SqlApp
from framewalk.queries.sql_endpoint.options import SqlOptions
from framewalk.queries.sql_endpoint.server_files import (
    ServerFile,
    remove_server_file,
    write_server_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

__all__ = ["SqlOptions", "SqlServer", "secure"]

_STOP_S: Final = 1.0
_JOIN_S: Final = 2.5
_CANCEL_S: Final = 1.0
# An interrupt that comes between two calls of DuckDB is lost, so it is sent again.
_INTERRUPT_EVERY_S: Final = 0.05
_MOST_CONNECTIONS: Final = 256
_MOST_OF_A_PEER: Final = 64
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to be replaced


class SqlServer:
    """Answers SQL over HTTP from a thread of its own.

    `connection` is the writer's, and `secure` was called with it; each query gets a cursor of it,
    in a transaction that only reads, so neither waits for the other. `port` is the one that it
    listens on, once started.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, store_path: Path, options: SqlOptions
    ) -> None:
        """Prepare a server; nothing listens yet."""
        self.port = options.port
        self._connection = connection
        self._store_path = store_path.absolute()
        self._options = options
        self._app = SqlApp(connection, options)
        self._server = _Server(_config(self._app, options))
        self._thread = threading.Thread(target=self._serve, daemon=True, name="sql endpoint")
        self._sockets: list[socket.socket] = []

    def start(self) -> None:
        """Listen, and say so in the file beside the store.

        Raises InputError where it cannot listen.
        """
        listener = _listen(self._options.host, self._options.port)
        self._sockets = [listener]
        self.port = listener.getsockname()[1]
        self._remove_copies()
        self._thread.start()
        self._server.listens.wait()
        url = _url(self._options, self.port)
        certificate = self._options.certificate
        write_server_file(
            self._store_path,
            ServerFile(
                url=url,
                pid=os.getpid(),
                instance=self._app.instance,
                token=self._options.token is not None,
                # Whoever reads it works in another folder.
                certificate=certificate.absolute() if certificate is not None else None,
                metrics_url=self._options.metrics_url,
            ),
        )

    def cancel_queries(self) -> None:
        """Cancel what is under way, so that its memory is free soon after; takes a second.

        What comes after it began may be cancelled too.
        """
        deadline_s = time.monotonic() + _CANCEL_S
        while time.monotonic() < deadline_s:
            self._app.interrupt()
            time.sleep(_INTERRUPT_EVERY_S)

    def stop(self) -> None:
        """Cancel what is under way and stop, within seconds.

        A query that computes one very long value does not notice at once; its thread then goes on,
        and ends with the process.
        """
        remove_server_file(self._store_path, self._app.instance)
        self._server.should_exit = True
        self._app.interrupt()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        for listener in self._sockets:
            listener.close()
        self._remove_copies()

    def _serve(self) -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            tell_exhausted(loop, Tally(loop.call_later))
            runner.run(self._server.serve(sockets=self._sockets))
            runner.run(self._app.finish(_STOP_S))

    def _remove_copies(self) -> None:
        """Remove what snapshots have left, also those of a process that was killed."""
        path = database_path(self._connection)
        if path is None:
            return
        folder = snapshot_folder(path)
        for left in folder.glob("*.duckdb*"):
            remove_copy(left)
        with contextlib.suppress(OSError):
            folder.rmdir()


class _Server(uvicorn.Server):
    """Leaves the process's signals alone, and tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = threading.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


def _config(app: SqlApp, options: SqlOptions) -> uvicorn.Config:
    context = options.ssl_context
    return uvicorn.Config(
        app.asgi(),
        http=patient_http1(options.patience_s, _MOST_CONNECTIONS, _MOST_OF_A_PEER),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        # An answer that is broken off on purpose is no error.
        log_level="critical",
        access_log=False,
        server_header=False,
        headers=[("server", "framewalk")],
        proxy_headers=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=1,
        ssl_context_factory=None if context is None else lambda _config, _default: context,
    )


def _listen(host: str, port: int) -> socket.socket:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        problem = f"cannot be listened on ({(error.strerror or str(error)).lower()})"
        raise InputError(place, problem, "name another port or host for SQL") from error


def _url(options: SqlOptions, port: int) -> str:
    host = _EVERYWHERE.get(options.host, options.host)
    scheme = "http" if options.ssl_context is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
