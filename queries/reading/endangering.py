"""Statements that an engine was ended for, and who asks such ones, are refused for a while."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Final

from framewalk.engine.errors import InputError
from framewalk.queries.reading.query import QUERY_PLACE

if TYPE_CHECKING:
    from collections.abc import Mapping

_MINUTES_FROM_S: Final = 90


def asked(text: str, peer: str) -> str:
    """Return what a statement is known by to who watches it: its digest and who asked it.

    Blanks and the case of letters make no other digest.
    """
    plain = " ".join(text.split()).casefold().encode(errors="replace")
    return f"{hashlib.sha256(plain).hexdigest()} {peer}"


def digest_and_peer(name: str) -> tuple[str, str]:
    """Return the two parts of what `asked` returned."""
    digest, _, peer = name.partition(" ")
    return digest, peer


class Endangering:
    """Refuses statements by their digests, and peers, each for some seconds from now on."""

    def __init__(self, refused_s: Mapping[str, float]) -> None:
        """Remember until when each is refused."""
        now_s = time.monotonic()
        self._until_s: Final = {name: now_s + left_s for name, left_s in refused_s.items()}

    def check(self, name: str) -> None:
        """Raise InputError where a statement, or who asks, is refused still."""
        digest, peer = digest_and_peer(name)
        for refused, problem, remedy in (
            (
                digest,
                "the engine had to be ended for this query, or for one that ran beside it",
                "ask for less; as it is, it is refused",
            ),
            (
                peer,
                f"the engine had to be ended for several queries of {peer}",
                "ask for less; whatever comes from there is refused",
            ),
        ):
            left_s = self._until_s.get(refused, 0) - time.monotonic()
            if left_s > 0:
                raise InputError(QUERY_PLACE, problem, f"{remedy} for {_duration(left_s)}")


def _duration(left_s: float) -> str:
    if left_s < _MINUTES_FROM_S:
        return f"{left_s:.0f} more seconds"
    return f"{left_s / 60:.0f} more minutes"
