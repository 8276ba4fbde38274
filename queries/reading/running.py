"""Work of DuckDB under way for a client: in threads, cancelled when it is late or nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import duckdb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive

_T = TypeVar("_T")

# An interrupt that comes between two calls of DuckDB is lost, so it is sent again.
_INTERRUPT_EVERY_S: Final = 0.05
# How long an answer waits for the work to notice that it is cancelled.
_PATIENCE_S: Final = 1.0
# How long work that was interrupted may go on; on a busy machine DuckDB needs seconds to notice.
_OUTLIVES_S: Final = 5.0


class BusyError(Exception):
    """As many queries wait as may."""


class LateError(Exception):
    """The time is up."""


class GoneError(Exception):
    """The client has gone."""


def in_thread(function: Callable[[], _T]) -> asyncio.Future[_T]:
    """Call a function in a thread that an exit of the process does not wait for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def work() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            _tell(loop, future, error=error)
        else:
            _tell(loop, future, result=result)

    threading.Thread(target=work, daemon=True, name="sql query").start()
    return future


def _tell(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    result: object = None,
    error: BaseException | None = None,
) -> None:
    def tell() -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration):
            future.set_exception(RuntimeError("a thread raised StopIteration"))
        else:
            future.set_exception(error)

    # The loop of a server that was stopped is closed.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(tell)


class Slots:
    """So many pieces of work at once, and so many more that wait."""

    def __init__(self, concurrent: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(concurrent)
        self._waiting_limit = waiting
        self._waiting = 0

    async def acquire(self) -> None:
        """Wait for a slot; raises BusyError if as many wait as may."""
        if self._free.locked() and self._waiting >= self._waiting_limit:
            raise BusyError
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1

    def release(self) -> None:
        """Give a slot back."""
        self._free.release()


class Client:
    """Who waits for an answer: until when, and whether still."""

    def __init__(self, receive: Receive, timeout_s: float | None) -> None:
        self._gone = asyncio.ensure_future(_until_gone(receive))
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s

    async def wait(self, future: asyncio.Future[_T]) -> _T:
        """Return what comes of something under way.

        Raises LateError or GoneError where it does not come; then it goes on by itself.
        """
        left_s = None if self._deadline_s is None else max(0, self._deadline_s - time.monotonic())
        first = asyncio.FIRST_COMPLETED
        waited: set[asyncio.Future[Any]] = {future, self._gone}
        await asyncio.wait(waited, timeout=left_s, return_when=first)
        if future.done():
            return future.result()
        raise GoneError if self._gone.done() else LateError

    async def wait_or_cancel(self, work: Awaitable[None], limit_s: float | None) -> None:
        """Wait for something, and at most so long; cancel it where it does not come."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait_for(self.wait(task), limit_s)
        except TimeoutError:
            raise LateError from None
        finally:
            task.cancel()

    def leave(self) -> None:
        """Stop looking whether the client is there."""
        self._gone.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Work:
    """Calls of DuckDB on one cursor, one after the other, that can be cancelled between and in.

    It holds a slot, and gives it back when its last call has ended, which after a cancellation
    may be later than the answer. Work that outlives its interrupts by seconds is told by
    `on_outlived`, once: nothing ends it but the end of the process.
    """

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        slots: Slots,
        on_outlived: Callable[[], object] | None = None,
    ) -> None:
        self.cursor = cursor
        self._slots = slots
        self._on_outlived = on_outlived
        self._step: asyncio.Future[Any] | None = None
        self._endings: list[Callable[[], object]] = []

    def at_end(self, ending: Callable[[], object]) -> None:
        """Call a function after the last call, before the cursor is closed."""
        self._endings.append(ending)

    async def step(self, client: Client, function: Callable[[], _T]) -> _T:
        """Call a function in a thread, and return what it returns.

        Raises LateError or GoneError where it does not end in time; then it is interrupted.
        """
        step = in_thread(function)
        self._step = step
        try:
            return await client.wait(step)
        except (LateError, GoneError):
            await self._interrupt(step, _PATIENCE_S)
            raise

    @property
    def ended(self) -> bool:
        """Whether no call is under way."""
        return self._step is None or self._step.done()

    def interrupt(self) -> None:
        """Interrupt the call under way."""
        if not self.ended:
            self.cursor.interrupt()

    async def close(self) -> None:
        """Interrupt what is under way, wait for its end, roll back and close the cursor."""
        if self._step is not None:
            await self._interrupt(self._step, _OUTLIVES_S)
            if not self._step.done() and self._on_outlived is not None:
                self._on_outlived()
            await self._interrupt(self._step, None)
        await in_thread(self._close)
        self._slots.release()

    async def _interrupt(self, step: asyncio.Future[Any], patience_s: float | None) -> None:
        deadline_s = None if patience_s is None else time.monotonic() + patience_s
        while not step.done() and (deadline_s is None or time.monotonic() < deadline_s):
            self.cursor.interrupt()
            await asyncio.wait({step}, timeout=_INTERRUPT_EVERY_S)
        if step.done():
            # Taken note of; otherwise asyncio would write it to the log.
            step.exception()

    def _close(self) -> None:
        for ending in self._endings:
            ending()
        with contextlib.suppress(duckdb.Error):
            self.cursor.rollback()
        self.cursor.close()
