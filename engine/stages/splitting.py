"""A message of many logs -> messages of few, on the wire: decoding needs hundreds of bytes a log.

A log may be two bytes on the wire. The parts of a message are together what it is: the first has
all that it says of its node and its connection, and its protocol log; the kernel logs are dealt
out in order. So the parts are messages that follow each other in the stream of the one.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.empty_pb2 import Empty

from framewalk.engine.stages.native import overflowing, to_columns, to_messages
from framewalk.engine.wire.access_log_fields_pb2 import AccessLogMessageFields

if TYPE_CHECKING:
    from collections.abc import Iterator

# A message of more is split; its parts have at most this much, apart from the first one.
PART_BYTES: Final = 2**20
# What one field of a split message may have: all that is said of the node, of the connection or
# of the protocol log together, or one kernel log.
FIELD_BYTES: Final = 2**20

_LOGS: Final = "kernelLogs"
_OTHERS: Final = ("node", "connection", "protocolLog")
# A tag, and a length of less than 2^28.
_FRAME_BYTES: Final = 5

UNDECODABLE: Final = "undecodable_message"
OVERSIZED: Final = "oversized_message"


class MessageRefusedError(Exception):
    """A message that counts in a quality counter, and is left out; `counter` is its name."""

    def __init__(self, counter: str) -> None:
        super().__init__(counter)
        self.counter = counter


@dataclass(frozen=True, slots=True)
class SplitMessage:
    """The fields of a message, and the kernel logs at which its parts begin and end."""

    fields: pa.RecordBatch
    cuts: tuple[int, ...]

    def parts(self) -> Iterator[pa.BinaryArray]:
        """Make one part after the other, each an array of one message."""
        for first, end in pairwise(self.cuts):
            yield _part(self.fields, first, end)


def split(message: pa.BinaryArray, part_bytes: int = PART_BYTES) -> SplitMessage:
    """Split an array of one message.

    Raises MessageRefusedError where it is no message (`undecodable_message`; what its fields hold
    is not looked at), or a field of it has more than FIELD_BYTES (`oversized_message`).
    """
    # To protobuf's parser all fields are unknown ones of an empty message.
    refused = overflowing(message, Empty)
    fields = None if refused else to_columns(message, AccessLogMessageFields)
    if fields is None:
        raise MessageRefusedError(UNDECODABLE)
    logs = fields[_LOGS].values
    longest = pc.max(pc.binary_length(logs)).as_py() or 0
    others = (pc.sum(pc.binary_length(fields[name].values)).as_py() or 0 for name in _OTHERS)
    if max(longest, *others) > FIELD_BYTES:
        raise MessageRefusedError(OVERSIZED)
    return SplitMessage(fields, _cuts(logs, part_bytes))


def _cuts(logs: pa.BinaryArray, part_bytes: int) -> tuple[int, ...]:
    offsets = pa.Array.from_buffers(
        pa.int32(), len(logs) + 1, [None, logs.buffers()[1]], offset=logs.offset
    )

    def end_bytes(log: int) -> int:
        return int(offsets[log].as_py()) + log * _FRAME_BYTES

    cuts = [0]
    while cuts[-1] < len(logs):
        most_bytes = end_bytes(cuts[-1]) + part_bytes
        end = bisect_right(range(len(logs) + 1), most_bytes, lo=cuts[-1], key=end_bytes) - 1
        cuts.append(max(end, cuts[-1] + 1))
    return tuple(cuts) if len(cuts) > 1 else (0, 0)


def _part(fields: pa.RecordBatch, first: int, end: int) -> pa.BinaryArray:
    logs = fields[_LOGS].values.slice(first, end - first)
    columns = {_LOGS: pa.ListArray.from_arrays(pa.array([0, len(logs)], pa.int32()), logs)}
    if first:
        none = fields["node"].values.slice(0, 0)
        nothing = pa.ListArray.from_arrays(pa.array([0, 0], pa.int32()), none)
        columns |= dict.fromkeys(_OTHERS, nothing)
    else:
        columns |= {name: fields[name] for name in _OTHERS}
    part = [columns[name].cast(fields.schema.field(name).type) for name in fields.schema.names]
    return to_messages(
        pa.RecordBatch.from_arrays(part, schema=fields.schema), AccessLogMessageFields
    )
