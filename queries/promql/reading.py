"""Series of a store as arrays: one statement per scope that a selector chooses."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import duckdb
import numpy as np

from framewalk.engine.views import RESOLUTIONS, passed, quoted
from framewalk.queries.metrics import (
    Catalogue,
    Step,
    cluster_of,
    narrowed,
    renamed,
    short_name_of,
)
from framewalk.queries.promql.selectors import (
    LABELS,
    PERCENTILE,
    Regexes,
    allowed,
    bad_pattern,
    group_names,
    grouped_entities,
    select,
)
from framewalk.queries.promql.series import (
    MOST_SERIES,
    NAME,
    ExecutionError,
    Labels,
    Notes,
    check_size,
    labels_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from framewalk.queries.metrics import Metric
    from framewalk.queries.promql.aggregation import Grouping
    from framewalk.queries.promql.selectors import Matcher, Selection
    from framewalk.queries.promql.series import Bools, Floats, Ints

_MOST_BUCKETS: Final = 100_000
_MOST_METRICS: Final = 500
_MINUTE: Final = 60_000
_SUMS: Final = frozenset({"sum", "count"})
_UNSUMMABLE: Final = {
    "percentile2": "percentiles",
    "relativePercentile": "percentiles",
    "max": "extremes",
    "min": "extremes",
    "maxDouble": "extremes",
    "minDouble": "extremes",
}


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """Series of buckets that follow each other.

    `times_ms` are their starts, `minutes` how many minutes of each have passed. `metrics` has the
    metric of each series.
    """

    labels: tuple[Labels, ...]
    metrics: tuple[Metric, ...]
    values: Floats
    present: Bools
    times_ms: Ints
    minutes: Floats
    step_ms: int


@dataclass(frozen=True, slots=True)
class Span:
    """The buckets that begin from `first_ms` to `last_ms`."""

    first_ms: int
    last_ms: int
    step: Step


class Source(Protocol):
    """Whatever has series: a store, or arrays of a test."""

    @property
    def regexes(self) -> Regexes:
        """What matches texts."""
        ...

    def read(
        self, matchers: Sequence[Matcher], first_ms: int, last_ms: int, step: Step, notes: Notes
    ) -> Buckets:
        """Return the series of buckets that begin from `first_ms` to `last_ms`."""
        ...

    def read_groups(
        self, matchers: Sequence[Matcher], grouping: Grouping, span: Span, notes: Notes
    ) -> Buckets | None:
        """Return a series per group of entities, of what all of it is made of.

        None where that is not to be had: of several metrics or percentiles in a group, and of what
        is no mean, share or percentile.
        """
        ...

    def metrics(self, matchers: Sequence[Matcher], notes: Notes) -> list[Metric]:
        """Return the metrics that are chosen, whether they have series or not."""
        ...

    def pause(self) -> None:
        """Notice a cancellation."""
        ...


@dataclass(slots=True)
class StoreSource:
    """A store, by a cursor in a transaction that only reads."""

    cursor: duckdb.DuckDBPyConnection
    catalogue: Catalogue
    regexes: Regexes
    _read: dict[tuple[object, ...], Buckets] = field(default_factory=dict)

    @classmethod
    def of(cls, cursor: duckdb.DuckDBPyConnection) -> StoreSource:
        """Return the source of one request."""
        return cls(cursor, Catalogue.of(cursor), Regexes(cursor))

    def metrics(self, matchers: Sequence[Matcher], notes: Notes) -> list[Metric]:
        """Return the metrics that are chosen."""
        chosen = select(matchers, self.catalogue, self.regexes, notes)
        return [metric for one in chosen for metric in one.metrics]

    def pause(self) -> None:
        """Ask for nothing: only statements notice that they are cancelled."""
        self.cursor.execute("SELECT 1").fetchall()

    def read(
        self, matchers: Sequence[Matcher], first_ms: int, last_ms: int, step: Step, notes: Notes
    ) -> Buckets:
        """Return series of a view; what an expression reads twice is read once.

        Raises PromqlError, ExecutionError, duckdb.Error.
        """
        asked = (*matchers, first_ms, last_ms, step)
        if asked not in self._read:
            self._read[asked] = self._fresh(matchers, first_ms, last_ms, step, notes)
        return self._read[asked]

    def _fresh(
        self, matchers: Sequence[Matcher], first_ms: int, last_ms: int, step: Step, notes: Notes
    ) -> Buckets:
        times_ms = _times_ms(first_ms, last_ms, step)
        parts = _Parts(times_ms, step)
        for selection in select(matchers, self.catalogue, self.regexes, notes):
            if len(times_ms) == 0 or parts.is_full:
                break
            parts.add(selection, self._table(selection, times_ms, step), self.regexes)
        return parts.whole(notes)

    def read_groups(
        self, matchers: Sequence[Matcher], grouping: Grouping, span: Span, notes: Notes
    ) -> Buckets | None:
        """Return series of groups, whose states are merged before values are made of them.

        Raises PromqlError, ExecutionError, duckdb.Error.
        """
        selections = select(matchers, self.catalogue, self.regexes, Notes())
        if len(selections) != 1 or not _is_of_one(selections[0], grouping):
            return None
        (selection,) = selections
        times_ms = _times_ms(span.first_ms, span.last_ms, span.step)
        source = self._source(selection, span.step)
        if source is None or not len(times_ms):
            return None
        source = renamed(source, selection.scope, grouped_entities(selection, grouping.keeps))
        everyone = replace(selection, condition="", parameters=())
        sql, parameters = statement(everyone, times_ms, span.step, source)
        parts = _Parts(times_ms, span.step, group_names(selection.scope, grouping.keeps))
        parts.add(selection, self._run(sql, [*selection.parameters, *parameters]), self.regexes)
        found = parts.whole(notes)
        return replace(found, labels=tuple(map(grouping.of, found.labels)))

    def _source(self, selection: Selection, step: Step) -> str | None:
        columns = [metric.column for metric in selection.metrics]
        return narrowed(self.cursor, selection.scope, step, columns, 1)

    def _table(self, selection: Selection, times_ms: Ints, step: Step) -> pa.Table:
        source = self._source(selection, step)
        return self._run(*statement(selection, times_ms, step, source))

    def _run(self, sql: str, parameters: list[object]) -> pa.Table:
        try:
            return self.cursor.sql(sql, params=parameters).to_arrow_table()
        except duckdb.InvalidInputException as error:
            raise bad_pattern(error) from error


def _times_ms(first_ms: int, last_ms: int, step: Step) -> Ints:
    step_ms = step.seconds * 1_000
    start, end = -(-first_ms // step_ms), last_ms // step_ms + 1
    if end - start > _MOST_BUCKETS:
        problem = f"{end - start:,} buckets are more than the {_MOST_BUCKETS:,} of a query"
        raise ExecutionError(problem, "ask for a shorter range, or with a longer step")
    return step_ms * np.arange(start, end, dtype=np.int64)


def _is_of_one(selection: Selection, grouping: Grouping) -> bool:
    """Whether each group has values of one metric, or one percentile, that states make."""
    (metric, *others) = selection.metrics
    if others or not metric.is_of_all:
        return False
    is_one = metric.label != PERCENTILE or len(selection.percentiles) == 1
    return is_one or grouping.keeps(PERCENTILE)


def statement(
    selection: Selection, times_ms: Ints, step: Step, narrow: str | None = None
) -> tuple[str, list[object]]:
    """Return the SQL that reads what is selected, a row per entity, and its parameters.

    `narrow` stands for the view, or the macro that it is read from. From an hour on, a sum or a
    count is what it is per minute, with decimals: the macro gives counts that nothing was divided
    by.
    """
    if len(selection.metrics) > _MOST_METRICS:
        problem = f"the selector chooses {len(selection.metrics)} metrics of one kind of entity"
        raise ExecutionError(problem, f"choose at most {_MOST_METRICS}")
    keys = ", ".join(map(quoted, LABELS[selection.scope].keys))
    columns = [column for metric in selection.metrics for column in _columns(metric, selection)]
    values = [f"{sql} AS value_{at}" for at, (sql, _) in enumerate(columns)]
    names = [f"value_{at}" for at in range(len(columns))]
    where = "time_bucket BETWEEN make_timestamp_ms(?) AND make_timestamp_ms(?)"
    parameters: list[object] = [int(times_ms[0]), int(times_ms[-1])]
    if selection.condition:
        where += f" AND {selection.condition}"
        parameters += selection.parameters
    inner = [keys, "epoch_ms(time_bucket) AS at_ms", *values]
    lists = ["list(at_ms)", *(f"list({name})" for name in names)]
    source = f"{selection.scope}_minute"
    if step is not Step.MINUTE:
        source = f"internal.{selection.scope}_metrics('{step.resolution}', 1)"
        inner.append(passed(next(one for one in RESOLUTIONS if one.name == step.resolution)))
        lists = ["list(at_ms)"]
        lists += [
            f"list({name}{' / minutes' if additive else ''})"
            for name, (_, additive) in zip(names, columns, strict=True)
        ]
        lists.append("list(minutes)")
    if narrow is not None:
        source = f"({narrow})"
    held = " OR ".join(f"{name} IS NOT NULL" for name in names)
    sql = (
        f"SELECT {keys}, {', '.join(lists)} "
        f"FROM (SELECT {', '.join(inner)} FROM {source} WHERE {where}) WHERE {held} "
        f"GROUP BY ALL ORDER BY {keys} LIMIT {MOST_SERIES + 1}"
    )
    return sql, parameters


def _columns(metric: Metric, selection: Selection) -> list[tuple[str, bool]]:
    column = quoted(metric.column)
    if metric.label == PERCENTILE:
        return [(f"{column}.{quoted(f'p{one}')}::DOUBLE", False) for one in selection.percentiles]
    if metric.is_map:
        return [(f"map_entries({column})", False)]
    return [(f"{column}::DOUBLE", metric.is_additive)]


def unsummable(metric: Metric) -> bool:
    """Whether adding up the metric's values of several entities means nothing."""
    return not metric.is_additive


