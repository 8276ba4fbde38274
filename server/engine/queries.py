"""Which queries an engine had to be ended for, as its parent knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from framewalk.queries.reading import digest_and_peer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# A dashboard asks again every ten seconds; somebody who has changed a view asks again some day.
_REFUSED_S: Final = 600
# One that has just begun is not why an engine is as large as it is.
_SUSPECT_S: Final = 1.0
_MOST_REFUSED: Final = 1_000
# Queries that run beside a bad one are suspected with it: once or twice is no sign of who asks.
_MOST_OF_A_PEER: Final = 3


@dataclass(frozen=True, slots=True)
class _Running:
    since_s: float
    memory_bytes: int


class QueryWatch:
    """Remembers what runs, and what is refused from now on; times are of a monotonic clock."""

    def __init__(self, limit_bytes: int) -> None:
        """Allow an engine so much memory while a query runs."""
        self.limit_bytes = limit_bytes
        self._running: dict[str, _Running] = {}
        self._until_s: dict[str, float] = {}
        self._of_peers: dict[str, list[float]] = {}

    def take(self, names: Collection[str], memory_bytes: int, now_s: float) -> None:
        """Learn what runs now, in a process of that size."""
        began = _Running(now_s, memory_bytes)
        self._running = {name: self._running.get(name, began) for name in names}

    @property
    def runs(self) -> bool:
        """Whether a query runs."""
        return bool(self._running)

    def is_over(self, memory_bytes: int) -> bool:
        """Tell whether a process is too large, and was not when a query began that still runs.

        A commit may take what it needs: it would need the same again.
        """
        if memory_bytes <= self.limit_bytes:
            return False
        return any(one.memory_bytes <= self.limit_bytes for one in self._running.values())

    def suspects(self, now_s: float) -> list[str]:
        """Return what has run for long enough to have made a process so large, or all that run."""
        known = self._running.items()
        return [name for name, one in known if now_s - one.since_s >= _SUSPECT_S] or list(
            self._running
        )

    def refuse(self, names: Iterable[str], now_s: float) -> None:
        """Refuse statements for some minutes, and who has asked several such ones."""
        begin_s = now_s - _REFUSED_S
        recent = {peer: _after(begin_s, times) for peer, times in self._of_peers.items()}
        self._of_peers = {peer: times for peer, times in recent.items() if times}
        for digest, peer in map(digest_and_peer, names):
            times = self._of_peers.setdefault(peer, [])
            times.append(now_s)
            refused = (digest, peer) if len(times) >= _MOST_OF_A_PEER else (digest,)
            self._until_s |= dict.fromkeys(refused, now_s + _REFUSED_S)
        newest = sorted(self._until_s.items(), key=lambda item: item[1])[-_MOST_REFUSED:]
        self._until_s = dict(newest)

    def refused_s(self, now_s: float) -> dict[str, float]:
        """Return what is refused still, and for how many seconds."""
        left = ((name, until_s - now_s) for name, until_s in self._until_s.items())
        return {name: left_s for name, left_s in left if left_s > 0}


def _after(begin_s: float, times: Iterable[float]) -> list[float]:
    return [time_s for time_s in times if time_s > begin_s]
