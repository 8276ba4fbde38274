"""Whether a caller goes on: what it has begun becomes whole in time.

An idle connection may stay so for ever, one in the middle of a frame or of a block of headers may
not. While little comes, frames are followed. Where much comes that would cost too much; such a
caller is asked now and then (PING), as in the middle of something it cannot answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PING: Final = b"\0\0\x08\x06\0\0\0\0\0framewlk"
_HEAD_BYTES: Final = 9
# What is followed between two looks, at most.
_FOLLOWED_BYTES: Final = 4096
_HEADERS: Final = (1, 9)
_END_HEADERS: Final = 4


@dataclass(slots=True)
class Progress:
    """What is known of one connection; times are in seconds of any one clock.

    `has_event` is set by whoever reads frames when one was of use.
    """

    patience_s: float
    has_event: bool = False
    _is_followed: bool = True
    _is_asked: bool = False
    _is_in_block: bool = False
    _rest: bytes = b""
    _since_s: float = 0
    _read_bytes: int = 0

    def take(self, data: bytes, now_s: float) -> None:
        """Take note of what has come, before it is read."""
        self._read_bytes += len(data)
        if not self._is_followed:
            return
        if self._read_bytes > _FOLLOWED_BYTES:
            self._is_followed, self._rest = False, b""
        else:
            self._follow(self._rest + data, now_s)

    def goes_on(self, now_s: float) -> bool:
        """Tell whether the caller still goes on; ask it if `must_ask` says so after this."""
        if not self.has_event and (self._is_asked or self._is_followed):
            # It has not even begun, or does not answer.
            return False
        if self._is_followed:
            is_half = self._is_in_block or self._rest
            self._read_bytes = 0
            return not is_half or now_s - self._since_s < self.patience_s
        if self._is_asked and self._read_bytes <= len(PING):
            # Its answer was all that came: it is not in the middle of anything.
            self._is_followed, self._is_in_block = True, False
        self._is_asked = not self._is_followed
        self._read_bytes, self.has_event = 0, self._is_followed
        return True

    def next_look_s(self, now_s: float) -> float:
        """Return in how many seconds to look again."""
        soon_s = self.patience_s / 2
        if self._is_followed and (self._is_in_block or self._rest):
            left_s = self._since_s + self.patience_s - now_s
            return min(max(left_s, soon_s / 8), soon_s)
        return soon_s

    @property
    def must_ask(self) -> bool:
        """Whether a PING is to be sent."""
        return self._is_asked

    def _follow(self, content: bytes, now_s: float) -> None:
        was_half = self._is_in_block or self._rest
        at = whole = 0
        while (begin := at + _HEAD_BYTES) <= len(content):
            end = begin + int.from_bytes(content[at : at + 3])
            if end > len(content):
                break
            if content[at + 3] in _HEADERS:
                self._is_in_block = not content[at + 4] & _END_HEADERS
            at = end
            whole = whole if self._is_in_block else at
        self._rest = content[at:]
        if whole or not was_half:
            self._since_s = now_s
