"""A server of HTTP/1.1 in a thread of its own, beside whatever else a process does."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from framewalk.queries.plain_http.connection import patient_http1

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uvicorn.protocols.http.h11_impl import H11Protocol

_STOP_S: Final = 1
_JOIN_S: Final = 3
_ACCEPTED_AT_ONCE: Final = 64


class Http1Server:
    """Serves an ASGI application on a socket that listens; `stop` closes it.

    `patience_s` is what a request may take to come, and an answer to be read a part of.
    """

    def __init__(self, app: Any, listener: socket.socket, patience_s: float = 20) -> None:  # noqa: ANN401 - an ASGI application, of which there is no one type
        """Prepare a server; `start` it."""
        self._listener = listener
        http = patient_http1(patience_s, most=64, most_per_peer=16)
        self._server = QuietServer(quiet_config(app, http, backlog=_ACCEPTED_AT_ONCE))
        # uvicorn logs nothing here, and a thread that is left ends with the process.
        self._thread = threading.Thread(target=self._serve, daemon=True, name="http")

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        self._listener.close()

    def _serve(self) -> None:
        self._server.run(sockets=[self._listener])


class QuietServer(uvicorn.Server):
    """Leaves the process's signals alone, and tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        """Prepare a server."""
        super().__init__(config)
        self.listens = threading.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen.

        An answer is written in two parts, and its body would wait for the caller to acknowledge
        its head, which takes 40 ms. asyncio sees to that itself only for sockets that were made
        with the number of TCP; connections take it from their listener.
        """
        for one in sockets or ():
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await super().startup(sockets)
        self.listens.set()


def quiet_config(
    app: Any,  # noqa: ANN401 - as above
    http: type[H11Protocol],
    **more: Any,  # noqa: ANN401 - as uvicorn declares it
) -> uvicorn.Config:
    """Return settings for plain HTTP/1.1 without any log: an answer that is broken off is none."""
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_STOP_S,
        **more,
    )
