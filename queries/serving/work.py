"""Cursors in slots for the requests of one protocol, and what is said where there is none."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar

import duckdb

from framewalk.engine.errors import LocatedError
from framewalk.engine.peers import Peers
from framewalk.queries.reading import (
    MEMORY_SETTING,
    BusyError,
    Client,
    Endangering,
    LateError,
    Slots,
    Work,
    asked,
)
from framewalk.queries.serving.guard import LATE_KIND, REFUSED_KIND, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from starlette.requests import Request

    from framewalk.queries.serving.options import ServingOptions, Watcher

_T = TypeVar("_T")

AGAIN: Final = "ask again later"
BUSY: Final = "as many queries wait as this server lets"
_PEERS: Final = Peers()


class Serving:
    """What one protocol answers with: cursors of a connection that `secure` was called with.

    Each is in a slot of this protocol, and what runs is cancelled when the client goes.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, options: ServingOptions) -> None:
        self.options = options
        self.connection = connection
        self.slots = Slots(options.concurrent_queries, options.waiting_queries)
        self._endangering = Endangering(options.refused_s)
        self._works: set[Work] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def read(
        self,
        request: Request,
        text: str,
        function: Callable[[duckdb.DuckDBPyConnection], _T],
        timeout_s: float | None = None,
    ) -> _T:
        """Return what a function makes of a cursor, in a thread and a transaction that only reads.

        The body of the request has been read. `text` is what was asked, by which it is known where
        the engine is ended for it. A function computes for less than a second between statements,
        as only they notice a cancellation.

        Raises:
            Refusal: there is no slot, the time is up, or it is cancelled, or refused.
            GoneError: the client has gone; nobody waits for an answer.
            duckdb.Error: whatever else the function raises.
        """
        limit_s = self.options.timeout_s if timeout_s is None else timeout_s
        limit_s = min(limit_s, self.options.timeout_s)
        client = Client(request.receive, limit_s)
        name = asked(text, peer_of(request))
        try:
            async with self.work(client, self.slots, BUSY, name) as work:
                return await work.step(client, lambda: self._called(work, name, function))
        except LateError as error:
            problem = f"the query took longer than {limit_s:g} seconds"
            remedy = "ask for less"
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, problem, remedy, LATE_KIND) from error
        except duckdb.InterruptException as error:
            problem = "the server stops, or needs the memory"
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, problem, AGAIN) from error
        except duckdb.OutOfMemoryException as error:
            problem = "the query needs more memory than it may have"
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, problem, "ask for less") from error
        finally:
            client.leave()

    @contextlib.asynccontextmanager
    async def work(
        self, client: Client, slots: Slots, busy: str, name: str | None = None
    ) -> AsyncIterator[Work]:
        """Give a cursor in a slot of its own; both are given back in the background."""
        try:
            await client.wait_or_cancel(slots.acquire(), None)
        except BusyError as error:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, busy, AGAIN) from error
        except LateError as error:
            problem = "other queries took all the time that this one had"
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, problem, AGAIN) from error
        work = Work(self.connection.cursor(), slots, self._watched(name))
        self._works.add(work)
        try:
            yield work
        finally:
            task = asyncio.create_task(self._end(work))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    @contextlib.contextmanager
    def transaction(self, cursor: duckdb.DuckDBPyConnection, name: str) -> Iterator[None]:
        """Begin to read with a cursor, within bounds; raise InputError where that is refused."""
        self._endangering.check(name)
        with told(self.options.watcher, name):
            memory = f"{self.options.memory_bytes} bytes"
            cursor.execute(f"SET {MEMORY_SETTING} = '{memory}'").fetchall()
            cursor.execute("BEGIN TRANSACTION READ ONLY").fetchall()
            yield

    def interrupt(self) -> None:
        """Interrupt whatever is under way."""
        for work in tuple(self._works):
            work.interrupt()

    async def finish(self, patience_s: float) -> None:
        """Wait so long for what was cancelled to end."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=patience_s)

    def _called(
        self, work: Work, name: str, function: Callable[[duckdb.DuckDBPyConnection], _T]
    ) -> _T:
        try:
            with self.transaction(work.cursor, name):
                return function(work.cursor)
        except LocatedError as error:
            raise Refusal(
                HTTPStatus.BAD_REQUEST, error.problem, error.remedy, REFUSED_KIND
            ) from error

    def _watched(self, name: str | None) -> Callable[[], object] | None:
        """Return what tells the watcher of a statement that outlives its interrupts."""
        watcher = self.options.watcher
        return None if watcher is None or name is None else partial(watcher.outlived, name)

    async def _end(self, work: Work) -> None:
        await work.close()
        self._works.discard(work)


def peer_of(request: Request) -> str:
    """Return who asks, as `asked` takes it."""
    return _PEERS.name(*request.client) if request.client else ""


@contextlib.contextmanager
def told(watcher: Watcher | None, name: str) -> Iterator[None]:
    """Tell a watcher, if there is one, of what runs inside."""
    if watcher is None:
        yield
        return
    watcher.began(name)
    try:
        yield
    finally:
        watcher.ended(name)
