"""The metrics of a store by name, and those that clients ask for and nobody sends us."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from framewalk.engine.oal import PERCENTILES, SCOPES, did_you_mean
from framewalk.queries.metrics.elsewhere import ELSEWHERE
from framewalk.queries.metrics.statements import Reader, Statement, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ADDITIVE: Final = frozenset({"sum", "count", "cpm"})
_PERCENTILES: Final = frozenset({"percentile2", "relativePercentile"})
_OF_ALL: Final = frozenset({"longAvg", "doubleAvg", "percent", "rate", "apdex"}) | _PERCENTILES
_MAPS: Final = frozenset({"labelCount", "labelAvg"})
HISTOGRAM: Final = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as clients see it.

    `scope` is the store's name of it, such as service_relation; `function` that of the definition
    language, empty for a metric that no store has. `label` is the name of the label of a labelled
    metric, `labels` are the values that it can have where they are known before. `column` is the
    column of the scope's views.
    """

    name: str
    scope: str
    function: str = ""
    label: str | None = None
    labels: tuple[str, ...] = ()
    definition: str = ""
    unit: str = ""

    def __hash__(self) -> int:
        """Return what is fast to find: names differ."""
        return hash(self.name)

    @property
    def column(self) -> str:
        """The column of the views that has its values."""
        return self.name

    @property
    def is_labelled(self) -> bool:
        """Whether it has a series per label."""
        return self.label is not None

    @property
    def is_stored(self) -> bool:
        """Whether stores have values of it."""
        return bool(self.function)

    @property
    def is_map(self) -> bool:
        """Whether its values are maps from any label."""
        return self.function in _MAPS

    @property
    def is_histogram(self) -> bool:
        """Whether its values are counts per bucket of values, and no number."""
        return self.function == HISTOGRAM

    @property
    def is_additive(self) -> bool:
        """Whether its values of entities, and but for cpm of buckets, add up."""
        return self.function in _ADDITIVE

    @property
    def is_of_all(self) -> bool:
        """Whether it is a mean, a share or percentiles: of several, only their states make one."""
        return self.function in _OF_ALL


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Metrics by name: those of a store, and those that are known without data."""

    metrics: Mapping[str, Metric]

    @classmethod
    def of(cls, cursor: Reader) -> Catalogue:
        """Return the catalogue of a store. Raises duckdb.Error."""
        sql = "SELECT name, scope, function, definition, unit FROM metrics ORDER BY name"
        rows = rows_of(cursor, Statement(sql, []))
        return _catalogue(tuple(rows))

    @classmethod
    def made_of(cls, metrics: Iterable[Metric]) -> Catalogue:
        """Return the catalogue of these metrics, and of those that are known without data."""
        stored = {metric.name: metric for metric in metrics}
        unknown = {metric.name: metric for metric in _elsewhere()}
        return cls(MappingProxyType(unknown | stored))

    @property
    def stored(self) -> list[Metric]:
        """Those that the store has values of, by name."""
        return [metric for metric in self.metrics.values() if metric.is_stored]

    def get(self, name: str) -> Metric | None:
        """Return the metric of this name."""
        return self.metrics.get(name)

    def nearest(self, name: str) -> str:
        """Return a question about the name that may have been meant; empty if there is none."""
        return did_you_mean(name, self.metrics)


@lru_cache(maxsize=8)
def _catalogue(rows: tuple[tuple[str, str, str, str, str], ...]) -> Catalogue:
    return Catalogue.made_of(
        _stored(name, SCOPES[scope].view, function, definition, unit)
        for name, scope, function, definition, unit in rows
    )


def _stored(name: str, scope: str, function: str, definition: str, unit: str) -> Metric:
    if function in _PERCENTILES:
        labels = tuple(map(str, sorted(PERCENTILES)))
        return Metric(name, scope, function, "p", labels, definition, unit)
    label = _label_of(function, definition) if function in _MAPS else None
    return Metric(name, scope, function, label, (), definition, unit)


_ARGUMENT: Final = re.compile(r"\.(?:labelCount|labelAvg)\(\s*([A-Za-z][\w.]*)")


def _label_of(_function: str, definition: str) -> str:
    """Return what the label of a map is called: the attribute, without its path."""
    found = _ARGUMENT.search(definition)
    return found[1].rpartition(".")[2] if found else "label"


def _elsewhere() -> Iterable[Metric]:
    for name, scope, label in ELSEWHERE:
        yield Metric(name, scope, label=label)
