"""A map of services as text: under each namespace its callers, under each whom they call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.cells import cell_len

from framewalk.queries.drawing.services import short_name, visible
from framewalk.queries.metrics import namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from framewalk.queries.drawing.services import Edge, ServiceMap

_NOWHERE: Final = "(no namespace)"
_GAP: Final = "  "


def as_text(services: ServiceMap, *, ascii_only: bool = False) -> str:
    """Return lines for a terminal, figures below each other."""
    arrow = "->" if ascii_only else "→"
    rows = [_cells(edge) for edge in services.edges]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    namespace = caller = None
    for edge, row in sorted(zip(services.edges, rows, strict=True), key=_by_namespace):
        if namespace_of(edge.source) != namespace:
            namespace, caller = namespace_of(edge.source), None
            lines += ["", namespace or _NOWHERE] if lines else [namespace or _NOWHERE]
        if edge.source != caller:
            caller = edge.source
            lines.append(f"{_GAP}{short_name(caller)}")
        lines.append(f"{_GAP * 2}{arrow} {_GAP.join(_padded(row, widths))}".rstrip())
    return "".join(f"{visible(line)}\n" for line in lines)


def _by_namespace(pair: tuple[Edge, list[str]]) -> tuple[str, str, float, str]:
    edge, _ = pair
    return namespace_of(edge.source), edge.source, -edge.calls_per_minute, edge.dest


def _cells(edge: Edge) -> list[str]:
    same = namespace_of(edge.source) == namespace_of(edge.dest)
    failed = f"{edge.failed_percent:g}% failed" if edge.failed_percent else ""
    p99 = "" if edge.p99_ms is None else f"p99 {edge.p99_ms:g} ms"
    name = short_name(edge.dest) if same else edge.dest
    return [visible(name), f"{edge.calls_per_minute:,g}/min", p99, failed]


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    name, rate, *others = row
    yield name + " " * (widths[0] - cell_len(name))
    yield rate.rjust(widths[1])
    for text, width in zip(others, widths[2:], strict=True):
        yield text.rjust(width)
