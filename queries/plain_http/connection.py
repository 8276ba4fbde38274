"""uvicorn's HTTP/1.1 connection, for callers that are bounded in number and in patience."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from framewalk.engine.peers import Peers

if TYPE_CHECKING:
    import asyncio

# A connection is looked at so often while the patience lasts.
_LOOKS: Final = 8
# Less than that, read while the patience lasts, is nothing.
_READ_BYTES: Final = 2**16
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_ASKING: Final = (h11.IDLE, h11.SEND_BODY)
_PEERS: Final = Peers()


@dataclass(slots=True)
class _Bounds:
    """What all connections of a server have in common."""

    patience_s: float
    most: int
    most_per_peer: int
    connections: Counter[str] = field(default_factory=Counter)


def patient_http1(
    patience_s: float = 20, most: int = 256, most_per_peer: int = 64
) -> type[H11Protocol]:
    """Return a protocol for a server of uvicorn's.

    A request that is not whole after `patience_s`, and an answer of which nothing is read for as
    long, cost their connection; so do connections over the bounds.
    """

    class Bounded(_PatientHttp1):
        bounds = _Bounds(patience_s, most, most_per_peer)

    return Bounded


class _PatientHttp1(H11Protocol):
    bounds: ClassVar[_Bounds]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or turn away who is one too many."""
        super().connection_made(transport)
        bounds = self.bounds
        self._peer = _PEERS.name(*self.client) if self.client else ""
        bounds.connections[self._peer] += 1
        self._look_timer: asyncio.TimerHandle | None = None
        self._state: object = None
        self._pauses = 0
        if (
            bounds.connections.total() > bounds.most
            or bounds.connections[self._peer] > bounds.most_per_peer
        ):
            transport.abort()
        else:
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self.bounds.connections[self._peer] -= 1
        if not self.bounds.connections[self._peer]:
            del self.bounds.connections[self._peer]
        if self._look_timer is not None:
            self._look_timer.cancel()

    def pause_writing(self) -> None:
        """Wait for the caller to read."""
        super().pause_writing()
        self._pauses += 1

    def _look(self) -> None:
        """Cut off a caller that has kept us waiting for one thing all the time."""
        now_s, state = self.loop.time(), self._waits_for()
        if state is None or state != self._state:
            self._state, self._since_s = state, now_s
        elif now_s - self._since_s >= self.bounds.patience_s:
            self._cut()
            return
        self._look_timer = self.loop.call_later(self.bounds.patience_s / _LOOKS, self._look)

    def _cut(self) -> None:
        """End at once, with what the system holds for a caller that does not read it."""
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE
        )
        self.transport.abort()

    def _waits_for(self) -> object:
        """Return what the caller is to do next, None where it is our turn."""
        if self.transport.is_closing() or self.flow.write_paused:
            left = self.transport.get_write_buffer_size() // _READ_BYTES
            return "reading", self._pauses, left
        if self.conn.their_state in _ASKING:
            # A request of which the head has come is the same request, and after each answer
            # another one is waited for: whoever asks again and again keeps nobody waiting.
            is_begun = self.conn.their_state is h11.SEND_BODY
            return self.cycle if is_begun else ("asking", self.cycle)
        return None
