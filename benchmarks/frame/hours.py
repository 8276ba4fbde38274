"""Stores to ask: an empty one, and one with hours of minutes; and what a store's views say.

The hours are made of the states of a few minutes, which are repeated.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from frame.contest import Answer, text_answer
from frame.stages import Stages
from framewalk.engine import States, Store, open_for_reading
from framewalk.engine.oal import SCOPES
from framewalk.engine.states import MINUTE, ScopeStates

if TYPE_CHECKING:
    from pathlib import Path

    from frame.contest import Context
    from framewalk.engine import Plan

MINUTES_PER_HOUR = 60


def views_answer(path: Path) -> Answer:
    """Digest the views of all scopes by minute: every row and every column of a store."""
    lines, rows = [], 0
    with open_for_reading(path) as connection:
        for scope in SCOPES.values():
            view = connection.sql(f"FROM {scope.view}_minute ORDER BY ALL")
            found = view.fetchall()
            lines += [f"{scope.view}: {view.columns}", *map(str, found)]
            rows += len(found)
    return Answer(rows, text_answer(*lines).checksum)


def hashed_answer(path: Path) -> Answer:
    """Do the same for a large store, by DuckDB's own hash of each row: no row is looked at here."""
    lines, rows = [], 0
    with open_for_reading(path) as connection:
        for scope in SCOPES.values():
            view = f"{scope.view}_minute"
            sql = f"SELECT count(*), sum(hash(row)::HUGEINT) FROM {view} AS row"  # noqa: S608
            ((count, digest),) = connection.sql(sql).fetchall()
            lines.append(f"{scope.view}: {count} {digest}")
            rows += count
    return Answer(rows, text_answer(*lines).checksum)


def copy_empty_store(context: Context, plan: Plan, path: Path) -> None:
    """Write an empty store; making one costs a second, so it is made once and copied."""
    empty = context.folder / "empty.duckdb"
    if not empty.exists():
        Store(empty, plan).close()
    shutil.copy(empty, path)


def open_empty_store(context: Context, plan: Plan, name: str) -> Store:
    """Open a new empty store in the folder of the context."""
    path = context.folder / name
    copy_empty_store(context, plan, path)
    return Store(path, plan)


def write_hours(context: Context, path: Path, hours: int) -> None:
    """Make a store of this many hours; each is a commit of its own."""
    write_minutes(context, path, hours * MINUTES_PER_HOUR)


def write_minutes(context: Context, path: Path, minutes_in_all: int) -> None:
    """Make a store of this many minutes from the start of an hour."""
    stages = Stages(context)
    minutes = stages.states.scopes["service"].scalars[MINUTE]
    first = int(minutes.min())  # type: ignore[arg-type]
    length = int(minutes.max()) - first + 1  # type: ignore[arg-type]
    hour = first // MINUTES_PER_HOUR * MINUTES_PER_HOUR
    copy_empty_store(context, stages.plan, path)
    with Store(path, stages.plan) as store:
        for begin in range(hour, hour + minutes_in_all, MINUTES_PER_HOUR):
            end = min(begin + MINUTES_PER_HOUR, hour + minutes_in_all)
            shifts = [begin - first + at for at in range(0, MINUTES_PER_HOUR, length)]
            states = _between(_repeated(stages.states, shifts), begin, end)
            store.commit(None, stages.capture.path, [], states)


def _repeated(states: States, shifts: list[int]) -> States:
    """Return the states once for each shift in minutes; the shifts do not overlap."""

    def repeat(frame: pl.DataFrame) -> pl.DataFrame:
        return pl.concat([frame.with_columns(pl.col(MINUTE) + shift) for shift in shifts])

    scopes = {
        view: ScopeStates(
            repeat(scope.scalars), {name: repeat(frame) for name, frame in scope.keyed.items()}
        )
        for view, scope in states.scopes.items()
    }
    return replace(states, scopes=scopes)


def _between(states: States, first: int, end: int) -> States:
    """Return the states of the minutes from `first` to before `end`."""
    within = pl.col(MINUTE).is_between(first, end, closed="left")
    scopes = {
        view: ScopeStates(
            scope.scalars.filter(within),
            {name: frame.filter(within) for name, frame in scope.keyed.items()},
        )
        for view, scope in states.scopes.items()
    }
    return replace(states, scopes=scopes)
