"""The stages in a row, as pure functions: captured messages in, mergeable states out.

An embedding service, a replay, a live server and a cluster differ only in who calls these.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeVar

import pyarrow as pa

from framewalk.engine.capture import CAPTURE_SCHEMA
from framewalk.engine.counters import Counters
from framewalk.engine.decode import decode
from framewalk.engine.flatten import DEVICE_NAME, concat_logs, flatten
from framewalk.engine.log_states import log_states
from framewalk.engine.oal.plan import log_columns
from framewalk.engine.resolve import resolve
from framewalk.engine.rollup import roll_up, with_sides
from framewalk.engine.states import States, merge
from framewalk.engine.streams import Carried, follow_streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from framewalk.engine.entities import Entities
    from framewalk.engine.oal.plan import Plan

# Messages that are worked on at once. Large enough that the fixed cost of an operation on
# frames does not show, small enough for about 100 MB.
BATCH_MESSAGES: Final = 50_000

Item = TypeVar("Item")


def partial(batches: Iterable[pa.RecordBatch], entities: Entities, plan: Plan) -> States:
    """Compute the states of one capture's messages.

    `batches` have the columns of CAPTURE_SCHEMA and follow each other as in the capture. The
    result does not depend on how the messages are split into batches.
    """
    carried = Carried()
    states = merge(plan)
    for group in regroup(batches, lambda batch: batch.num_rows):
        for messages in pieces(group):
            found, carried = step(messages, carried, entities, plan)
            states = merge(plan, states, found)
    return states


def step(
    messages: pa.Table, carried: Carried, entities: Entities, plan: Plan
) -> tuple[States, Carried]:
    """Compute the states of some messages, and what to carry on to those that follow them."""
    decoded = decode(messages)
    skipped = Counters(messages=decoded.undecodable)
    skipped.quality["undecodable_message"] += decoded.undecodable
    parts = []
    for context in follow_streams(decoded.captured, decoded.nested, carried):
        carried = context.carried
        parts.append(flatten(context, device_names=DEVICE_NAME in log_columns(plan)))
    if not parts:
        return replace(merge(plan), counters=skipped), carried
    resolved = resolve(concat_logs(parts), entities)
    peers = with_sides(resolved.peers)
    operations = log_states(resolved, peers, plan)
    scopes = {scope.scope.view: roll_up(operations, peers, scope) for scope in plan.scopes}
    return States(MappingProxyType(scopes), resolved.counters + skipped), carried


def regroup(items: Iterable[Item], rows_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Yield runs of items with at least BATCH_MESSAGES rows together; the last has fewer."""
    waiting: list[Item] = []
    rows = 0
    for item in items:
        waiting.append(item)
        rows += rows_of(item)
        if rows >= BATCH_MESSAGES:
            yield waiting
            waiting, rows = [], 0
    if waiting:
        yield waiting


def pieces(batches: list[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield the rows in tables small enough to work on at once."""
    table = pa.Table.from_batches(batches, CAPTURE_SCHEMA)
    for start in range(0, table.num_rows, 2 * BATCH_MESSAGES):
        yield table.slice(start, 2 * BATCH_MESSAGES)
