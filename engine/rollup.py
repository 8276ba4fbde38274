"""Stage 5, phase 2: states per (peers, minute) -> states per (scope entity, minute).

Works on the small result of phase 1: conditions on peers choose rows, and each scope groups
what is left by its own entities (analysis.md, section 3).
"""

from __future__ import annotations

from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.derive import endpoint_expression
from framewalk.engine.log_states import OperationStates
from framewalk.engine.oal.bound import Keep
from framewalk.engine.oal.catalogue import DETECT_POINTS, Column, Level
from framewalk.engine.oal.expressions import condition_expression
from framewalk.engine.schemas import ROLES
from framewalk.engine.states import (
    KEY,
    MINUTE,
    TRAITS,
    VALUE,
    ScopeStates,
    empty_states,
    merge_expression,
    merge_rows,
)
from framewalk.engine.traits import traits_expression

if TYPE_CHECKING:
    from collections.abc import Mapping

    from framewalk.engine.oal.bound import Condition
    from framewalk.engine.oal.catalogue import Scope
    from framewalk.engine.oal.plan import ScopePlan, Share

_ENTITY: Final = "entity"


def with_sides(peers: pl.DataFrame) -> pl.DataFrame:
    """Add what definitions call the columns of PEER_SCHEMA: source, dest and detect point.

    Role server: the remote side is the source. Otherwise the local side is (analysis.md,
    section 2).
    """
    serving = pl.col("role") == "server"
    sides = {
        f"{end}_{kind}": pl.when(serving if end == "dest" else ~serving)
        .then(f"local_{kind}")
        .otherwise(f"remote_{kind}")
        for end in ("source", "dest")
        for kind in ("service", "instance")
    }
    return peers.with_columns(
        **sides,
        detect_point=pl.col("role").replace_strict(
            list(ROLES), list(DETECT_POINTS), return_dtype=pl.String
        ),
        component_ids=pl.col("components"),
        traits=traits_expression(),
    )


def roll_up(
    operations: Mapping[str, OperationStates], peers: pl.DataFrame, scope: ScopePlan
) -> ScopeStates:
    """Compute the states of one scope; `peers` has the columns of with_sides()."""
    operations = {name: _with_endpoint(name, states) for name, states in operations.items()}
    names, entity_of_peer = _entities(peers, scope.scope)
    keys = [_ENTITY, *_log_keys(scope.scope), MINUTE]
    scalars = [_traits(operations, peers, entity_of_peer, scope.scope)]
    keyed: dict[str, list[pl.DataFrame]] = {state.name: [] for state in scope.keyed_states}
    for (operation, conditions), shares in _grouped(scope.shares).items():
        entities = _entities_that_meet(conditions, peers, entity_of_peer)
        states = operations[operation]
        plain = [share for share in shares if not share.state.keyed]
        if plain:
            rows = _of_entities(states.scalars, entities).rename(_log_keys_to_names(scope.scope))
            scalars.append(_sum_shares(rows, keys, plain))
        for share in shares:
            if share.state.keyed:
                rows = _of_entities(states.keyed[str(share.log_state)], entities)
                keyed[share.state.name].append(rows.rename(_log_keys_to_names(scope.scope)))
    return _with_names(scope, names, keys, scalars, keyed)


def _with_endpoint(operation: str, states: OperationStates) -> OperationStates:
    """Name the endpoints of grouped HTTP logs: far fewer rows than logs."""
    if operation != "http":
        return states
    endpoint = endpoint_expression().alias("endpoint")
    return OperationStates(
        states.scalars.with_columns(endpoint),
        {name: frame.with_columns(endpoint) for name, frame in states.keyed.items()},
    )


def _log_keys_to_names(scope: Scope) -> dict[str, str]:
    return {
        column.name: name
        for name, column in scope.keys.items()
        if isinstance(column, Column) and column.level is Level.LOG
    }


def _log_keys(scope: Scope) -> list[str]:
    """Return those names of an entity that differ between logs of the same peers."""
    return list(_log_keys_to_names(scope).values())


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
    conditions: frozenset[Condition], peers: pl.DataFrame, entity_of_peer: pl.Series
) -> pl.Series:
    if not conditions:
        return entity_of_peer
    meets = pl.all_horizontal(condition_expression(c) for c in sorted(conditions, key=str))
    kept = peers.select(pl.when(meets).then(pl.lit(entity_of_peer)).alias(_ENTITY))
    return kept.to_series()


def _grouped(shares: tuple[Share, ...]) -> dict[tuple[str, frozenset[Condition]], list[Share]]:
    groups: defaultdict[tuple[str, frozenset[Condition]], list[Share]] = defaultdict(list)
    for share in shares:
        groups[share.log_state.selection.operation, share.conditions].append(share)
    return groups


def _of_entities(frame: pl.DataFrame, entities: pl.Series) -> pl.DataFrame:
    entity = entities.gather(frame["peer"]).alias(_ENTITY)
    return frame.with_columns(entity).drop_nulls(_ENTITY)


def _sum_shares(rows: pl.DataFrame, keys: list[str], shares: list[Share]) -> pl.DataFrame:
    return rows.group_by(keys).agg(
        merge_expression(rows, str(share.log_state), share.state.keep).alias(share.state.name)
        for share in shares
    )


def _traits(
    operations: Mapping[str, OperationStates],
    peers: pl.DataFrame,
    entity_of_peer: pl.Series,
    scope: Scope,
) -> pl.DataFrame:
    """Return every entity and minute that has logs, with the traits of their connections."""
    columns = ["peer", MINUTE, *_log_keys_to_names(scope)]
    rows = pl.concat([operations[name].scalars.select(columns) for name in scope.operations])
    rows = rows.with_columns(peers[TRAITS].gather(rows["peer"]))
    rows = _of_entities(rows, entity_of_peer).rename(_log_keys_to_names(scope))
    keys = [_ENTITY, *_log_keys(scope), MINUTE]
    return rows.group_by(keys).agg(pl.col(TRAITS).bitwise_or())


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
