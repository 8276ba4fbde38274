"""Series that a test writes down, as a source of PromQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import duckdb
import numpy as np

from framewalk.queries.metrics import Metric, Step
from framewalk.queries.promql.evaluation import evaluate
from framewalk.queries.promql.parsing import parse
from framewalk.queries.promql.reading import Buckets
from framewalk.queries.promql.selectors import Matcher, Regexes, allowed
from framewalk.queries.promql.series import NAME, Labels, Notes, Scalar, Timeline, Vector, labels_of

# Numbers, or lists of them by labels.
Json: TypeAlias = Any
# The start of a minute.
BASE_MS = 1_700_000_040_000
MINUTE_MS = 60_000


@cache
def _matcher() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


class Arrays:
    """Series by minute from `BASE_MS` on; None is no value."""

    def __init__(
        self,
        series: Sequence[tuple[Mapping[str, str], Sequence[float | None]]],
        functions: Mapping[str, str] | None = None,
    ) -> None:
        self.regexes = Regexes(_matcher())
        self._series = [(labels_of(labels.items()), values) for labels, values in series]
        self._functions = functions or {}

    def metrics(self, matchers: Sequence[Matcher], _notes: Notes) -> list[Metric]:
        chosen = (dict(labels)[NAME] for labels, _ in self._chosen(matchers))
        return [self._metric(name) for name in dict.fromkeys(chosen)]

    def pause(self) -> None:
        pass

    def read(
        self, matchers: Sequence[Matcher], first_ms: int, last_ms: int, step: Step, _notes: Notes
    ) -> Buckets:
        step_ms = step.seconds * 1_000
        times_ms = step_ms * np.arange(-(-first_ms // step_ms), last_ms // step_ms + 1)
        chosen = self._chosen(matchers)
        values = np.full((len(chosen), len(times_ms)), np.nan)
        for row, (_, own) in enumerate(chosen):
            for at, value in enumerate(own):
                column = np.flatnonzero(times_ms == BASE_MS + at * MINUTE_MS)
                values[row, column] = np.nan if value is None else value
        present = ~np.isnan(values)
        return Buckets(
            tuple(labels for labels, _ in chosen),
            tuple(self._metric(dict(labels)[NAME]) for labels, _ in chosen),
            np.where(present, values, 0),
            present,
            times_ms,
            np.full(len(times_ms), step.seconds / 60),
            step_ms,
        )

    def read_groups(self, *_asked: object) -> None:
        """Arrays have values, and no states."""

    def _metric(self, name: str) -> Metric:
        return Metric(name, "service", self._functions.get(name, "cpm"))

    def _chosen(self, matchers: Sequence[Matcher]) -> list[tuple[Labels, Sequence[float | None]]]:
        return [
            (labels, values)
            for labels, values in self._series
            if all(
                allowed([one], [dict(labels).get(one.name, "")], self.regexes) for one in matchers
            )
        ]


def answer(source: Arrays, text: str, timeline: Timeline) -> Json:
    """Return a number per step, or the numbers of each series (None is no value)."""
    value, _ = evaluate(parse(text), source, timeline)
    if isinstance(value, Scalar):
        return value.values.tolist()
    assert isinstance(value, Vector)
    rows = zip(value.labels, value.values.tolist(), value.present.tolist(), strict=True)
    return {
        labels: [number if held else None for number, held in zip(numbers, present, strict=True)]
        for labels, numbers, present in rows
    }


def notes_of(source: Arrays, text: str, timeline: Timeline) -> Notes:
    _, notes = evaluate(parse(text), source, timeline)
    return notes
