"""What a run of the benchmarks found, as data: kept as JSON, compared, shown as a table."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from frame.machine import Machine, describe_machine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from frame.captures import Size

FORMAT: Final = 2

# Cost that grows with this power of a quantity counts as linear; the rest is noise.
LINEAR: Final = 1.1
_FITTED: Final = 3


class ResultsError(Exception):
    """A file is not what the benchmarks write. One line: the place, the problem, what to do."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several rounds, and the lowest and highest of them."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class RivalResult:
    """A rival's cost in its own run, and the work's cost per unit as a multiple of it."""

    name: str
    count: int
    cpu_s: Spread
    elapsed_s: Spread
    ratio: Spread
    at_most: float | None


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row: `count` units of work took this long; `rows` and `checksum` are its answer."""

    benchmark: str
    name: str
    unit: str
    count: int
    cpu_s: Spread
    elapsed_s: Spread
    peak_bytes: int
    rows: int
    checksum: str
    limited_by: str
    rivals: tuple[RivalResult, ...]

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return f"{self.benchmark}: {self.name}"

    @property
    def title(self) -> str:
        """What a comparison calls it."""
        return self.name

    @property
    def units_per_cpu_s(self) -> float:
        """The rate."""
        return self.count / self.cpu_s.median

    @property
    def broken_limits(self) -> tuple[RivalResult, ...]:
        """The rivals whose accepted ratio is exceeded."""
        return tuple(
            one for one in self.rivals if one.at_most is not None and one.ratio.median > one.at_most
        )


@dataclass(frozen=True, slots=True)
class SeriesPoint:
    """What the work cost at x."""

    x: float
    cpu_s: Spread


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """How cost grew with a quantity; `rows` and `checksum` are the answers of all points."""

    benchmark: str
    name: str
    x_name: str
    remark: str
    rows: int
    checksum: str
    points: tuple[SeriesPoint, ...]

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return f"{self.benchmark}: {self.name}"

    @property
    def title(self) -> str:
        """What a comparison calls it."""
        return f"cost against {self.name}"

    @property
    def power(self) -> float:
        """The p of the best fit cost ~ x^p: 1 is linear growth, 0 none.

        Of the last points only: fixed costs hide the growth of the first.
        """
        last = self.points[-_FITTED:]
        xs = [math.log(point.x) for point in last]
        ys = [math.log(point.cpu_s.median) for point in last]
        return statistics.linear_regression(xs, ys).slope

    @property
    def linear(self) -> bool:
        """Whether the growth is linear or better."""
        return self.power <= LINEAR


@dataclass(frozen=True, slots=True)
class Results:
    """All that one run found."""

    made: str
    size: str
    rounds: int
    machine: Machine
    rows: tuple[RowResult, ...]
    series: tuple[SeriesResult, ...]

    @property
    def answered(self) -> tuple[RowResult | SeriesResult, ...]:
        """All that gave answers."""
        return (*self.rows, *self.series)


def new_results(
    size: Size, rows: Sequence[RowResult] = (), series: Sequence[SeriesResult] = ()
) -> Results:
    """Return results of now and of this machine."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return Results(made, size.name, size.rounds, describe_machine(), tuple(rows), tuple(series))


def write_results(results: Results, path: Path) -> None:
    """Write results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"format": FORMAT, **asdict(results)}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_results(path: Path) -> Results:
    """Read what write_results wrote.

    Raises:
        ResultsError: the file cannot be read, or holds something else.
    """
    remedy = "give a file that benchmarks/bench.py wrote"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("format") != FORMAT:
            message = f"{path}: its format is not {FORMAT}; run the benchmarks again"
            raise ResultsError(message)
        return _results(document)
    except OSError as error:
        message = f"{path}: {(error.strerror or str(error)).lower()}; {remedy}"
        raise ResultsError(message) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path}: these are no results of benchmarks; {remedy}"
        raise ResultsError(message) from error


def _results(document: dict[str, Any]) -> Results:
    rows = tuple(_row(row) for row in document.pop("rows"))
    series = tuple(_series(one) for one in document.pop("series"))
    machine = Machine(**document.pop("machine"))
    return Results(**document, machine=machine, rows=rows, series=series)


def _row(row: dict[str, Any]) -> RowResult:
    rivals = tuple(
        RivalResult(**(rival | _spreads(rival, "cpu_s", "elapsed_s", "ratio")))
        for rival in row["rivals"]
    )
    return RowResult(**(row | _spreads(row, "cpu_s", "elapsed_s") | {"rivals": rivals}))


def _series(series: dict[str, Any]) -> SeriesResult:
    points = tuple(SeriesPoint(point["x"], Spread(**point["cpu_s"])) for point in series["points"])
    return SeriesResult(**(series | {"points": points}))


def _spreads(of: dict[str, Any], *names: str) -> dict[str, Spread]:
    return {name: Spread(**of[name]) for name in names}
