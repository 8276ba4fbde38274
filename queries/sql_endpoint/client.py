"""Asking a running server in SQL.

server = find_server(store, token) or SqlClient("http://127.0.0.1:11801", token)
answer = server.ask("FROM service_minute")
"""

from __future__ import annotations

import io
import json
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import duckdb
import httpx
import pyarrow as pa

from framewalk.engine.errors import InputError
from framewalk.engine.views import quoted
from framewalk.queries.reading import (
    ARROW_TYPE,
    DUCKDB_TYPE,
    END,
    QUERY_PLACE,
    QueryError,
    SqlAnswer,
    one_line,
)
from framewalk.queries.serving import LATE_KIND, REFUSED_KIND, TOKEN_KIND
from framewalk.queries.sql_endpoint.protocol import INSTANCE_HEADER, SQL_KIND
from framewalk.queries.sql_endpoint.server_files import read_server_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typing_extensions import Buffer

_CONNECT_S: Final = 5
# A server that listens on this machine says at once what it is.
_LOOK_S: Final = 5
# No limit but the server's own. With none at all, Ctrl-C would wait for the answer.
_ANSWER_S: Final = 1_000_000
# Types that Arrow has in another form: they are given back as what DuckDB had.
_CAST: Final = ("HUGEINT", "UUID")
_CHUNK_BYTES: Final = 1 << 18


