"""Protobuf's wire format as tests write it: by its rules, without its library."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

LENGTH_DELIMITED = 2
UNKNOWN_FIELD = 15
# Adding the ten bytes of such a number to it comes out at 0 to 9.
OVERFLOWING_LENGTHS = range(2**64 - 10, 2**64)


def varint(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low]) if value < 0x80 else bytes([low | 0x80]) + varint(value >> 7)


def delimited(number: int, content: bytes) -> bytes:
    return varint(number << 3 | LENGTH_DELIMITED) + varint(len(content)) + content


def with_overflowing_lengths(content: bytes, kind: Descriptor) -> Iterator[bytes]:
    """Yield the message with each length in it, at any depth, replaced by each that overflows.

    All its fields must be known. An unknown field of such a length is put at its end, too.
    """
    unknown = varint(UNKNOWN_FIELD << 3 | LENGTH_DELIMITED)
    for length in OVERFLOWING_LENGTHS:
        yield content + unknown + varint(length)
    # Read on in the middle of this one, and it is a field of four bytes.
    yield content + unknown + b"\xff" * 9 + b"\x0d" + bytes(4)
    for field, start, end in _delimited_fields(content, kind):
        tag = varint(field.number << 3 | LENGTH_DELIMITED)
        for length in OVERFLOWING_LENGTHS:
            yield content[:start] + tag + varint(length) + content[end:]
        inner = content[end - _length(content, start) : end]
        if field.message_type is not None:
            for bad in with_overflowing_lengths(inner, field.message_type):
                yield content[:start] + delimited(field.number, bad) + content[end:]


def _delimited_fields(
    content: bytes, kind: Descriptor
) -> Iterator[tuple[FieldDescriptor, int, int]]:
    """Yield the length-delimited fields, where each begins and where it ends."""
    at = 0
    while at < len(content):
        start = at
        tag, at = _number(content, at)
        value, at = _number(content, at)
        if tag & 7 == LENGTH_DELIMITED:
            at += value
            yield kind.fields_by_number[tag >> 3], start, at


def _length(content: bytes, start: int) -> int:
    _, at = _number(content, start)
    return _number(content, at)[0]


def _number(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
