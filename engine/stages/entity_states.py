"""Stage 5, phase 2: states per (peers, minute) -> states per (scope entity, minute).

Works on the small result of phase 1: conditions on peers choose rows, and each scope groups
what is left by its own entities (analysis.md, section 3).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.counters import Counters
from framewalk.engine.oal import Column, Keep, Level, condition_expression
from framewalk.engine.stages.columns import endpoint_expression, with_sides
from framewalk.engine.stages.peer_states import OperationStates, PeerStates
from framewalk.engine.states import (
    KEY,
    MINUTE,
    TRAITS,
    VALUE,
    ScopeStates,
    States,
    empty_states,
    merge,
    merge_expression,
    merge_rows,
    merge_unknown,
    traits_expression,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from framewalk.engine.oal import BoundCondition, Plan, Scope, ScopePlan, Share

_ENTITY: Final = "entity"


# Pairs of peers and minute that are rolled up at once: at most some 200 MB.
ROLL_UP_ROWS: Final = 20_000


def roll_up(parts: Sequence[PeerStates], plan: Plan) -> States:
    """Add up the states of logs for the entities of every scope."""
    states = list(roll_up_in_parts(parts, plan))
    return states[0] if len(states) == 1 else merge(plan, *states)


def roll_up_in_parts(
    parts: Sequence[PeerStates], plan: Plan, most_rows: int = ROLL_UP_ROWS
) -> Iterator[States]:
    """Yield states that together are what roll_up gives, at least one.

    Each is about at most `most_rows` pairs of peers and minute, which bounds the memory that is
    needed. The counters, and unknown peers, are with the first.
    """
    counters = sum((part.counters for part in parts), Counters())
    unknown = merge_unknown([part.unknown for part in parts])
    with_logs = [part for part in parts if part.operations]
    if not with_logs:
        yield replace(merge(plan), counters=counters, unknown=unknown)
        return
    peers, operations = _on_common_peers(with_logs)
    for few_peers, few_operations in _cut(peers, operations, most_rows):
        yield States(_roll_up_scopes(few_peers, few_operations, plan), counters, unknown)
        counters, unknown = Counters(), unknown.clear()


def _roll_up_scopes(
    peers: pl.DataFrame, operations: Mapping[str, OperationStates], plan: Plan
) -> Mapping[str, ScopeStates]:
    peers = with_sides(peers).with_columns(traits=traits_expression())
    finest = _side_by_side(operations, peers, plan)
    scopes = {scope.scope.view: _roll_up_scope(finest, peers, scope) for scope in plan.scopes}
    return MappingProxyType(scopes)


def _cut(
    peers: pl.DataFrame, operations: Mapping[str, OperationStates], most_rows: int
) -> Iterator[tuple[pl.DataFrame, Mapping[str, OperationStates]]]:
    """Yield peers and their states with at most so many pairs of peer and minute each."""
    keys = [states.scalars.select("peer", MINUTE) for states in operations.values()]
    pairs = pl.concat(keys).unique()
    if pairs.height <= most_rows:
        yield peers, operations
        return
    pairs = pairs.sort("peer", MINUTE)
    for start in range(0, pairs.height, most_rows):
        few = pairs.slice(start, most_rows)
        first, last = few["peer"][0], few["peer"][-1]
        yield (
            peers.slice(first, last - first + 1),
            {name: _only(states, few, first) for name, states in operations.items()},
        )


def _only(states: OperationStates, pairs: pl.DataFrame, first_peer: int) -> OperationStates:
    """Return the states of these pairs, with peers counted from the first one."""

    def only(frame: pl.DataFrame) -> pl.DataFrame:
        found = frame.join(pairs, on=["peer", MINUTE], how="semi")
        return found.with_columns(pl.col("peer") - first_peer)

    keyed = {name: only(frame) for name, frame in states.keyed.items()}
    return OperationStates(only(states.scalars), keyed)


def _on_common_peers(
    parts: Sequence[PeerStates],
) -> tuple[pl.DataFrame, dict[str, OperationStates]]:
    """Number the peers of all parts alike and put their states together."""
    every = pl.concat([part.peers for part in parts])
    peers = every.unique(maintain_order=True).with_row_index("peer")
    number = every.join(
        peers, on=every.columns, how="left", nulls_equal=True, maintain_order="left"
    )["peer"]
    first_row = 0
    renumbered: list[Mapping[str, OperationStates]] = []
    for part in parts:
        own = number.slice(first_row, part.peers.height)
        renumbered.append(
            {name: _renumbered(states, own) for name, states in part.operations.items()}
        )
        first_row += part.peers.height
    operations = {
        name: _concat([states[name] for states in renumbered]) for name in parts[0].operations
    }
    return peers.drop("peer"), operations


def _renumbered(states: OperationStates, number: pl.Series) -> OperationStates:
    def renumber(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(number.gather(frame["peer"]).alias("peer"))

    keyed = {name: renumber(frame) for name, frame in states.keyed.items()}
    return OperationStates(renumber(states.scalars), keyed)


def _concat(parts: Sequence[OperationStates]) -> OperationStates:
    return OperationStates(
        pl.concat([part.scalars for part in parts]),
        {name: pl.concat([part.keyed[name] for part in parts]) for name in parts[0].keyed},
    )


@dataclass(frozen=True, slots=True)
class _FinestStates:
    """The states of all operations' logs at the finest key.

    `by_peer` has `peer`, `minute` and a column per state of any operation, `by_endpoint` also
    `endpoint` and the states of HTTP only; a key may come several times. `keyed_by_peer` maps a
    state's name to `peer`, `minute`, `key` and `value`, `keyed_by_endpoint` those of HTTP to
    `endpoint` as well.
    """

    by_peer: pl.DataFrame
    by_endpoint: pl.DataFrame
    keyed_by_peer: Mapping[str, pl.DataFrame]
    keyed_by_endpoint: Mapping[str, pl.DataFrame]


def _side_by_side(
    operations: Mapping[str, OperationStates], peers: pl.DataFrame, plan: Plan
) -> _FinestStates:
    """Put the states of all operations side by side, and name the endpoints of HTTP."""
    named = {
        name: _with_endpoint(states, peers, plan) if name == "http" else states
        for name, states in operations.items()
    }
    http = named["http"].scalars
    keeps = {str(state): state.keep for state in plan.log_states["http"] if state.key is None}
    by_peer = [states.scalars for name, states in named.items() if name != "http"]
    by_peer.append(merge_rows([http], ["peer", MINUTE], keeps))
    keyed = {name: frame for states in named.values() for name, frame in states.keyed.items()}
    # Four scopes have no endpoints: theirs are added up once.
    keyed |= {
        str(state): merge_rows([keyed[str(state)]], ["peer", MINUTE, KEY], {VALUE: state.keep})
        for state in plan.log_states["http"]
        if state.key is not None
    }
    every = pl.concat(by_peer, how="diagonal")
    return _FinestStates(every, http, keyed, named["http"].keyed)


def _roll_up_scope(states: _FinestStates, peers: pl.DataFrame, scope: ScopePlan) -> ScopeStates:
    """Compute the states of one scope; `peers` has the columns of with_sides()."""
    names, entity_of_peer = _entities(peers, scope.scope)
    renamed = _log_keys_to_names(scope.scope)
    keys = [_ENTITY, *renamed.values(), MINUTE]
    rows = states.by_endpoint if renamed else states.by_peer
    rows = rows.with_columns(peers[TRAITS].gather(rows["peer"])).rename(renamed)
    scalars = [_of_entities(rows, entity_of_peer).group_by(keys).agg(pl.col(TRAITS).bitwise_or())]
    for conditions, shares in _layers(scope.shares):
        entities = _entities_that_meet(conditions, peers, entity_of_peer)
        columns = dict.fromkeys(str(share.log_state) for share in shares)
        needed = rows.select("peer", *keys[1:], *columns)
        scalars.append(_sum_shares(_of_entities(needed, entities), keys, shares))
    finest = states.keyed_by_endpoint if renamed else states.keyed_by_peer
    keyed: dict[str, list[pl.DataFrame]] = {state.name: [] for state in scope.keyed_states}
    for share in scope.shares:
        if share.state.keyed:
            entities = _entities_that_meet(share.conditions, peers, entity_of_peer)
            split = _of_entities(finest[str(share.log_state)], entities)
            keyed[share.state.name].append(split.rename(renamed))
    return _with_names(scope, names, keys, scalars, keyed)


def _with_endpoint(states: OperationStates, peers: pl.DataFrame, plan: Plan) -> OperationStates:
    """Name the endpoints of grouped HTTP logs: far fewer rows than logs."""

    def named(frame: pl.DataFrame) -> pl.DataFrame:
        services = peers["local_service"].gather(frame["peer"])
        endpoint = endpoint_expression(plan.endpoint_patterns, services)
        return frame.with_columns(endpoint.alias("endpoint")).drop("method", "path")

    keyed = {name: named(frame) for name, frame in states.keyed.items()}
    return OperationStates(named(states.scalars), keyed)


def _log_keys_to_names(scope: Scope) -> dict[str, str]:
    return {
        column.name: name
        for name, column in scope.keys.items()
        if isinstance(column, Column) and column.level is Level.LOG
    }


def _entities(peers: pl.DataFrame, scope: Scope) -> tuple[pl.DataFrame, pl.Series]:
    """Return the entities' names by number, and each peer's number; null where it makes none."""
    keys = {
        name: pl.col(column.name) if isinstance(column, Column) else pl.lit(column)
        for name, column in scope.keys.items()
        if not isinstance(column, Column) or column.level is Level.PEER
    }
    eligible = pl.col("role").is_in(scope.roles)
    if scope.needs_local:
        eligible &= pl.col("local_known")
    for column in scope.needs:
        eligible &= pl.col(column).is_not_null()
    rows = peers.select(**keys, eligible=eligible)
    names = rows.filter("eligible").select(*keys).unique().with_row_index(_ENTITY)
    numbered = rows.join(names, on=list(keys), how="left", maintain_order="left")
    return names, numbered.select(pl.when("eligible").then(_ENTITY)).to_series()


def _entities_that_meet(
    conditions: frozenset[BoundCondition], peers: pl.DataFrame, entity_of_peer: pl.Series
) -> pl.Series:
    if not conditions:
        return entity_of_peer
    meets = pl.all_horizontal(condition_expression(c) for c in sorted(conditions, key=str))
    kept = peers.select(pl.when(meets).then(pl.lit(entity_of_peer)).alias(_ENTITY))
    return kept.to_series()


def _layers(shares: tuple[Share, ...]) -> Iterator[tuple[frozenset[BoundCondition], list[Share]]]:
    """Yield scalar shares with the same conditions together, each state once in a layer."""
    layers: defaultdict[tuple[frozenset[BoundCondition], int], list[Share]] = defaultdict(list)
    seen: Counter[str] = Counter()
    for share in shares:
        if not share.state.keyed:
            layers[share.conditions, seen[share.state.name]].append(share)
            seen[share.state.name] += 1
    for (conditions, _), layer in layers.items():
        yield conditions, layer


def _of_entities(frame: pl.DataFrame, entities: pl.Series) -> pl.DataFrame:
    entity = entities.gather(frame["peer"]).alias(_ENTITY)
    return frame.with_columns(entity).drop_nulls(_ENTITY)


def _sum_shares(rows: pl.DataFrame, keys: list[str], shares: list[Share]) -> pl.DataFrame:
    return rows.group_by(keys).agg(
        merge_expression(rows, str(share.log_state), share.state.keep).alias(share.state.name)
        for share in shares
    )


def _with_names(
    scope: ScopePlan,
    names: pl.DataFrame,
    keys: list[str],
    scalars: list[pl.DataFrame],
    keyed: Mapping[str, list[pl.DataFrame]],
) -> ScopeStates:
    """Merge what the operations contributed and put names in place of entity numbers."""
    empty = empty_states(scope)
    keeps = {state.name: state.keep for state in scope.scalar_states} | {TRAITS: Keep.BITS}
    merged = merge_rows(scalars, keys, keeps)
    named = {
        state.name: _named(
            merge_rows(keyed[state.name], [*keys, KEY], {VALUE: state.keep}), names
        ).select(empty.keyed[state.name].columns)
        for state in scope.keyed_states
    }
    return ScopeStates(_named(merged, names).select(empty.scalars.columns), MappingProxyType(named))


def _named(frame: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    return frame.join(names, on=_ENTITY, how="inner").drop(_ENTITY)
