"""A run of many requests that a seed makes, from a command line."""

from __future__ import annotations

import math
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import duckdb
from golden_stores import opened_golden_store

from framewalk.engine.oal.files.definitions import load_plan

_OF_A_SEED = 2_000
_Asked = TypeVar("_Asked")
_Outcome = TypeVar("_Outcome", bound=Hashable)


def fuzz(
    served: Callable[[duckdb.DuckDBPyConnection], AbstractContextManager[_Asked]],
    ask_all: Callable[[_Asked, int, int], Counter[int]],
) -> int:
    """Ask `[COUNT [SEED]]` requests of a store of what the OAP was fed; see `run`."""
    with (
        tempfile.TemporaryDirectory() as folder,
        opened_golden_store(Path(folder) / "golden.duckdb", load_plan()) as store,
        served(store.connection) as asked,
    ):
        return run(lambda seed, count: ask_all(asked, seed, count))


def run(ask_all: Callable[[int, int], Counter[_Outcome]]) -> int:
    """Ask `[COUNT [SEED]]` requests, 2,000 of each seed, and count the outcomes.

    Tells after each seed, and at the end, also where it is cut off: what was asked, which seeds
    failed, and how to go on. Returns the exit code.
    """
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    outcomes: Counter[_Outcome] = Counter()
    faults: dict[int, str] = {}
    began_s, seed, end = time.monotonic(), first, first + math.ceil(count / _OF_A_SEED)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for seed in range(first, end):
            wanted = min(count - (seed - first) * _OF_A_SEED, _OF_A_SEED)
            try:
                outcomes += ask_all(seed, wanted)
            except Exception as error:  # noqa: BLE001 - told at the end, whatever it is
                faults[seed] = f"{type(error).__name__}: {str(error)[:2_000]}"
                _tell(f"seed {seed} failed: {faults[seed]}")
            _tell(f"{outcomes.total():,} to seed {seed}: {dict(outcomes)}")
        seed = end
    except KeyboardInterrupt:
        _tell("cut off")
    _tell(
        f"{outcomes.total():,} asked, of {count:,} wanted, whole seeds {first} to {seed - 1}, in "
        f"{time.monotonic() - began_s:,.0f} s: {dict(outcomes)}; {len(faults)} seeds failed"
    )
    if seed < end:
        _tell(f"go on: python {sys.argv[0]} {count - (seed - first) * _OF_A_SEED} {seed}")
    return 1 if faults or seed < end else 0


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201
