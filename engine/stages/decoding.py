"""Stage 1: message bytes -> nested Arrow tables of bounded size, in native code (wire.md).

A message that cannot be decoded costs itself only. Decoding fails for a whole batch and does not
say which message it was, so those of a failing batch are tried apart.

A log of two bytes becomes hundreds. So what is decoded at once is bounded in bytes, a message that
has more is split, and what comes of it is handed on before it is too much.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from framewalk.engine.stages.native import columns_of, is_message, overflowing, to_columns
from framewalk.engine.stages.splitting import (
    PART_BYTES,
    UNDECODABLE,
    MessageRefusedError,
    split,
)
from framewalk.engine.wire.access_log_pb2 import EBPFAccessLogMessage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from framewalk.engine.schemas import Leaf

# Decoding is fastest while a batch's builders fit the processor's cache: measured at
# 10,000 messages 0.95 us a log, at 200,000 messages 1.6 us.
DECODE_MESSAGES: Final = 10_000
# What is decoded at once; of messages that may have more than so many logs, only PART_BYTES. A call
# of the decoder costs as much as a hundred messages, and a log of two bytes becomes five hundred.
SLICE_BYTES: Final = 4 * 2**20
DECODE_LOGS: Final = 2**18
# The tag of a kernel log; in a longer form of it, only the highest bit of this byte differs.
_LOG_TAG: Final = 3 << 3 | 2
_SEVEN_BITS: Final = 0x7F
# Columns that are handed on at once: those of 60,000 usual messages.
DECODED_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """Decodable messages and where they came from; both tables have the same rows.

    `captured` has the columns of CAPTURE_SCHEMA, `nested` one column per field of
    EBPFAccessLogMessage. Sub-messages that are not set are null, scalars have their default. A row
    may be a part of a message (splitting.py): `messages` counts each message once, those that were
    left out included; `refused` counts the latter by quality counter.
    """

    captured: pa.Table
    nested: pa.Table
    messages: int
    refused: Counter[str]


@dataclass(frozen=True, slots=True)
class _Decoded:
    """The same of what was decoded at once."""

    captured: pa.RecordBatch
    nested: pa.RecordBatch
    messages: int
    refused: Counter[str] = field(default_factory=Counter)


def decode(messages: pa.Table) -> Iterator[DecodedBatch]:
    """Decode rows of CAPTURE_SCHEMA; rows that are not a message are left out and counted.

    What is yielded is bounded, whatever the messages are and however many. It may have no rows:
    then a part of a large message was looked at, and more is to come.
    """
    waiting: list[_Decoded] = []
    size_bytes = 0
    for piece in _slices(messages):
        is_large = piece.num_rows == 1 and _size_bytes(piece) > PART_BYTES
        for decoded in _decode_large(piece) if is_large else [_decode_slice(piece)]:
            waiting.append(decoded)
            size_bytes += decoded.nested.nbytes
            if size_bytes >= DECODED_BYTES or not (decoded.messages or decoded.nested.num_rows):
                yield _together(waiting, messages.schema)
                waiting, size_bytes = [], 0
    if waiting:
        yield _together(waiting, messages.schema)


def _together(parts: Sequence[_Decoded], schema: pa.Schema) -> DecodedBatch:
    return DecodedBatch(
        pa.Table.from_batches([part.captured for part in parts], schema),
        pa.Table.from_batches([part.nested for part in parts], columns_of(EBPFAccessLogMessage)),
        sum(part.messages for part in parts),
        sum((part.refused for part in parts), Counter()),
    )


def _slices(messages: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches of bounded size; a large message is in one of its own."""
    lengths = pl.Series(pc.cast(pc.binary_length(messages["message"]), pa.int64()), dtype=pl.Int64)
    ends_bytes = lengths.cum_sum()
    large = [*(lengths > PART_BYTES).arg_true(), messages.num_rows]
    start = start_bytes = 0

    def first(size_bytes: int) -> pa.RecordBatch:
        stop = int(ends_bytes.search_sorted(start_bytes + size_bytes, side="right"))
        stop = min(stop, start + DECODE_MESSAGES, large[bisect_left(large, start)])
        return messages.slice(start, max(stop - start, 1)).combine_chunks().to_batches()[0]

    while start < messages.num_rows:
        piece = first(SLICE_BYTES)
        if piece.num_rows > 1 and _most_logs(piece["message"]) > DECODE_LOGS:
            piece = first(PART_BYTES)
        yield piece
        start += piece.num_rows
        start_bytes = int(ends_bytes[start - 1])


def _most_logs(messages: pa.BinaryArray) -> int:
    """Return how many kernel logs these messages may have: bytes that their tag may begin with."""
    _, ends, contents = messages.buffers()
    offsets = pa.Array.from_buffers(pa.int32(), len(messages) + 1, [None, ends], 0, messages.offset)
    first, end = offsets[0].as_py(), offsets[-1].as_py()
    if first == end:
        return 0
    content = pa.Array.from_buffers(pa.uint8(), end - first, [None, contents.slice(first)])
    return int(((pl.Series(content) & _SEVEN_BITS) == _LOG_TAG).sum())


