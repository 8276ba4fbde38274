"""Views in the shape of the slow reference's result, and states, to be compared."""

from __future__ import annotations

import datetime as dt
from typing import Any

import polars as pl

from framewalk.engine.oal.bound import Keep
from framewalk.engine.oal.plan import Plan
from framewalk.engine.states.merging import KEY, MINUTE, States
from framewalk.engine.store.store import Store

VIEWS = (
    "service",
    "service_instance",
    "endpoint",
    "service_relation",
    "service_instance_relation",
    "endpoint_relation",
)
_OTHER_COLUMNS = 2  # time_bucket, entity_id

Key = tuple[tuple[str, ...], int]
Values = dict[str, dict[Key, dict[str, Any]]]


def read_views(store: Store, resolution: str = "minute") -> Values:
    """Return every value of every view: view -> (names, bucket) -> metric -> value."""
    return {view: _read_view(store, view, resolution) for view in VIEWS}


def _read_view(store: Store, view: str, resolution: str) -> dict[Key, dict[str, Any]]:
    relation = store.query(f"FROM {view}_{resolution}")
    metrics = _metrics(store)
    columns = relation.columns
    found: dict[Key, dict[str, Any]] = {}
    for row in relation.fetchall():
        named = dict(zip(columns, row, strict=True))
        bucket = int(named["time_bucket"].replace(tzinfo=dt.UTC).timestamp())
        others = {*metrics, "minutes"}
        names = tuple(named[name] for name in columns[_OTHER_COLUMNS:] if name not in others)
        values = {name: named[name] for name in metrics if named.get(name) is not None}
        assert (names, bucket) not in found, "one row per entity and bucket"
        if values:
            found[names, bucket] = values
    return found


def _metrics(store: Store) -> list[str]:
    return [name for (name,) in store.query("SELECT name FROM metrics").fetchall()]


def differences(got: Values, want: Values) -> list[str]:
    """Return a line for each value that differs; none where both are equal."""
    lines = []
    for view in VIEWS:
        for key in got[view].keys() | want[view].keys():
            got_values, want_values = got[view].get(key, {}), want[view].get(key, {})
            lines.extend(
                f"{view} {key} {name}: got {got_values.get(name)}, want {want_values.get(name)}"
                for name in got_values.keys() | want_values.keys()
                if got_values.get(name) != want_values.get(name)
            )
    return sorted(lines)


def assert_same(plan: Plan, got: States, want: States) -> None:
    assert got.counters == want.counters
    got_frames, want_frames = in_order(plan, got), in_order(plan, want)
    assert got_frames.keys() == want_frames.keys()
    differing = [name for name in want_frames if not got_frames[name].equals(want_frames[name])]
    assert differing == []


def in_order(plan: Plan, states: States) -> dict[str, pl.DataFrame]:
    """Return all frames, sorted; a count or sum that is missing is 0."""
    frames = {}
    for scope in plan.scopes:
        found = states.scopes[scope.scope.view]
        keys = [*scope.scope.keys, MINUTE]
        added = [
            state.name for state in scope.scalar_states if state.keep in {Keep.SUM, Keep.COUNT}
        ]
        frames[scope.scope.view] = found.scalars.sort(keys).with_columns(pl.col(added).fill_null(0))
        for name, frame in found.keyed.items():
            frames[f"{scope.scope.view} {name}"] = frame.sort([*keys, KEY])
    return frames
