"""Stage 5, phase 1: log frames -> states per (peers, minute), the only pass over the logs.

Every distinct state that any definition needs of a log is computed once, at the finest key.
HTTP logs are also split by method and path, from which the endpoint's name is made later.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol, Self

import polars as pl

from framewalk.engine.oal import (
    Keep,
    condition_expression,
    key_expression,
    log_columns,
    peer_columns,
    threshold_column,
    value_expression,
)
from framewalk.engine.schemas import AHEAD_REASON, CLOCKS_SCHEMA, UNKNOWN_PEERS_SCHEMA
from framewalk.engine.stages.columns import endpoint_expression, with_derived, with_sides
from framewalk.engine.states import KEY, MINUTE, VALUE, sum_expression, sum_fits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from framewalk.engine.counters import Counters
    from framewalk.engine.oal import Plan, StatePart
    from framewalk.engine.stages.resolving import ResolvedLogs

NS_PER_MINUTE: Final = 60_000_000_000
LOGS: Final = "logs"
ROW: Final = "row"

# These stand beside the columns of logs, whose names have no space.
_ROWS: Final = "rows of group"
_GROUP: Final = "group number"


@dataclass(frozen=True, slots=True)
class OperationStates:
    """The states of one operation's logs.

    `scalars` has `peer` (UInt32), `minute` (Int64), for HTTP `method` and `path`, `logs` (Int64:
    how many), and a column per state. `keyed` maps a state's name to `row` (UInt32: the row of
    `scalars` that it splits), `key` and `value`.
    """

    scalars: pl.DataFrame
    keyed: Mapping[str, pl.DataFrame]

    def only(self, kept: pl.Series) -> OperationStates:
        """Keep the rows of `scalars` that are marked (Boolean), and what splits them."""
        number = kept.to_frame("kept").select(pl.when("kept").then(pl.col("kept").cum_sum() - 1))
        row = number.to_series().cast(pl.UInt32)
        keyed = {
            name: frame.with_columns(row.gather(frame[ROW]).alias(ROW)).drop_nulls(ROW)
            for name, frame in self.keyed.items()
        }
        return OperationStates(self.scalars.filter(kept), keyed)


class KeptLogs(Protocol):
    """The logs themselves, as whoever wants them keeps them."""

    @property
    def size_bytes(self) -> int:
        """What they take in memory."""

    def without(self, pairs: pl.DataFrame) -> Self:
        """Leave out the logs of pairs of `peer` and `minute`."""


@dataclass(frozen=True, slots=True)
class PeerStates:
    """The states of some logs per (peers, minute), all operations; what phase 2 starts from.

    `peers` has the columns of PEER_SCHEMA; `peer` of the states is a row of it. `ahead` are those
    of logs that are too far ahead of their arrival, which `counters` has as dropped; `clocks` has
    CLOCKS_SCHEMA, `unknown` UNKNOWN_PEERS_SCHEMA. `kept` are the logs, if they were asked for.
    """

    peers: pl.DataFrame
    operations: Mapping[str, OperationStates]
    counters: Counters
    clocks: pl.DataFrame
    ahead: PeerStates | None = None
    unknown: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=UNKNOWN_PEERS_SCHEMA))
    kept: KeptLogs | None = None

    @property
    def rows(self) -> int:
        """How many rows of states there are."""
        return self.unknown.height + sum(
            states.scalars.height + sum(frame.height for frame in states.keyed.values())
            for states in self.operations.values()
        )


def operation_keys(operation: str) -> list[str]:
    """Return the finest key of an operation's states."""
    return ["peer", MINUTE, "method", "path"] if operation == "http" else ["peer", MINUTE]


def log_states(logs: ResolvedLogs, plan: Plan) -> PeerStates:
    """Compute the states of all operations."""
    columns = log_columns(plan)
    peers = with_sides(logs.peers)
    operations = {
        operation: _operation_states(operation, frame, peers, plan, columns)
        for operation, frame in logs.operations.items()
    }
    none = pl.DataFrame(schema=CLOCKS_SCHEMA)
    return PeerStates(logs.peers, operations, logs.counters, none, unknown=logs.unknown)


def with_ahead(part: PeerStates) -> list[PeerStates]:
    """Return the states of all logs: those that are ahead are not dropped then."""
    if part.ahead is None:
        return [part]
    kept = Counter({AHEAD_REASON: int(part.clocks["ahead_logs"].sum())})
    counters = replace(part.counters, dropped=part.counters.dropped - kept)
    return [replace(part, counters=counters), part.ahead]


