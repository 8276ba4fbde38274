"""Stage 1: message bytes -> one nested Arrow batch, in native code (wire.md).

A message that cannot be decoded costs itself only. `ptars` raises one ValueError for a whole
batch and does not say which message it was, so a failing batch is halved until the bad ones
stand alone. A panic of its native code is a failure like any other: nothing of a call is left in
it for the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pyarrow as pa
from google.protobuf.message import DecodeError
from ptars import HandlerPool

from framewalk.engine.wire.access_log_pb2 import EBPFAccessLogMessage

if TYPE_CHECKING:
    from framewalk.engine.schemas import Leaf

# Decoding is fastest while a batch's builders fit the processor's cache: measured at
# 10,000 messages 0.95 us a log, at 200,000 messages 1.6 us.
DECODE_MESSAGES: Final = 10_000

# The middle of every number from 2^64 - 128 on. As a length such a number overflows in `ptars`
# (docs/upstream/ptars-length-overflow.md); as a value it is one below 0, which is rare.
_NEAR_OVERFLOW: Final = b"\xff" * 8
_PANIC: Final = ("pyo3_runtime", "PanicException")


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """Decodable messages and where they came from; both batches have the same rows.

    `captured` has the columns of CAPTURE_SCHEMA, `nested` one column per field of
    EBPFAccessLogMessage. Sub-messages that are not set are null, scalars have their default.
    """

    captured: pa.Table
    nested: pa.Table
    undecodable: int


def decode(messages: pa.Table) -> DecodedBatch:
    """Decode rows of CAPTURE_SCHEMA; rows that are not a message are left out and counted."""
    captured, nested = [], []
    for start in range(0, messages.num_rows, DECODE_MESSAGES):
        piece = messages.slice(start, DECODE_MESSAGES).combine_chunks().to_batches()[0]
        good, decoded = _decode_slice(piece)
        captured.append(good)
        nested.append(decoded)
    good = pa.Table.from_batches(captured, messages.schema)
    decoded = pa.Table.from_batches(nested, _handler().schema())
    return DecodedBatch(good, decoded, messages.num_rows - good.num_rows)


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


def _decode_slice(messages: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    messages = _without_overflows(messages)
    decoded = _to_arrow(messages)
    if decoded is not None:
        return messages, decoded
    good = messages.take(pa.array(_decodable_rows(messages, 0), pa.int64()))
    decoded = _to_arrow(good)
    assert decoded is not None  # noqa: S101 - each of them was decoded
    return good, decoded


def _without_overflows(messages: pa.RecordBatch) -> pa.RecordBatch:
    """Leave out what protobuf's own parser refuses, of the messages that may have such a length.

    Each of them would panic, and Rust writes about that on standard error; in an unknown field
    such a length may be taken.
    """
    suspects = pl.Series(messages["message"]).bin.contains(_NEAR_OVERFLOW)
    if not suspects.any():
        return messages
    refused = [
        row for row in suspects.arg_true() if not _is_message(messages["message"][row].as_py())
    ]
    rows = pl.int_range(messages.num_rows, eager=True)
    return messages.filter((~rows.is_in(refused)).to_arrow()) if refused else messages


def _is_message(message: bytes) -> bool:
    try:
        EBPFAccessLogMessage.FromString(message)
    except DecodeError:
        return False
    return True


def _decodable_rows(messages: pa.RecordBatch, first_row: int) -> list[int]:
    if _to_arrow(messages) is not None:
        return list(range(first_row, first_row + messages.num_rows))
    if messages.num_rows == 1:
        return []
    half = messages.num_rows // 2
    left = _decodable_rows(messages.slice(0, half), first_row)
    return left + _decodable_rows(messages.slice(half), first_row + half)


def _to_arrow(messages: pa.RecordBatch) -> pa.RecordBatch | None:
    """Return None where one of the messages cannot be decoded."""
    try:
        return _handler().array_to_record_batch(messages["message"])
    except ValueError:
        return None
    except BaseException as error:
        # A panic passes by `except Exception`, as Ctrl-C does, and its type cannot be imported.
        if (type(error).__module__, type(error).__name__) != _PANIC:
            raise
        return None


@cache
def _handler() -> Any:  # noqa: ANN401 - ptars does not export the type
    descriptor = EBPFAccessLogMessage.DESCRIPTOR
    return HandlerPool([descriptor.file]).get_for_message(descriptor)


def _as_signed(leaf: pa.ChunkedArray) -> pa.ChunkedArray:
    if leaf.type != pa.uint64():
        return leaf
    return pa.chunked_array([chunk.view(pa.int64()) for chunk in leaf.chunks], pa.int64())
