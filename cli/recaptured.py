"""Captures in place of an archive, for `framewalk recompute --captures`."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from framewalk.cli.console import byte_progress, minute_progress
from framewalk.cli.naming import Naming
from framewalk.engine import Store
from framewalk.engine.captures import find_captures
from framewalk.engine.errors import InputError
from framewalk.engine.oal import make_plan
from framewalk.engine.remaking import Recomputation, Recomputed, take_over
from framewalk.engine.runs import lacking
from framewalk.engine.runs import replay as replay_captures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from framewalk.engine.counters import Counters

# What names decide about, which may be known better now.
_BY_NAMES = ("both_unknown", "same_service")
_REMEDY = "name all captures that it was made of, or make metrics again out of an archive"


def check_captures(store: Store, captures: Sequence[Path]) -> list[Path]:
    """Return the captures that are named; raises InputError unless they are what was counted."""
    paths = find_captures(captures)
    if problem := lacking(paths, store):
        text = f"these captures are not what it has counted: {problem}"
        raise InputError(store.path, text, _REMEDY)
    return paths


def make_of_captures(
    store: Store, asked: Recomputation, captures: Sequence[Path], naming: Naming
) -> Recomputed:
    """Make metrics again out of captures that hold all that the store has counted.

    Raises InputError where they hold less or more, or where other logs of them count now.
    """
    paths = check_captures(store, captures)
    naming.settle(store)
    with _beside(store, asked) as replayed:
        with byte_progress() as progress:
            tasks = {path: progress.add_task(path.name, total=None) for path in paths}
            summary = replay_captures(
                paths,
                naming.entities,
                replayed,
                on_progress=lambda done: progress.update(
                    tasks[done.path], completed=done.offset_bytes, total=done.size_bytes
                ),
                roll_up=True,
            )
        _check_alike(store, replayed)
        with minute_progress("metrics") as show:
            done = take_over(store, replayed, asked, show)
    return Recomputed(minutes=done.minutes, logs=summary.counters.logs)


@contextmanager
def _beside(store: Store, asked: Recomputation) -> Iterator[Store]:
    """Open a store beside another, with its metrics and what is asked for; then it is gone."""
    every = {one.name: one for one in (*store.plan.metrics, *asked.metrics)}
    others = (
        store.plan.apdex_thresholds_ms,
        store.plan.apdex_default_ms,
        store.plan.endpoint_patterns,
    )
    with tempfile.TemporaryDirectory(
        prefix=f".{store.path.name}.", dir=store.path.parent
    ) as folder:
        plan = make_plan(every.values(), *others)
        with Store(Path(folder) / "captures.duckdb", plan) as replayed:
            replayed.limit_memory()
            yield replayed


def _check_alike(store: Store, replayed: Store) -> None:
    """Raise InputError where other logs count now than did when the store was made."""
    before, now = _counts(store.counted()), _counts(replayed.counted())
    for name in sorted({*before, *now}):
        if before.get(name, 0) != now.get(name, 0):
            problem = (
                f"its captures had {before.get(name, 0):,} {name}, and have {now.get(name, 0):,} "
                "now: it was made with other limits, or counted them while they came"
            )
            raise InputError(store.path, problem, "make metrics again out of an archive")


def _counts(counters: Counters) -> dict[str, int]:
    dropped = {
        f"logs dropped ({reason.replace('_', ' ')})": count
        for reason, count in counters.dropped.items()
        if reason not in _BY_NAMES
    }
    return {"messages": counters.messages, "logs": counters.logs, **dropped}
