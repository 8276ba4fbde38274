"""A message with holes of fixed length, filled for many messages at once.

Numbers are put into holes as varints of the hole's length: longer than they must be, which every
decoder of protobuf takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

_LENGTH_DELIMITED: Final = 2


@dataclass(frozen=True, slots=True)
class Hole:
    """What is filled in later: so many bytes."""

    name: str
    size_bytes: int


Part = bytes | Hole


def varint(number: int) -> bytes:
    """Return a number as protobuf has it."""
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    return bytes([*content, number])


def number_field(field: int, hole: Hole) -> list[Part]:
    """Return a field of a number that is filled in."""
    return [varint(field << 3), hole]


def fixed_field(field: int, number: int) -> list[Part]:
    """Return a field of a number."""
    return [varint(field << 3) + varint(number)]


def nested(field: int, *parts: Part) -> list[Part]:
    """Return a field of bytes, of a text or of a message."""
    size_bytes = sum(part.size_bytes if isinstance(part, Hole) else len(part) for part in parts)
    return [varint(field << 3 | _LENGTH_DELIMITED) + varint(size_bytes), *parts]


class Template:
    """Parts in their order, as a row of bytes."""

    def __init__(self, parts: list[Part]) -> None:
        self._holes: list[tuple[str, slice]] = []
        row = b""
        for part in parts:
            if isinstance(part, Hole):
                self._holes.append((part.name, slice(len(row), len(row) + part.size_bytes)))
                row += bytes(part.size_bytes)
            else:
                row += part
        self._row = np.frombuffer(row, np.uint8)

    def fill(self, count: int, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return a row for each message.

        A column is of integers, or of rows of bytes as long as its hole; each hole has one.
        """
        rows = np.tile(self._row, (count, 1))
        for name, place in self._holes:
            column = columns[name]
            size_bytes = place.stop - place.start
            rows[:, place] = column if column.ndim > 1 else varints(column, size_bytes)
        return rows


def varints(numbers: np.ndarray, size_bytes: int) -> np.ndarray:
    """Return numbers as varints of a length; raises ValueError where one does not fit."""
    numbers = numbers.astype(np.uint64)
    if numbers.size and int(numbers.max()) >> (7 * size_bytes):
        message = f"{numbers.max()} does not fit into {size_bytes} bytes"
        raise ValueError(message)
    shifts = np.arange(size_bytes, dtype=np.uint64) * np.uint64(7)
    digits = (numbers[:, None] >> shifts & np.uint64(127)).astype(np.uint8)
    digits[:, :-1] |= 128
    return digits