def kind_of(metric: Metric) -> str:
    """Return what the values of a metric are that cannot be added up, in the plural."""
    return _UNSUMMABLE.get(metric.function, "means")


class _Parts:
    """Puts the series of several scopes under each other."""

    def __init__(
        self, times_ms: Ints, step: Step, group_names: Sequence[str] | None = None
    ) -> None:
        self._group_names = group_names
        self._times_ms = times_ms
        self._step = step
        self._labels: list[Labels] = []
        self._metrics: list[Metric] = []
        self._values: list[Floats] = []
        self._minutes = np.full(len(times_ms), step.seconds / 60)

    @property
    def is_full(self) -> bool:
        return len(self._labels) > MOST_SERIES

    def add(self, selection: Selection, table: pa.Table, regexes: Regexes) -> None:
        check_size(table.num_rows + len(self._labels), len(self._times_ms))
        keys = LABELS[selection.scope].keys
        if not table.num_rows:
            return
        names = [table.column(at).to_pylist() for at in range(len(keys))]
        entities = [self._labels_of(selection.scope, one) for one in zip(*names, strict=True)]
        lists = [table.column(at).combine_chunks() for at in range(len(keys), table.num_columns)]
        if self._step is not Step.MINUTE:
            self._keep_minutes(lists[0], lists.pop())
        lengths: Any = lists[0].value_lengths()
        rows = np.repeat(np.arange(table.num_rows), lengths.to_numpy())
        step_ms = self._step.seconds * 1_000
        columns = (lists[0].flatten().to_numpy() - self._times_ms[0]) // step_ms
        at = 1
        for metric in selection.metrics:
            parts = selection.percentiles if metric.label == PERCENTILE else ("",)
            for part in parts:
                if self.is_full:
                    return
                own = (("p", part),) if part else ()
                flat = lists[at].flatten()
                at += 1
                if metric.is_map:
                    wanted = [one for one in selection.on_maps if one.name == metric.label]
                    allow = partial(allowed, wanted, regexes=regexes)
                    self._add_map(metric, entities, (rows, columns), flat, allow)
                else:
                    values = flat.to_numpy(zero_copy_only=False).astype(np.float64)
                    self._add(metric, entities, own, (rows, columns), values)

    def _labels_of(self, scope: str, names: Sequence[str]) -> Labels:
        """Return the labels of an entity, or of a group: its first name has those (JSON)."""
        if self._group_names is None:
            return _entity_labels(scope, names)
        values = zip(self._group_names, json.loads(names[0]), strict=True)
        return labels_of([*LABELS[scope].constants.items(), *values])

    def _keep_minutes(self, at_ms: pa.ListArray, minutes: pa.ListArray) -> None:
        step_ms = self._step.seconds * 1_000
        columns = (at_ms.flatten().to_numpy() - self._times_ms[0]) // step_ms
        self._minutes[columns] = minutes.flatten().to_numpy()

    def _add(
        self,
        metric: Metric,
        entities: Sequence[Labels],
        own: Labels,
        places: tuple[Any, Any],
        values: Floats,
    ) -> None:
        array = np.full((len(entities), len(self._times_ms)), np.nan)
        array[places] = values
        held = np.isfinite(array).any(axis=1)
        if not held.all():
            array = array[held]
        name = ((NAME, metric.name), *own)
        kept = [one for one, has in zip(entities, held.tolist(), strict=True) if has]
        self._labels += [tuple(sorted((*labels, *name))) for labels in kept]
        self._metrics += [metric] * len(kept)
        self._values.append(array)
        check_size(len(self._labels), len(self._times_ms))

    def _add_map(
        self,
        metric: Metric,
        entities: Sequence[Labels],
        places: tuple[Any, Any],
        flat: pa.Array,
        allow: Callable[[list[str]], list[str]],
    ) -> None:
        found: dict[str, list[tuple[int, int, float]]] = {}
        rows, columns = (one.tolist() for one in places)
        for row, column, entries in zip(rows, columns, flat.to_pylist(), strict=True):
            for entry in entries or ():
                found.setdefault(str(entry["key"]), []).append((row, column, entry["value"]))
        for label in allow(sorted(found)):
            own_rows, own_columns, values = map(np.array, zip(*found[label], strict=True))
            pair = ((str(metric.label), label),) if label else ()
            self._add(metric, entities, pair, (own_rows, own_columns), values.astype(np.float64))
            if self.is_full:
                return

    def whole(self, notes: Notes) -> Buckets:
        shape = (0, len(self._times_ms))
        values = np.concatenate(self._values) if self._values else np.empty(shape)
        if len(self._labels) > MOST_SERIES:
            notes.warn(f"cut at {MOST_SERIES:,} series; choose fewer with matchers")
        values = values[:MOST_SERIES]
        present = np.isfinite(values)
        return Buckets(
            tuple(self._labels[:MOST_SERIES]),
            tuple(self._metrics[:MOST_SERIES]),
            np.where(present, values, 0.0),
            present,
            self._times_ms,
            self._minutes,
            self._step.seconds * 1_000,
        )


def _entity_labels(scope: str, names: Sequence[str]) -> Labels:
    return labels_of(entity_pairs(scope, dict(zip(LABELS[scope].keys, names, strict=True))))


def entity_pairs(scope: str, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the labels of an entity, given the columns that name it."""
    labels = LABELS[scope]
    yield from labels.constants.items()
    yield from _service_pairs("", names.get("service") or names.get("source_service") or "")
    if "dest_service" in names:
        yield from _service_pairs("dest_", names["dest_service"] or "")
    for label, column in labels.columns.items():
        key = column.strip('"')
        if key in names and not label.endswith("service"):
            yield label, names[key] or ""


def _service_pairs(prefix: str, service: str) -> Iterator[tuple[str, str]]:
    full = short_name_of(service)
    short, dot, namespace = full.rpartition(".")
    yield f"{prefix}service", service
    yield f"{prefix}cluster", cluster_of(service)
    yield f"{prefix}namespace", namespace if dot else ""
    yield f"{prefix}service_short", short if dot else full
