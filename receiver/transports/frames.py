"""gRPC's framing: the messages in a request's body, and the status that ends an answer."""

from __future__ import annotations

import zlib
from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from framewalk.engine.errors import FramewalkError

if TYPE_CHECKING:
    from collections.abc import Sequence

# Whether the message is compressed, and its length.
_PREFIX: Final = Struct(">BI")
_PREFIX_BYTES: Final = 5
_COMPRESSED: Final = 1
# How much is inflated, and read for it, at a time.
_STEP_BYTES: Final = 2**18
_READ_BYTES: Final = 2**14
# Access logs are compressed to a tenth. What is denser than this was made to be, beyond some bytes.
_DENSEST: Final = 100
_ALWAYS_INFLATED_BYTES: Final = 2**20
# zlib's window sizes; 32 less is raw data, 16 more a gzip header.
_WINDOWS: Final = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
ENCODINGS: Final = b"identity,gzip,deflate"
# What gRPC leaves as it is in grpc-message: printable ASCII without the percent sign.
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class Status(IntEnum):
    """The status codes in use, with gRPC's numbers."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAUTHENTICATED = 16


class CallError(FramewalkError):
    """A call that ends with a status other than OK."""

    def __init__(self, status: Status, message: str) -> None:
        self.status = status
        super().__init__(message)


class FrameSplitter:
    """Splits the body of one request, as it comes in chunks, into its messages.

    `pending_bytes` is how much of a message that is not whole yet is held.
    """

    def __init__(self, max_message_bytes: int, encoding: bytes = b"identity") -> None:
        self._max_message_bytes = max_message_bytes
        self._encoding = encoding
        self._pending = bytearray()
        self._wanted_bytes = _PREFIX_BYTES
        self._packed: list[int] = []
        self._density = _Density()

    @property
    def pending_bytes(self) -> int:
        """What is held of a message whose end has not come."""
        return len(self._pending)

    def inflation(self, messages: list[bytes]) -> Inflation | None:
        """Return what inflates the messages that `feed` has just returned, if there is a need."""
        if not self._packed:
            return None
        packed, self._packed = self._packed, []
        self._density.packed_bytes += sum(len(messages[one]) for one in packed)
        window = _WINDOWS[self._encoding]
        return Inflation(messages, packed, window, self._max_message_bytes, self._density)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the messages that this chunk completes; compressed ones are so still.

        Raises:
            CallError: a message is too large, by what its prefix says, or compressed in a way that
                is not known.
        """
        if self._pending:
            self._pending += chunk
            if len(self._pending) < self._wanted_bytes:
                return []
            chunk = bytes(self._pending)
            self._pending.clear()
        messages, used_bytes = self._split(chunk)
        if used_bytes < len(chunk):
            self._pending += memoryview(chunk)[used_bytes:]
        return messages

    def end(self) -> None:
        """Raise CallError where the body ended inside of a message."""
        if self._pending:
            raise CallError(Status.INTERNAL, "the stream ended inside of a message")

    def _split(self, chunk: bytes) -> tuple[list[bytes], int]:
        messages: list[bytes] = []
        # In local names: this loop runs once for each message.
        unpack, take, limit_bytes = _PREFIX.unpack_from, messages.append, self._max_message_bytes
        start, size_bytes = 0, len(chunk)
        while start + _PREFIX_BYTES <= size_bytes:
            flag, length_bytes = unpack(chunk, start)
            if flag or length_bytes > limit_bytes:
                self._check(flag, length_bytes)
            begin = start + _PREFIX_BYTES
            end = begin + length_bytes
            if end > size_bytes:
                self._wanted_bytes = end - start
                return messages, start
            if flag:
                self._packed.append(len(messages))
            take(chunk[begin:end])
            start = end
        self._wanted_bytes = _PREFIX_BYTES
        return messages, start

    def _check(self, flag: int, length_bytes: int) -> None:
        if length_bytes > self._max_message_bytes:
            raise _too_large(length_bytes, self._max_message_bytes)
        if flag != _COMPRESSED:
            raise CallError(Status.INTERNAL, f"a message begins with the unknown flag {flag}")
        if self._encoding not in _WINDOWS:
            encoding = self._encoding.decode("ascii", "replace")
            message = f"messages compressed as {encoding!r} are not taken; use gzip or none"
            raise CallError(Status.UNIMPLEMENTED, message)


