"""What `ptars` does, in native code: protobuf messages <-> Arrow columns.

It raises one ValueError for a whole batch. A panic of its native code is a failure like any other:
nothing of a call is left in it for the next one.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from google.protobuf.message import DecodeError
from ptars import HandlerPool

if TYPE_CHECKING:
    import pyarrow as pa
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

# The middle of every number from 2^64 - 128 on. As a length such a number overflows in `ptars`
# (docs/upstream/ptars-length-overflow.md); as a value it is one below 0, which is rare.
_NEAR_OVERFLOW: Final = b"\xff" * 8
_PANIC: Final = ("pyo3_runtime", "PanicException")


def to_columns(messages: pa.BinaryArray, kind: type[Message]) -> pa.RecordBatch | None:
    """Decode messages, a column per field; None where one of them cannot be decoded."""
    try:
        return _handler(kind.DESCRIPTOR).array_to_record_batch(messages)
    except ValueError:
        return None
    except BaseException as error:
        # A panic passes by `except Exception`, as Ctrl-C does, and its type cannot be imported.
        if (type(error).__module__, type(error).__name__) != _PANIC:
            raise
        return None


def to_messages(columns: pa.RecordBatch, kind: type[Message]) -> pa.BinaryArray:
    """Encode a message per row."""
    return _handler(kind.DESCRIPTOR).record_batch_to_array(columns)


def columns_of(kind: type[Message]) -> pa.Schema:
    """Return the columns that messages are decoded to."""
    return _handler(kind.DESCRIPTOR).schema()


def overflowing(messages: pa.BinaryArray, kind: type[Message]) -> list[int]:
    """Return the rows of messages that may have a length near 2^64, and are not of that kind.

    Each of them would panic, and Rust writes about that on standard error; in an unknown field
    such a length may be taken. Protobuf's own parser is asked.
    """
    suspects = pl.Series(messages).bin.contains(_NEAR_OVERFLOW)
    if not suspects.any():
        return []
    return [row for row in suspects.arg_true() if not is_message(messages[row].as_py(), kind)]


def is_message(content: bytes, kind: type[Message]) -> bool:
    """Ask protobuf's own parser whether these bytes are a message."""
    try:
        kind.FromString(content)
    except DecodeError:
        return False
    return True


@cache
def _handler(descriptor: Descriptor) -> Any:  # noqa: ANN401 - ptars does not export the type
    return HandlerPool([descriptor.file]).get_for_message(descriptor)
