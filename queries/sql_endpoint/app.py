"""What the SQL endpoint answers.

    POST /sql        {"query": "...", "parameters": {"service": "..."}, "max_rows": 10,
                     "timeout_s": 5}, or the query as plain text
    GET /sql?query=  the same, for short queries
    GET /snapshot    a copy of the store
    GET /            what this is; a browser is sent on to the page
    GET /ui/         the page

Errors are JSON: `{"error": "problem; remedy", "kind": ..., "problem": ..., "remedy": ...}`. An
answer that cannot be finished says why at its end, and breaks the connection off.
"""

from __future__ import annotations

import logging
import os
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import duckdb
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationError,
)
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from framewalk.engine.errors import LocatedError
from framewalk.engine.questions import places_of
from framewalk.queries import with_values
from framewalk.queries.narrowing import readable
from framewalk.queries.page import PAGE_PATH, page_routes
from framewalk.queries.reading import (
    ARROW_TYPE,
    READS_ONLY,
    ArrowAnswer,
    Client,
    GoneError,
    JsonAnswer,
    LateError,
    Sandbox,
    Slots,
    Work,
    asked,
    copy_database,
    database_path,
    in_thread,
    one_line,
    remove_copy,
    snapshot_folder,
)
from framewalk.queries.serving import (
    AGAIN,
    BUSY,
    LATE_KIND,
    REFUSED_KIND,
    Refusal,
    Serving,
    peer_of,
    read_body,
)
from framewalk.queries.sql_endpoint.protocol import INSTANCE_HEADER, SQL_KIND

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send

    from framewalk.queries.reading import Answer
    from framewalk.queries.sql_endpoint.options import SqlOptions

SNAPSHOT_TYPE: Final = "application/vnd.duckdb"

_LOG: Final = logging.getLogger(__name__)
_ABOUT: Final = (
    "framewalk answers SQL over its metrics: POST a query to /sql as text/plain, or as JSON "
    '{"query": ...}.\n'
    "GET /snapshot is a copy of the store, a DuckDB file.\n"
    "GET /ui/ is a page for browsers.\n"
)
_TEXT_TYPES: Final = ("text/plain", "application/sql")
_JSON_TYPE: Final = "application/json"
_FILE_CHUNK_BYTES: Final = 1 << 20
# The copy takes space on the disk until the client has it.
_SNAPSHOT_SEND_S: Final = 60
_MOST_FILLED_CHARACTERS: Final = 1 << 20


