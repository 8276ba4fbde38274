"""The stages in a row, as pure functions: captured messages in, mergeable states out.

An embedding service, a replay, a live server and a cluster differ only in who calls these.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from framewalk.engine.caps import DEFAULT_CAPS
from framewalk.engine.captures import (
    CAPTURE_SCHEMA,
    CaptureReader,
    as_capture_schema,
    find_captures,
)
from framewalk.engine.counters import Counters
from framewalk.engine.errors import InputError
from framewalk.engine.oal import log_columns
from framewalk.engine.schemas import CLOCKS_SCHEMA, DEFAULT_MOST_AHEAD_S, PEER_SCHEMA
from framewalk.engine.stages.clocks import check_most_ahead
from framewalk.engine.stages.columns import SERVING
from framewalk.engine.stages.crowding import within_caps
from framewalk.engine.stages.decoding import decode
from framewalk.engine.stages.entity_states import roll_up
from framewalk.engine.stages.flattening import DEVICE_NAME, concat_logs, flatten
from framewalk.engine.stages.peer_states import KeptLogs, PeerStates, log_states
from framewalk.engine.stages.resolving import ResolvedLogs, resolve
from framewalk.engine.stages.streams import Carried, follow_streams
from framewalk.engine.states import States, merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from framewalk.engine.caps import Caps
    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.oal import Plan
    from framewalk.engine.paths import Paths
    from framewalk.engine.stages.flattening import LogFrames

# Messages that are worked on at once. Large enough that the fixed cost of an operation on
# frames does not show, small enough for about 100 MB.
BATCH_MESSAGES: Final = 50_000
# The same for messages of many logs, with their columns: 50,000 usual ones have less. A byte may
# become 13 in frames.
BATCH_BYTES: Final = 20 * 2**20

# Results of the first phase that are added up at once: rolling up costs much the same for one
# as for many.
_ROLL_UP_AT: Final = 16

Item = TypeVar("Item")


class Keep(Protocol):
    """Keeps resolved logs; `connections` are those of LogFrames, which `connection` points into."""

    def __call__(self, logs: ResolvedLogs, connections: pl.DataFrame) -> KeptLogs:
        """Return what is kept of them."""


def partial(
    batches: Iterable[pa.RecordBatch],
    entities: Entities,
    plan: Plan,
    *,
    most_ahead_s: float = DEFAULT_MOST_AHEAD_S,
    caps: Caps = DEFAULT_CAPS,
) -> States:
    """Compute the states of one capture's messages.

    `batches` have the columns of CAPTURE_SCHEMA, or such that can be cast to them, and follow each
    other as in the capture. The result does not depend on how the messages are split into batches.
    Logs whose event is more than `most_ahead_s` ahead of their arrival are dropped, and those of
    what a stream names beyond the caps. Nothing is called `others` here.
    Raises InputError for a batch that has other columns, and for a time that is none.
    """
    check_most_ahead(most_ahead_s)
    carried = Carried()
    states = merge(plan)
    waiting: list[PeerStates] = []
    for group in regroup(map(_captured, batches), lambda batch: batch):
        for messages in pieces(group):
            for found, after in first_phase(
                messages, carried, entities, plan, most_ahead_s=most_ahead_s, caps=caps
            ):
                waiting.append(found)
                carried = after
                if len(waiting) >= _ROLL_UP_AT:
                    states = merge(plan, states, roll_up(waiting, plan))
                    waiting = []
    return merge(plan, states, roll_up(waiting, plan))


def partial_files(
    captures: Paths,
    entities: Entities,
    plan: Plan,
    *,
    most_ahead_s: float = DEFAULT_MOST_AHEAD_S,
    caps: Caps = DEFAULT_CAPS,
) -> States:
    """Compute the states of captures, as `partial` does of their messages: of files or folders.

    For whoever hands work to others: paths are short, and each of them reads what it computes. No
    clock is asked, and merging the results of parts of the paths gives that of all. A capture with
    a damaged end counts up to there. Raises CaptureError for what is no capture, and InputError as
    `partial` does.
    """
    states = merge(plan)
    for path in find_captures(captures):
        with CaptureReader(path) as reader:
            messages = (batch.messages for batch in reader)
            found = partial(messages, entities, plan, most_ahead_s=most_ahead_s, caps=caps)
        states = merge(plan, states, found)
    return states


def _captured(batch: pa.RecordBatch) -> pa.RecordBatch:
    try:
        return batch if batch.schema.equals(CAPTURE_SCHEMA) else as_capture_schema(batch)
    except (KeyError, pa.ArrowException) as error:
        place = f"record batch with {', '.join(batch.schema.names)}"
        problem = f"its columns are not those of captured messages ({str(error).splitlines()[0]})"
        wanted = ", ".join(f"{field.name} ({field.type})" for field in CAPTURE_SCHEMA)
        raise InputError(place, problem, f"give {wanted}") from error


def step(
    messages: pa.Table, carried: Carried, entities: Entities, plan: Plan
) -> tuple[States, Carried]:
    """Compute the states of some messages, and what to carry on to those that follow them."""
    waiting = []
    for found, after in first_phase(messages, carried, entities, plan):
        waiting.append(found)
        carried = after
    return roll_up(waiting, plan), carried


def first_phase(  # noqa: PLR0913 - options, each with a default
    messages: pa.Table,
    carried: Carried,
    entities: Entities,
    plan: Plan,
    *,
    most_ahead_s: float = DEFAULT_MOST_AHEAD_S,
    caps: Caps = DEFAULT_CAPS,
    keep: Keep | None = None,
) -> Iterator[tuple[PeerStates, Carried]]:
    """Do all that must look at each log; roll_up adds up the results of many such calls.

    Yields states, and what to carry on after them. Memory does not depend on how much there is of
    the messages. States may be empty: a sign of life. Logs whose event is more than `most_ahead_s`
    ahead of their arrival are apart, and dropped unless the results go through `with_ahead`. Logs
    of what a stream names beyond the caps are dropped. With `keep` the results have the logs, too.
    """
    columns = log_columns(plan)
    device_names, serving = DEVICE_NAME in columns, SERVING in columns or keep is not None
    for decoded in decode(messages):
        counted = Counters(decoded.messages, quality=decoded.refused)
        parts = []
        for context in follow_streams(decoded.captured, decoded.nested, carried):
            carried = context.carried
            parts.append(
                flatten(
                    context,
                    device_names=device_names,
                    serving=serving,
                    most_ahead_s=most_ahead_s,
                    to_keep=keep is not None,
                )
            )
        if not parts:
            yield _without_states(counted), carried
            continue
        logs, named = within_caps(concat_logs(parts), carried.named, carried.clock_ns, caps)
        carried = replace(carried, named=named)
        states = _states(logs, entities, plan, keep)
        ahead = None if logs.ahead is None else _states(logs.ahead, entities, plan, keep)
        counters = states.counters + counted
        yield replace(states, counters=counters, clocks=logs.clocks, ahead=ahead), carried


def _without_states(counted: Counters) -> PeerStates:
    none = pl.DataFrame(schema=CLOCKS_SCHEMA)
    return PeerStates(pl.DataFrame(schema=PEER_SCHEMA), {}, counted, none)


def _states(logs: LogFrames, entities: Entities, plan: Plan, keep: Keep | None) -> PeerStates:
    resolved = resolve(logs, entities)
    found = log_states(resolved, plan)
    return found if keep is None else replace(found, kept=keep(resolved, logs.connections))


def regroup(
    items: Iterable[Item], batch_of: Callable[[Item], pa.RecordBatch | None]
) -> Iterator[list[Item]]:
    """Yield runs of items with at least BATCH_MESSAGES rows or BATCH_BYTES together.

    The last run has fewer. An item may be none of messages.
    """
    waiting: list[Item] = []
    rows = size_bytes = 0
    for item in items:
        waiting.append(item)
        batch = batch_of(item)
        if batch is not None:
            rows += batch.num_rows
            size_bytes += batch.nbytes
        if rows >= BATCH_MESSAGES or size_bytes >= BATCH_BYTES:
            yield waiting
            waiting, rows, size_bytes = [], 0, 0
    if waiting:
        yield waiting


def pieces(batches: list[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield the rows in tables small enough to work on at once."""
    table = pa.Table.from_batches(batches, CAPTURE_SCHEMA)
    for start in range(0, table.num_rows, 2 * BATCH_MESSAGES):
        yield from _alike_in_bytes(table.slice(start, 2 * BATCH_MESSAGES))


def _alike_in_bytes(table: pa.Table) -> Iterator[pa.Table]:
    """Yield the rows in tables of much the same size, at most 1.5 times BATCH_BYTES.

    A message that is larger is not cut.
    """
    ends_bytes = pc.cumulative_sum(pc.cast(pc.binary_length(table["message"]), pa.int64()))
    total_bytes = ends_bytes[-1].as_py()
    count = max(round(total_bytes / BATCH_BYTES), 1)
    start = 0
    for number in range(1, count + 1):
        end = pc.sum(pc.less_equal(ends_bytes, total_bytes * number // count)).as_py()
        if end > start:
            yield table.slice(start, end - start)
        start = end
