"""The transport on uvicorn's HTTP/2: its connections, in a loop and with a stop of our own."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn
from uvicorn.server import ServerState

from framewalk.engine.errors import InputError
from framewalk.engine.peers import Peers
from framewalk.engine.telling import Tally
from framewalk.receiver.transports.tls import server_ssl_context
from framewalk.receiver.transports.uvicorn.app import GrpcApp
from framewalk.receiver.transports.uvicorn.listening import (
    Admission,
    Listener,
    Places,
    most_connections,
)
from framewalk.receiver.transports.uvicorn.protocol import GrpcConnection, Shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from framewalk.receiver.intake import Collector
    from framewalk.receiver.transports.options import GrpcServer

_BACKLOG: Final = 2048
# A sender that is silent may come back after long; one whose machine is gone is found by TCP.
_IDLE_TIMEOUT_S: Final = 3600
# What a stream that has come whole has to be written, when the time of a stop is used up.
_LAST_WRITE_S: Final = 1
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Http2Transport:
    """One server on one port: the services of wire.md, and health.

    Raises InputError where the port or the TLS files cannot be used.
    """

    def __init__(self, options: GrpcServer, collector: Collector, token: str | None) -> None:
        self._tls = server_ssl_context(options.tls) if options.tls is not None else None
        self._tally = Tally(_later)
        self._app = GrpcApp(collector, token, options.max_message_bytes, self._tally)
        self._config = _uvicorn_config(self._app)
        self._state = ServerState()
        self._options = options
        self._lost = asyncio.Event()
        self._listener: Listener | None = None
        self._sockets = _listen(options.host, options.port)
        self.port = int(self._sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Accept calls; health says SERVING from now on."""
        loop, options = asyncio.get_running_loop(), self._options
        most = most_connections(options.max_connections)
        places = Places(most, options.max_connections_per_peer)
        shared = Shared(
            max_calls=options.max_calls_per_connection,
            patience_s=options.patience_s,
            tally=self._tally,
            places=places,
            on_lost=self._lost.set,
        )
        connect = partial(GrpcConnection, self._config, self._state, loop, shared)
        admission = Admission(places, Peers(options.trusted_proxies), self._tally)
        self._listener = Listener(admission, connect, self._tls, options.patience_s)
        self._listener.listen(self._sockets)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and give those under way this long to end."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + grace_s + _LAST_WRITE_S
        self._app.stopping.set()
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(grace_s):
                while self._connections:
                    self._lost.clear()
                    await self._lost.wait()
        except TimeoutError:
            for connection in list(self._connections):
                connection.transport.abort()
        # What has come whole is still written, if the disk takes it.
        while self._state.tasks and (left_s := ends_s - loop.time()) > 0:
            await asyncio.wait(self._state.tasks, timeout=left_s)
        for task in list(self._state.tasks):
            task.cancel()
        self._tally.finish()

    @property
    def _connections(self) -> set[GrpcConnection]:
        return cast("set[GrpcConnection]", self._state.connections)


def _later(delay_s: float, function: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(delay_s, function)


def _uvicorn_config(app: Any) -> uvicorn.Config:  # noqa: ANN401 - uvicorn's type of it is private
    """Return a configuration in which uvicorn logs, adds and assumes nothing by itself."""
    config = uvicorn.Config(
        app,
        http=GrpcConnection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_IDLE_TIMEOUT_S,
    )
    config.load()
    return config


def _listen(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for all addresses of a host, on one port."""
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in _addresses(host, port):
            chosen = sockets[0].getsockname()[1] if sockets else port
            is_both = host == "::" and socket.has_dualstack_ipv6()
            one = socket.create_server(
                (address[0], chosen), family=family, backlog=_BACKLOG, dualstack_ipv6=is_both
            )
            sockets.append(one)
            _prepare(one)
    except OSError as error:
        for one in sockets:
            one.close()
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        problem = "this address cannot be listened on, or its port is in use"
        raise InputError(place, problem, "name another port or host") from error
    return sockets


def _addresses(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)


def _prepare(listening: socket.socket) -> None:
    """Set what connections take from their listener.

    Answers go at once: asyncio sees to that itself only for sockets that were made with the
    number of TCP. And connections find out that the other side is gone.
    """
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
