"""Run the benchmarks, print one table and write it as JSON.

    python benchmarks/bench.py --size medium --only decode engine --json decode.json

Each benchmark runs in a process of its own, so that its memory is its own. Nothing is reported
where an answer is wrong. Ends with 1 in that case, and where an accepted ratio is exceeded.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frame.answers import check_answers, record_answers
from frame.captures import CACHE, SIZES
from frame.contest import Context
from frame.discover import benchmark_names, load_benchmark
from frame.measure import measure_contest, measure_series
from frame.results import new_results, read_results, write_results
from frame.table import COLUMNS, SERIES_COLUMNS, rich_table, series_lines, table_lines
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from frame.captures import Size
    from frame.results import Results, RowResult, SeriesResult

RESULTS: Final = CACHE.parent
WIDTH: Final = 160


def main() -> int:
    """Measure what is asked for."""
    arguments = _arguments()
    size = SIZES[arguments.size]
    if arguments.rounds:
        size = replace(size, rounds=arguments.rounds)
    run = _run_together if arguments.together else _run_apart
    try:
        results = run(arguments.only or benchmark_names(), size, record=arguments.record_answers)
    except (AssertionError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if arguments.record_answers:
        record_answers(results)
    path = arguments.json or RESULTS / f"results-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    write_results(results, path)
    if arguments.quiet:
        return 0
    _print(results)
    print(f"written to {path}")
    return int(any(row.broken_limits for row in results.rows))


def _arguments() -> argparse.Namespace:
    names = benchmark_names()
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog=f"The benchmarks: {', '.join(names)}. Compare two runs with compare.py, "
        "put a run into docs/benchmarks.md with page.py.",
    )
    parser.add_argument("--size", choices=SIZES, default="medium", help="default: medium")
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="NAME", help="these benchmarks only"
    )
    parser.add_argument("--rounds", type=_rounds, help="how often all is measured")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where the results go; default: build/bench"
    )
    parser.add_argument(
        "--together", action="store_true", help="all in one process: faster, memory adds up"
    )
    parser.add_argument(
        "--record-answers", action="store_true", help="take the answers of this run as right"
    )
    parser.add_argument("--quiet", action="store_true", help="print no table")
    return parser.parse_args()


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < 1:
        message = "at least 1"
        raise argparse.ArgumentTypeError(message)
    return rounds


def _run_apart(names: Iterable[str], size: Size, *, record: bool) -> Results:
    """Run each benchmark in a process of its own."""
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder) / f"{name}.json"
            options = ["--size", size.name, "--rounds", str(size.rounds), "--only", name]
            options += ["--json", str(path), "--together", "--quiet"]
            options += ["--record-answers"] if record else []
            subprocess.run([sys.executable, __file__, *options], check=True)
            parts.append(read_results(path))
    return new_results(
        size,
        [row for part in parts for row in part.rows],
        [series for part in parts for series in part.series],
    )


def _run_together(names: Iterable[str], size: Size, *, record: bool) -> Results:
    """Run benchmarks in this process."""
    rows: list[RowResult] = []
    series: list[SeriesResult] = []
    with Console(stderr=True).status("") as status, tempfile.TemporaryDirectory() as folder:
        tell: Callable[[str], None] = status.update
        for name in names:
            tell(f"{name}: preparing")
            found = load_benchmark(name)(Context(size, Path(folder)))
            own_rows = [measure_contest(name, one, size, tell) for one in found.contests]
            own_series = [measure_series(name, one, size, tell) for one in found.series]
            if not record:
                check_answers(new_results(size, own_rows, own_series))
            rows += own_rows
            series += own_series
    return new_results(size, rows, series)


def _print(results: Results) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if results.rows:
        console.print(rich_table(COLUMNS, table_lines(results)))
    if results.series:
        console.print(rich_table(SERIES_COLUMNS, series_lines(results)))


if __name__ == "__main__":
    sys.exit(main())
