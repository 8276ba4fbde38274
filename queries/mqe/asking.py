"""Expressions are answered together: their leaves are read at once, then each is evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from framewalk.queries.metrics import (
    Leaf,
    Top,
    leaf_statements,
    read_leaves,
    top_lists,
    top_statements,
)
from framewalk.queries.mqe.evaluating import Evaluator
from framewalk.queries.mqe.parser import ExpressionError, parse
from framewalk.queries.mqe.results import ExpressionResult, failed
from framewalk.queries.mqe.subjects import Subject
from framewalk.queries.mqe.syntax import nodes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from framewalk.queries.metrics import Buckets, Catalogue, EntityName, Metric, Reader, Statement
    from framewalk.queries.mqe.asked import Request
    from framewalk.queries.mqe.syntax import Node

# Values that are read at once: the largest pages of the clients ask for some 100,000.
MOST_VALUES: Final = 4_000_000
# Values that are computed at once, by all nodes of all trees: no interrupt ends that.
MOST_COMPUTED: Final = 10_000_000
# Labels that a metric of a map may have in a range.
_LABELS_OF_MAP: Final = 50
_TOO_MUCH: Final = (
    "this is too much, with what else is asked at once: ask for a shorter range, or for less"
)


def evaluate_all(
    cursor: Reader, catalogue: Catalogue, requests: Sequence[Request]
) -> list[ExpressionResult]:
    """Return the results of expressions, in their order.

    What is wrong with an expression, a metric or an entity is in its result. All leaves are read
    with one statement per scope and range of buckets, and all lists with one per scope, range and
    service. Raises duckdb.Error where a query is cancelled or the store fails.
    """
    plan = _planned(catalogue, requests)
    leaves = read_leaves(cursor, plan.leaves)
    tops = top_lists(cursor, plan.tops)
    return [
        part
        if isinstance(part, ExpressionResult)
        else Evaluator(part.subject, leaves, tops).evaluate(part.tree)
        for part in plan.parts
    ]


def explain(cursor: Reader, catalogue: Catalogue, requests: Sequence[Request]) -> list[Statement]:
    """Return the statements that `evaluate_all` runs for expressions. Raises duckdb.Error."""
    plan = _planned(catalogue, requests)
    return [*leaf_statements(cursor, plan.leaves), *top_statements(cursor, plan.tops)]


class _Part(NamedTuple):
    """An expression that can be evaluated once its leaves are read."""

    subject: Subject
    tree: Node


class _Plan(NamedTuple):
    """Per request what is evaluated, or its result already; and what is read for all."""

    parts: list[_Part | ExpressionResult]
    leaves: dict[Leaf, None]
    tops: dict[Top, None]


def _planned(catalogue: Catalogue, requests: Sequence[Request]) -> _Plan:
    plan = _Plan([], {}, {})
    budget = _Budget()
    for request in requests:
        try:
            tree = parse(request.expression)
        except ExpressionError as error:
            plan.parts.append(failed(str(error)))
            continue
        subject = Subject(catalogue, request.entity, request.buckets)
        needs = list(subject.needs(tree))
        leaves = [need for need in needs if isinstance(need, Leaf)]
        if not (budget.allows_computing(tree, leaves) and budget.allows(leaves)):
            plan.parts.append(failed(_TOO_MUCH))
            continue
        plan.parts.append(_Part(subject, tree))
        plan.leaves.update(dict.fromkeys(leaves))
        plan.tops.update(dict.fromkeys(need for need in needs if isinstance(need, Top)))
    return plan


class _Budget:
    """How many values are read: all metrics of a statement for all its entities."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, Buckets], tuple[set[Metric], set[EntityName]]] = {}
        self._values = 0
        self._computed = 0

    def allows_computing(self, tree: Node, leaves: Sequence[Leaf]) -> bool:
        """Add a tree, and tell whether it is not too much to compute with it."""
        widest = max((_width(leaf.metric) * leaf.buckets.count for leaf in leaves), default=1)
        computed = self._computed + widest * sum(1 for _ in nodes_of(tree))
        if computed > MOST_COMPUTED:
            return False
        self._computed = computed
        return True

    def allows(self, leaves: Iterable[Leaf]) -> bool:
        """Add leaves, and tell whether it is not too much with them."""
        for leaf in leaves:
            metrics, entities = self._groups.setdefault(
                (leaf.metric.scope, leaf.buckets), (set(), set())
            )
            if leaf.metric in metrics and leaf.entity in entities:
                continue
            more_metrics, more_entities = metrics | {leaf.metric}, entities | {leaf.entity}
            added = _values(more_metrics, more_entities) - _values(metrics, entities)
            if self._values + added * leaf.buckets.count > MOST_VALUES:
                return False
            self._values += added * leaf.buckets.count
            metrics.add(leaf.metric)
            entities.add(leaf.entity)
        return True


def _values(metrics: set[Metric], entities: set[EntityName]) -> int:
    return sum(map(_width, metrics)) * len(entities)


def _width(metric: Metric) -> int:
    return _LABELS_OF_MAP if metric.is_map else len(metric.labels) or 1
