"""Compare two runs of the benchmarks row by row.

    python benchmarks/compare.py before.json after.json

A row is worse where even its best round is worse than the worst round before, by 3% or more: of
the ratio to what it is measured beside, which holds on a busy machine, or where it has none of
its CPU time. Memory is worse above 1.1 times. Ends with 1 where a row is worse, and with 2 where
the files cannot be compared.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frame.results import ResultsError, Spread, read_results
from frame.table import rich_table, seconds
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frame.results import Results, RowResult

COLUMNS: Final = ("what", "CPU before", "after", "times", "beside", "times ", "memory", "verdict")
NOISE: Final = 1.03
MORE_MEMORY: Final = 1.1
FEWEST_ROUNDS: Final = 3
WIDTH: Final = 140


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of both runs, or of one of them."""

    cells: tuple[str, ...]
    worse: bool = False


def compare(before: Results, after: Results) -> list[Comparison]:
    """Compare the rows of two runs of the same size.

    Raises:
        ResultsError: the sizes differ.
    """
    if before.size != after.size:
        message = f"sizes: one run is {before.size}, the other {after.size}; compare equal sizes"
        raise ResultsError(message)
    old = {(row.benchmark, row.name): row for row in before.rows}
    new = {(row.benchmark, row.name): row for row in after.rows}
    compared = [_compare(row, new[key]) for key, row in old.items() if key in new]
    missing = [_alone(row, "only before") for key, row in old.items() if key not in new]
    added = [_alone(row, "only after") for key, row in new.items() if key not in old]
    return [*compared, *missing, *added]


def _compare(before: RowResult, after: RowResult) -> Comparison:
    cost_before, cost_after = _per_unit(before), _per_unit(after)
    rivals = list(_common_ratios(before, after)) or [("", cost_before, cost_after)]
    verdicts = [_verdict(one, other) for _, one, other in rivals]
    memory = after.peak_bytes / before.peak_bytes
    if memory > MORE_MEMORY:
        verdicts.append("more memory")
    telling = [verdict for verdict in verdicts if verdict] or ["same"]
    names = [f"{name} {_times(one, other)}" for name, one, other in rivals if name]
    cells = (
        before.name,
        seconds(before.cpu_s.median),
        seconds(after.cpu_s.median),
        _times(cost_before, cost_after),
        "\n".join(name.rpartition(" ")[0] for name in names),
        "\n".join(name.rpartition(" ")[2] for name in names),
        f"{memory:.2f}",
        ", ".join(dict.fromkeys(telling)),
    )
    return Comparison(cells, worse="worse" in telling or "more memory" in telling)


def _per_unit(row: RowResult) -> Spread:
    cpu_s = row.cpu_s
    return Spread(cpu_s.median / row.count, cpu_s.low / row.count, cpu_s.high / row.count)


def _common_ratios(before: RowResult, after: RowResult) -> Iterator[tuple[str, Spread, Spread]]:
    ratios = {rival.name: rival.ratio for rival in after.rivals}
    for rival in before.rivals:
        if rival.name in ratios:
            yield rival.name, rival.ratio, ratios[rival.name]


def _verdict(before: Spread, after: Spread) -> str:
    if after.low > before.high * NOISE:
        return "worse"
    return "better" if after.high * NOISE < before.low else ""


def _times(before: Spread, after: Spread) -> str:
    return f"{after.median / before.median:.2f}"


def _alone(row: RowResult, verdict: str) -> Comparison:
    return Comparison((row.name, *[""] * (len(COLUMNS) - 2), verdict))


def main() -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", type=Path, help="what bench.py wrote")
    parser.add_argument("after", type=Path, help="what it wrote later")
    arguments = parser.parse_args()
    try:
        before, after = read_results(arguments.before), read_results(arguments.after)
        compared = compare(before, after)
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(rich_table(COLUMNS, [one.cells for one in compared]))
    if before.machine != after.machine:
        print("the machines or versions differ: look at the ratios only")
    if min(before.rounds, after.rounds) < FEWEST_ROUNDS:
        print(f"fewer than {FEWEST_ROUNDS} rounds show no spread: a verdict may be noise")
    worse = sum(one.worse for one in compared)
    print(f"{len(compared)} rows, {worse} worse")
    return int(worse > 0)


if __name__ == "__main__":
    sys.exit(main())