class _Question(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str
    parameters: dict[str, str | StrictBool | StrictInt | StrictFloat | None] | None = None
    max_rows: int | None = Field(default=None, ge=0)
    timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class SqlApp:
    """What answers SQL, for one database connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, options: SqlOptions) -> None:
        """Answer with cursors of a connection that `secure` was called with."""
        self.instance = secrets.token_hex(16)
        self.options = options
        self.serving = Serving(connection, options)
        self.copying = Slots(1, 0)
        self._sandbox = Sandbox(connection)
        path = database_path(connection)
        self._folder = None if path is None else snapshot_folder(path)

    def routes(self) -> list[BaseRoute]:
        """Return what it answers, for an endpoint."""
        return [
            Route("/", self._about, methods=["GET"]),
            Route("/sql", self._sql, methods=["GET", "POST"]),
            Route("/snapshot", self._snapshot, methods=["GET"]),
            *page_routes(),
        ]

    def chunks(
        self, work: Work, question: _Question, name: str, answer: Answer
    ) -> Generator[bytes, None, None]:
        """Check a query, run it in a transaction that only reads, and yield the answer."""
        cursor, options = work.cursor, self.options
        with self.serving.transaction(cursor, name):
            asked_for = readable(cursor, self._sandbox.checked(cursor, _text_of(question)))
            wanted = options.max_rows if question.max_rows is None else question.max_rows
            yield from answer.chunks(cursor, asked_for, min(wanted, options.max_rows))

    async def _about(self, request: Request) -> Response:
        headers = {INSTANCE_HEADER: self.instance}
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(PAGE_PATH.lstrip("/"), HTTPStatus.TEMPORARY_REDIRECT, headers)
        return PlainTextResponse(_ABOUT, headers=headers)

    async def _sql(self, request: Request) -> Response:
        question = await _read_question(request, self.options)
        wants_arrow = ARROW_TYPE in request.headers.get("accept", "")
        answer = ArrowAnswer() if wants_arrow else JsonAnswer()
        return _QueryResponse(self, question, asked(question.query, peer_of(request)), answer)

    async def _snapshot(self, _request: Request) -> Response:
        if self._folder is None:
            problem = "this store is in memory only"
            raise Refusal(HTTPStatus.NOT_FOUND, problem, "ask it in SQL")
        return _SnapshotResponse(self, self._folder)


def _text_of(question: _Question) -> str:
    """Return the query with its parameters in it; raise Refusal where they do not fit."""
    parameters = question.parameters
    if parameters is None:
        return question.query
    places = places_of(question.query)
    for name in places:
        if name not in parameters:
            problem = f"the query asks for ${name}"
            raise Refusal(HTTPStatus.BAD_REQUEST, problem, "give it in parameters")
    for name in parameters:
        if name not in places:
            problem = f"the query has no ${name}"
            raise Refusal(HTTPStatus.BAD_REQUEST, problem, "leave it out of parameters")
    longest = max((len(str(value)) for value in parameters.values()), default=0)
    if question.query.count("$") * longest > _MOST_FILLED_CHARACTERS:
        problem = "the query is too long with its parameters"
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, problem, "ask a shorter query")
    return with_values(question.query, parameters)


async def _read_question(request: Request, options: SqlOptions) -> _Question:
    if request.method == "GET":
        return _checked(dict(request.query_params))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON_TYPE and kind not in _TEXT_TYPES:
        problem = f"the Content-Type is {kind or 'missing'}"
        remedy = f"send {_JSON_TYPE}, or {_TEXT_TYPES[0]} with the query as it is"
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, problem, remedy)
    body = await read_body(request, options.max_statement_bytes, options.timeout_s)
    if kind == _JSON_TYPE:
        return _checked(body)
    try:
        return _checked({"query": body.decode()})
    except UnicodeDecodeError as error:
        problem = "the query is not UTF-8 text"
        raise Refusal(HTTPStatus.BAD_REQUEST, problem, "send it as such") from error


def _checked(content: bytes | dict[str, str]) -> _Question:
    try:
        if isinstance(content, bytes):
            return _Question.model_validate_json(content)
        return _Question.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        problem = f"{where}: {first['msg'].lower()}"
        remedy = "send query, and if wanted parameters, max_rows and timeout_s"
        raise Refusal(HTTPStatus.BAD_REQUEST, problem, remedy) from error


class _QueryResponse(Response):
    """Runs a query and sends its answer while it comes."""

    def __init__(self, app: SqlApp, question: _Question, name: str, answer: Answer) -> None:
        self._app = app
        self._question = question
        self._name = name
        self._answer = answer
        limit_s = app.options.timeout_s
        self._timeout_s = min(limit_s, question.timeout_s or limit_s)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        client = Client(receive, self._timeout_s)
        serving = self._app.serving
        try:
            async with serving.work(client, serving.slots, BUSY, self._name) as work:
                await self._run(client, work, send)
        except GoneError:
            _LOG.debug("a client left before its answer")
        finally:
            client.leave()

    async def _run(self, client: Client, work: Work, send: Send) -> None:
        chunks = self._app.chunks(work, self._question, self._name, self._answer)
        work.at_end(chunks.close)
        try:
            chunk = await work.step(client, lambda: next(chunks, b""))
        except _FAILURES as error:
            raise self._refusal(error) from error
        await send(_start([("content-type", self._answer.media_type)]))
        try:
            while chunk:
                await client.wait_or_cancel(send(_body(chunk)), None)
                chunk = await work.step(client, lambda: next(chunks, b""))
        except _FAILURES as error:
            if work.ended:
                await send(_body(self._answer.failure(str(self._refusal(error)))))
            # Without its end, the answer cannot be taken for a whole one.
            return
        await send(_body(b"", more=False))

    def _refusal(self, error: Exception) -> Refusal:
        match error:
            case LateError():
                problem = f"the query took longer than {self._timeout_s:g} seconds"
                remedy = "ask for less, or take a snapshot"
                return Refusal(HTTPStatus.REQUEST_TIMEOUT, problem, remedy, LATE_KIND)
            case LocatedError():
                return Refusal(HTTPStatus.BAD_REQUEST, error.problem, error.remedy, REFUSED_KIND)
            case duckdb.InterruptException():
                problem = "the server stops, or needs the memory"
                return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, problem, AGAIN)
        text = one_line(str(error))
        if "read-only mode" in text:
            return Refusal(
                HTTPStatus.BAD_REQUEST, READS_ONLY, "ask with SELECT or FROM", REFUSED_KIND
            )
        return Refusal(HTTPStatus.BAD_REQUEST, text, "correct the query", SQL_KIND)


# OSError is what a reader of Arrow makes of DuckDB's errors; the last two are of values that
# Python or Arrow have no place for.
_FAILURES: Final = (LateError, LocatedError, duckdb.Error, OSError, ValueError, OverflowError)


class _SnapshotResponse(Response):
    """Makes a copy of the store and sends it."""

    def __init__(self, app: SqlApp, folder: Path) -> None:
        self._app = app
        self._folder = folder

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        client = Client(receive, None)
        busy = "somebody else takes a snapshot"
        try:
            async with self._app.serving.work(client, self._app.copying, busy) as work:
                await self._run(client, work, send)
        except (GoneError, LateError):
            _LOG.debug("a client left before it had its snapshot")
        finally:
            client.leave()

    async def _run(self, client: Client, work: Work, send: Send) -> None:
        copy = _Copy(work, self._folder)
        work.at_end(copy.close)
        try:
            file = await work.step(client, copy.make)
        except (LocatedError, duckdb.Error, OSError) as error:
            _LOG.warning("no snapshot: %s", error)
            problem = error.problem if isinstance(error, LocatedError) else one_line(str(error))
            remedy = "see to the server's disk"
            raise Refusal(HTTPStatus.INSUFFICIENT_STORAGE, problem, remedy) from error
        size_bytes = os.fstat(file.fileno()).st_size
        headers = [("content-type", SNAPSHOT_TYPE), ("content-length", str(size_bytes))]
        await send(_start(headers))
        while chunk := await in_thread(lambda: file.read(_FILE_CHUNK_BYTES)):
            await client.wait_or_cancel(send(_body(chunk)), _SNAPSHOT_SEND_S)
        await send(_body(b"", more=False))


class _Copy:
    """A copy of the store that has no name any more when it is read."""

    def __init__(self, work: Work, folder: Path) -> None:
        self._work = work
        self._target = folder / f"{secrets.token_hex(8)}.duckdb"
        self._file: BinaryIO | None = None

    def make(self) -> BinaryIO:
        self._target.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            copy_database(self._work.cursor, self._target)
            self._file = self._target.open("rb")
        finally:
            remove_copy(self._target)
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _start(headers: Sequence[tuple[str, str]]) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return {"type": "http.response.start", "status": HTTPStatus.OK, "headers": pairs}


def _body(content: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}
