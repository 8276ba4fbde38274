"""When a connection is read from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from uvicorn.protocols.http.flow_control import FlowControl

if TYPE_CHECKING:
    import asyncio

# Senders wait for the answer to a whole stream and send its messages one by one. Each time that a
# connection is read costs as much as many messages do, so some are let come together. Most streams
# fit into a window, so an answer waits for one or two of these.
_REST_S: Final = 0.004
# Who has sent so much at once waits for its window, and has more to send.
_MUCH_BYTES: Final = 2**15
_SHORT_REST_S: Final = 0.0015


class Flow(FlowControl):
    """Does not read while the other side does not, as answers would pile up, nor while it rests."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport)
        self._loop = loop
        self._rest: asyncio.TimerHandle | None = None

    def rest(self, received_bytes: int) -> None:
        """Read again in a few milliseconds; so much came at once."""
        if self._rest is None:
            if not self.read_paused:
                self._transport.pause_reading()
            rest_s = _REST_S if received_bytes < _MUCH_BYTES else _SHORT_REST_S
            self._rest = self._loop.call_later(rest_s, self._wake)

    def end(self) -> None:
        """Forget the connection."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _wake(self) -> None:
        self._rest = None
        if not self.read_paused:
            self._transport.resume_reading()

    def pause_reading(self) -> None:
        """Do not read until `resume_reading`."""
        if not self.read_paused:
            self.read_paused = True
            if self._rest is None:
                self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read, unless the other side does not."""
        if self.read_paused and not self.write_paused:
            self.read_paused = False
            if self._rest is None:
                self._transport.resume_reading()

    def pause_writing(self) -> None:
        """Do not write, and do not read either."""
        super().pause_writing()
        self.pause_reading()

    def resume_writing(self) -> None:
        """Write and read."""
        super().resume_writing()
        self.resume_reading()
