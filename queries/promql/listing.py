"""What there is to ask for: names of metrics and labels, and values of labels.

Entities are taken from the store's dictionary, which is small; so they are listed for each metric
of their scope, also for one that has no value of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import duckdb
import numpy as np

from framewalk.engine.views import literal, quoted
from framewalk.queries.metrics import ENDPOINT, INSTANCE, SERVICE, catalogue_of
from framewalk.queries.promql.evaluation import resolution
from framewalk.queries.promql.reading import entity_pairs, kind_of, unsummable
from framewalk.queries.promql.selectors import (
    LABELS,
    ORDER,
    PARENT,
    PERCENTILE,
    SPECIAL,
    TOP_N,
    Matcher,
    bad_pattern,
    of_entities,
    select,
)
from framewalk.queries.promql.series import (
    MOST_SERIES,
    NAME,
    Labels,
    Notes,
    PromqlError,
    Vector,
    labels_of,
    nothing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from framewalk.queries.promql.reading import Source, StoreSource
    from framewalk.queries.promql.selectors import Selection
    from framewalk.queries.promql.series import Timeline

# OAP's lists of entities, for variables: the label that has an entity's own name.
TRAFFIC: Final = {
    "service_traffic": (SERVICE, "service"),
    "instance_traffic": (INSTANCE, "service_instance"),
    "endpoint_traffic": (ENDPOINT, "endpoint"),
}
_LIMIT: Final = "limit"
_KEYWORD: Final = "keyword"


@dataclass(frozen=True, slots=True)
class Range:
    """From when to when an entity was seen, in ms since 1970; None is open."""

    first_ms: int | None = None
    last_ms: int | None = None


@dataclass(frozen=True, slots=True)
class _Entities:
    """Entities of a scope: those that a condition on their names holds for."""

    scope: str
    condition: str
    parameters: tuple[str, ...]
    most: int | None = None
    selection: Selection | None = None
    name: str = ""


@dataclass(slots=True)
class Listing:
    """Lists what a store has, for selectors (each a list of matchers; none means all)."""

    source: StoreSource
    range: Range
    notes: Notes

    def metric_names(self, selectors: Sequence[Sequence[Matcher]]) -> list[str]:
        """Return the names of metrics, sorted."""
        if not selectors:
            stored = self.source.catalogue.stored
            return sorted(one.name for one in stored if one.scope in LABELS)
        found = {
            metric.name
            for matchers in selectors
            for selection in self._select(matchers)
            for metric in selection.metrics
        }
        return sorted(found)

    def label_names(self, selectors: Sequence[Sequence[Matcher]]) -> list[str]:
        """Return the names of labels, sorted."""
        found: set[str] = set()
        for entities in self._every(selectors):
            found |= {NAME, *LABELS[entities.scope].names}
            metrics = entities.selection.metrics if entities.selection else ()
            found |= {metric.label for metric in metrics if metric.label}
        if not selectors:
            for labels in LABELS.values():
                found |= {NAME, *labels.names}
            stored = self.source.catalogue.stored
            found |= {metric.label for metric in stored if metric.label}
        return sorted(found)

    def label_values(
        self, name: str, selectors: Sequence[Sequence[Matcher]], limit: int
    ) -> list[str]:
        """Return the values of a label, sorted, at most `limit` (0: all)."""
        if name == NAME:
            return self.cut(self.metric_names(selectors), limit)
        found: set[str] = set()
        for entities in self._with_label(name) if not selectors else self._every(selectors):
            found |= self._values(name, entities, limit)
        values = sorted(found - {""}, key=int) if name == PERCENTILE else sorted(found - {""})
        return self.cut(values, limit)

    def series(self, selectors: Sequence[Sequence[Matcher]], limit: int) -> list[Labels]:
        """Return the labels of series, at most `limit` (0: as many as a query may have)."""
        most = min(limit or MOST_SERIES, MOST_SERIES)
        each = (labels for one in self._every(selectors) for labels in self._series(one))
        found = list(islice(dict.fromkeys(islice(each, 2 * MOST_SERIES)), most + 1))
        return self.cut(found, most)

    def cut(self, found: list[Any], limit: int) -> list[Any]:
        """Return at most so many; tells where there were more."""
        if limit and len(found) > limit:
            self.notes.warn(f"results truncated due to limit: the first {limit:,}")
            return found[:limit]
        return found

    def _select(self, matchers: Sequence[Matcher]) -> list[Selection]:
        source = self.source
        return select(matchers, source.catalogue, source.regexes, self.notes)

    def _every(self, selectors: Sequence[Sequence[Matcher]]) -> Iterator[_Entities]:
        for matchers in selectors:
            names = [one.value for one in matchers if one.name == NAME and one.op == "="]
            if names and names[0] in TRAFFIC:
                yield from self._traffic(names[0], matchers)
                continue
            for one in self._select(matchers):
                yield _Entities(one.scope, one.condition, one.parameters, selection=one)

    def _traffic(self, name: str, matchers: Sequence[Matcher]) -> Iterator[_Entities]:
        scope, own = TRAFFIC[name]
        special = {one.name: one.value for one in matchers if one.name in {_LIMIT, _KEYWORD}}
        others = [one for one in matchers if one.name not in {NAME, _LIMIT, _KEYWORD, *SPECIAL}]
        found = of_entities(scope, others, self.source.regexes)
        if found is None:
            return
        condition, parameters = found
        if special.get(_KEYWORD):
            more = f"contains({LABELS[scope].columns[own]}, ?)"
            condition = f"{condition} AND {more}" if condition else more
            parameters = (*parameters, special[_KEYWORD])
        most = number(special.get(_LIMIT, ""), "limit")
        yield _Entities(scope, condition, parameters, most, name=name)

    def _with_label(self, name: str) -> Iterator[_Entities]:
        """Yield what has all values of a label: one scope is enough."""
        if name == PERCENTILE:
            yield from self._every([[]])
            return
        for scope, labels in LABELS.items():
            if name in labels.constants:
                yield _Entities(scope, "", ())
            elif name in labels.columns:
                yield _Entities(scope, "", ())
                return

    def _values(self, name: str, entities: _Entities, limit: int) -> set[str]:
        labels = LABELS[entities.scope]
        if name in labels.constants:
            return {labels.constants[name]}
        if name == PERCENTILE:
            selection = entities.selection
            parts = selection is not None and any(one.label == name for one in selection.metrics)
            return set(selection.percentiles) if parts and selection is not None else set()
        if name not in labels.columns:
            return set()
        column = f"{labels.columns[name]} AS value"
        most = entities.most or (limit + 1 if limit else 0)
        return {value for (value,) in self._rows(entities, column, most)}

    def _series(self, entities: _Entities) -> Iterator[Labels]:
        keys = LABELS[entities.scope].keys
        columns = ", ".join(map(quoted, keys))
        most = entities.most or MOST_SERIES + 1
        rows = self._rows(entities, columns, most)
        of_entity = [
            list(entity_pairs(entities.scope, dict(zip(keys, names, strict=True))))
            for names in rows
        ]
        if entities.selection is None:
            for pairs in of_entity:
                yield labels_of([*pairs, (NAME, entities.name)])
            return
        for metric in entities.selection.metrics:
            parts = entities.selection.percentiles if metric.label == PERCENTILE else ("",)
            for pairs in of_entity:
                for part in parts:
                    yield labels_of([*pairs, (NAME, metric.name), (PERCENTILE, part)])

    def _rows(self, entities: _Entities, columns: str, most: int) -> list[tuple[str, ...]]:
        keys = LABELS[entities.scope].keys
        names = ", ".join(f"names[{literal(key)}] AS {quoted(key)}" for key in keys)
        inner = (
            f"SELECT {names}, first_seen, last_seen "
            f"FROM {catalogue_of(self.source.cursor, entities.scope)}"
        )
        conditions = [entities.condition] if entities.condition else []
        parameters: list[object] = [*entities.parameters]
        if self.range.first_ms is not None:
            conditions.append("last_seen >= date_trunc('minute', make_timestamp_ms(?))")
            parameters.append(self.range.first_ms)
        if self.range.last_ms is not None:
            conditions.append("first_seen <= make_timestamp_ms(?)")
            parameters.append(self.range.last_ms)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        limit = f" LIMIT {most}" if most else ""
        sql = f"SELECT DISTINCT {columns} FROM ({inner}){where} ORDER BY ALL{limit}"
        try:
            return self.source.cursor.execute(sql, parameters).fetchall()
        except duckdb.InvalidInputException as error:
            raise bad_pattern(error) from error


def number(text: str, name: str) -> int:
    """Return a limit; 0 for none. Raises PromqlError."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > len("1000000000"):
        problem = f"invalid parameter {name!r}: {text[:40]!r} is no whole number"
        raise PromqlError(problem)
    return int(text)


