"""What an operator is told: one fact a line, whoever writes the lines (server/logs.py)."""

from __future__ import annotations

import errno
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

_LOG: Final = logging.getLogger("framewalk.told")
# A trouble that is over for so long is told to be.
_CALM_S: Final = 5
# How often it is told what peers do again and again.
_TOLD_EVERY_S: Final = 60
# Peers that are counted one by one, and those that a line names.
_MOST_PEERS: Final = 256
_NAMED_PEERS: Final = 5
# What asyncio's accept finds where the process or the system has nothing left for a connection.
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def tell(level: int, event: str, **facts: object) -> None:
    """Write a line: what happened, and its facts."""
    _LOG.log(level, event, extra={"facts": facts})


class Trouble:
    """Something that lasts: a line when it begins, and one when it is over."""

    def __init__(self, begin: str, end: str) -> None:
        self._begin = begin
        self._end = end
        self._problem = ""
        self._latest_s: float = 0

    def goes_on(self, problem: str) -> None:
        """Say so, unless the same was said before."""
        self._latest_s = time.monotonic()
        if problem != self._problem:
            self._problem = problem
            tell(logging.ERROR, self._begin, error=problem)

    def is_over(self) -> None:
        """Say so, once, when it has been over for some seconds: it may come and go."""
        if self._problem and time.monotonic() - self._latest_s >= _CALM_S:
            tell(logging.INFO, self._end, error=self._problem)
            self._problem = ""


class Tally:
    """Tells of what peers do, however often they do it.

    Of each event and reason the first is told at once, then once a minute how often it was and
    whose it was: the peers with most of it by name, the others by their number. `later` calls a
    function after some seconds, in the thread that `add` is called in. Events and reasons must be
    few; peers may be any number.
    """

    def __init__(
        self,
        later: Callable[[float, Callable[[], None]], object],
        every_s: float = _TOLD_EVERY_S,
    ) -> None:
        self._later = later
        self._every_s = every_s
        self._waiting: dict[_Kind, _Peers] = {}

    def add(self, event: str, peer: str, reason: str = "") -> None:
        """Count one more."""
        kind = _Kind(event, reason)
        peers = self._waiting.get(kind)
        if peers is not None:
            peers.add(peer)
            return
        self._begin(kind)
        first = _Peers()
        first.add(peer)
        _tell_of(kind, first)

    def finish(self) -> None:
        """Tell what was not told yet."""
        for kind, peers in self._waiting.items():
            if peers.times:
                _tell_of(kind, peers)
                self._waiting[kind] = _Peers()

    def _begin(self, kind: _Kind) -> None:
        self._waiting[kind] = _Peers()
        self._later(self._every_s, lambda: self._end(kind))

    def _end(self, kind: _Kind) -> None:
        peers = self._waiting.pop(kind)
        if peers.times:
            self._begin(kind)
            _tell_of(kind, peers)


class _Kind(NamedTuple):
    event: str
    reason: str


class _Peers:
    """How often something was, by peer; those that found no room are counted together."""

    def __init__(self) -> None:
        self.times = 0
        self._by_peer: Counter[str] = Counter()

    def add(self, peer: str) -> None:
        self.times += 1
        if peer in self._by_peer or len(self._by_peer) < _MOST_PEERS:
            self._by_peer[peer] += 1

    def __str__(self) -> str:
        named = self._by_peer.most_common(_NAMED_PEERS)
        shown = [f"{peer} ({times:,})" for peer, times in named]
        rest = self.times - sum(times for _, times in named)
        return ", ".join([*shown, f"others ({rest:,})"] if rest else shown)


def _tell_of(kind: _Kind, peers: _Peers) -> None:
    reason = {"reason": kind.reason} if kind.reason else {}
    tell(logging.WARNING, kind.event, **reason, times=peers.times, peers=peers)


def tell_exhausted(loop: asyncio.AbstractEventLoop, tally: Tally) -> None:
    """Have a loop tell by a tally that it can accept no connection: it tries thousands of times."""

    def handle(loop: asyncio.AbstractEventLoop, context: Mapping[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _EXHAUSTED and "socket" in context:
            problem = (error.strerror or str(error)).lower()
            tally.add("connections wait, nothing is left to accept them with", "unknown", problem)
        else:
            loop.default_exception_handler(dict(context))

    loop.set_exception_handler(handle)
