"""Prometheus' HTTP API: addresses, parameters, and answers in its forms."""

from __future__ import annotations

import json
import math
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import duckdb
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from framewalk.queries.promql import answers
from framewalk.queries.promql.evaluation import evaluate
from framewalk.queries.promql.listing import Listing, Range, number, top_list
from framewalk.queries.promql.parsing import FORM, Parameters, parse
from framewalk.queries.promql.reading import StoreSource
from framewalk.queries.promql.selectors import LABELS, matchers_of
from framewalk.queries.promql.series import Notes, PromqlError, Timeline, UnknownError
from framewalk.queries.reading import one_line
from framewalk.queries.serving import Refusal, read_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    from starlette.requests import Request

    from framewalk.queries.promql.selectors import Matcher
    from framewalk.queries.serving import Serving

    _Read: TypeAlias = Callable[[Parameters, duckdb.DuckDBPyConnection], bytes]
    _Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

_JSON: Final = "application/json"
_MOST_BODY_BYTES: Final = 1 << 20
_VERSION: Final = "2.55.0"
_BUILD: Final = {
    "version": _VERSION,
    "revision": "",
    "branch": "",
    "buildUser": "",
    "buildDate": "",
    "goVersion": "",
}
_METHODS: Final = ["GET", "POST"]
_SELECTOR: Final = "VectorSelector"
_TIMEOUT_KIND: Final = "timeout"
_UNAVAILABLE_KIND: Final = "unavailable"
_EXECUTION_KIND: Final = "execution"
_BAD_KIND: Final = "bad_data"


def routes(serving: Serving) -> list[Route]:
    """Return the routes of the API, answered with cursors of `serving`."""
    api = _Api(serving)
    read: dict[str, _Read] = {
        "query": partial(_query, now_s=time.time),
        "query_range": _query_range,
        "labels": _labels,
        "series": _series,
        "metadata": _metadata,
    }
    fixed = {
        "query_exemplars": "[]",
        "rules": '{"groups":[]}',
        "alerts": '{"alerts":[]}',
        "status/buildinfo": json.dumps(_BUILD),
    }
    found = [
        Route(f"/api/v1/{name}", api.reading(function), methods=_METHODS)
        for name, function in read.items()
    ]
    found += [
        Route(f"/api/v1/{name}", api.telling(content), methods=_METHODS)
        for name, content in fixed.items()
    ]
    return [
        *found,
        Route("/api/v1/label/{name}/values", api.label_values, methods=_METHODS),
        Route("/api/v1/format_query", api.format_query, methods=_METHODS),
        Route("/-/healthy", _healthy, methods=["GET"]),
        Route("/-/ready", _healthy, methods=["GET"]),
        Route("/api/v1/{path:path}", api.unknown, methods=_METHODS),
    ]