class ServerError(InputError):
    """A server cannot be reached, or does not do what it is asked for."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Whom to trust (the authorities of this machine where `ca` is None), and who to be."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class SqlClient:
    """A server's SQL endpoint.

    `url` begins with http:// or https://. Without `tls.ca`, a `pinned` certificate makes known
    the server, whatever names it is made for. Raises InputError where the TLS files are of no use.
    """

    def __init__(
        self, url: str, token: str | None, tls: ClientTls | None = None, pinned: Path | None = None
    ) -> None:
        """Remember where to ask; nothing is sent yet."""
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        is_tls = self.url.lower().startswith("https:")
        self._trust = _trust(tls or ClientTls(), pinned) if is_tls else False

    def ask(self, query: str) -> SqlAnswer:
        """Ask a query; leaving by KeyboardInterrupt cancels it on the server.

        Raises:
            QueryError: DuckDB found fault with it.
            ServerError: the server cannot be reached, or refuses.
        """
        headers = {"Accept": ARROW_TYPE}
        with self._stream("POST", "/sql", headers, json={"query": query}) as response:
            return _read_answer(self.url, response)

    def snapshot(self, target: BinaryIO, on_progress: Callable[[int, int], None]) -> None:
        """Write a copy of the server's store to a file.

        `on_progress` is told the bytes that came, and how many it will be. Raises ServerError.
        """
        with self._stream("GET", "/snapshot", {}) as response:
            size_bytes = int(response.headers["content-length"])
            done_bytes = 0
            for chunk in response.iter_bytes(_CHUNK_BYTES):
                target.write(chunk)
                done_bytes += len(chunk)
                on_progress(done_bytes, size_bytes)

    @property
    def instance(self) -> str | None:
        """What the server at the address calls itself; None if nobody answers, or not framewalk."""
        try:
            # Without the token, as it is not known yet whom it would be shown to.
            with self._client(_LOOK_S, {}) as client:
                named = client.get("/").headers.get(INSTANCE_HEADER)
        except (httpx.HTTPError, httpx.InvalidURL):
            return None
        return None if named is None else str(named)

    def _client(self, answer_s: float, headers: dict[str, str]) -> httpx.Client:
        return httpx.Client(
            base_url=self.url,
            headers=headers,
            verify=self._trust,
            timeout=httpx.Timeout(answer_s, connect=min(_CONNECT_S, answer_s)),
            # No proxy stands between this machine and itself.
            trust_env=False,
        )

    @contextmanager
    def _stream(
        self, method: str, path: str, headers: dict[str, str], **content: object
    ) -> Iterator[httpx.Response]:
        try:
            with (
                self._client(_ANSWER_S, self._headers | headers) as client,
                client.stream(method, path, **content) as response,  # type: ignore[arg-type]
            ):
                if response.status_code != HTTPStatus.OK:
                    response.read()
                    raise _refused(self.url, response)
                yield response
        except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError) as error:
            problem = "this is no address of a server"
            raise ServerError(
                self.url, problem, "give one such as http://127.0.0.1:11801"
            ) from error
        except httpx.ConnectError as error:
            problem = f"cannot be reached ({str(error).lower()})"
            remedy = "check the address, and that a server answers SQL there"
            raise ServerError(self.url, problem, remedy) from error
        except httpx.HTTPError as error:
            problem = f"broke the answer off ({str(error).lower() or type(error).__name__})"
            raise ServerError(self.url, problem, "ask again, and see the server's log") from error


def find_server(store: Path, token: str | None, tls: ClientTls | None = None) -> SqlClient | None:
    """Return the running server that has a store open, if it answers SQL.

    It is found by the file beside the store; one of a server that is gone is not taken for it.
    """
    found = read_server_file(store)
    if found is None:
        return None
    client = SqlClient(found.url, token, tls, found.certificate)
    return client if client.instance == found.instance else None


def _trust(tls: ClientTls, pinned: Path | None) -> ssl.SSLContext:
    authority = tls.ca or pinned
    try:
        context = ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise _unreadable(authority, error) from error
    if tls.ca is None and pinned is not None:
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if tls.certificate is not None:
        try:
            # A key under a password is of no use: nobody is asked for it.
            context.load_cert_chain(tls.certificate, tls.key, password="")
        except OSError as error:
            raise _unreadable(tls.certificate, error) from error
    return context


def _unreadable(path: Path | None, error: OSError) -> InputError:
    if isinstance(error, ssl.SSLError):
        problem = "this is no PEM certificate, or not that of the key"
        return InputError(str(path), problem, "give a certificate and its key")
    reason = (error.strerror or str(error)).lower()
    return InputError(str(path), reason, "check the path and its permissions")


def _refused(url: str, response: httpx.Response) -> Exception:
    try:
        told = response.json()
        problem, remedy, kind = told["problem"], told["remedy"], told["kind"]
    except (ValueError, KeyError, TypeError):
        problem = f"answers with HTTP status {response.status_code}, and not as framewalk does"
        return ServerError(url, problem, "check the address")
    if kind == SQL_KIND:
        return QueryError(problem)
    if kind in {REFUSED_KIND, LATE_KIND}:
        return InputError(QUERY_PLACE, problem, remedy)
    if kind == TOKEN_KIND:
        remedy = "give it by --token, or in SW_AUTHENTICATION"
    return ServerError(url, problem, remedy)


def _read_answer(url: str, response: httpx.Response) -> SqlAnswer:
    body = io.BufferedReader(_Body(response.iter_bytes(_CHUNK_BYTES)))
    batches: list[pa.RecordBatch] = []
    end: dict[str, Any] = {}
    reader = pa.ipc.open_stream(body)
    while not end:
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            break
        batches.append(batch)
        if metadata is not None:
            end = json.loads(metadata[END])
    if "truncated" not in end:
        problem = end.get("error", "broke the answer off")
        raise ServerError(url, problem, "ask again, or for less")
    rows = _rows(pa.Table.from_batches(batches, reader.schema))
    return SqlAnswer(reader.schema.names, rows, end["truncated"])


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    """Return the rows of a table as Python values, as DuckDB gives them."""
    columns = [f"c{number}" for number in range(table.num_columns)]
    types = [(field.metadata or {}).get(DUCKDB_TYPE, b"").decode() for field in table.schema]
    chosen = ", ".join(map(_column, columns, types))
    with duckdb.connect() as connection:
        connection.register("answer", table.rename_columns(columns))
        try:
            return connection.sql(f"SELECT {chosen} FROM answer").fetchall()  # noqa: S608 - names of columns made here
        except duckdb.Error as error:
            problem = f"a value is too large for Arrow's types ({one_line(str(error))})"
            raise InputError(QUERY_PLACE, problem, "cast it to VARCHAR") from error


def _column(name: str, duckdb_type: str) -> str:
    is_cast = any(part in duckdb_type for part in _CAST)
    return f"CAST({quoted(name)} AS {duckdb_type})" if is_cast else quoted(name)


class _Body(io.RawIOBase):
    """What comes over the network, as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        if not self._rest:
            self._rest = next(self._chunks, b"")
        part = self._rest[: len(view)]
        self._rest = self._rest[len(part) :]
        view[: len(part)] = part
        return len(part)
