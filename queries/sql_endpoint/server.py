"""The SQL endpoint beside a writer, and what is served in the same thread.

secure(store.connection)
server = SqlServer(store.connection, store.path, SqlOptions(...))
server.start()
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from framewalk.queries.reading import database_path, remove_copy, secure, snapshot_folder
from framewalk.queries.serving import Endpoint, ProtocolServer, address_of
from framewalk.queries.sql_endpoint.app import SqlApp
from framewalk.queries.sql_endpoint.options import SqlOptions
from framewalk.queries.sql_endpoint.server_files import (
    ServerFile,
    remove_server_file,
    write_server_file,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import duckdb

__all__ = ["SqlOptions", "SqlServer", "secure"]


class SqlServer:
    """Answers SQL over HTTP from a thread of its own, and endpoints `beside` it.

    `connection` is the writer's, and `secure` was called with it; each query gets a cursor of it,
    in a transaction that only reads, so neither waits for the other. `port` is the one that it
    listens on, once started.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        store_path: Path,
        options: SqlOptions,
        beside: Sequence[Endpoint] = (),
        also: Sequence[Endpoint] = (),
    ) -> None:
        """Prepare a server; nothing listens yet. What is in `also` is answered on SQL's port."""
        self._connection = connection
        self._store_path = store_path.absolute()
        self._options = options
        self._app = SqlApp(connection, options)
        self._endpoint = Endpoint("SQL", self._app.serving, self._app.routes(), also)
        self._server = ProtocolServer([self._endpoint, *beside])

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._endpoint.port

    def start(self) -> None:
        """Listen, and say so in the file beside the store, if wanted.

        Raises InputError where it cannot listen.
        """
        self._endpoint.listen()
        if not self._options.is_announced:
            self._server.start()
            return
        self._remove_copies()
        self._server.start()
        certificate = self._options.certificate
        write_server_file(
            self._store_path,
            ServerFile(
                url=address_of(self._options, self.port),
                pid=os.getpid(),
                instance=self._app.instance,
                token=self._options.token is not None,
                # Whoever reads it works in another folder.
                certificate=certificate.absolute() if certificate is not None else None,
                metrics_url=self._options.metrics_url,
            ),
        )

    def cancel_queries(self) -> None:
        """Cancel what is under way, so that its memory is free soon after; takes a second."""
        self._server.cancel_queries()

    def stop(self) -> None:
        """Cancel what is under way and stop, within seconds."""
        if not self._options.is_announced:
            self._server.stop()
            self._remove_folder()
            return
        remove_server_file(self._store_path, self._app.instance)
        self._server.stop()
        self._remove_copies()

    def _remove_copies(self) -> None:
        """Remove what snapshots have left, also those of a process that was killed."""
        path = database_path(self._connection)
        if path is None:
            return
        folder = snapshot_folder(path)
        for left in folder.glob("*.duckdb*"):
            remove_copy(left)
        self._remove_folder()

    def _remove_folder(self) -> None:
        """Remove the folder of copies, if none is left in it."""
        path = database_path(self._connection)
        if path is not None:
            with contextlib.suppress(OSError):
                snapshot_folder(path).rmdir()
