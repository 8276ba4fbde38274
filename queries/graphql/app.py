"""GraphQL over HTTP: requests become documents and variables, answers become JSON.

    POST /graphql   {"query": "...", "variables": {...}, "operationName": "..."}

Statuses are those of an OAP: 400 for what is no request and for documents that do not fit the
schema, 200 for all else, with `errors` where there are any.
"""

from __future__ import annotations

import asyncio
import json
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from graphql import GraphQLError
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from framewalk.queries.graphql.answers import Asked, Templates, Told
from framewalk.queries.graphql.documents import (
    FETCHING,
    VALIDATION,
    Document,
    DocumentError,
    Documents,
)
from framewalk.queries.graphql.execution import execute
from framewalk.queries.metrics import Catalogue
from framewalk.queries.reading import in_thread
from framewalk.queries.serving import AGAIN, Refusal, read_body

if TYPE_CHECKING:
    from collections.abc import Iterable

    import duckdb
    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from framewalk.queries.graphql.options import GraphqlOptions
    from framewalk.queries.serving import Serving

_JSON: Final = "application/json"
_TEXT: Final = "application/graphql"
_ANSWER_TYPE: Final = "application/graphql-response+json"
# Documents that are read at the same time: that is Python's work, which no interrupt ends.
_READERS: Final = 1
_WAITING_READERS: Final = 64
_MOST_MESSAGE: Final = 2_000
_DAY_KEYS: Final = ("minute", "hour", "day")


class _Question(NamedTuple):
    text: str
    variables: dict[str, Any]
    operation: str | None


def routes(serving: Serving, options: GraphqlOptions) -> list[BaseRoute]:
    """Return what answers GraphQL, and the little that UIs ask beside it."""
    app = _App(serving, options)
    return [
        Route("/graphql", app.graphql, methods=["POST"]),
        Route("/healthcheck", _healthcheck, methods=["GET"]),
        Route("/status/config/ttl", app.ttl, methods=["GET"]),
        Route("/status/cluster/nodes", app.nodes, methods=["GET"]),
        Route("/debugging/config/dump", app.config, methods=["GET"]),
    ]


class _App:
    def __init__(self, serving: Serving, options: GraphqlOptions) -> None:
        self._serving = serving
        self._options = options
        self._documents = Documents(options.most_aliases, options.most_depth)
        paths, edits = options.template_paths, options.template_edits
        templates = Templates(paths, edits, keeps_edits=options.keeps_edits)
        self._told = Told(options, templates)
        # What is defined changes when a store is opened, and then this is another server.
        self._catalogue: Catalogue | None = None
        self._readers = asyncio.Semaphore(_READERS)
        self._waiting = 0

    async def graphql(self, request: Request) -> Response:
        """Answer a document."""
        question = await self._question(request)
        try:
            document = await self._document(question.text)
        except DocumentError as error:
            return _answer(request, None, error.errors, error.kind, error.status)
        if question.operation is None and document.operations > 1:
            problem = "Must provide operation name if query contains multiple operations."
            errors = [GraphQLError(problem)]
            return _answer(request, None, errors, VALIDATION, HTTPStatus.BAD_REQUEST)
        known_by = json.dumps([question.text, question.variables], sort_keys=True)
        return await self._serving.read(
            request, known_by, lambda cursor: self._executed(request, cursor, document, question)
        )

    def _executed(
        self,
        request: Request,
        cursor: duckdb.DuckDBPyConnection,
        document: Document,
        question: _Question,
    ) -> Response:
        catalogue = self._catalogue or Catalogue.of(cursor)
        self._catalogue = catalogue
        asked = Asked(cursor, catalogue, self._told, time.time())
        done = execute(document, question.variables, question.operation, asked)
        if not done.is_executed:
            return _answer(request, None, done.errors, VALIDATION)
        content = {"data": done.data}
        return _answer(request, content, done.errors, FETCHING)

    async def _document(self, text: str) -> Document:
        found = self._documents.kept(text)
        if found is not None:
            return found
        if self._waiting >= _WAITING_READERS:
            problem = "as many documents wait to be read as this server lets"
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, problem, AGAIN)
        self._waiting += 1
        try:
            async with self._readers:
                return await in_thread(lambda: self._documents.read(text))
        finally:
            self._waiting -= 1

    async def _question(self, request: Request) -> _Question:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in {_JSON, _TEXT}:
            problem = f"the Content-Type is {kind[:100] or 'missing'}"
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, problem, f"send {_JSON}")
        body = await read_body(request, self._options.most_bytes, self._options.timeout_s)
        try:
            text = body.decode()
            return _Question(text, {}, None) if kind == _TEXT else _read(json.loads(text))
        except (ValueError, RecursionError) as error:
            problem = "the body is no JSON of UTF-8" if kind == _JSON else "the body is no UTF-8"
            raise _bad(problem) from error

    async def ttl(self, _request: Request) -> Response:
        """Answer what Booster's page of settings asks."""
        kept = dict(zip(_DAY_KEYS, self._options.ttl_days, strict=True))
        records = {"default": self._options.record_ttl_days}
        return JSONResponse({"metrics": kept, "records": records})

    async def nodes(self, _request: Request) -> Response:
        """Answer the same page: there is one node."""
        node = {"host": self._options.host, "port": self._options.port, "self": True}
        return JSONResponse({"nodes": [node]})

    async def config(self, _request: Request) -> Response:
        """Answer what UIs want to know of the settings: whether dashboards can be edited."""
        is_edited = self._options.template_edits is not None and self._options.keeps_edits
        setting = "query.graphql.enableUpdateUITemplate"
        return JSONResponse({"core.provider": "framewalk", setting: str(is_edited).lower()})


async def _healthcheck(_request: Request) -> Response:
    return PlainTextResponse("200 OK")


def _read(content: object) -> _Question:
    given = content if isinstance(content, dict) else {}
    text, variables, operation = map(given.get, ("query", "variables", "operationName"))
    problems = {
        "the body is no object": not isinstance(content, dict),
        "query is missing": not isinstance(text, str) or not text.strip(),
        "variables are no object": not isinstance(variables, dict | None),
        "operationName is no text": not isinstance(operation, str | None),
    }
    for problem in (problem for problem, is_so in problems.items() if is_so):
        raise _bad(problem)
    # A lone surrogate, which JSON can write, has no place in a text: ValueError.
    json.dumps(content, ensure_ascii=False).encode()
    return _Question(str(text), variables or {}, operation or None)


def _bad(problem: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, problem, 'send {"query": "...", "variables": {...}}')


def _answer(
    request: Request,
    content: dict[str, Any] | None,
    errors: Iterable[GraphQLError],
    kind: str,
    status: HTTPStatus = HTTPStatus.OK,
) -> Response:
    told = [_told(error, kind) for error in errors]
    whole = ({"errors": told} if told else {}) | (content or {})
    media_type = _ANSWER_TYPE if _ANSWER_TYPE in request.headers.get("accept", "") else _JSON
    return JSONResponse(whole, status, media_type=media_type)


def _told(error: GraphQLError, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {"message": error.message[:_MOST_MESSAGE]}
    if error.locations:
        found["locations"] = [{"line": one.line, "column": one.column} for one in error.locations]
    if error.path is not None:
        found["path"] = error.path
    return found | {"extensions": {"classification": kind}}
