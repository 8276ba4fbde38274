"""How much may be under way at once, and whose it is.

One peer may hold everything while nobody else asks. When room is short, a peer below its share
gets it: open calls of the largest holder are ended for it, and it waits where all that is left to
end is whole and on its way to the disk. Everybody else is told no, at once.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from framewalk.engine.errors import FramewalkError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# What holding a message costs besides its content.
MESSAGE_OVERHEAD_BYTES: Final = 64
# A stream is one record batch, and Arrow counts its bytes with 31 bits.
LARGEST_STREAM_BYTES: Final = 2**30


class Limit(StrEnum):
    """What there is too much of: the label of a counter."""

    STREAMS = "streams"
    BYTES_IN_FLIGHT = "bytes_in_flight"
    STREAM_BYTES = "stream_bytes"
    STREAM_TIME = "stream_time"


class LimitError(FramewalkError):
    """A limit is reached."""

    def __init__(self, reason: Limit, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class Why(NamedTuple):
    """What is said of a limit. No exception: one that is kept keeps what its traceback leads to."""

    limit: Limit
    message: str

    def error(self) -> LimitError:
        """Return it to be raised."""
        return LimitError(self.limit, self.message)


class Kind(StrEnum):
    """What a call is: there may be so many of each kind, so that neither starves the other."""

    STREAM = "streams"
    REQUEST = "requests"


def _calls_by_kind() -> dict[Kind, dict[Share, None]]:
    return {kind: {} for kind in Kind}


@dataclass(slots=True, eq=False)
class _Peer:
    """What one peer holds; its calls are the open ones, the oldest first."""

    name: str
    size_bytes: int = 0
    waiting: int = 0
    calls: dict[Kind, dict[Share, None]] = field(default_factory=_calls_by_kind)

    @property
    def is_idle(self) -> bool:
        """Whether it holds nothing and wants nothing."""
        return not (self.waiting or any(self.calls.values()))

    def unfinished(self, *kinds: Kind) -> list[Share]:
        """Return the calls that can be ended, of some kinds."""
        return [call for kind in kinds for call in self.calls[kind] if call.can_end]


@dataclass(slots=True, eq=False)
class InFlight:
    """The calls and bytes that were received and are not on disk yet. Not thread-safe.

    At most `max_streams` streams are open, and as many other requests. `longest_wait_s` is how long
    a peer below its share waits for room.
    """

    max_streams: int
    max_bytes: int
    longest_wait_s: float = 10
    size_bytes: int = 0
    _peers: dict[str, _Peer] = field(default_factory=dict)
    _open: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    _waiting: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def max_stream_bytes(self) -> int:
        """What one stream may have at most."""
        return min(self.max_bytes, LARGEST_STREAM_BYTES)

    @property
    def streams(self) -> int:
        """The streams that are open now."""
        return self._open[Kind.STREAM]

    async def open(self, name: str, kind: Kind = Kind.STREAM) -> Share:
        """Make room for one more call of a peer; raise LimitError where there is none."""
        peer = self._peers.setdefault(name, _Peer(name))
        if self._open[kind] >= self.max_streams:
            await self._wait_for_room(peer, lambda: self._has_call(peer, kind))
        call = Share(self, peer, kind)
        peer.calls[kind][call] = None
        self._open[kind] += 1
        return call

    async def make_room(self, call: Share, more_bytes: int) -> None:
        """Return when so many bytes more fit in; raise LimitError if they do not."""
        await self._wait_for_room(call.peer, lambda: self._has_bytes(call.peer, more_bytes))

    def has_room(self, more_bytes: int) -> bool:
        """Tell whether so many bytes more fit in, and nobody waits."""
        return self.size_bytes + more_bytes <= self.max_bytes and not self._waiting

    def give_back(self, call: Share) -> None:
        """Take a call, and what it holds, out of the sums."""
        peer = call.peer
        del peer.calls[call.kind][call]
        self._open[call.kind] -= 1
        self.size_bytes -= call.held_bytes
        peer.size_bytes -= call.held_bytes
        self._forget_if_idle(peer)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def _wait_for_room(self, peer: _Peer, is_there: Callable[[], bool]) -> None:
        """Wait until there is room, ending what others hold; LimitError says that there is none."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + self.longest_wait_s
        peer.waiting += 1
        try:
            while not is_there():
                freed = loop.create_future()
                self._waiting.add(freed)
                try:
                    async with asyncio.timeout_at(ends_s):
                        await freed
                finally:
                    self._waiting.discard(freed)
        except TimeoutError as error:
            message = f"there was no room for {self.longest_wait_s:g} s: the disk is slow"
            raise LimitError(Limit.BYTES_IN_FLIGHT, message) from error
        finally:
            peer.waiting -= 1
            self._forget_if_idle(peer)
        self._peers[peer.name] = peer

    def _has_bytes(self, peer: _Peer, more_bytes: int) -> bool:
        """Tell whether the bytes fit in; False says that it is worth waiting."""
        why = Why(
            Limit.BYTES_IN_FLIGHT, f"{self.max_bytes:,} bytes are in flight, the most allowed"
        )
        fair_bytes = self.max_bytes // len(self._peers)
        is_below = peer.size_bytes + more_bytes <= fair_bytes
        if self._waiting and not is_below:
            raise why.error()
        while self.size_bytes + more_bytes > self.max_bytes:
            if not is_below:
                raise why.error()
            calls = self._largest(lambda one: one.size_bytes, fair_bytes, *Kind)
            if not calls:
                return False
            max(calls, key=lambda call: call.held_bytes).end(why)
        return True

    def _has_call(self, peer: _Peer, kind: Kind) -> bool:
        """Do the same for one more call."""
        why = Why(Limit.STREAMS, f"{self.max_streams:,} {kind} are open, the most allowed")
        fair = self.max_streams // len(self._peers)
        is_below = len(peer.calls[kind]) < fair
        while self._open[kind] >= self.max_streams:
            if not is_below:
                raise why.error()
            calls = self._largest(lambda one: len(one.calls[kind]), fair, kind)
            if not calls:
                return False
            calls[0].end(why)
        return True

    def _largest(self, held: Callable[[_Peer], int], fair: int, *kinds: Kind) -> list[Share]:
        """Return what can be ended of who holds most, and more than its share."""
        above = sorted((peer for peer in self._peers.values() if held(peer) > fair), key=held)
        return next((calls for peer in reversed(above) if (calls := peer.unfinished(*kinds))), [])

    def _forget_if_idle(self, peer: _Peer) -> None:
        if peer.is_idle:
            self._peers.pop(peer.name, None)


