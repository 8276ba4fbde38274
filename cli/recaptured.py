"""Captures in place of an archive, for `framewalk recompute --captures`."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from framewalk.cli.console import byte_progress, minute_progress
from framewalk.engine import Store
from framewalk.engine.captures import find_captures
from framewalk.engine.errors import FramewalkError, InputError
from framewalk.engine.oal import make_plan
from framewalk.engine.remaking import take_over
from framewalk.engine.runs import lacking
from framewalk.engine.spreading import ReplayOptions, replay_spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from framewalk.cli.naming import Naming
    from framewalk.engine import Entities, Plan
    from framewalk.engine.counters import Counters
    from framewalk.engine.remaking import Recomputation
    from framewalk.engine.runs import ReplayProgress
    from framewalk.engine.spreading import Pool

# What names decide about, which may be known better now.
_BY_NAMES = ("both_unknown", "same_service")
_TASK: Final = "task"
_REMEDY: Final = "name all captures that it was made of, or make metrics again out of an archive"


class Recaptured(NamedTuple):
    """What was made: minutes, of so many logs; `known_messages` had been read before."""

    minutes: int
    logs: int
    known_messages: int


def check_captures(store: Store, captures: Sequence[Path]) -> list[Path]:
    """Return the captures that are named; raises InputError unless they are what was counted."""
    paths = find_captures(captures)
    if problem := lacking(paths, store):
        text = f"these captures are not what it has counted: {problem}"
        raise InputError(store.path, text, _REMEDY)
    return paths


def make_of_captures(
    store: Store, asked: Recomputation, captures: Sequence[Path], naming: Naming, pool: Pool | None
) -> Recaptured:
    """Make metrics again out of captures that hold all that the store has counted, by a pool.

    One that was cut off goes on where it stopped when the same is asked again. Raises InputError
    where captures hold less or more, or where other logs of them count now.
    """
    paths = check_captures(store, captures)
    naming.settle(store)
    with _beside(store, asked, naming.entities) as replayed:
        with byte_progress() as progress:
            tasks = {path: progress.add_task(path.name, total=None) for path in paths}

            def show_progress(done: ReplayProgress) -> None:
                task = tasks[done.path]
                progress.update(task, completed=done.offset_bytes, total=done.size_bytes)

            options = ReplayOptions(on_progress=show_progress, roll_up=True)
            summary = replay_spread(paths, naming.entities, replayed, pool, options)
        _check_alike(store, replayed)
        with minute_progress("metrics") as show:
            done = take_over(store, replayed, asked, show)
    known = sum(one.known_messages for one in summary.captures)
    return Recaptured(done.minutes, summary.counters.logs, known)


@contextmanager
def _beside(store: Store, asked: Recomputation, entities: Entities) -> Iterator[Store]:
    """Open a store beside another, with its metrics and what is asked for.

    It is gone afterwards, unless this process is ended before: then what it has is gone on with
    where the same is asked, and removed where it is not.
    """
    every = {one.name: one for one in (*store.plan.metrics, *asked.metrics)}
    others = (
        store.plan.apdex_thresholds_ms,
        store.plan.apdex_default_ms,
        store.plan.endpoint_patterns,
    )
    plan = make_plan(every.values(), *others)
    folder = store.path.with_name(f".{store.path.name}.captures")
    _begin(folder, _task(plan, entities))
    try:
        with Store(folder / "captures.duckdb", plan) as replayed:
            replayed.limit_memory()
            yield replayed
    except FramewalkError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _begin(folder: Path, task: str) -> None:
    """Make a folder for a task, unless one for it is there."""
    note = folder / _TASK
    with suppress(OSError, UnicodeDecodeError):
        if note.read_text(encoding="utf-8") == task:
            return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    note.write_text(task, encoding="utf-8")


def _task(plan: Plan, entities: Entities) -> str:
    """Return what tells a replay from those that would give other states."""
    said = hashlib.sha256()
    for metric in plan.metrics:
        said.update(f"{metric.definition}\n".encode())
    others = (plan.apdex_thresholds_ms, plan.apdex_default_ms, plan.endpoint_patterns)
    said.update(repr(others).encode())
    names = entities.addresses
    said.update(names.sort(names.columns).write_csv().encode())
    return said.hexdigest()


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
