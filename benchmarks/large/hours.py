"""Stores of hours of a large cluster, made of states and not of logs.

Some minutes are computed from their messages; every minute of the store is one of them with its
sums changed by a factor for each row, so that no two rows have the same values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
from frame.stages import cut, follow

from framewalk.engine import States, Store, load_plan, read_entities
from framewalk.engine.stages.decoding import decode
from framewalk.engine.stages.entity_states import roll_up
from framewalk.engine.stages.flattening import flatten
from framewalk.engine.stages.peer_states import log_states
from framewalk.engine.stages.resolving import resolve
from framewalk.engine.states import MINUTE, ScopeStates
from large.cluster import write_dump
from large.minutes import START_NS, S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from framewalk.engine import Plan
    from large.minutes import Minutes

FIRST_MINUTE: Final = START_NS // (60 * S)
# States that are held at once while a store is made.
_COMMIT_ROWS: Final = 1_500_000
_LEAST, _MOST = 0.6, 1.6


def write_store(  # noqa: PLR0913 - options, each with a default
    path: Path,
    minutes: Minutes,
    count: int,
    *,
    variants: int = 4,
    first_minute: int = FIRST_MINUTE,
    at_once: int | None = None,
    tell: Callable[[int], None] = lambda _done: None,
) -> None:
    """Write a store of so many minutes; `tell` hears how many are done.

    Minutes that are committed `at_once` are as many as fit, if nothing is said.
    """
    plan = load_plan()
    entities_path = path.with_suffix(".json")
    write_dump(minutes.cluster, entities_path)
    made = [states_of_minute(minutes, number, entities_path, plan) for number in range(variants)]
    rows = sum(scope.scalars.height for scope in made[0].scopes.values())
    at_once = at_once or max(_COMMIT_ROWS // rows, 1)
    with Store(path, plan) as store:
        for begin in range(0, count, at_once):
            some = range(begin, min(begin + at_once, count))
            parts = [varied(made[one % variants], one, first_minute + one) for one in some]
            store.commit(None, path, [], _together(parts))
            tell(some.stop)
    entities_path.unlink()


def states_of_minute(minutes: Minutes, number: int, entities_path: Path, plan: Plan) -> States:
    """Compute one minute from its messages."""
    entities = read_entities(entities_path)
    messages = cut(minutes.make(number).batches(0))
    decoded = [one for piece in messages for one in decode(piece)]
    logs = (resolve(flatten(one, serving=True), entities) for one in follow(decoded))
    return roll_up([log_states(one, plan) for one in logs], plan)


def varied(states: States, number: int, minute: int) -> States:
    """Return the states as of another minute, with sums of their own by the number."""
    draws = np.random.default_rng(number)
    scopes = {
        view: ScopeStates(
            _with_factors(scope.scalars, draws).with_columns(
                pl.lit(minute, pl.Int64).alias(MINUTE)
            ),
            {
                name: frame.with_columns(pl.lit(minute, pl.Int64).alias(MINUTE))
                for name, frame in scope.keyed.items()
            },
        )
        for view, scope in states.scopes.items()
    }
    return replace(states, scopes=scopes)


def _together(parts: list[States]) -> States:
    """Put states of different minutes together: no row is there twice."""
    scopes = {
        view: ScopeStates(
            pl.concat([part.scopes[view].scalars for part in parts]),
            {
                name: pl.concat([part.scopes[view].keyed[name] for part in parts])
                for name in scope.keyed
            },
        )
        for view, scope in parts[0].scopes.items()
    }
    return replace(parts[0], scopes=scopes)


def _with_factors(scalars: pl.DataFrame, draws: np.random.Generator) -> pl.DataFrame:
    """Multiply what is a sum; counts and extremes stay."""
    sums = [name for name in scalars.columns if ".sum(" in name]
    factor = pl.Series("factor", draws.uniform(_LEAST, _MOST, scalars.height))
    return scalars.with_columns((pl.col(name) * factor).round().cast(pl.Int64) for name in sums)
