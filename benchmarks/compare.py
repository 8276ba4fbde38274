"""Compare two runs of the benchmarks row by row, and series by series.

    python benchmarks/compare.py before.json after.json

A row is worse where even its best round is worse than the worst round before, by 3% or more: of
the ratio to what it is measured beside, which holds on a busy machine, or where it has none of
its CPU time. A series is worse where the CPU time at one of its points is, or where its growth is
no longer linear. Memory is worse above 1.1 times. Ends with 1 where something is worse, and with 2
where the runs cannot be compared: the same work gave other answers, or one run is larger.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from frame.results import ResultsError, Spread, read_results
from frame.table import rich_table, seconds
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from frame.results import Results, RowResult, SeriesResult

COLUMNS: Final = ("what", "CPU before", "after", "times", "beside", "times ", "memory", "verdict")
NOISE: Final = 1.03
MORE_MEMORY: Final = 1.1
FEWEST_ROUNDS: Final = 3
WIDTH: Final = 140


Found = TypeVar("Found", bound="RowResult | SeriesResult")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row or series of both runs, or of one of them."""

    cells: tuple[str, ...]
    worse: bool = False


def compare(before: Results, after: Results) -> list[Comparison]:
    """Compare the rows and series of two runs of the same size.

    Raises:
        ResultsError: the sizes differ, or what both ran gave different answers.
    """
    if before.size != after.size:
        message = f"sizes: one run is {before.size}, the other {after.size}; compare equal sizes"
        raise ResultsError(message)
    old_rows, new_rows = _by_key(before.rows), _by_key(after.rows)
    old_series, new_series = _by_key(before.series), _by_key(after.series)
    old, new = _by_key(before.answered), _by_key(after.answered)
    _check_answers(old, new)
    rows = [_compare(one, new_rows[key]) for key, one in old_rows.items() if key in new_rows]
    series = [
        _compare_series(one, new_series[key])
        for key, one in old_series.items()
        if key in new_series
    ]
    missing = [_alone(one.title, "only before") for key, one in old.items() if key not in new]
    added = [_alone(one.title, "only after") for key, one in new.items() if key not in old]
    return [*rows, *series, *missing, *added]


def _by_key(found: Iterable[Found]) -> dict[str, Found]:
    return {one.key: one for one in found}


def _check_answers(
    before: Mapping[str, RowResult | SeriesResult], after: Mapping[str, RowResult | SeriesResult]
) -> None:
    """Refuse to compare work that is not the same."""
    changed = [
        one.title
        for key, one in before.items()
        if key in after and (one.rows, one.checksum) != (after[key].rows, after[key].checksum)
    ]
    if changed:
        message = (
            f"answers: the runs did not do the same work, {len(changed)} of their answers differ: "
            f"{', '.join(changed)}; compare runs over the same captures and definitions"
        )
        raise ResultsError(message)


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
        before.title,
        seconds(before.cpu_s.median),
        seconds(after.cpu_s.median),
        _times(cost_before, cost_after),
        "\n".join(name.rpartition(" ")[0] for name in names),
        "\n".join(name.rpartition(" ")[2] for name in names),
        f"{memory:.2f}",
        ", ".join(dict.fromkeys(telling)),
    )
    return Comparison(cells, worse="worse" in telling or "more memory" in telling)


def _compare_series(before: SeriesResult, after: SeriesResult) -> Comparison:
    points = list(zip(before.points, after.points, strict=True))
    verdicts = [_verdict(one.cpu_s, other.cpu_s) for one, other in points]
    if before.linear and not after.linear:
        verdicts.append("more than linear")
    telling = [verdict for verdict in verdicts if verdict] or ["same"]
    first, last = before.points[-1].cpu_s, after.points[-1].cpu_s
    cells = (
        before.title,
        seconds(first.median),
        seconds(last.median),
        _times(first, last),
        "",
        "",
        "",
        ", ".join(dict.fromkeys(telling)),
    )
    return Comparison(cells, worse="worse" in telling or "more than linear" in telling)


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


def _alone(title: str, verdict: str) -> Comparison:
    return Comparison((title, *[""] * (len(COLUMNS) - 2), verdict))


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
