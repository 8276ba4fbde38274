"""Where `framewalk sql` and `framewalk snapshot` get their data: a running server, or the file."""

from __future__ import annotations

from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import duckdb
import typer

from framewalk.engine import open_for_reading
from framewalk.engine.errors import InputError, StoreError, StoreLockedError
from framewalk.queries.narrowing import readable_text
from framewalk.queries.reading import QUERY_PLACE, QueryError, SqlAnswer, one_line
from framewalk.queries.sql_endpoint import server_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from framewalk.queries.sql_endpoint import SqlClient

_T = TypeVar("_T")

DEFAULT_STORE: Final = Path("framewalk-data/metrics.duckdb")
_TICK_S: Final = 0.1

StoreOption = Annotated[
    Path,
    typer.Option(
        "--store",
        "-s",
        metavar="FILE",
        envvar="FRAMEWALK_STORE_PATH",
        help="The DuckDB file that framewalk serve or replay made. While a server has it open, "
        "the server answers.",
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        envvar="FRAMEWALK_SQL_SERVER",
        help="Ask the server at this address, such as http://127.0.0.1:11801, and no file.",
        show_default=False,
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TEXT",
        envvar="SW_AUTHENTICATION",
        help="The server's authentication token. Other users of this machine cannot see it in the "
        "environment variable.",
        show_default=False,
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        help="Trust the server by this PEM file. Default: the authorities of this machine.",
        show_default=False,
    ),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-certificate",
        metavar="FILE",
        help="Show this PEM certificate (mutual TLS); it needs --tls-key.",
        show_default=False,
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-key",
        metavar="FILE",
        help="The PEM key of --tls-certificate.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options say about whom to ask."""

    context: typer.Context
    store: Path
    server: str | None
    token: str | None
    ca: Path | None
    certificate: Path | None
    key: Path | None

    def find_server(self) -> SqlClient | None:
        """Return the named server, or the one that has the store open, or None."""
        self._check()
        if self.server is None and not server_file(self.store).exists():
            return None
        # Here, so that asking a file does not wait until an HTTP client is loaded.
        from framewalk.queries.sql_endpoint import (  # noqa: PLC0415
            ClientTls,
            SqlClient,
            find_server,
        )

        tls = ClientTls(self.ca, self.certificate, self.key)
        if self.server is not None and not self._means_store():
            return SqlClient(self.server, self.token, tls)
        return find_server(self.store, self.token, tls)

    def _check(self) -> None:
        if self.token and not (self.token.isascii() and self.token.isprintable()):
            problem = "HTTP can carry printable ASCII characters only"
            raise typer.BadParameter(problem, param_hint="--token")
        if (self.certificate is None) != (self.key is None):
            problem = "one is of no use without the other"
            raise typer.BadParameter(problem, param_hint="--tls-certificate, --tls-key")

    def _means_store(self) -> bool:
        """Tell whether the store was typed, and the server only stands in the environment."""
        return self._is_typed("store") and not self._is_typed("server")

    def _is_typed(self, name: str) -> bool:
        source = self.context.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"


class StoreFile:
    """A store that this process reads itself."""

    def __init__(self, store: Path, connection: duckdb.DuckDBPyConnection) -> None:
        """Read from a connection to a store."""
        self._store = store
        self._connection = connection

    def ask(self, query: str) -> SqlAnswer:
        """Run a query, and return its rows.

        Raises as `read`.
        """
        return self.read(lambda connection: _ask(connection, query))

    def read(self, work: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        """Let DuckDB work, and return what comes of it.

        Raises QueryError where DuckDB finds fault with a query, StoreError where with the file.
        """
        try:
            return self.interruptible(work)
        except duckdb.Error as error:
            text = one_line(str(error))
            if str(self._store.resolve()) in text:
                raise StoreError(
                    self._store, text, "check the file, or use a copy of it"
                ) from error
            raise QueryError(text) from error

    def interruptible(
        self,
        work: Callable[[duckdb.DuckDBPyConnection], _T],
        on_wait: Callable[[], None] | None = None,
    ) -> _T:
        """Let DuckDB work until it ends or Ctrl-C comes; call `on_wait` now and then meanwhile."""
        answer: Future[_T] = Future()

        def run() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(work(self._connection))
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits
                answer.set_exception(error)

        # DuckDB does not look for Ctrl-C while it works, so it works in another thread.
        thread = Thread(target=run, daemon=True)
        try:
            thread.start()
            # In short waits: a signal that comes just before a wait does not end it.
            while not _is_done(answer):
                if on_wait is not None:
                    on_wait()
            return answer.result()
        except KeyboardInterrupt:
            # What has not begun will not; between two statements nothing hears an interrupt.
            while not answer.cancel() and not _is_done(answer):
                self._connection.interrupt()
            raise


def _is_done(answer: Future[_T]) -> bool:
    """Wait a moment, and tell whether there is an answer."""
    return bool(wait([answer], _TICK_S).done)


def _ask(connection: duckdb.DuckDBPyConnection, query: str) -> SqlAnswer:
    relation = _relation(connection, query)
    if relation is None:
        problem = "there is no SQL in it"
        raise InputError(QUERY_PLACE, problem, "write a query, or name one")
    return SqlAnswer(relation.columns, relation.fetchall())


def _relation(connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.DuckDBPyRelation | None:
    """Return what a query gives: None if there is no statement in it, or none with rows."""
    one = readable_text(connection, query)
    return connection.sql(query) if one is None else one.run(connection, connection.sql)


@contextmanager
def open_store(store: Path) -> Iterator[StoreFile]:
    """Open a store read-only.

    Raises StoreError and its kinds.
    """
    with open_store_connection(store) as connection:
        yield StoreFile(store, connection)


@contextmanager
def open_store_connection(store: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a store read-only, as `open_store` does, for whoever needs DuckDB's own connection."""
    try:
        connection = open_for_reading(store)
    except StoreLockedError as error:
        remedy = f"{error.remedy}; framewalk serve answers meanwhile if its module sql is on"
        raise StoreLockedError(store, error.problem, remedy) from error
    try:
        yield connection
    finally:
        # After a second Ctrl-C it may be at work still.
        with suppress(duckdb.Error):
            connection.close()
