"""A map of services: who calls whom, and the figures of each edge."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from framewalk.engine.schemas import UNKNOWN
from framewalk.queries.metrics import namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# Of a hundred requests: more that failed are worth a look.
_FAILING_PERCENT: Final = 1.0
_UNKNOWN_CALLER: Final = f"{UNKNOWN} callers"
_UNKNOWN_CALLED: Final = f"{UNKNOWN} called"


@dataclass(frozen=True, slots=True)
class Edge:
    """One service calls another; a figure is None where there is none."""

    source: str
    dest: str
    calls_per_minute: float
    success_percent: float | None
    p99_ms: float | None

    @property
    def ends(self) -> tuple[str, str]:
        """Return the nodes that a picture joins.

        Whoever is unknown is many: one node that calls and is called would tie all together.
        """
        source = _UNKNOWN_CALLER if self.source == UNKNOWN else self.source
        return source, _UNKNOWN_CALLED if self.dest == UNKNOWN else self.dest

    @property
    def failed_percent(self) -> float:
        """Return how many of a hundred requests failed."""
        return 0 if self.success_percent is None else round(100 - self.success_percent, 2)

    @property
    def fails(self) -> bool:
        """Whether more requests fail than one in a hundred."""
        return self.failed_percent > _FAILING_PERCENT

    @property
    def figures(self) -> list[str]:
        """Return what there is to say, for a person: rate, failures if any, time."""
        told = [f"{self.calls_per_minute:,g}/min"]
        if self.failed_percent:
            told.append(f"{self.failed_percent:g}% failed")
        if self.p99_ms is not None:
            told.append(f"p99 {self.p99_ms:g} ms")
        return told


@dataclass(frozen=True, slots=True)
class ServiceMap:
    """Edges, and the services at their ends, both sorted by name."""

    edges: tuple[Edge, ...]

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[Any, ...]]) -> ServiceMap:
        """Take rows of `service_map`: source, dest, calls_per_minute, success_percent, p99_ms."""
        edges = [Edge(*row) for row in rows]
        return cls(tuple(sorted(edges, key=lambda edge: (edge.source, edge.dest))))

    @property
    def services(self) -> list[str]:
        """Return the names of all services, sorted."""
        return sorted({name for edge in self.edges for name in (edge.source, edge.dest)})

    @property
    def nodes(self) -> list[str]:
        """Return the nodes of a picture, sorted."""
        return sorted({node for edge in self.edges for node in edge.ends})

    @property
    def namespaces(self) -> dict[str, list[str]]:
        """Return the nodes of each namespace; those of none have the empty one."""
        found: dict[str, list[str]] = {}
        for node in self.nodes:
            found.setdefault(namespace_of(node), []).append(node)
        return dict(sorted(found.items()))


def visible(text: str) -> str:
    """Return a text without characters that a terminal obeys, or that no picture may have."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def short_name(service: str) -> str:
    """Return a service's name without its namespace."""
    namespace = namespace_of(service)
    return service.removesuffix(f".{namespace}") if namespace else service
