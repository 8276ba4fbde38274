"""Relations within the caps: of a service's endpoints in a minute so many have their names.

Which ones depends on the calls of the minute alone: those with the most, then the first by name.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.caps import OTHERS
from framewalk.engine.schemas import UNKNOWN
from framewalk.engine.states import MINUTE, ScopeStates, merge_scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from framewalk.engine.calls import Relations
    from framewalk.engine.oal import Plan, ScopePlan
    from framewalk.engine.states import States
    from framewalk.engine.store import StoredNames

_OWNER: Final = (MINUTE, "dest_service")
_CALLED: Final = (*_OWNER, "dest_endpoint")
_NAMED: Final = (*_CALLED, "source_service", "source_endpoint")
_SEEN: Final = ("both", "client", "server")


def within_caps(found: Relations, scope: ScopePlan, most: int) -> Relations:
    """Call endpoints `others` that are beyond the cap of the called service.

    So are the sources of what is beyond as many relations with a known source.
    """
    beyond = _beyond(found.observed, _CALLED, most)
    if beyond.height:
        found = _renamed(found, scope, beyond, _CALLED, "dest_endpoint")
    known = found.observed.filter(pl.col("source_endpoint") != UNKNOWN)
    beyond = _beyond(known, _NAMED, most)
    return _renamed(found, scope, beyond, _NAMED, "source_endpoint") if beyond.height else found


def endpoints_within_caps(states: States, plan: Plan, names: StoredNames, most: int) -> States:
    """Call endpoints `others` that are beyond the cap of their service in a minute.

    Those that the store has by their names keep them, then the first by name.
    """
    scope = next((one for one in plan.scopes if one.scope.view == "endpoint"), None)
    if scope is None:
        return states
    own = states.scopes["endpoint"]
    owner = [MINUTE, "service"]
    crowded = own.scalars.group_by(owner).len().filter(pl.col("len") > most).select(owner)
    if crowded.is_empty():
        return states
    held = names.endpoints_in(crowded).with_columns(held=pl.lit(value=True))
    place = pl.int_range(pl.len()).over(owner)
    beyond = (
        own.scalars.join(crowded, on=owner, how="semi")
        .select(*owner, "endpoint")
        .join(held, on=[*owner, "endpoint"], how="left")
        .sort("held", "endpoint", nulls_last=True)
        .filter(place >= most)
        .select(*owner, "endpoint", other=pl.lit(OTHERS))
    )

    def renamed(frame: pl.DataFrame) -> pl.DataFrame:
        joined = frame.join(beyond, on=[*owner, "endpoint"], how="left", maintain_order="left")
        return joined.with_columns(endpoint=pl.coalesce("other", "endpoint")).drop("other")

    keyed = {name: renamed(frame) for name, frame in own.keyed.items()}
    changed = merge_scope(scope, [ScopeStates(renamed(own.scalars), MappingProxyType(keyed))])
    return replace(states, scopes=MappingProxyType({**states.scopes, "endpoint": changed}))


def _beyond(observed: pl.DataFrame, names: Sequence[str], most: int) -> pl.DataFrame:
    place = pl.int_range(pl.len()).over(_OWNER)
    return (
        observed.group_by(names)
        .agg(calls=pl.sum_horizontal(_SEEN).sum())
        .sort("calls", *names, descending=[True, *(False for _ in names)])
        .filter(place >= most)
        .select(names)
    )


def _renamed(
    found: Relations, scope: ScopePlan, beyond: pl.DataFrame, by: Sequence[str], name: str
) -> Relations:
    marked = beyond.with_columns(pl.lit(OTHERS).alias("other"))

    def renamed(frame: pl.DataFrame) -> pl.DataFrame:
        joined = frame.join(marked, on=by, how="left", maintain_order="left")
        return joined.with_columns(pl.coalesce("other", name).alias(name)).drop("other")

    keyed = {state: renamed(frame) for state, frame in found.states.keyed.items()}
    states = ScopeStates(renamed(found.states.scalars), MappingProxyType(keyed))
    observed = renamed(found.observed)
    keys = [column for column in observed.columns if column not in _SEEN]
    return replace(
        found,
        states=merge_scope(scope, [states]),
        observed=observed.group_by(keys).agg(pl.col(_SEEN).sum()).sort(keys),
    )
