"""What an expression is about: which leaves and lists belong to its nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from framewalk.queries.metrics import SERVICE, Leaf, Top, nothing
from framewalk.queries.mqe.asked import entity_name, missing_names
from framewalk.queries.mqe.syntax import MetricName, TopN, Trend, nodes_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from framewalk.queries.metrics import Buckets, Catalogue, Series
    from framewalk.queries.mqe.asked import Entity
    from framewalk.queries.mqe.syntax import AttributeCondition, Node

# The layer of every entity, which is the attribute 0 of its metrics.
LAYER: Final = "K8S_SERVICE"
LONGEST_LIST: Final = 1_000
MOST_STEPS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Subject:
    """What an expression is about: it says which leaves and lists belong to its nodes."""

    catalogue: Catalogue
    entity: Entity
    buckets: Buckets

    def needs(self, tree: Node) -> Iterator[Leaf | Top]:
        """Yield what has to be read before the tree is evaluated."""
        for node in nodes_of(tree):
            found: Leaf | Top | None = None
            if isinstance(node, MetricName):
                found = self.leaf(node, 0)
            elif isinstance(node, Trend):
                found = self.leaf(node.metric, node.steps)
            elif isinstance(node, TopN):
                found = self.top(node)
            if found is not None:
                yield found

    def problem(self, name: MetricName, *, is_list: bool = False) -> str | None:
        """Return what is wrong with asking for a metric, None if nothing is."""
        metric = self.catalogue.get(name.name)
        if metric is None:
            hint = self.catalogue.nearest(name.name)
            return f"Metric: [{name.name}] does not exist.{f' {hint}' if hint else ''}"
        if metric.is_histogram:
            return f"{name.name} is a histogram: its values are no numbers"
        if is_list and metric.is_labelled:
            return (
                f"top_n takes metrics without labels, and {name.name} has the label {metric.label}"
            )
        missing = [] if is_list else missing_names(self.entity, metric.scope)
        if missing:
            return f"{name.name} needs an entity with {', '.join(missing)}"
        return None

    def leaf(self, name: MetricName, steps: int) -> Leaf | None:
        """Return the leaf of a metric with so many steps before; None if nothing is read."""
        metric = self.catalogue.get(name.name)
        if metric is None or self.problem(name) is not None or steps > MOST_STEPS:
            return None
        entity = entity_name(self.entity, metric.scope)
        buckets = self._buckets(steps)
        if entity is None or buckets is None or not metric.is_stored:
            return None
        return Leaf(metric, entity, buckets)

    def empty(self, name: MetricName) -> tuple[Series, ...]:
        """Return the series of a metric of which there is nothing."""
        return nothing(self.catalogue.metrics[name.name], self.buckets)

    def _buckets(self, steps: int) -> Buckets | None:
        try:
            return self.buckets.since(steps) if steps else self.buckets
        except OverflowError:
            return None

    def top(self, node: TopN) -> Top | None:
        """Return the list that a node asks for; None if it is empty whatever there is."""
        metric = self.catalogue.get(node.metric.name)
        if metric is None or self.problem(node.metric, is_list=True) is not None:
            return None
        if not (0 < node.count <= LONGEST_LIST and all(map(_holds, node.attributes))):
            return None
        service = self.entity.service or None
        is_of_none = service is not None and (metric.scope == SERVICE or not self.entity.normal)
        if is_of_none or not metric.is_stored:
            return None
        return Top(metric, self.buckets, node.count, node.order, service)

    @property
    def is_global(self) -> bool:
        """Whether lists are of the entities of all services."""
        return not self.entity.service


def _holds(condition: AttributeCondition) -> bool:
    if condition.number:
        return False
    return (condition.text == LAYER) is condition.is_equal
