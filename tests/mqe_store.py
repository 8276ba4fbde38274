"""A store as MQE sees one: its catalogue and its views, of values that a test gives."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
from reference.mqe import Data
from reference.mqe_values import Labels, Number

from framewalk.queries.metrics import Buckets, Catalogue, Step
from framewalk.queries.mqe import Entity, ExpressionResult, Request, evaluate_all

PERCENTILES = ("50", "75", "90", "95", "99")
# Metrics of maps, with the names of their labels.
MAPS = {"statuses": ("labelCount", "code"), "delays": ("labelAvg", "zone")}


@dataclass(repr=False)
class MadeStore:
    """The views of services by minute; `data` is what is in them."""

    data: Data
    functions: Mapping[str, str] = field(default_factory=dict)
    others: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.cursor = duckdb.connect()
        rows = [(name, self.functions.get(name, "cpm"), "") for name in self.data.plain]
        for name in self.data.labelled:
            function, label = MAPS.get(name, ("percentile2", ""))
            rows.append((name, function, f"{name} = from(X.*).{function}({label});"))
        rows += [(name, "histogram", "") for name in self.others]
        self.cursor.execute(
            "CREATE TABLE metrics (name VARCHAR, scope VARCHAR, function VARCHAR, "
            "definition VARCHAR, unit VARCHAR)"
        )
        self.cursor.executemany(
            "INSERT INTO metrics VALUES (?, 'K8SService', ?, ?, '')", [list(row) for row in rows]
        )
        self._fill()
        self.catalogue = Catalogue.of(self.cursor)

    @property
    def buckets(self) -> Buckets:
        first = dt.datetime.fromtimestamp(self.data.start_ms / 1000, dt.UTC).replace(tzinfo=None)
        return Buckets(Step.MINUTE, first, self.data.count)

    def _fill(self) -> None:
        percentile = "STRUCT(" + ", ".join(f"p{one} DOUBLE" for one in PERCENTILES) + ")"
        columns = dict.fromkeys(self.data.plain, "DOUBLE")
        for name in self.data.labelled:
            columns[name] = "MAP(VARCHAR, DOUBLE)" if name in MAPS else percentile
        columns |= dict.fromkeys(self.others, "MAP(BIGINT, BIGINT)")
        made = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        self.cursor.execute(
            f"CREATE TABLE service_minute (time_bucket TIMESTAMP, service VARCHAR, {made})"
        )
        entities = {one for values in self.data.plain.values() for one in values}
        entities |= {one for values in self.data.labelled.values() for one in values}
        first = self.buckets.first - dt.timedelta(minutes=self.data.before)
        rows = []
        for entity in sorted(entities):
            for at in range(self.data.before + self.data.count):
                row: list[object] = [first + dt.timedelta(minutes=at), entity]
                row += [_at(values.get(entity), at) for values in self.data.plain.values()]
                for name, values in self.data.labelled.items():
                    row.append(_labelled(name, values.get(entity, {}), at))
                rows.append([*row, *([None] * len(self.others))])
        marks = ", ".join("?" * len(rows[0]))
        self.cursor.executemany(f"INSERT INTO service_minute VALUES ({marks})", rows)

    def ask(self, expression: str, service: str | None = "a") -> ExpressionResult:
        """Evaluate an expression about a service, or about none."""
        entity = Entity(service, None if service is None else True)
        (found,) = evaluate_all(
            self.cursor, self.catalogue, [Request(expression, entity, self.buckets)]
        )
        return found


def _at(values: Sequence[Number] | None, at: int) -> Number:
    return None if values is None else values[at]


def _labelled(name: str, values: Mapping[Labels, Sequence[Number]], at: int) -> object:
    by_label = {labels[0][1]: one[at] for labels, one in values.items()}
    held = {label: value for label, value in by_label.items() if value is not None}
    if not held:
        return None
    if name in MAPS:
        return held
    return {f"p{one}": held.get(one) for one in PERCENTILES}
