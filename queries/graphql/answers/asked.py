"""What answers one document: a cursor, the time, and what is read once for all of its fields."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from framewalk.queries.graphql.answers.expressions import evaluate
from framewalk.queries.metrics import SERVICE, StoredEntity, list_entities

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb

    from framewalk.queries.graphql.answers.templates import Templates
    from framewalk.queries.graphql.options import GraphqlOptions
    from framewalk.queries.metrics import Catalogue


@dataclass(frozen=True, slots=True)
class Told:
    """What is told that no store has."""

    options: GraphqlOptions
    templates: Templates


class Asked:
    """A document while it is answered; `catalogue` has the metrics of the store."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, catalogue: Catalogue, told: Told, now_s: float
    ) -> None:
        self.cursor = cursor
        self.catalogue = catalogue
        self.options = told.options
        self.templates = told.templates
        self.now_s = now_s
        self._expressions: dict[int, Any] = {}

    @cached_property
    def services(self) -> dict[str, StoredEntity]:
        """The services of the store by name: those that were seen on their own side."""
        return {one.name.service_name: one for one in list_entities(self.cursor, SERVICE)}

    def evaluate(self, expressions: Mapping[int, Mapping[str, Any]]) -> None:
        """Evaluate expressions together; `expression` then has their results."""
        if expressions:
            self._expressions |= evaluate(self.cursor, self.catalogue, expressions)

    def expression(self, node: int) -> Any:  # noqa: ANN401 - a result, or the error of a range
        """Return the result of an expression, by the identity of its node."""
        return self._expressions[node]

    def result(self, node: int) -> dict[str, Any] | None:
        """Return the same; None for an error, and for what is no expression."""
        found = self._expressions.get(node)
        return found if isinstance(found, dict) else None
