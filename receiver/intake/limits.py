"""How much may be under way at once. Over a limit the answer is no, at once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from framewalk.engine.errors import FramewalkError

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


@dataclass(slots=True)
class InFlight:
    """The streams and bytes that were received and are not on disk yet. Not thread-safe."""

    max_streams: int
    max_bytes: int
    streams: int = 0
    size_bytes: int = 0

    def open_stream(self) -> StreamShare:
        """Make room for one more stream; raise LimitError where there is none."""
        if self.streams >= self.max_streams:
            message = f"{self.max_streams:,} streams are open, the most allowed"
            raise LimitError(Limit.STREAMS, message)
        self.streams += 1
        return StreamShare(self, counted_streams=1)

    def open_request(self) -> StreamShare:
        """Make room for a request that is no stream: its bytes count, and nothing else."""
        return StreamShare(self)


@dataclass(slots=True)
class StreamShare:
    """What one stream holds of the limits; give it back with `close`.

    `size_bytes` is the content of its whole messages.
    """

    total: InFlight
    counted_streams: int = 0
    size_bytes: int = 0
    held_bytes: int = 0
    _partial_bytes: int = 0

    def add(self, messages: int, size_bytes: int, partial_bytes: int) -> None:
        """Count more whole messages, and what has come of the next one in place of what had.

        Raises LimitError where there is no room for it.
        """
        more_bytes = size_bytes + messages * MESSAGE_OVERHEAD_BYTES
        more_bytes += partial_bytes - self._partial_bytes
        if self.total.size_bytes + more_bytes > self.total.max_bytes:
            message = f"{self.total.max_bytes:,} bytes are in flight, the most allowed"
            raise LimitError(Limit.BYTES_IN_FLIGHT, message)
        if self.size_bytes + size_bytes + partial_bytes > LARGEST_STREAM_BYTES:
            message = f"the stream is larger than {LARGEST_STREAM_BYTES:,} bytes"
            raise LimitError(Limit.STREAM_BYTES, message)
        self.total.size_bytes += more_bytes
        self.held_bytes += more_bytes
        self.size_bytes += size_bytes
        self._partial_bytes = partial_bytes

    def close(self) -> None:
        """Give back what the stream holds."""
        self.total.size_bytes -= self.held_bytes
        self.total.streams -= self.counted_streams
        self.held_bytes = 0