# OAP's sorted lists: m{top_n="10", order="DES", parent_service="a"} in the place of topk.
_SMALLEST_FIRST: Final = "ASC"
_ORDERS: Final = (_SMALLEST_FIRST, "DES", "DESC")


def top_list(source: Source, matchers: Sequence[Matcher], timeline: Timeline) -> Vector:
    """Return the entities with the largest or smallest means of the whole range.

    Each has its mean at every step. Raises PromqlError.
    """
    special = {one.name: one.value for one in matchers if one.name in {TOP_N, ORDER, PARENT}}
    count, is_smallest = _count(special[TOP_N]), _is_smallest(special.get(ORDER, _ORDERS[1]))
    others = [one for one in matchers if one.name not in {TOP_N, ORDER, PARENT}]
    if special.get(PARENT):
        others.append(Matcher("service", "=", special[PARENT]))
    times = timeline.times_ms
    back_ms = timeline.looks_back_ms if timeline.is_instant else 0
    first = int(times[0]) - back_ms + 1 if back_ms else int(times[0])
    step = resolution(timeline.step_ms)
    buckets = source.read(others, first, int(times[-1]), step, Notes())
    if not buckets.labels:
        return nothing(timeline.count)
    held = buckets.present.sum(axis=1)
    means = (buckets.values * buckets.present).sum(axis=1) / np.maximum(held, 1)
    order = np.argsort(means if is_smallest else -means, kind="stable")[:count]
    shape = (len(means), timeline.count)
    kinds = frozenset(f"{kind_of(one)} ({one.name})" for one in buckets.metrics if unsummable(one))
    values = np.broadcast_to(means[:, np.newaxis], shape)
    every = Vector(buckets.labels, values, np.ones(shape, dtype=np.bool_), kinds)
    return replace(every.chosen(order), is_ordered=True)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MOST_SERIES)):
        problem = f"top_n={text!r} is no number of series"
        raise PromqlError(problem, f"give one from 1 to {MOST_SERIES}")
    return min(int(text), MOST_SERIES)


def _is_smallest(text: str) -> bool:
    if text.upper() not in _ORDERS:
        problem = f"order={text!r} is no order"
        raise PromqlError(problem, "give DES or ASC")
    return text.upper() == _SMALLEST_FIRST
