"""Plots of cost against a quantity, as SVG that is the same for the same results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from pathlib import Path

    from frame.results import Results, SeriesResult

# Text stays text, and identifiers do not change from run to run.
STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "framewalk",
    "font.size": 10,
}
NO_DATE: Final = {"Date": None, "Creator": None}
_COLOUR: Final = "#1f5fa8"


def draw(results: Results, folder: Path) -> list[tuple[str, str, str]]:
    """Draw each series into a file of its own; return its name, remark and file name."""
    drawn = []
    for series in results.series:
        name = f"benchmark_{series.name.replace(' ', '_')}.svg"
        _draw(series, folder / name)
        drawn.append((series.name, series.remark, name))
    return drawn


def _draw(series: SeriesResult, path: Path) -> None:
    xs = [point.x for point in series.points]
    medians = [point.cpu_s.median for point in series.points]
    below = [point.cpu_s.median - point.cpu_s.low for point in series.points]
    above = [point.cpu_s.high - point.cpu_s.median for point in series.points]
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
        axes.errorbar(xs, medians, yerr=[below, above], marker="o", capsize=3, color=_COLOUR)
        axes.plot(
            [0, xs[-1]], [0, medians[-1]], "--", color="grey", linewidth=1, label="proportional"
        )
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(series.x_name)
        axes.set_ylabel("CPU s, user and system")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata=NO_DATE)
        plt.close(figure)
