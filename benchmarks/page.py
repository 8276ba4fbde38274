"""Publish a run of the benchmarks: its tables and plots in docs/benchmarks.md, and the run itself.

    python benchmarks/page.py build/bench/large.json

What is between markers of the page is replaced, the rest stays. The page is of one run, with all
benchmarks in it, and that run lies in benchmarks/results, to be compared with.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frame.changes import CHANGE_COLUMNS, change_lines
from frame.discover import benchmark_names
from frame.plots import draw
from frame.results import ResultsError, read_results, write_results
from frame.table import (
    COLUMNS,
    SERIES_COLUMNS,
    STAGE_COLUMNS,
    markdown,
    series_lines,
    stage_lines,
    table_lines,
)

if TYPE_CHECKING:
    from frame.results import Results

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "benchmarks.md"
PUBLISHED: Final = ROOT / "benchmarks" / "results"
IMAGES: Final = "images"
# What the page has in a section of its own, measured when it changes.
APART: Final = frozenset({"large_cluster"})


def main() -> int:
    """Write the page, its plots and the run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, help="what bench.py wrote")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: docs/benchmarks.md")
    parser.add_argument(
        "--published", type=Path, default=PUBLISHED, help="default: benchmarks/results"
    )
    arguments = parser.parse_args()
    try:
        results = read_results(arguments.results)
        _check_whole(results, arguments.results)
        write_page(results, arguments.page)
    except ResultsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    published = arguments.published / f"{results.size}.json"
    write_results(results, published)
    print(f"written to {arguments.page} and {published}")
    return 0


def _check_whole(results: Results, path: Path) -> None:
    found = {one.benchmark for one in results.answered}
    missing = [name for name in benchmark_names() if name not in found | APART]
    if missing:
        message = (
            f"{path}: this run lacks {', '.join(missing)}; a page is made of one run with all "
            "benchmarks: run bench.py without --only"
        )
        raise ResultsError(message)


def write_page(results: Results, page: Path) -> None:
    """Replace the parts of a page and draw its plots beside it.

    Raises:
        ResultsError: the page has no place for a part.
    """
    text = page.read_text(encoding="utf-8")
    images = page.parent / IMAGES
    images.mkdir(exist_ok=True)
    drawn = draw(results, images)
    parts = {
        "machine": _machine(results),
        "table": markdown(COLUMNS, table_lines(results)),
        "limits": "\n".join(f"- **{row.name}**: {row.limited_by}" for row in results.rows),
        "stages": markdown(STAGE_COLUMNS, stage_lines(results)),
        "changes": markdown(CHANGE_COLUMNS, change_lines(results)),
        "growth": markdown(SERIES_COLUMNS, series_lines(results)),
        "verdict": _verdict(results),
        "plots": "\n\n".join(
            f"**{name}**: {remark}\n\n![CPU seconds against {name}]({IMAGES}/{file})"
            for name, remark, file in drawn
        ),
    }
    for name, content in parts.items():
        text = _replaced(text, name, content, page)
    page.write_text(text, encoding="utf-8")


def _replaced(text: str, name: str, content: str, page: Path) -> str:
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        message = f"{page}: no place for {name!r}; put {begin} and {end} where it should be"
        raise ResultsError(message)
    return pattern.sub(lambda _: f"{begin}\n\n{content}\n\n{end}", text)


def _machine(results: Results) -> str:
    machine = results.machine
    return (
        f"{machine.processor}, {machine.cores} cores, {machine.memory_gib} GiB, {machine.system}; "
        f"Python {machine.python}, {machine.packages}. Size {results.size}, {results.made}, "
        f"{results.rounds} rounds: `benchmarks/results/{results.size}.json`."
    )


def _verdict(results: Results) -> str:
    steep = [series for series in results.series if not series.linear]
    if not steep:
        return "No cost grows faster than the quantity it is measured against."
    return "\n".join(
        f"- Cost against **{series.name}** grows with the power {series.power:.2f}: more than "
        "linear."
        for series in steep
    )


if __name__ == "__main__":
    sys.exit(main())