@dataclass(slots=True)
class _Density:
    """What came compressed in a body, and what was made of it."""

    packed_bytes: int = 0
    made_bytes: int = 0

    @property
    def room_bytes(self) -> int:
        return _ALWAYS_INFLATED_BYTES + _DENSEST * self.packed_bytes - self.made_bytes


class Inflation:
    """Inflates the compressed ones of some messages, in place, and in steps.

    Each step makes at most `next_bytes`, so that they can be accounted for before they are there.
    `size_bytes` is what is held: inflated so far, and still compressed.
    """

    def __init__(
        self,
        messages: list[bytes],
        packed: Sequence[int],
        window: int,
        max_message_bytes: int,
        density: _Density,
    ) -> None:
        self._messages = messages
        self._packed = deque(packed)
        self._window = window
        self._max_message_bytes = max_message_bytes
        self._density = density
        self._message = _Inflating(window)
        self.size_bytes = sum(map(len, messages))

    @property
    def next_bytes(self) -> int:
        """What the next step makes, at most."""
        return min(_STEP_BYTES, self._density.room_bytes)

    def step(self) -> bool:
        """Inflate some more, and tell whether that was all; a thread may do it.

        Raises:
            CallError: a message is no compressed one, too large when it is inflated, or absurdly
            dense.
        """
        room_bytes = self.next_bytes
        if self._packed and not room_bytes:
            message = f"messages are compressed to less than 1/{_DENSEST} of their size"
            raise CallError(Status.RESOURCE_EXHAUSTED, message)
        while self._packed and room_bytes:
            index = self._packed[0]
            made_bytes = self._message.inflate(self._messages[index], room_bytes)
            room_bytes -= made_bytes
            self._density.made_bytes += made_bytes
            self.size_bytes += made_bytes
            if self._message.size_bytes > self._max_message_bytes:
                raise _too_large(self._message.size_bytes, self._max_message_bytes)
            if self._message.is_done:
                self._end_message(index)
        return not self._packed

    def _end_message(self, index: int) -> None:
        self.size_bytes -= len(self._messages[index])
        self._messages[index] = self._message.content()
        self._packed.popleft()
        self._message = _Inflating(self._window)


class _Inflating:
    """One message while it is inflated."""

    def __init__(self, window: int) -> None:
        self.size_bytes = 0
        self._parts: list[bytes] = []
        self._decompressor = zlib.decompressobj(window)
        self._read_bytes = 0

    @property
    def is_done(self) -> bool:
        """Whether its end was found."""
        return self._decompressor.eof

    def inflate(self, packed: bytes, most_bytes: int) -> int:
        """Inflate some more of a message, and return how much was made of it.

        Raises CallError where it is cut short, or no compressed one.
        """
        # Not all at once: what is not used of it is copied.
        piece = packed[self._read_bytes : self._read_bytes + _READ_BYTES]
        try:
            part = self._decompressor.decompress(piece, most_bytes)
        except zlib.error as error:
            raise CallError(Status.INTERNAL, "a message cannot be decompressed") from error
        self._read_bytes += len(piece) - len(self._decompressor.unconsumed_tail)
        self._parts.append(part)
        self.size_bytes += len(part)
        if not (part or piece or self.is_done):
            raise CallError(Status.INTERNAL, "a compressed message is cut short")
        return len(part)

    def content(self) -> bytes:
        """Return the message."""
        return b"".join(self._parts)


def framed(message: bytes) -> bytes:
    """Return an uncompressed message as it stands in a body."""
    return _PREFIX.pack(0, len(message)) + message


def status_headers(status: Status, message: str = "") -> list[tuple[bytes, bytes]]:
    """Return what ends an answer."""
    headers = [(b"grpc-status", b"%d" % status)]
    if message:
        headers.append((b"grpc-message", quote(message, safe=_PLAIN).encode()))
    return headers


def _too_large(least_bytes: int, most_bytes: int) -> CallError:
    message = f"a message of {least_bytes} bytes or more, {most_bytes} are the most allowed"
    return CallError(Status.RESOURCE_EXHAUSTED, message)
