"""Accepting connections, within bounds: who is over them is turned away before anything is read."""

from __future__ import annotations

import asyncio
import errno
import resource
import ssl
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from framewalk.receiver.transports.transport import REFUSED
from framewalk.receiver.transports.uvicorn.handshake import reason_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from framewalk.engine.peers import Peers
    from framewalk.engine.telling import Tally

# Descriptors that stay for the disk, for /metrics and for the engine process.
_KEPT_DESCRIPTORS: Final = 128
_FEWEST: Final = 8
# More than so many wait in the system until others had their turn.
_ACCEPTED_AT_ONCE: Final = 64
_RETRY_S: Final = 1
# So many connections of a peer that are cut off within so many seconds are no accident.
_BARRED_AFTER: Final = 8
_BARRED_S: Final = 10
_MOST_STRUCK: Final = 1024
_WAITING: Final = "connections wait, nothing is left to accept them with"
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(slots=True, eq=False)
class Place:
    """The place of one connection; `end` ends it, and `is_idle` tells if it has no call.

    A peer may have many addresses.
    """

    peer: str
    end: Callable[[], None]
    is_idle: Callable[[], bool] = lambda: True
    address: str = ""

    def forget(self) -> None:
        """Lead to nothing any more."""
        self.end, self.is_idle = lambda: None, lambda: True


@dataclass(slots=True)
class Places:
    """Who is connected: so many in all, and so many of one address of a peer.

    When all places are taken, the peer that has most gives one to a newcomer that has fewer than
    its share: the oldest without a call, else the oldest. A peer whose connections were cut off for
    abuse, several within some seconds, gets no new one for as long.
    """

    most: int
    most_per_peer: int
    _taken: int = 0
    _by_peer: dict[str, dict[Place, None]] = field(default_factory=dict)
    _by_address: Counter[tuple[str, str]] = field(default_factory=Counter)
    _strikes: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def take(self, place: Place, now_s: float) -> bool:
        """Take a place, and tell whether there was one."""
        own, address = self._by_peer.get(place.peer, {}), (place.peer, place.address)
        if self._by_address[address] >= self.most_per_peer or self.is_barred(place.peer, now_s):
            return False
        if self._taken >= self.most and not self._make_room(len(own), place.peer):
            return False
        self._by_peer.setdefault(place.peer, {})[place] = None
        self._by_address[address] += 1
        self._taken += 1
        return True

    def leave(self, place: Place) -> None:
        """Give a place back; once is enough."""
        own = self._by_peer.get(place.peer, {})
        if place in own:
            del own[place]
            self._taken -= 1
            self._by_address[place.peer, place.address] -= 1
            if not self._by_address[place.peer, place.address]:
                del self._by_address[place.peer, place.address]
        if not own:
            self._by_peer.pop(place.peer, None)

    def strike(self, peer: str, now_s: float) -> None:
        """Take note that a connection of a peer was cut off for abuse."""
        struck_s = self._strikes.pop(peer, ())
        self._strikes[peer] = (*struck_s, now_s)[-_BARRED_AFTER:]
        if len(self._strikes) > _MOST_STRUCK:
            del self._strikes[next(iter(self._strikes))]

    def is_barred(self, peer: str, now_s: float) -> bool:
        """Tell whether a peer gets no connections for now."""
        struck_s = self._strikes.get(peer, ())
        return len(struck_s) == _BARRED_AFTER and now_s - struck_s[0] < _BARRED_S

    def _make_room(self, own: int, peer: str) -> bool:
        fair = self.most // len(self._by_peer.keys() | {peer})
        largest = max(self._by_peer.values(), key=len)
        if own >= fair or len(largest) <= fair:
            return False
        oldest = next((one for one in largest if one.is_idle()), next(iter(largest)))
        self.leave(oldest)
        oldest.end()
        return True


def most_connections(wanted: int) -> int:
    """Return how many connections may be open, by the descriptors that the system lets us have."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(min(wanted, descriptors - _KEPT_DESCRIPTORS), _FEWEST)


@dataclass(frozen=True, slots=True)
class Admission:
    """Who is let in: the places, the names of peers, and who is told of those that are not."""

    places: Places
    peers: Peers
    tally: Tally


class Listener:
    """Accepts the connections of some sockets and hands them to protocols.

    `connect` makes the protocol of a place; `handshake_s` is what a TLS handshake may take.
    """

    def __init__(
        self,
        admission: Admission,
        connect: Callable[[Place], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        handshake_s: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._places = admission.places
        self._peers = admission.peers
        self._tally = admission.tally
        self._connect = connect
        self._tls = tls
        self._handshake_s = handshake_s if tls is not None else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets: list[socket.socket] = []

    def listen(self, sockets: list[socket.socket]) -> None:
        """Begin."""
        self._sockets = sockets
        for one in sockets:
            one.setblocking(False)  # noqa: FBT003 - a method of the standard library
            self._loop.add_reader(one.fileno(), self._accept, one)

    def close(self) -> None:
        """Accept no more, and give up those that are not connected yet."""
        for one in self._sockets:
            self._loop.remove_reader(one.fileno())
            one.close()
        self._sockets = []
        for task in self._tasks:
            task.cancel()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connected, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause(listening, error)
                return
            self._admit(connected, address)

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Wait where the system has nothing left: it would tell of the same connection for ever."""
        problem = (error.strerror or str(error)).lower()
        self._tally.add(_WAITING, "unknown", problem)
        self._loop.remove_reader(listening.fileno())
        self._loop.call_later(_RETRY_S, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    def _admit(self, connected: socket.socket, address: Any) -> None:  # noqa: ANN401 - of any family
        host, port = address[:2]
        place = Place(self._peers.name(host, port), connected.close, address=host)
        if not self._places.take(place, self._loop.time()):
            connected.close()
            self._tally.add(REFUSED, place.peer, "connections")
            return
        connected.setblocking(False)  # noqa: FBT003 - a method of the standard library
        task = self._loop.create_task(self._begin(connected, place))
        place.end = partial(_cancel, task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self, connected: socket.socket, place: Place) -> None:
        """Connect a protocol; from then on it has the place."""
        try:
            make = partial(self._connect, place)
            await self._loop.connect_accepted_socket(
                make, connected, ssl=self._tls, ssl_handshake_timeout=self._handshake_s
            )
        except BaseException as error:
            self._places.leave(place)
            with suppress(OSError):
                connected.close()
            # A handshake that fails is the caller's fault; who says nothing is a probe.
            if isinstance(error, ssl.SSLError):
                self._tally.add(REFUSED, place.peer, reason_of(error))
            elif not isinstance(error, OSError):
                raise


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
