"""gRPC's framing: the messages in a request's body, and the status that ends an answer."""

from __future__ import annotations

import zlib
from enum import IntEnum
from struct import Struct
from typing import Final
from urllib.parse import quote

from framewalk.engine.errors import FramewalkError

# Whether the message is compressed, and its length.
_PREFIX: Final = Struct(">BI")
_PREFIX_BYTES: Final = 5
_COMPRESSED: Final = 1
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

    @property
    def pending_bytes(self) -> int:
        """What is held of a message whose end has not come."""
        return len(self._pending)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the messages that this chunk completes.

        Raises:
            CallError: a message is too large, by what its prefix says, or cannot be decompressed.
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
            take(self._decompress(chunk[begin:end]) if flag else chunk[begin:end])
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

    def _decompress(self, message: bytes) -> bytes:
        decompressor = zlib.decompressobj(_WINDOWS[self._encoding])
        try:
            content = decompressor.decompress(message, self._max_message_bytes + 1)
        except zlib.error as error:
            raise CallError(Status.INTERNAL, "a message cannot be decompressed") from error
        if len(content) > self._max_message_bytes:
            raise _too_large(len(content), self._max_message_bytes)
        if not decompressor.eof:
            raise CallError(Status.INTERNAL, "a compressed message is cut short")
        return content


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
