"""Statements that an engine was ended for, which are refused for a while."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Final

from framewalk.engine.errors import InputError
from framewalk.queries.reading.query import QUERY_PLACE

if TYPE_CHECKING:
    from collections.abc import Mapping


def statement_digest(text: str) -> str:
    """Return what a statement is known by, whatever its blanks and the case of its letters."""
    return hashlib.sha256(" ".join(text.split()).casefold().encode(errors="replace")).hexdigest()


class Endangering:
    """Refuses statements by their digests, each for some seconds from now on."""

    def __init__(self, refused_s: Mapping[str, float]) -> None:
        """Remember until when each is refused."""
        now_s = time.monotonic()
        self._until_s: Final = {digest: now_s + left_s for digest, left_s in refused_s.items()}

    def check(self, digest: str) -> None:
        """Raise InputError where a statement is refused still."""
        left_s = self._until_s.get(digest, 0) - time.monotonic()
        if left_s > 0:
            problem = "the engine had to be ended for this query, or for one that ran beside it"
            remedy = f"ask for less; as it is, it is refused for {left_s / 60:.0f} more minutes"
            if left_s < 90:  # noqa: PLR2004 - in words, one and a half minutes
                remedy = f"ask for less; as it is, it is refused for {left_s:.0f} more seconds"
            raise InputError(QUERY_PLACE, problem, remedy)
