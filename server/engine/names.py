"""What an operator is told about names: aliases, Pods of several Services, odd objects."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from framewalk.engine.telling import tell

if TYPE_CHECKING:
    from framewalk.engine.kubernetes import Entities

_MOST_LINES: Final = 20
# Clusters make Services anew all the time; what is forgotten may be told again.
_MOST_REMEMBERED: Final = 10_000


class NamesTold:
    """Tells each fact once, when it first becomes so."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, entities: Entities) -> None:
        """Write lines for what was not told yet, a bounded number."""
        news = [one for one in entities.told if str(one) not in self._told]
        for one in news[:_MOST_LINES]:
            tell(logging.INFO, one.event, **one.facts)
        if len(news) > _MOST_LINES:
            tell(logging.INFO, "more Services share pods", count=len(news) - _MOST_LINES)
        odd = [one for one in entities.warnings if one not in self._told]
        for problem in odd:
            tell(logging.WARNING, "a Kubernetes object is odd", problem=problem)
        if len(self._told) > _MOST_REMEMBERED:
            self._told.clear()
        self._told.update(map(str, news), odd)
