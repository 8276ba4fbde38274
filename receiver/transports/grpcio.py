"""The transport on grpcio's asyncio server. Messages are not looked into: they are bytes."""

from __future__ import annotations

import asyncio
import hmac
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from framewalk.engine.errors import InputError
from framewalk.engine.peers import Peers
from framewalk.engine.telling import Tally, tell
from framewalk.receiver.intake import LimitError, Received
from framewalk.receiver.spool import SpoolFullError
from framewalk.receiver.transports.services import (
    COLLECT,
    IGNORED_STREAMS,
    NOTHING,
    UNARY_METHODS,
    BadRequestError,
)
from framewalk.receiver.transports.tls import TlsFiles
from framewalk.receiver.transports.transport import AUTHENTICATION, REFUSED, WRONG_TOKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from framewalk.receiver.intake import Collector
    from framewalk.receiver.transports.options import GrpcServer, Tls

# A sender that says nothing is asked whether it is there, and given up if it does not answer.
_KEEPALIVE_MS: Final = 30_000
_KEEPALIVE_TIMEOUT_MS: Final = 10_000
_ANY_NUMBER: Final = 0

_Context = Any
_Handler = Any


class GrpcTransport:
    """One gRPC server on one port: the services of wire.md, and health.

    Raises InputError where the port or the TLS files cannot be used.
    """

    def __init__(self, options: GrpcServer, collector: Collector, token: str | None) -> None:
        self._collector = collector
        self._peers = Peers(options.trusted_proxies)
        self._health = health.HealthServicer()
        self._tally = Tally(_later)
        self._server = grpc.aio.server(
            interceptors=[_TokenInterceptor(token, self._count_refused)] if token else [],
            options=_channel_options(options),
        )
        self._server.add_generic_rpc_handlers((_RawHandlers(self._handlers()),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = self._bind(options)

    async def start(self) -> None:
        """Accept calls and say that the server is healthy."""
        tell(
            logging.WARNING,
            "grpcio does not hold all limits",
            unbounded="connections, resets, half requests, memory to inflate messages",
            remedy="where senders are not trusted, set grpcTransport to uvicorn",
        )
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and give those under way this long to end."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
        self._tally.finish()

    def _bind(self, options: GrpcServer) -> int:
        host = f"[{options.host}]" if ":" in options.host else options.host
        address = f"{host}:{options.port}"
        credentials = _credentials(options.tls) if options.tls is not None else None
        try:
            if credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, credentials))
        except RuntimeError as error:
            problem = "this address cannot be listened on, or its port is in use"
            raise InputError(address, problem, "name another port or host") from error

    def _handlers(self) -> dict[str, _Handler]:
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(_unary(answer))
            for name, answer in UNARY_METHODS.items()
        }
        handlers |= {
            name: grpc.stream_unary_rpc_method_handler(_ignore) for name in IGNORED_STREAMS
        }
        handlers[COLLECT] = grpc.stream_unary_rpc_method_handler(self._collect)
        return handlers

    async def _collect(self, messages: AsyncIterator[bytes], context: _Context) -> bytes:
        peer = _peer_of(self._peers, context.peer())
        try:
            await self._collector.collect(_until_end(messages, context), peer)
        except (LimitError, SpoolFullError) as error:
            self._tally.add(REFUSED, peer, error.reason)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        return NOTHING

    def _count_refused(self, context: _Context, *, is_stream: bool) -> None:
        self._tally.add(REFUSED, _peer_of(self._peers, context.peer()), AUTHENTICATION)
        if is_stream:
            self._collector.telemetry.refused(AUTHENTICATION)


def _later(delay_s: float, function: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(delay_s, function)


def _peer_of(peers: Peers, address: str) -> str:
    """Return a peer's name from what grpcio calls it: `ipv4:127.0.0.1:4711`, `ipv6:[::1]:4711`."""
    host, _, port = unquote(address).partition(":")[2].rpartition(":")
    return peers.name(host.strip("[]"), int(port)) if port.isdigit() else address


async def _until_end(messages: AsyncIterator[bytes], context: _Context) -> AsyncIterator[Received]:
    """Yield a stream's messages; raise CancelledError if it broke off."""
    async for message in messages:
        yield Received((message,))
    # For a stream that broke off, grpcio ends the messages as for a whole one, and cancels the call
    # a moment later. Headers go through the same queue: once they are sent, it is known which.
    await context.send_initial_metadata(())
    if context.cancelled() or context.done():
        raise asyncio.CancelledError


def _unary(answer: Callable[[bytes], bytes]) -> Callable[[bytes, _Context], Awaitable[bytes]]:
    async def handle(request: bytes, context: _Context) -> bytes:
        try:
            return answer(request)
        except BadRequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise

    return handle


async def _ignore(messages: AsyncIterator[bytes], _context: _Context) -> bytes:
    async for _ in messages:
        pass
    return NOTHING


class _RawHandlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds a method's handler by its full name; requests and answers stay bytes."""

    def __init__(self, handlers: dict[str, _Handler]) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Handler | None:
        return self._handlers.get(handler_call_details.method)


class _TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without the token. Health is asked by probes, which have none."""

    def __init__(self, token: str, on_refused: Callable[..., None]) -> None:
        self._token = token.encode()
        self._refuse_call = _refusing(partial(on_refused, is_stream=False))
        self._refuse_stream = _refusing(partial(on_refused, is_stream=True))

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith("/grpc.health.v1."):
            return handler
        shown = dict(handler_call_details.invocation_metadata).get(AUTHENTICATION, "")
        shown = shown.encode() if isinstance(shown, str) else shown
        if hmac.compare_digest(shown, self._token):
            return handler
        if not handler.request_streaming:
            return grpc.unary_unary_rpc_method_handler(self._refuse_call)
        return grpc.stream_unary_rpc_method_handler(self._refuse_stream)


def _refusing(on_refused: Callable[[_Context], None]) -> Callable[..., Awaitable[bytes]]:
    async def refuse(_request: object, context: _Context) -> bytes:
        on_refused(context)
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, WRONG_TOKEN)
        return NOTHING

    return refuse


def _channel_options(options: GrpcServer) -> list[tuple[str, int]]:
    channel = [
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        # A sender may ask as often as it likes whether the connection is alive.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", _ANY_NUMBER),
    ]
    if options.max_calls_per_connection is not None:
        channel.append(("grpc.max_concurrent_streams", options.max_calls_per_connection))
    return channel


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return credentials that follow the files when they change."""
    files = TlsFiles(tls)

    def read() -> grpc.ServerCertificateConfiguration:
        key, chain, roots = files.pem()
        return grpc.ssl_server_certificate_configuration([(key, chain)], roots)

    return grpc.dynamic_ssl_server_credentials(
        read(),
        lambda: files.if_changed(read),
        require_client_authentication=tls.trusted_ca_path is not None,
    )
