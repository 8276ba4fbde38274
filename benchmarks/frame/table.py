"""Results as text: a table for the terminal, Markdown for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from frame.results import Results, RivalResult, RowResult, SeriesResult, Spread

COLUMNS: Final = (
    "what",
    "CPU",
    "elapsed",
    "per CPU second",
    "memory",
    "beside",
    "ratio",
    "at most",
)
STAGE_COLUMNS: Final = ("stage", "times bare ptars", "share")
SERIES_COLUMNS: Final = ("cost against", "from", "to", "CPU from", "CPU to", "power", "growth")

# The benchmarks of the stages that a log passes in a replay.
STAGES: Final = ("decode", "follow", "flatten", "resolve", "phase_1", "roll_up", "commit")

_BYTES_PER_MB: Final = 10**6
_LEFT: Final = ("what", "beside", "cost against", "growth", "stage", "done")


def rich_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """Return a table for a terminal."""
    table = Table()
    for column in columns:
        table.add_column(column, justify="left" if column in _LEFT else "right")
    for line in lines:
        table.add_row(*line)
    return table


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table for a page."""
    rules = [":---" if column in _LEFT else "---:" for column in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rules, *lines))


def table_lines(results: Results) -> list[tuple[str, ...]]:
    """Return the cells of COLUMNS: a line per row, and one for each further rival."""
    return [line for row in results.rows for line in _lines(row)]


def series_lines(results: Results) -> list[tuple[str, ...]]:
    """Return the cells of SERIES_COLUMNS."""
    return [_series_line(series) for series in results.series]


def stage_lines(results: Results) -> list[tuple[str, ...]]:
    """Return the cells of STAGE_COLUMNS: what each stage adds to a replay."""
    costs = {
        row.name: rival.ratio.median
        for row in results.rows
        for rival in row.rivals
        if rival.name == "bare ptars" and row.benchmark in STAGES
    }
    total = sum(costs.values())
    lines = [(name, f"{cost:.2f}", f"{cost / total:.0%}") for name, cost in costs.items()]
    return [*lines, ("together", f"{total:.2f}", "100%")]


def _lines(row: RowResult) -> Iterator[tuple[str, ...]]:
    own = (
        row.name,
        seconds_with_spread(row.cpu_s),
        seconds(row.elapsed_s.median),
        f"{number(row.units_per_cpu_s)} {row.unit}",
        megabytes(row.peak_bytes),
    )
    rivals = [_rival_cells(rival) for rival in row.rivals] or [("", "", "")]
    for at, cells in enumerate(rivals):
        yield (own if at == 0 else ("",) * len(own)) + cells


def _rival_cells(rival: RivalResult) -> tuple[str, str, str]:
    allowed = "" if rival.at_most is None else f"{rival.at_most:g}"
    if rival.at_most is not None and rival.ratio.median > rival.at_most:
        allowed += ", exceeded"
    return rival.name, ratio_with_spread(rival.ratio), allowed


def _series_line(series: SeriesResult) -> tuple[str, ...]:
    first, last = series.points[0], series.points[-1]
    return (
        series.name,
        number(first.x),
        number(last.x),
        seconds(first.cpu_s.median),
        seconds(last.cpu_s.median),
        f"{series.power:.2f}",
        "linear or better" if series.linear else "more than linear",
    )


def number(value: float) -> str:
    """Return a number with three digits that count."""
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{_three_digits(value / limit)}{unit}"
    return _three_digits(value)


def _three_digits(value: float) -> str:
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def megabytes(size_bytes: int) -> str:
    """Return a size in MB."""
    return f"{size_bytes / _BYTES_PER_MB:,.0f} MB"


def seconds(value: float) -> str:
    """Return a time in s or ms."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def seconds_with_spread(spread: Spread) -> str:
    """Return the median and how far the others lie from it."""
    return f"{seconds(spread.median)} {_deviation(spread)}"


def ratio_with_spread(ratio: Spread) -> str:
    """Return the median with the lowest and highest."""
    median, low, high = (_ratio(one) for one in (ratio.median, ratio.low, ratio.high))
    return f"{median} ({low}-{high})"


def _ratio(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _deviation(spread: Spread) -> str:
    farthest = max(spread.high - spread.median, spread.median - spread.low)
    return f"±{farthest / spread.median:.0%}"
