"""The services as an ASGI application: gRPC over HTTP/2, as any server that does trailers has it.

What is needed of gRPC is small: unary calls and client streams, answered by one message and a
status. A caller's deadline is not looked at: it ends the stream itself, and `longest_stream_s` is
there for one that does not.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from framewalk.receiver.intake import LimitError, Received
from framewalk.receiver.spool import SpoolFullError
from framewalk.receiver.transports.frames import (
    ENCODINGS,
    CallError,
    FrameSplitter,
    Status,
    framed,
    status_headers,
)
from framewalk.receiver.transports.services import (
    COLLECT,
    IGNORED_STREAMS,
    NOTHING,
    UNARY_METHODS,
    BadRequestError,
)
from framewalk.receiver.transports.transport import AUTHENTICATION, REFUSED, WRONG_TOKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from framewalk.engine.telling import Tally
    from framewalk.receiver.intake import Collector

    Scope = Mapping[str, Any]
    Receive = Callable[[], Awaitable[Mapping[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]
    Headers = list[tuple[bytes, bytes]]

_LOG: Final = logging.getLogger(__name__)
_GRPC: Final = b"application/grpc"
_PLAIN_TEXT: Final[Headers] = [(b"content-type", b"text/plain; charset=utf-8")]
_GRPC_HEADERS: Final[Headers] = [(b"content-type", _GRPC), (b"grpc-accept-encoding", ENCODINGS)]
_CHECK: Final = "/grpc.health.v1.Health/Check"
_WATCH: Final = "/grpc.health.v1.Health/Watch"
_METHODS: Final = frozenset((COLLECT, *IGNORED_STREAMS, *UNARY_METHODS, _CHECK, _WATCH))
_STREAMS: Final = frozenset((COLLECT, *IGNORED_STREAMS))
_HEALTH: Final = frozenset((_CHECK, _WATCH))


class _BrokenOffError(Exception):
    """The caller is gone: there is nobody to answer."""


class _UnauthenticatedError(CallError):
    """The caller does not show the token."""


class GrpcApp:
    """Answers every method; `stopping` is set when health is to say NOT_SERVING.

    `tally` hears of senders that are refused.
    """

    def __init__(
        self, collector: Collector, token: str | None, max_message_bytes: int, tally: Tally
    ) -> None:
        self.stopping = asyncio.Event()
        self._collector = collector
        self._token = token.encode() if token else None
        self._max_message_bytes = max_message_bytes
        self._tally = tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if scope["method"] != "POST":
            await _say(send, 405, "This is a gRPC server: it takes POST requests over HTTP/2.\n")
        elif not _is_grpc(headers.get(b"content-type", b"")):
            await _say(send, 415, "This is a gRPC server: it takes application/grpc.\n")
        else:
            frames = FrameSplitter(self._max_message_bytes, headers.get(b"grpc-encoding", b""))
            answer = _Answer(send, has_trailers=headers.get(b"te", b"").lower() == b"trailers")
            await self._call(scope, headers, _Body(receive, frames), answer)

    async def _call(
        self, scope: Scope, headers: dict[bytes, bytes], body: _Body, answer: _Answer
    ) -> None:
        method = scope["path"]
        try:
            self._check(method, headers)
            if method == _WATCH:
                await self._watch(body, answer)
            else:
                await answer.end(await self._handle(method, body))
        except _BrokenOffError:
            return
        except (LimitError, SpoolFullError) as error:
            self._tally.add(REFUSED, _peer(scope), error.reason)
            await answer.refuse(Status.RESOURCE_EXHAUSTED, str(error))
        except _UnauthenticatedError as error:
            self._tally.add(REFUSED, _peer(scope), AUTHENTICATION)
            await answer.refuse(error.status, str(error))
        except CallError as error:
            await answer.refuse(error.status, str(error))
        except BadRequestError as error:
            await answer.refuse(Status.INVALID_ARGUMENT, str(error))
        except TimeoutError:
            await answer.refuse(Status.DEADLINE_EXCEEDED, "the request took too long")
        except Exception:  # noqa: BLE001 - whatever it is, the caller must not wait for ever
            _LOG.exception("call failed", extra={"facts": {"method": method}})
            await answer.refuse(Status.INTERNAL, "the server failed; its log says why")

    def _check(self, method: str, headers: Mapping[bytes, bytes]) -> None:
        if method not in _METHODS:
            raise CallError(Status.UNIMPLEMENTED, f"there is no method {method}")
        if self._token is None or method in _HEALTH:
            return
        if not hmac.compare_digest(headers.get(AUTHENTICATION.encode(), b""), self._token):
            if method in _STREAMS:
                self._collector.telemetry.refused(AUTHENTICATION)
            raise _UnauthenticatedError(Status.UNAUTHENTICATED, WRONG_TOKEN)

    async def _handle(self, method: str, body: _Body) -> bytes:
        if method == COLLECT:
            await self._collector.collect(body.received())
            return NOTHING
        async with asyncio.timeout(self._collector.longest_stream_s):
            if method in _STREAMS:
                await self._ignore(body)
                return NOTHING
            request = await self._only_message(body)
        return self._health(request) if method == _CHECK else UNARY_METHODS[method](request)

    async def _ignore(self, body: _Body) -> None:
        share = self._collector.in_flight.open_request()
        try:
            async for received in body.received():
                share.add(0, 0, received.partial_bytes)
        finally:
            share.close()

    async def _only_message(self, body: _Body) -> bytes:
        messages: list[bytes] = []
        share = self._collector.in_flight.open_request()
        try:
            async for more, partial_bytes in body.received():
                share.add(len(more), sum(map(len, more)), partial_bytes)
                messages += more
        finally:
            share.close()
        if len(messages) != 1:
            message = f"the method takes one message, and {len(messages)} came"
            raise CallError(Status.UNIMPLEMENTED, message)
        return messages[0]

    def _health(self, request: bytes) -> bytes:
        if _service_of(request):
            raise CallError(Status.NOT_FOUND, "health is known of the whole server only")
        status = HealthCheckResponse.NOT_SERVING if self.stopping.is_set() else _SERVING
        return bytes(HealthCheckResponse(status=status).SerializeToString())

    async def _watch(self, body: _Body, answer: _Answer) -> None:
        """Tell the health, and what it changes to, until the caller is gone or the server stops."""
        request = await self._only_message(body)
        if _service_of(request):
            unknown = HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN)
            await answer.add(unknown.SerializeToString())
        else:
            await answer.add(self._health(request))
        stopping, gone = map(asyncio.ensure_future, (self.stopping.wait(), body.until_gone()))
        try:
            await asyncio.wait((stopping, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            gone.cancel()
        if not gone.done():
            await answer.end(self._health(b""))


_SERVING: Final = HealthCheckResponse.SERVING


def _service_of(request: bytes) -> str:
    try:
        return str(HealthCheckRequest.FromString(request).service)
    except DecodeError as error:
        message = "the request is not a HealthCheckRequest"
        raise CallError(Status.INVALID_ARGUMENT, message) from error


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _is_grpc(content_type: bytes) -> bool:
    rest = content_type.lower().removeprefix(_GRPC)
    return len(rest) < len(content_type) and (not rest or rest[:1] in b"+;")


async def _say(send: Send, status: int, text: str) -> None:
    await send({"type": "http.response.start", "status": status, "headers": _PLAIN_TEXT})
    await send({"type": "http.response.body", "body": text.encode()})


class _Body:
    """The messages of a request, a chunk of the body at a time."""

    def __init__(self, receive: Receive, frames: FrameSplitter) -> None:
        self._receive = receive
        self._frames = frames

    async def received(self) -> AsyncIterator[Received]:
        """Yield what comes until the end; raise _BrokenOffError where there is none."""
        receive, frames = self._receive, self._frames
        has_more = True
        while has_more:
            event = await receive()
            if event["type"] != "http.request":
                raise _BrokenOffError
            has_more = event["more_body"]
            messages = frames.feed(event["body"])
            yield Received(messages, frames.pending_bytes)
        frames.end()

    async def until_gone(self) -> None:
        """Return when the caller is gone."""
        while (await self._receive())["type"] == "http.request":
            pass


class _Answer:
    """One answer. Its status is in trailers; if the caller takes none, in the headers."""

    def __init__(self, send: Send, *, has_trailers: bool) -> None:
        self._send = send
        self._has_trailers = has_trailers
        self._is_begun = False

    async def add(self, message: bytes) -> None:
        """Send a message, with more to come."""
        await self._begin([])
        await self._body(framed(message), more=True)

    async def end(self, message: bytes) -> None:
        """Send the last message and say that all went well."""
        await self._finish(framed(message), status_headers(Status.OK))

    async def refuse(self, status: Status, message: str) -> None:
        """Say what went wrong."""
        await self._finish(b"", status_headers(status, message))

    async def _finish(self, body: bytes, status: Headers) -> None:
        await self._begin([] if self._has_trailers else status)
        await self._body(body, more=False)
        if self._has_trailers:
            await self._send({"type": "http.response.trailers", "headers": status})

    async def _begin(self, status: Headers) -> None:
        if self._is_begun:
            return
        self._is_begun = True
        headers, trailers = [*_GRPC_HEADERS, *status], self._has_trailers
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await self._send(start | {"trailers": trailers})

    async def _body(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
