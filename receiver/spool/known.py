"""The streams that are on disk: one that is sent again is answered, and not written again."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class KnownStreams:
    """The digests of the newest streams, at most `most` of them.

    Some were written and could not be forced to disk: their senders were refused. Once that is
    mended they are known, and the first who sends one again is told that it is new.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._digests: OrderedDict[bytes, None] = OrderedDict()
        self._unsynced: set[bytes] = set()
        self._refused: set[bytes] = set()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._digests

    def add(self, *digests: bytes) -> None:
        """Note streams that are on disk."""
        self._digests.update(dict.fromkeys(digests))
        while len(self._digests) > self._most:
            self._refused.discard(self._digests.popitem(last=False)[0])

    def is_new_to_sender(self, digest: bytes) -> bool:
        """Tell, once, whether the sender of a known stream was refused before."""
        was_refused = digest in self._refused
        self._refused.discard(digest)
        return was_refused

    def add_unsynced(self, digests: Iterable[bytes]) -> None:
        """Note streams that readers may have found, and that are not on disk."""
        self._unsynced.update(digests)

    def mend(self) -> None:
        """Note that those are on disk now."""
        self.add(*self._unsynced)
        self._refused |= self._unsynced
        self._unsynced.clear()

    def forget_unsynced(self) -> None:
        """Note that those are lost: they were not acknowledged."""
        self._unsynced.clear()
