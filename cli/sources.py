"""Where `framewalk sql` and `framewalk snapshot` get their data: a running server, or the file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import duckdb
import typer

from framewalk.engine import open_for_reading
from framewalk.engine.errors import InputError, StoreError, StoreLockedError
from framewalk.queries.server_file import server_file
from framewalk.queries.sql_protocol import QueryError, SqlAnswer, one_line

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from framewalk.queries.sql_client import SqlClient

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


def find_server(
    context: typer.Context,
    store: Path,
    server: str | None,
    token: str | None,
    trust: ssl.SSLContext | None,
) -> SqlClient | None:
    """Return the server to ask: the named one, or the one that has the store open, or None."""
    if server is None and not server_file(store).exists():
        return None
    if token and not (token.isascii() and token.isprintable()):
        problem = "HTTP can carry printable ASCII characters only"
        raise typer.BadParameter(problem, param_hint="--token")
    # Here, so that asking a file does not wait until an HTTP client is loaded.
    from framewalk.queries import sql_client  # noqa: PLC0415

    if server is not None and not (
        _is_typed(context, "store") and not _is_typed(context, "server")
    ):
        return sql_client.SqlClient(server, token, trust)
    return sql_client.find_server(store, token, trust)


def _is_typed(context: typer.Context, name: str) -> bool:
    """Tell whether an option stands in the command line, not in the environment."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def client_trust(
    ca: Path | None, certificate: Path | None, key: Path | None
) -> ssl.SSLContext | None:
    """Return what the TLS options ask for; None if there are none."""
    if (certificate is None) != (key is None):
        problem = "one is of no use without the other"
        raise typer.BadParameter(problem, param_hint="--tls-certificate, --tls-key")
    if ca is None and certificate is None:
        return None
    import ssl  # noqa: PLC0415 - as above

    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise InputError(str(ca), "this is no PEM certificate", "give one") from error
    if certificate is not None and key is not None:
        try:
            context.load_cert_chain(certificate, key, password="")
        except ssl.SSLError as error:
            problem = f"this is no PEM certificate of the key {key}"
            raise InputError(certificate, problem, "give a key and its certificate") from error
    return context


class StoreFile:
    """A store that this process reads itself."""

    def __init__(self, store: Path, connection: duckdb.DuckDBPyConnection) -> None:
        """Read from a connection to a store."""
        self._store = store
        self._connection = connection

    def ask(self, query: str) -> SqlAnswer:
        """Run a query, and return its rows.

        Raises QueryError where DuckDB finds fault with it, StoreError where with the file.
        """
        try:
            return self.interruptible(lambda connection: _ask(connection, query))
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
        # DuckDB does not look for Ctrl-C while it works, so it works in another thread.
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(work, self._connection)
            try:
                while on_wait is not None and not answer.done():
                    on_wait()
                    _wait(answer.exception)
                # A wait without a limit would go on: polars' signal handler lets calls restart.
                return answer.result(TIMEOUT_MAX)
            except KeyboardInterrupt:
                self._connection.interrupt()
                raise


def _wait(exception: Callable[[float], object]) -> None:
    try:
        exception(_TICK_S)
    except TimeoutError:
        return


def _ask(connection: duckdb.DuckDBPyConnection, query: str) -> SqlAnswer:
    relation = connection.sql(query)
    if relation is None:
        raise InputError("query", "there is no SQL in it", "write a query, or name one")
    return SqlAnswer(relation.columns, relation.fetchall())


@contextmanager
def open_store(store: Path) -> Iterator[StoreFile]:
    """Open a store read-only.

    Raises StoreError and its kinds.
    """
    try:
        connection = open_for_reading(store)
    except StoreLockedError as error:
        remedy = (
            "wait for it; if it is framewalk serve, turn the module sql on in its configuration, "
            "and it answers"
        )
        raise StoreLockedError(store, error.problem, remedy) from error
    try:
        yield StoreFile(store, connection)
    finally:
        connection.close()
