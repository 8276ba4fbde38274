"""Protocols beside a writer: one thread, over cursors of the writer's connection.

secure(store.connection)
serving = Serving(store.connection, options)
endpoint = Endpoint("promql", serving, routes(serving))
server = ProtocolServer([endpoint])
server.start()
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.responses import Response

from framewalk.engine.errors import InputError
from framewalk.engine.telling import Tally, tell_exhausted
from framewalk.queries.plain_http import QuietServer, patient_http1, quiet_config
from framewalk.queries.reading import GoneError
from framewalk.queries.serving.guard import Guard, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import uvicorn
    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp

    from framewalk.queries.serving.options import ServingOptions
    from framewalk.queries.serving.work import Serving

_LOG: Final = logging.getLogger(__name__)
_STOP_S: Final = 1.0
_JOIN_S: Final = 2.5
_CANCEL_S: Final = 1.0
# An interrupt that comes between two calls of DuckDB is lost, so it is sent again.
_INTERRUPT_EVERY_S: Final = 0.05
_MOST_CONNECTIONS: Final = 256
_MOST_OF_A_PEER: Final = 64
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to be replaced
# Nobody reads it.
_GONE_STATUS: Final = 499


class Endpoint:
    """A protocol on a port of its own: its routes, behind the guard.

    What is in `also` is answered on its port, too. `port` is the one that it listens on, once it
    does.
    """

    def __init__(
        self,
        name: str,
        serving: Serving,
        routes: Sequence[BaseRoute],
        also: Sequence[Endpoint] = (),
    ) -> None:
        self.name = name
        self.serving = serving
        self.servings: tuple[Serving, ...] = (
            serving,
            *(more for one in also for more in one.servings),
        )
        self.routes: tuple[BaseRoute, ...] = (
            *routes,
            *(route for one in also for route in one.routes),
        )
        self.port = serving.options.port
        self.listener: socket.socket | None = None
        handlers = {Refusal: _refuse, GoneError: _no_answer, Exception: self._apologize}
        app = Starlette(routes=list(self.routes), exception_handlers=handlers)
        self.app: ASGIApp = Guard(app, serving.options)

    def listen(self) -> None:
        """Take the port; raise InputError where it cannot be had."""
        self.listener = _listen(self.serving.options.host, self.port, self.name)
        self.port = self.listener.getsockname()[1]

    async def _apologize(self, _request: Request, error: Exception) -> Response:
        _LOG.error("the %s endpoint failed", self.name, exc_info=error)
        problem = f"this is a bug in framewalk: {type(error).__name__}"
        remedy = "please report it with what the server's log says"
        return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, problem, remedy).response()


class ProtocolServer:
    """Answers over HTTP from a thread of its own, each endpoint on its port.

    Connections are of the writer, and `secure` was called with them; each query gets a cursor, in
    a transaction that only reads, so neither waits for the other.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        """Prepare a server; nothing is answered yet."""
        self.endpoints = tuple(endpoints)
        self._servers = [QuietServer(_config(one.app, one.serving.options)) for one in endpoints]
        self._thread = threading.Thread(target=self._serve, daemon=True, name="query protocols")

    def start(self) -> None:
        """Listen where that is not done yet, and answer; raises InputError where it cannot."""
        try:
            for endpoint in self.endpoints:
                if endpoint.listener is None:
                    endpoint.listen()
        except InputError:
            self._close()
            raise
        self._thread.start()
        for server in self._servers:
            server.listens.wait()

    def cancel_queries(self) -> None:
        """Cancel what is under way, so that its memory is free soon after; takes a second.

        What comes after it began may be cancelled too.
        """
        deadline_s = time.monotonic() + _CANCEL_S
        while time.monotonic() < deadline_s:
            self._interrupt()
            time.sleep(_INTERRUPT_EVERY_S)

    def stop(self) -> None:
        """Cancel what is under way and stop, within seconds.

        A query that computes one very long value does not notice at once; its thread then goes on,
        and ends with the process.
        """
        for server in self._servers:
            server.should_exit = True
        self._interrupt()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        self._close()

    def _interrupt(self) -> None:
        for serving in self._servings():
            serving.interrupt()

    def _servings(self) -> dict[Serving, None]:
        return dict.fromkeys(serving for one in self.endpoints for serving in one.servings)

    def _close(self) -> None:
        for endpoint in self.endpoints:
            if endpoint.listener is not None:
                endpoint.listener.close()

    def _serve(self) -> None:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            tell_exhausted(loop, Tally(loop.call_later))
            runner.run(self._answer())

    async def _answer(self) -> None:
        listeners = [one.listener for one in self.endpoints if one.listener is not None]
        pairs = zip(self._servers, listeners, strict=True)
        await asyncio.gather(*(server.serve(sockets=[one]) for server, one in pairs))
        await asyncio.gather(*(one.finish(_STOP_S) for one in self._servings()))


def _config(app: ASGIApp, options: ServingOptions) -> uvicorn.Config:
    context = options.ssl_context
    return quiet_config(
        app,
        patient_http1(options.patience_s, _MOST_CONNECTIONS, _MOST_OF_A_PEER),
        headers=[("server", "framewalk")],
        limit_concurrency=_MOST_CONNECTIONS,
        ssl_context_factory=None if context is None else lambda _config, _default: context,
    )


async def _refuse(_request: Request, error: Exception) -> Response:
    if not isinstance(error, Refusal):
        raise error
    return error.response()


async def _no_answer(_request: Request, _error: Exception) -> Response:
    return Response(status_code=_GONE_STATUS)


def _listen(host: str, port: int, name: str) -> socket.socket:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        problem = f"cannot be listened on ({(error.strerror or str(error)).lower()})"
        remedy = f"name another port or host for {name}"
        raise InputError(place, problem, remedy) from error


def address_of(options: ServingOptions, port: int) -> str:
    """Return the URL by which this machine finds what listens there."""
    host = _EVERYWHERE.get(options.host, options.host)
    scheme = "http" if options.ssl_context is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
