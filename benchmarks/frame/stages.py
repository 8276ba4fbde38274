"""The stages of the engine one by one over a capture, each made when a benchmark asks for it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from frame.captures import capture_of
from frame.contest import Answer, Call, Rival, rows_answer, sums_answer, text_answer
from framewalk.engine import CaptureReader, load_plan, read_entities
from framewalk.engine.schemas import KERNEL_OPERATIONS, OPERATION_LEAVES, TIME_LEAVES
from framewalk.engine.stages.decoding import DECODE_MESSAGES, decode, field_at, leaf_frame
from framewalk.engine.stages.entity_states import roll_up
from framewalk.engine.stages.flattening import flatten
from framewalk.engine.stages.peer_states import log_states
from framewalk.engine.stages.pipeline import pieces, regroup
from framewalk.engine.stages.resolving import resolve
from framewalk.engine.stages.streams import Carried, follow_streams
from framewalk.engine.wire.access_log_pb2 import EBPFAccessLogMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from frame.captures import Capture
    from frame.contest import Context
    from framewalk.engine import States
    from framewalk.engine.stages.decoding import DecodedBatch
    from framewalk.engine.stages.peer_states import PeerStates
    from framewalk.engine.stages.resolving import ResolvedLogs
    from framewalk.engine.stages.streams import StreamContext


class Stages:
    """What comes out of each stage for the first messages of a capture, in pieces as replayed."""

    def __init__(self, context: Context, messages: int | None = None) -> None:
        self.capture: Capture = capture_of(context.size.main)
        self._messages = messages or context.size.sample_messages
        self.plan = load_plan()
        self.entities = read_entities(self.capture.dump_path)

    @cached_property
    def pieces(self) -> list[pa.Table]:
        """The raw messages."""
        return list(cut(first_messages(self.capture, self._messages)))

    @cached_property
    def decoded(self) -> list[DecodedBatch]:
        """Nested columns."""
        return [one for piece in self.pieces for one in decode(piece)]

    @cached_property
    def contexts(self) -> list[StreamContext]:
        """Messages with their node and connection."""
        return follow(self.decoded)

    @cached_property
    def resolved(self) -> list[ResolvedLogs]:
        """Log frames whose connections have names."""
        return [resolve(flatten(one, serving=True), self.entities) for one in self.contexts]

    @cached_property
    def log_states(self) -> list[PeerStates]:
        """What phase 1 gives."""
        return [log_states(logs, self.plan) for logs in self.resolved]

    @cached_property
    def states(self) -> States:
        """What phase 2 gives."""
        return roll_up(self.log_states, self.plan)

    @cached_property
    def logs(self) -> int:
        """How many logs the messages hold."""
        return sum(count_logs(one.nested) for one in self.decoded)


def first_messages(capture: Capture, limit: int) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of a capture, up to a number of messages."""
    left = limit
    with CaptureReader(capture.path) as reader:
        for batch in reader:
            yield batch.messages.slice(0, left)
            left -= batch.messages.num_rows
            if left <= 0:
                return


def cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield messages in the pieces in which a replay works on them."""
    for group in regroup(batches, lambda batch: batch):
        yield from pieces(group)


def follow(decoded: Iterable[DecodedBatch]) -> list[StreamContext]:
    """Follow the streams through pieces."""
    carried = Carried()
    contexts = []
    for one in decoded:
        for context in follow_streams(one.captured, one.nested, carried):
            carried = context.carried
            contexts.append(context)
    return contexts


def count_logs(nested: pa.Table) -> int:
    """Count the logs of decoded messages."""
    kernel = sum(len(chunk.flatten()) for chunk in nested["kernelLogs"].chunks)
    protocol = nested["protocolLog"]
    return int(kernel + len(protocol) - protocol.null_count)


# The floor under everything: the library that decodes, with nothing around it.


def bare_decoder() -> Any:  # noqa: ANN401 - ptars does not export the type
    """Return ptars' handler for messages."""
    from ptars import HandlerPool  # noqa: PLC0415 - shows that nothing of the engine is in it

    descriptor = EBPFAccessLogMessage.DESCRIPTOR
    return HandlerPool([descriptor.file]).get_for_message(descriptor)


def bare_batches(messages: Sequence[pa.Table]) -> list[pa.BinaryArray]:
    """Return message bytes in the lengths that ptars decodes fastest."""
    return [
        piece["message"].slice(start, DECODE_MESSAGES).combine_chunks()
        for piece in messages
        for start in range(0, piece.num_rows, DECODE_MESSAGES)
    ]


def bare_decode(stages: Stages) -> Call[list[pa.RecordBatch]]:
    """Return the bare call of ptars over the messages of the stages."""
    handler, batches = bare_decoder(), bare_batches(stages.pieces)
    return Call(
        "bare ptars",
        stages.logs,
        lambda: [handler.array_to_record_batch(batch) for batch in batches],
        lambda decoded: decoded_answer([pa.Table.from_batches(decoded)]),
    )


def beside_bare_decode(stages: Stages) -> Rival:
    """Return bare ptars as the measure of a stage's cost."""
    return Rival(bare_decode(stages), same_answer=False)


# Answers of the stages.


def decoded_answer(tables: Sequence[pa.Table]) -> Answer:
    """Digest decoded messages by the sums of all leaves of all their logs."""
    sums = [leaf_sums(table) for table in tables]
    total = pl.concat(sums).sum()
    messages = sum(table.num_rows for table in tables)
    logs = sum(count_logs(table) for table in tables)
    return Answer(messages, text_answer(f"{logs}", *map(str, total.row(0))).checksum)


def leaf_sums(nested: pa.Table) -> pl.DataFrame:
    """Return a row with the sum of each leaf of the logs, where the operation is set."""
    entries = pa.chunked_array(
        [chunk.flatten() for chunk in nested["kernelLogs"].chunks],
        nested.schema.field("kernelLogs").type.value_type,
    )
    sums: dict[str, int] = {}
    for operation, leaves in OPERATION_LEAVES.items():
        of_kernel = operation in KERNEL_OPERATIONS
        structs = entries if of_kernel else nested["protocolLog"]
        struct = field_at(structs, (operation,))
        frame = leaf_frame(struct, TIME_LEAVES + leaves).filter(pl.Series(struct.is_valid()))
        for column in frame:
            numbers = column.str.len_bytes() if column.dtype == pl.String else column
            sums[f"{operation}.{column.name}"] = int(numbers.cast(pl.Int64).sum() or 0)
    return pl.DataFrame([sums], schema=dict.fromkeys(sums, pl.Int64))


def logs_answer(logs: Sequence[ResolvedLogs]) -> Answer:
    """Digest log frames by the sums of their columns, the numbers of peers left out."""
    frames = {
        f"{operation} {number}": frame.drop("peer")
        for number, one in enumerate(logs)
        for operation, frame in one.operations.items()
    }
    return sums_answer(frames)


def states_answer(states: States) -> Answer:
    """Digest the states of all scopes."""
    frames = {view: scope.scalars for view, scope in states.scopes.items()}
    for view, scope in states.scopes.items():
        frames |= {f"{view} {state}": frame for state, frame in scope.keyed.items()}
    return rows_answer(frames)
