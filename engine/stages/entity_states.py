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
from framewalk.engine.stages.peer_states import ROW, OperationStates, PeerStates
from framewalk.engine.states import (
    KEY,
    MINUTE,
    TRAITS,
    VALUE,
    ScopeStates,
    States,
    merge,
    merge_expression,
    merge_rows,
    merge_unknown,
    minutes_of,
    one_number,
    traits_expression,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from framewalk.engine.oal import BoundCondition, Plan, Scope, ScopePlan, Share

_ENTITY: Final = "entity"
_ENDPOINT: Final = "endpoint"
# A pair of peers and minute, and the place of an entity and minute among those of its scope.
_PAIR: Final = "pair"
_PLACE: Final = "place"
_CODE: Final = "code"

# Pairs of peers and minute that are rolled up at once: at most some 200 MB.
ROLL_UP_ROWS: Final = 60_000


def roll_up(parts: Sequence[PeerStates], plan: Plan) -> States:
    """Add up the states of logs for the entities of every scope."""
    states = list(roll_up_in_parts(parts, plan))
    if len(states) == 1:
        return states[0]
    minutes = [minutes_of(part) for part in states]
    if sum(part.len() for part in minutes) > pl.concat(minutes).n_unique():
        return merge(plan, *states)
    # None has a minute of another's: nothing of them is added up.
    scopes = {
        view: _one_after_another([part.scopes[view] for part in states])
        for view in states[0].scopes
    }
    return replace(states[0], scopes=MappingProxyType(scopes))


def _one_after_another(parts: Sequence[ScopeStates]) -> ScopeStates:
    keyed = {name: pl.concat([part.keyed[name] for part in parts]) for name in parts[0].keyed}
    return ScopeStates(pl.concat([part.scalars for part in parts]), MappingProxyType(keyed))


def roll_up_in_parts(
    parts: Sequence[PeerStates], plan: Plan, most_rows: int = ROLL_UP_ROWS
) -> Iterator[States]:
    """Yield states that together are what roll_up gives, at least one.

    Each is about at most `most_rows` pairs of peers and minute, which bounds the memory that is
    needed. None has a minute of another's, but where one minute has more pairs. The counters, and
    unknown peers, are with the first.
    """
    counters = sum((part.counters for part in parts), Counters())
    unknown = merge_unknown([part.unknown for part in parts])
    with_logs = [part for part in parts if part.operations]
    if not with_logs:
        yield replace(merge(plan), counters=counters, unknown=unknown)
        return
    peers, operations = _on_common_peers(with_logs)
    names, operations = _with_endpoints(operations, peers, plan)
    peers = with_sides(peers).with_columns(traits=traits_expression())
    scopes = [_scope_of_peers(peers, scope) for scope in plan.scopes]
    pairs, operations = _with_pairs(operations)
    for few in _by_whole_minutes(pairs, most_rows):
        own = operations if few.height == pairs.height else _only(operations, few)
        yield States(_roll_up_scopes(own, few, plan, scopes, names), counters, unknown)
        counters, unknown = Counters(), unknown.clear()


def _by_whole_minutes(pairs: pl.DataFrame, most_rows: int) -> Iterator[pl.DataFrame]:
    """Yield pairs, which are in order of their minute, at most so many at a time; at least once."""
    lengths = pairs[MINUTE].rle().struct.field("len").to_list()
    first = count = 0
    for length in lengths:
        if count and count + length > most_rows:
            yield pairs.slice(first, count)
            first, count = first + count, 0
        count += length
        while count > most_rows:
            yield pairs.slice(first, most_rows)
            first, count = first + most_rows, count - most_rows
    if count or not lengths:
        yield pairs.slice(first, count)


def _roll_up_scopes(
    operations: Mapping[str, OperationStates],
    pairs: pl.DataFrame,
    plan: Plan,
    scopes: Sequence[_ScopeOfPeers],
    endpoints: pl.Series,
) -> Mapping[str, ScopeStates]:
    finest = _side_by_side(operations, pairs, plan)
    return MappingProxyType(
        {one.plan.scope.view: _roll_up_scope(finest, one, endpoints) for one in scopes}
    )


def _on_common_peers(
    parts: Sequence[PeerStates],
) -> tuple[pl.DataFrame, dict[str, OperationStates]]:
    """Number the peers of all parts alike and put their states together."""
    if len(parts) == 1:
        return parts[0].peers, dict(parts[0].operations)
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
    peer = number.gather(states.scalars["peer"]).alias("peer")
    return replace(states, scalars=states.scalars.with_columns(peer))


def _concat(parts: Sequence[OperationStates]) -> OperationStates:
    """Put states of the same peers together: the rows of one follow those of the others."""
    before = 0
    keyed: dict[str, list[pl.DataFrame]] = {name: [] for name in parts[0].keyed}
    for part in parts:
        for name, frame in part.keyed.items():
            keyed[name].append(frame.with_columns(pl.col(ROW) + before))
        before += part.scalars.height
    return OperationStates(
        pl.concat([part.scalars for part in parts]),
        {name: pl.concat(frames) for name, frames in keyed.items()},
    )


def _with_endpoints(
    operations: Mapping[str, OperationStates], peers: pl.DataFrame, plan: Plan
) -> tuple[pl.Series, dict[str, OperationStates]]:
    """Name the endpoints of grouped HTTP logs, far fewer rows than logs: names and numbers."""
    http = operations["http"].scalars
    services = peers["local_service"].gather(http["peer"])
    endpoint = endpoint_expression(plan.endpoint_patterns, services).alias(_ENDPOINT)
    named = http.select(endpoint)
    names = named.unique(maintain_order=True).with_row_index(_CODE)
    numbers = named.join(names, on=_ENDPOINT, how="left", nulls_equal=True, maintain_order="left")
    scalars = http.drop("method", "path").with_columns(numbers[_CODE].alias(_ENDPOINT))
    numbered = replace(operations["http"], scalars=scalars)
    return names[_ENDPOINT], {**operations, "http": numbered}


def _with_pairs(
    operations: Mapping[str, OperationStates],
) -> tuple[pl.DataFrame, dict[str, OperationStates]]:
    """Number the pairs of peer and minute, by minute: `pair`, `peer` and `minute` of each.

    The operations' states have the number in place of both.
    """
    every = pl.concat([states.scalars.select("peer", MINUTE) for states in operations.values()])
    code = one_number(every.select(MINUTE, "peer"))
    number = code.rank("dense").cast(pl.UInt32) - 1
    pairs = (
        every.with_columns(number.alias(_PAIR))
        .unique(_PAIR)
        .sort(_PAIR)
        .select(_PAIR, *every.columns)
    )
    first_row = 0
    numbered = {}
    for name, states in operations.items():
        own = number.slice(first_row, states.scalars.height).alias(_PAIR)
        numbered[name] = replace(
            states, scalars=states.scalars.drop("peer", MINUTE).with_columns(own)
        )
        first_row += states.scalars.height
    return pairs, numbered


def _only(
    operations: Mapping[str, OperationStates], pairs: pl.DataFrame
) -> dict[str, OperationStates]:
    """Return the states of consecutive pairs."""
    first, last = pairs[_PAIR][0], pairs[_PAIR][-1]
    return {
        name: states.only(states.scalars[_PAIR].is_between(first, last))
        for name, states in operations.items()
    }


@dataclass(frozen=True, slots=True)
class _FinestStates:
    """The states of all operations' logs at the finest keys, and what splits them.

    `by_pair` has a row for each pair of peer and minute: `peer`, `minute`, and a column per state
    of any operation. `by_endpoint` has `peer`, `minute`, `endpoint` (its number) and the states of
    HTTP; a key may come several times. `split_by_pair` maps a state's name to `row` (of the first),
    `key` and `value`, `split_by_endpoint` those of HTTP to rows of the other.
    """

    by_pair: pl.DataFrame
    by_endpoint: pl.DataFrame
    split_by_pair: Mapping[str, pl.DataFrame]
    split_by_endpoint: Mapping[str, pl.DataFrame]


def _side_by_side(
    operations: Mapping[str, OperationStates], pairs: pl.DataFrame, plan: Plan
) -> _FinestStates:
    """Put the states of all operations side by side; `pairs` are theirs, in order."""
    by_pair = pairs
    split_by_pair: dict[str, pl.DataFrame] = {}
    first = pairs[_PAIR][0] if pairs.height else 0
    for name, states in operations.items():
        keeps = {str(state): state.keep for state in plan.log_states[name] if state.key is None}
        own = states.scalars.select(_PAIR, *keeps)
        if own[_PAIR].n_unique() < own.height:
            own = merge_rows([own], [_PAIR], keeps)
        by_pair = by_pair.join(own, on=_PAIR, how="left", maintain_order="left")
        for state in plan.log_states[name]:
            if state.key is not None:
                split = states.keyed[str(state)]
                row = (states.scalars[_PAIR].gather(split[ROW]) - first).alias(ROW)
                # Four scopes have no endpoints: theirs are added up once.
                split_by_pair[str(state)] = _merged_split(split.with_columns(row), ROW, state.keep)
    http = operations["http"]
    of_pair = pairs[http.scalars[_PAIR] - first].select("peer", MINUTE)
    by_endpoint = http.scalars.drop(_PAIR).with_columns(of_pair.get_columns())
    return _FinestStates(by_pair.drop(_PAIR), by_endpoint, split_by_pair, http.keyed)


def _merged_split(rows: pl.DataFrame, number: str, keep: Keep) -> pl.DataFrame:
    """Return one row per number (UInt32) and key; nulls are left out."""
    rows = rows.drop_nulls(number)
    if rows.schema[KEY] != pl.Int64:
        return merge_rows([rows], [number, KEY], {VALUE: keep})
    coded = rows.with_columns(one_number(rows.select(number, KEY)))
    if coded[_CODE].n_unique() == coded.height:
        return rows
    merged = coded.group_by(_CODE).agg(
        pl.col(number, KEY).first(), merge_expression(coded, VALUE, keep)
    )
    return merged.drop(_CODE)


@dataclass(frozen=True, slots=True)
class _ScopeOfPeers:
    """What peers are in a scope: `entity` is each peer's number in `names`, null for none.

    `met` has the same for the peers that meet conditions only, and `layers` are the scalar shares
    with the same conditions, each state once in a layer. `traits` are those of peers.
    """

    plan: ScopePlan
    names: pl.DataFrame
    entity: pl.Series
    traits: pl.Series
    met: Mapping[frozenset[BoundCondition], pl.Series]
    layers: Sequence[tuple[frozenset[BoundCondition], Sequence[Share]]]


def _scope_of_peers(peers: pl.DataFrame, scope: ScopePlan) -> _ScopeOfPeers:
    """Find the entities of a scope; `peers` has the columns of with_sides()."""
    names, entity = _entities(peers, scope.scope)
    met = {
        conditions: _entities_that_meet(conditions, peers, entity)
        for conditions in {share.conditions for share in scope.shares}
    }
    return _ScopeOfPeers(scope, names, entity, peers[TRAITS], met, tuple(_layers(scope.shares)))


def _roll_up_scope(states: _FinestStates, of: _ScopeOfPeers, endpoints: pl.Series) -> ScopeStates:
    """Compute the states of one scope."""
    renamed = _log_keys_to_names(of.plan.scope)
    rows = states.by_endpoint if renamed else states.by_pair
    own_keys = [_ENDPOINT, MINUTE] if renamed else [MINUTE]
    keys = rows.select(of.entity.gather(rows["peer"]).alias(_ENTITY), *own_keys)
    place = (one_number(keys).rank("dense") - 1).cast(pl.UInt32).alias(_PLACE)
    placed = keys.with_columns(place, of.traits.gather(rows["peer"])).drop_nulls(_PLACE)
    scalars = (
        placed.group_by(_PLACE)
        .agg(pl.col(_ENTITY, *own_keys).first(), pl.col(TRAITS).bitwise_or())
        .sort(_PLACE)
    )
    met = {
        conditions: _where_met(rows["peer"], place, entities)
        for conditions, entities in of.met.items()
    }
    layers = [_of_layer(rows, met[conditions], shares) for conditions, shares in of.layers]
    scalars = _beside(scalars, layers, of.plan)
    named = of.names.drop(_ENTITY)[scalars[_ENTITY]].with_columns(
        *(endpoints.gather(scalars[_ENDPOINT]).alias(name) for name in renamed.values())
    )
    named = named.select(*of.plan.scope.keys, scalars[MINUTE])
    finest = states.split_by_endpoint if renamed else states.split_by_pair
    split: dict[str, list[pl.DataFrame]] = {state.name: [] for state in of.plan.keyed_states}
    for share in (share for share in of.plan.shares if share.state.keyed):
        at = met[share.conditions]
        frame = finest[str(share.log_state)]
        split[share.state.name].append(
            frame.select(at.gather(frame[ROW]).alias(_PLACE), KEY, VALUE)
        )
    merged = {
        state.name: _merged_split(pl.concat(split[state.name]), _PLACE, state.keep)
        for state in of.plan.keyed_states
    }
    keyed = {
        name: named[frame[_PLACE]].with_columns(frame[KEY], frame[VALUE])
        for name, frame in merged.items()
    }
    columns = [*of.plan.scope.keys, MINUTE, TRAITS, *(one.name for one in of.plan.scalar_states)]
    scalars = named.with_columns(scalars.drop(_ENTITY, *own_keys, _PLACE).get_columns())
    return ScopeStates(
        scalars.select(columns),
        MappingProxyType(keyed),
        MappingProxyType({name: frame[_PLACE] for name, frame in merged.items()}),
    )


def _where_met(peer: pl.Series, place: pl.Series, entities: pl.Series) -> pl.Series:
    """Return the places of rows whose peers meet what `entities` do; null for the others."""
    met = entities.gather(peer).is_not_null().alias("met")
    return pl.select(pl.when(met).then(place)).to_series()


def _of_layer(rows: pl.DataFrame, at: pl.Series, shares: Sequence[Share]) -> pl.DataFrame:
    """Add up the shares that the same peers have, by place; `at` is null for other peers."""
    columns = dict.fromkeys(str(share.log_state) for share in shares)
    met = rows.select(at.alias(_PLACE), *columns).drop_nulls(_PLACE)
    if met[_PLACE].n_unique() == met.height:
        own = (pl.col(str(share.log_state)).alias(share.state.name) for share in shares)
        return met.select(_PLACE, *own)
    return met.group_by(_PLACE).agg(
        merge_expression(met, str(share.log_state), share.state.keep).alias(share.state.name)
        for share in shares
    )


def _beside(
    scalars: pl.DataFrame, layers: Sequence[pl.DataFrame], scope: ScopePlan
) -> pl.DataFrame:
    """Put the columns of layers beside the places; a state of several layers is added up."""
    keeps = {state.name: state.keep for state in scope.scalar_states}
    names = Counter(name for layer in layers for name in layer.columns if name != _PLACE)
    if any(count > 1 for count in names.values()):
        layers = [merge_rows(layers, [_PLACE], keeps)]
    for layer in layers:
        scalars = scalars.join(layer, on=_PLACE, how="left", maintain_order="left")
    added = [name for name, keep in keeps.items() if keep in {Keep.COUNT, Keep.SUM}]
    return scalars.with_columns(pl.col(added).fill_null(0))


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
