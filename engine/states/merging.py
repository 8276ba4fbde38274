"""States and how they merge: states + states -> states, in any order, any number of times.

Merging is addition of counts and sums (stopping at the ends of 64-bit numbers), the larger or
smaller of two extremes, and the union of bit sets. Late, split, replayed and distributed work
are all this one operation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.counters import Counters
from framewalk.engine.errors import InputError
from framewalk.engine.oal import Keep
from framewalk.engine.schemas import UNKNOWN_KEYS, UNKNOWN_PEERS_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from polars._typing import PolarsDataType

    from framewalk.engine.oal import Plan, ScopePlan

MINUTE: Final = "minute"
TRAITS: Final = "traits"
KEY: Final = "key"
VALUE: Final = "value"

_INT64_MAX: Final = 2**63 - 1
_INT64_MIN: Final = -(2**63)
_HALF: Final = 2**32


@dataclass(frozen=True, slots=True)
class ScopeStates:
    """The states of one scope's entities.

    `scalars` has the names of the entity (String), `minute` (Int64, minutes since the epoch),
    `traits` (Int64, the bits of traits.py) and an Int64 column per state, named as the state;
    one row per entity and minute. `keyed` maps the name of each keyed state to a frame of the
    names, `minute`, `key` (Int64 or String) and `value` (Int64). A count or sum that is
    missing is 0 or null, an extreme that is missing is null. `rows` may map the name of each keyed
    state to the rows of `scalars` that its rows split (UInt32): found without comparing names.
    """

    scalars: pl.DataFrame
    keyed: Mapping[str, pl.DataFrame]
    rows: Mapping[str, pl.Series] | None = None


@dataclass(frozen=True, slots=True)
class States:
    """What some logs amount to: states per scope (by view name), and what was counted.

    `unknown` is what has no name (UNKNOWN_PEERS_SCHEMA), each key once.
    """

    scopes: Mapping[str, ScopeStates]
    counters: Counters
    unknown: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=UNKNOWN_PEERS_SCHEMA))


def merge(plan: Plan, *states: States) -> States:
    """Add states up. Merging nothing gives states without rows.

    Raises InputError for states that were computed with another plan.
    """
    for part in states:
        _check_plan(plan, part)
    scopes = {
        scope.scope.view: merge_scope(scope, [part.scopes[scope.scope.view] for part in states])
        for scope in plan.scopes
    }
    counters = sum((part.counters for part in states), Counters())
    unknown = merge_unknown([part.unknown for part in states])
    return States(MappingProxyType(scopes), counters, unknown)


def _check_plan(plan: Plan, states: States) -> None:
    for scope in plan.scopes:
        found = states.scopes.get(scope.scope.view)
        known = found.keyed.keys() if found is not None else ()
        missing = [state.name for state in scope.keyed_states if state.name not in known]
        if found is None or missing:
            what = missing[0] if missing else scope.scope.view
            place, problem = "states", f"they are of another plan: {what} is missing"
            raise InputError(place, problem, "compute them with the plan that merges them")


def merge_unknown(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Add up frames of UNKNOWN_PEERS_SCHEMA: each key once."""
    rows = pl.concat([pl.DataFrame(schema=UNKNOWN_PEERS_SCHEMA), *parts])
    sums = ("logs", "bytes", "http_calls")
    return rows.group_by("hour", *UNKNOWN_KEYS).agg(
        pl.col("first_ns").min(),
        pl.col("last_ns").max(),
        *(sum_expression(pl.col(name), exact=False).cast(pl.Int64).alias(name) for name in sums),
    )


def minutes_of(states: States) -> pl.Series:
    """Return the minutes that states are about, each once, in no order."""
    found = [scope.scalars[MINUTE].unique() for scope in states.scopes.values()]
    return pl.concat([pl.Series(MINUTE, dtype=pl.Int64), *found]).unique()


def empty_states(scope: ScopePlan) -> ScopeStates:
    """Return states of a scope without rows."""
    keys: dict[str, PolarsDataType] = dict.fromkeys(scope.scope.keys, pl.String)
    keys[MINUTE] = pl.Int64
    scalars: dict[str, PolarsDataType] = {state.name: pl.Int64 for state in scope.scalar_states}
    keyed = {
        state.name: pl.DataFrame(
            schema=keys | {KEY: pl.Int64 if state.has_bucket else pl.String, VALUE: pl.Int64}
        )
        for state in scope.keyed_states
    }
    return ScopeStates(
        pl.DataFrame(schema=keys | {TRAITS: pl.Int64} | scalars), MappingProxyType(keyed)
    )


def merge_scope(scope: ScopePlan, parts: Sequence[ScopeStates]) -> ScopeStates:
    """Add up the states of one scope."""
    empty = empty_states(scope)
    keys = [*scope.scope.keys, MINUTE]
    keeps = {state.name: state.keep for state in scope.scalar_states} | {TRAITS: Keep.BITS}
    scalars = merge_rows([empty.scalars, *(part.scalars for part in parts)], keys, keeps)
    keyed = {
        state.name: merge_rows(
            [empty.keyed[state.name], *(part.keyed[state.name] for part in parts)],
            [*keys, KEY],
            {VALUE: state.keep},
        ).select(empty.keyed[state.name].columns)
        for state in scope.keyed_states
    }
    return ScopeStates(scalars.select(empty.scalars.columns), MappingProxyType(keyed))


def merge_rows(
    frames: Sequence[pl.DataFrame], keys: Sequence[str], keeps: Mapping[str, Keep]
) -> pl.DataFrame:
    """Return one row per key, with the columns in `keeps`.

    A frame without one of the columns adds nothing to it; where all lack it, it is null.
    """
    rows = pl.concat(frames, how="diagonal")
    absent = [pl.lit(None, pl.Int64).alias(name) for name in keeps if name not in rows.columns]
    rows = rows.with_columns(absent)
    return rows.group_by(keys).agg(
        merge_expression(rows, name, keep) for name, keep in keeps.items()
    )


def merge_expression(rows: pl.DataFrame, name: str, keep: Keep) -> pl.Expr:
    """Return the aggregation that merges one column of these rows."""
    column = pl.col(name)
    if keep is Keep.MAX:
        return column.max()
    if keep is Keep.MIN:
        return column.min()
    if keep is Keep.BITS:
        return column.bitwise_or()
    return sum_expression(column, exact=sum_fits(rows[name], rows.height)).alias(name)


def sum_fits(values: pl.Series, count: int) -> bool:
    """Tell whether no sum of `count` of these values can leave the 64-bit range."""
    lowest, highest = values.min(), values.max()
    if not isinstance(lowest, int) or not isinstance(highest, int):
        return True
    return max(abs(lowest), abs(highest)) * count <= _INT64_MAX


def sum_expression(value: pl.Expr, *, exact: bool) -> pl.Expr:
    """Return the sum as Int64; where it might not fit, it stops at the end of the range."""
    if exact:
        return value.sum()
    low = (value % _HALF).sum()
    high = (value // _HALF).sum() + low // _HALF
    return (
        pl.when(high >= _HALF // 2)
        .then(_INT64_MAX)
        .when(high < -(_HALF // 2))
        .then(_INT64_MIN)
        .otherwise(high * _HALF + low % _HALF)
    )
