"""Every file of `suite/` is a benchmark: it has a function `benchmark(context)`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from frame.contest import Benchmark, Context

SUITE: Final = Path(__file__).parents[1] / "suite"

# The way of a log first; what is not named here comes after it by name.
_FIRST: Final = (
    "decode",
    "follow",
    "flatten",
    "resolve",
    "phase_1",
    "roll_up",
    "merge",
    "commit",
    "engine",
    "pipeline",
    "replay",
)


def benchmark_names() -> list[str]:
    """Return the names of all benchmarks in the order in which they run."""
    names = {path.stem for path in SUITE.glob("*.py")}
    first = [name for name in _FIRST if name in names]
    return [*first, *sorted(names - set(first))]


def load_benchmark(name: str) -> Callable[[Context], Benchmark]:
    """Return a benchmark by its name."""
    found: Callable[[Context], Benchmark] = importlib.import_module(f"suite.{name}").benchmark
    return found