def _operation_states(
    operation: str,
    frame: pl.DataFrame,
    peers: pl.DataFrame,
    plan: Plan,
    columns: frozenset[str],
) -> OperationStates:
    states = plan.log_states[operation]
    endpoint = None
    if "endpoint" in columns and operation == "http":
        services = peers["local_service"].gather(frame["peer"])
        endpoint = endpoint_expression(plan.endpoint_patterns, services)
    frame = with_derived(frame, operation, columns, endpoint)
    frame = frame.with_columns((pl.col("time_ns") // NS_PER_MINUTE).alias(MINUTE))
    frame = _with_peer_columns(frame, states, peers, plan)
    keys = operation_keys(operation)
    scalars = [_aggregate(state, frame) for state in states if state.key is None]
    logs = pl.len().cast(pl.Int64).alias(LOGS)
    keyed = [state for state in states if state.key is not None]
    if not keyed:
        return OperationStates(frame.group_by(keys).agg(logs, *scalars), {})
    rows = pl.int_range(pl.len(), dtype=pl.UInt32)
    grouped = frame.with_columns(rows.alias(_ROWS)).group_by(keys).agg(logs, *scalars, _ROWS)
    groups = _group_of_row(grouped[_ROWS])
    return OperationStates(
        grouped.drop(_ROWS), {str(state): _keyed_states(state, frame, groups) for state in keyed}
    )


def _group_of_row(rows: pl.Series) -> pl.Series:
    """Return each row's number of the group whose list it is in."""
    groups = pl.DataFrame({"group": pl.int_range(rows.len(), dtype=pl.UInt32, eager=True)})
    pairs = groups.with_columns(rows).explode(_ROWS)
    return pl.zeros(pairs.height, dtype=pl.UInt32, eager=True).scatter(pairs[_ROWS], pairs["group"])


def _with_peer_columns(
    frame: pl.DataFrame, states: tuple[StatePart, ...], peers: pl.DataFrame, plan: Plan
) -> pl.DataFrame:
    read, thresholds = peer_columns(states)
    wanted = [peers[name] for name in sorted(read)]
    wanted += [
        _thresholds_ms(peers[name], plan).alias(threshold_column(name))
        for name in sorted(thresholds)
    ]
    return frame.with_columns(column.gather(frame["peer"]) for column in wanted)


def _thresholds_ms(services: pl.Series, plan: Plan) -> pl.Series:
    return services.replace_strict(
        dict(plan.apdex_thresholds_ms), default=plan.apdex_default_ms, return_dtype=pl.Int64
    )


def _aggregate(state: StatePart, frame: pl.DataFrame) -> pl.Expr:
    """Return a state as an aggregation; the filter is part of it."""
    condition = _condition(state)
    if state.keep is Keep.COUNT or state.value is None:
        count = pl.len() if condition is None else condition.sum()
        return count.cast(pl.Int64).alias(str(state))
    value = value_expression(state.value)
    if state.keep in {Keep.MAX, Keep.MIN}:
        chosen = value if condition is None else value.filter(condition)
        extreme = chosen.max() if state.keep is Keep.MAX else chosen.min()
        return extreme.alias(str(state))
    added = value if condition is None else pl.when(condition).then(value).otherwise(0)
    return sum_expression(added, exact=_fits(state, frame)).alias(str(state))


def _fits(state: StatePart, frame: pl.DataFrame) -> bool:
    if state.value is None:
        return True
    return sum_fits(frame.select(value_expression(state.value)).to_series(), frame.height)


def _condition(state: StatePart) -> pl.Expr | None:
    conditions = sorted(state.selection.conditions, key=str)
    return pl.all_horizontal(map(condition_expression, conditions)) if conditions else None


def _keyed_states(state: StatePart, frame: pl.DataFrame, groups: pl.Series) -> pl.DataFrame:
    """Split a state by its key; `groups` are the rows of the scalars that the logs belong to."""
    if state.key is None:
        message = f"{state} has no key"
        raise TypeError(message)
    condition = _condition(state)
    frame = frame.with_columns(groups.alias(_GROUP))
    if condition is not None:
        frame = frame.filter(condition)
    split = frame.with_columns(key_expression(state.key).alias(KEY)).drop_nulls(KEY)
    if state.value is None:
        value = pl.len().cast(pl.Int64)
    else:
        value = sum_expression(value_expression(state.value), exact=_fits(state, split))
    return split.group_by(_GROUP, KEY).agg(value.alias(VALUE)).rename({_GROUP: ROW})
