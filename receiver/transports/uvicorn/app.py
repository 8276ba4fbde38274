"""The services as an ASGI application: gRPC over HTTP/2, as any server that does trailers has it.

What is needed of gRPC is small: unary calls and client streams, answered by one message and a
status. A caller's deadline is not looked at: it ends the stream itself, and `longest_stream_s` is
there for one that does not.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from framewalk.receiver.intake import Kind, LimitError, Received
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
    from framewalk.receiver.intake import Collector, Share
    from framewalk.receiver.transports.frames import Inflation

    Scope = Mapping[str, Any]
    Receive = Callable[[], Awaitable[Mapping[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]
    Headers = list[tuple[bytes, bytes]]

_LOG: Final = logging.getLogger(__name__)
_GRPC: Final = b"application/grpc"
_PLAIN_TEXT: Final[Headers] = [(b"content-type", b"text/plain; charset=utf-8")]
_GRPC_HEADERS: Final[Headers] = [(b"content-type", _GRPC), (b"grpc-accept-encoding", ENCODINGS)]
# One for all: more threads would take from the loop what it needs.
_INFLATING: Final = ThreadPoolExecutor(1, "inflating")
_CHECK: Final = "/grpc.health.v1.Health/Check"
_WATCH: Final = "/grpc.health.v1.Health/Watch"
_METHODS: Final = frozenset((COLLECT, *IGNORED_STREAMS, *UNARY_METHODS, _CHECK, _WATCH))
_STREAMS: Final = frozenset((COLLECT, *IGNORED_STREAMS))
_HEALTH: Final = frozenset((_CHECK, _WATCH))


class _Request(NamedTuple):
    """Who asks for what."""

    method: str
    headers: dict[bytes, bytes]
    peer: str


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
            request = _Request(scope["path"], headers, scope["state"]["peer"])
            await self._call(request, _Body(receive, frames), answer)

    async def _call(self, request: _Request, body: _Body, answer: _Answer) -> None:
        refusal = await self._refusal(request, body, answer)
        # By now nothing is held of the call, and the caller may be slow to read.
        if refusal is not None:
            await answer.refuse(*refusal)

    async def _refusal(
        self, request: _Request, body: _Body, answer: _Answer
    ) -> tuple[Status, str] | None:
        """Answer a call, or return what it is to be refused with."""
        try:
            self._check(request.method, request.headers)
            if request.method == COLLECT:
                await self._collector.collect(body.received(), request.peer)
                await answer.end(NOTHING)
            else:
                await self._handle(request, body, answer)
        except _BrokenOffError:
            return None
        except (CallError, LimitError, SpoolFullError, BadRequestError, TimeoutError) as error:
            self._count(error, request.peer)
            return _said(error)
        except Exception:  # noqa: BLE001 - whatever it is, the caller must not wait for ever
            _LOG.exception("call failed", extra={"facts": {"method": request.method}})
            return Status.INTERNAL, "the server failed; its log says why"
        return None

    def _count(self, error: Exception, peer: str) -> None:
        if isinstance(error, LimitError | SpoolFullError):
            self._tally.add(REFUSED, peer, error.reason)
        elif isinstance(error, _UnauthenticatedError):
            self._tally.add(REFUSED, peer, AUTHENTICATION)

    def _check(self, method: str, headers: Mapping[bytes, bytes]) -> None:
        if method not in _METHODS:
            raise CallError(Status.UNIMPLEMENTED, f"there is no method {method}")
        if self._token is None or method in _HEALTH:
            return
        if not hmac.compare_digest(headers.get(AUTHENTICATION.encode(), b""), self._token):
            if method in _STREAMS:
                self._collector.telemetry.refused(AUTHENTICATION)
            raise _UnauthenticatedError(Status.UNAUTHENTICATED, WRONG_TOKEN)

    async def _handle(self, request: _Request, body: _Body, answer: _Answer) -> None:
        """Answer what is no access log stream, within the peer's share of such calls."""
        share = await self._collector.in_flight.open(request.peer, Kind.REQUEST)
        try:
            if request.method in _STREAMS:
                async with share.within(self._collector.pace.longest_s):
                    await self._ignore(body, share)
                await answer.end(NOTHING)
                return
            async with share.within(self._collector.pace.whole_within_s):
                content = await self._only_message(body, share)
            if request.method == _WATCH:
                async with share.within(None):
                    await self._watch(content, body, answer)
            elif request.method == _CHECK:
                await answer.end(self._health(content))
            else:
                await answer.end(UNARY_METHODS[request.method](content))
        finally:
            share.close()

    async def _ignore(self, body: _Body, share: Share) -> None:
        async for received in body.received():
            await share.add(0, 0, received.partial_bytes)

    async def _only_message(self, body: _Body, share: Share) -> bytes:
        messages: list[bytes] = []
        async for more, partial_bytes in body.received():
            await share.add(len(more), sum(map(len, more)), partial_bytes)
            messages += more
        if len(messages) != 1:
            message = f"the method takes one message, and {len(messages)} came"
            raise CallError(Status.UNIMPLEMENTED, message)
        return messages[0]

    def _health(self, request: bytes) -> bytes:
        if _service_of(request):
            raise CallError(Status.NOT_FOUND, "health is known of the whole server only")
        status = HealthCheckResponse.NOT_SERVING if self.stopping.is_set() else _SERVING
        return bytes(HealthCheckResponse(status=status).SerializeToString())

    async def _watch(self, request: bytes, body: _Body, answer: _Answer) -> None:
        """Tell the health, and what it changes to, until the caller is gone or the server stops."""
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


def _said(error: Exception) -> tuple[Status, str]:
    match error:
        case CallError():
            return error.status, str(error)
        case BadRequestError():
            return Status.INVALID_ARGUMENT, str(error)
        case TimeoutError():
            return Status.DEADLINE_EXCEEDED, "the request took too long"
    return Status.RESOURCE_EXHAUSTED, str(error)


def _service_of(request: bytes) -> str:
    try:
        return str(HealthCheckRequest.FromString(request).service)
    except DecodeError as error:
        message = "the request is not a HealthCheckRequest"
        raise CallError(Status.INVALID_ARGUMENT, message) from error


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
            inflation = frames.inflation(messages)
            if inflation is not None:
                async for held_bytes in _inflate(inflation):
                    yield Received((), frames.pending_bytes + held_bytes)
            yield Received(messages, frames.pending_bytes)
        frames.end()

    async def until_gone(self) -> None:
        """Return when the caller is gone."""
        while (await self._receive())["type"] == "http.request":
            pass


async def _inflate(inflation: Inflation) -> AsyncIterator[int]:
    """Inflate messages in a thread; yields before each step what is held after it."""
    loop = asyncio.get_running_loop()
    is_done = False
    while not is_done:
        yield inflation.size_bytes + inflation.next_bytes
        is_done = await loop.run_in_executor(_INFLATING, inflation.step)


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