def _size_bytes(messages: pa.RecordBatch) -> int:
    return int(pc.sum(pc.binary_length(messages["message"])).as_py())


def _decode_slice(messages: pa.RecordBatch) -> _Decoded:
    count = messages.num_rows
    refused = overflowing(messages["message"], EBPFAccessLogMessage)
    if refused:
        messages = _without(messages, refused)
    decoded = _to_columns(messages["message"])
    if decoded is None:
        rows = _decodable_rows(messages["message"])
        messages = messages.take(pa.array(rows, pa.int64()))
        decoded = _to_columns(messages["message"])
    assert decoded is not None  # noqa: S101 - each of them was decoded
    return _Decoded(messages, decoded, count, _refused(count - messages.num_rows))


def _decode_large(message: pa.RecordBatch) -> Iterator[_Decoded]:
    """Decode a batch of one message in parts, once it is known that all of them can be.

    Nothing may come of a message of which a part is bad. So it is decoded twice, unless there is
    room for all of it meanwhile.
    """
    empty = message.slice(0, 0)
    nothing = _decode_slice(empty).nested
    kept: list[pa.RecordBatch] = []
    kept_bytes = 0
    try:
        whole = split(message["message"])
        for part in whole.parts():
            decoded = _checked(part)
            kept_bytes += decoded.nbytes
            kept = [*kept, decoded] if kept_bytes < DECODED_BYTES else []
            yield _Decoded(empty, nothing, 0)
    except MessageRefusedError as error:
        yield _Decoded(empty, nothing, 1, _refused(1, error.counter))
        return
    again = kept or map(_checked, whole.parts())
    for number, decoded in enumerate(again):
        yield _Decoded(message, decoded, int(number == 0))


def _checked(part: pa.BinaryArray) -> pa.RecordBatch:
    refused = overflowing(part, EBPFAccessLogMessage)
    decoded = None if refused else to_columns(part, EBPFAccessLogMessage)
    if decoded is None:
        raise MessageRefusedError(UNDECODABLE)
    return decoded


def _refused(count: int, counter: str = UNDECODABLE) -> Counter[str]:
    return Counter({counter: count}) if count else Counter()


def _without(messages: pa.RecordBatch, rows: Sequence[int]) -> pa.RecordBatch:
    every = pl.int_range(messages.num_rows, eager=True)
    return messages.filter((~every.is_in(rows)).to_arrow())


def _decodable_rows(messages: pa.BinaryArray) -> list[int]:
    """Find the rows that the decoder takes; each of them alone would cost fifty times as much.

    Protobuf's own parser, which says which message it was, only says where to look: it refuses
    groups that the decoder takes.
    """
    contents = enumerate(messages.to_pylist())
    likely = [row for row, content in contents if is_message(content, EBPFAccessLogMessage)]
    others = sorted(set(range(len(messages))).difference(likely))
    found = _halved(messages, likely)
    return sorted(found + [row for row in others if _can_decode(messages.slice(row, 1))])


def _halved(messages: pa.BinaryArray, rows: list[int]) -> list[int]:
    if not rows or _can_decode(messages.take(pa.array(rows, pa.int64()))):
        return rows
    if len(rows) == 1:
        return []
    half = len(rows) // 2
    return _halved(messages, rows[:half]) + _halved(messages, rows[half:])


def _can_decode(messages: pa.BinaryArray) -> bool:
    return _to_columns(messages) is not None


def _to_columns(messages: pa.BinaryArray) -> pa.RecordBatch | None:
    return to_columns(messages, EBPFAccessLogMessage)


def leaf_frame(struct: pa.ChunkedArray, leaves: tuple[Leaf, ...]) -> pl.DataFrame:
    """Return the leaves of a struct as a frame, without copying them.

    Unsigned 64-bit columns come as their bits read as Int64: what was 2^63 or more is negative.
    Where the struct or a sub-message is null the leaf has its default.
    """
    return pl.DataFrame({leaf.column: _as_signed(field_at(struct, leaf.path)) for leaf in leaves})


def field_at(struct: pa.ChunkedArray, path: tuple[str, ...]) -> pa.ChunkedArray:
    """Follow a path of field names into nested structs; nulls of the parents do not show."""
    field_type = struct.type
    for name in path:
        field_type = field_type.field(name).type
    return pa.chunked_array([_descend(chunk, path) for chunk in struct.chunks], field_type)


def _descend(struct: pa.StructArray, path: tuple[str, ...]) -> pa.Array:
    for name in path:
        struct = struct.field(name)
    return struct


def _as_signed(leaf: pa.ChunkedArray) -> pa.ChunkedArray:
    if leaf.type != pa.uint64():
        return leaf
    return pa.chunked_array([chunk.view(pa.int64()) for chunk in leaf.chunks], pa.int64())