class _Api:
    """What answers the addresses."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def reading(self, function: _Read) -> _Endpoint:
        """Return what answers with something that is read from the store."""

        async def endpoint(request: Request) -> Response:
            return await self._answered(request, function)

        return endpoint

    def telling(self, data: str) -> _Endpoint:
        """Return what answers always the same."""

        async def endpoint(request: Request) -> Response:
            return await self._told(request, lambda _parameters: answers.success(data))

        return endpoint

    async def unknown(self, request: Request) -> Response:
        """Say that there is nothing under this address."""

        def tell(_parameters: Parameters) -> bytes:
            raise UnknownError(request.url.path)

        return await self._told(request, tell)

    async def label_values(self, request: Request) -> Response:
        """Return the values of the label in the address."""
        name = request.path_params["name"]
        return await self._answered(request, partial(_label_values, name))

    async def format_query(self, request: Request) -> Response:
        """Return a query as it is usually written."""

        def formatted(parameters: Parameters) -> bytes:
            text = parse(parameters.needed("query")).prettify()
            return answers.success(json.dumps(text))

        return await self._told(request, formatted)

    async def _answered(self, request: Request, function: _Read) -> Response:
        async def read(parameters: Parameters) -> bytes:
            asked = f"{request.url.path} {dict(parameters.values)}"
            timeout_s = (
                parameters.length_ms("timeout") / 1_000 if parameters.first("timeout") else None
            )
            if timeout_s is not None and timeout_s <= 0:
                problem = "invalid parameter 'timeout': it is not positive"
                raise PromqlError(problem)
            return await self._serving.read(
                request, asked, partial(function, parameters), timeout_s
            )

        return await self._caught(request, read)

    async def _told(self, request: Request, function: Callable[[Parameters], bytes]) -> Response:
        async def tell(parameters: Parameters) -> bytes:
            return function(parameters)

        return await self._caught(request, tell)

    async def _caught(
        self, request: Request, function: Callable[[Parameters], Awaitable[bytes]]
    ) -> Response:
        try:
            body = await read_body(request, _MOST_BODY_BYTES, self._serving.options.patience_s)
            is_form = request.headers.get("content-type", "").lower().startswith(FORM)
            query = request.scope.get("query_string", b"")
            parameters = Parameters.of(query, body if is_form else b"")
            return _json(await function(parameters))
        except PromqlError as error:
            return _failed(error.status, error.kind, error)
        except Refusal as error:
            return _failed(*_refusal(error), str(error))
        except duckdb.Error as error:
            status = HTTPStatus.UNPROCESSABLE_ENTITY
            return _failed(status, _EXECUTION_KIND, one_line(str(error)))


def _refusal(refusal: Refusal) -> tuple[HTTPStatus, str]:
    if refusal.status is HTTPStatus.REQUEST_TIMEOUT:
        return HTTPStatus.SERVICE_UNAVAILABLE, _TIMEOUT_KIND
    if refusal.status is HTTPStatus.SERVICE_UNAVAILABLE:
        return refusal.status, _UNAVAILABLE_KIND
    return refusal.status, _BAD_KIND


def _json(content: bytes) -> Response:
    return Response(content, media_type=_JSON)


def _failed(status: HTTPStatus, kind: str, error: PromqlError | str) -> Response:
    # Whoever goes on sending what is too long would take the next answer for this one's.
    ends = status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    headers = {"connection": "close"} if ends else None
    return Response(answers.failure(kind, error), status, headers, media_type=_JSON)


async def _healthy(_request: Request) -> Response:
    return PlainTextResponse("framewalk answers.\n")


def _query(
    parameters: Parameters, cursor: duckdb.DuckDBPyConnection, now_s: Callable[[], float]
) -> bytes:
    query = parameters.needed("query")
    time_ms = parameters.time_ms("time")
    moment = math.floor(now_s() * 1_000) if time_ms is None else time_ms
    return answer(cursor, query, Timeline.instant(moment))


def _query_range(parameters: Parameters, cursor: duckdb.DuckDBPyConnection) -> bytes:
    query = parameters.needed("query")
    start_ms = parameters.needed_time_ms("start")
    end_ms = parameters.needed_time_ms("end")
    timeline = Timeline.between(start_ms, end_ms, parameters.length_ms("step"))
    return answer(cursor, query, timeline)


def answer(cursor: duckdb.DuckDBPyConnection, query: str, timeline: Timeline) -> bytes:
    """Return the answer to a query at some times, as JSON.

    Raises PromqlError, ExecutionError, duckdb.Error.
    """
    node = parse(query)
    source = StoreSource.of(cursor)
    value, notes = evaluate(node, source, timeline, partial(top_list, source))
    return answers.success(answers.result(value, timeline), notes)


def _listing(
    parameters: Parameters, cursor: duckdb.DuckDBPyConnection
) -> tuple[Listing, list[list[Matcher]], int]:
    """Return what lists, the selectors that are asked for, and the limit."""
    times = Range(parameters.time_ms("start"), parameters.time_ms("end"))
    if times.first_ms is not None and times.last_ms is not None and times.last_ms < times.first_ms:
        problem = "end timestamp must not be before start time"
        raise PromqlError(problem)
    limit = number(parameters.first("limit"), "limit")
    selectors = [_selector(text) for text in parameters.values.get("match[]", ())]
    return Listing(StoreSource.of(cursor), times, Notes()), selectors, limit


def _selector(text: str) -> list[Matcher]:
    node = parse(text)
    if type(node).__name__ != _SELECTOR:
        problem = f"invalid parameter 'match[]': {text[:100]!r} is no selector"
        raise PromqlError(problem, 'give one such as {service="a"}')
    return matchers_of(node)  # type: ignore[arg-type]


def _labels(parameters: Parameters, cursor: duckdb.DuckDBPyConnection) -> bytes:
    listing, selectors, limit = _listing(parameters, cursor)
    return _listed(listing.cut(listing.label_names(selectors), limit), listing.notes)


def _label_values(name: str, parameters: Parameters, cursor: duckdb.DuckDBPyConnection) -> bytes:
    listing, selectors, limit = _listing(parameters, cursor)
    return _listed(listing.label_values(name, selectors, limit), listing.notes)


def _series(parameters: Parameters, cursor: duckdb.DuckDBPyConnection) -> bytes:
    listing, selectors, limit = _listing(parameters, cursor)
    if not selectors:
        problem = "no match[] parameter provided"
        raise PromqlError(problem)
    found = [dict(labels) for labels in listing.series(selectors, limit)]
    return _listed(found, listing.notes)


def _metadata(parameters: Parameters, cursor: duckdb.DuckDBPyConnection) -> bytes:
    source = StoreSource.of(cursor)
    stored = {one.name: one for one in source.catalogue.stored if one.scope in LABELS}
    wanted = parameters.first("metric")
    names = list(stored)
    if wanted:
        # As OAP, a pattern too: no name of a metric has a character that means something.
        names = [wanted] if wanted in stored else sorted(source.regexes.matching(wanted, stored))
    limit = number(parameters.first("limit"), "limit")
    shown = {
        name: [{"type": "gauge", "help": stored[name].definition, "unit": stored[name].unit}]
        for name in names[: limit or None]
    }
    return answers.success(json.dumps(shown))


def _listed(found: Sequence[object], notes: Notes) -> bytes:
    return answers.success(json.dumps(found), notes)