@dataclass(slots=True, eq=False)
class Share:
    """What one call holds of the limits; give it back with `close`.

    `size_bytes` is the content of its whole messages. Inside of `within` the call can be ended for
    somebody else; outside of it, it is whole.
    """

    total: InFlight
    peer: _Peer
    kind: Kind
    size_bytes: int = 0
    held_bytes: int = 0
    _partial_bytes: int = 0
    _ended: Why | None = None
    _timeout: asyncio.Timeout | None = None
    _is_closed: bool = False

    @property
    def can_end(self) -> bool:
        """Whether the call is under way, and was not ended yet."""
        return self._timeout is not None and not self._timeout.expired() and self._ended is None

    @asynccontextmanager
    async def within(self, longest_s: float | None) -> AsyncIterator[asyncio.Timeout]:
        """Run what may be ended for another peer: LimitError then, TimeoutError if too long."""
        try:
            async with asyncio.timeout(longest_s) as timeout:
                self._timeout = timeout
                yield timeout
        except TimeoutError as error:
            if self._ended is not None:
                raise self._ended.error() from error
            raise
        finally:
            self._timeout = None

    async def add(self, messages: int, size_bytes: int, partial_bytes: int) -> None:
        """Count more whole messages, and what is held of the next one in place of what was.

        Raises LimitError where there is no room for it.
        """
        total = self.total
        if self.size_bytes + size_bytes + partial_bytes > total.max_stream_bytes:
            message = f"the stream is larger than {total.max_stream_bytes:,} bytes"
            raise LimitError(Limit.STREAM_BYTES, message)
        more_bytes = size_bytes + messages * MESSAGE_OVERHEAD_BYTES
        more_bytes += partial_bytes - self._partial_bytes
        if more_bytes > 0 and not total.has_room(more_bytes):
            await total.make_room(self, more_bytes)
        if self._ended is not None:
            raise self._ended.error()
        total.size_bytes += more_bytes
        self.peer.size_bytes += more_bytes
        self.held_bytes += more_bytes
        self.size_bytes += size_bytes
        self._partial_bytes = partial_bytes

    def end(self, why: Why) -> None:
        """End the call for somebody else: what it holds is free at once, and it hears soon."""
        assert self._timeout is not None  # noqa: S101 - `can_end` was asked
        self._ended = why
        self._timeout.reschedule(0)
        self.close()

    def close(self) -> None:
        """Give back what the call holds."""
        if not self._is_closed:
            self._is_closed = True
            self.total.give_back(self)
