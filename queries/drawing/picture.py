"""A map of services as a picture: SVG that stands alone, light or dark as its reader likes it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len

from framewalk.queries.drawing.graphs import width_of
from framewalk.queries.drawing.layering import layers_of
from framewalk.queries.drawing.services import short_name, visible
from framewalk.queries.metrics import namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from framewalk.queries.drawing.layering import Layers
    from framewalk.queries.drawing.services import Edge, ServiceMap

_CHAR: Final = 7.2
_PADDING: Final = 12
_HEIGHT: Final = 40
_ROW: Final = 60
_BETWEEN: Final = 220
_MARGIN: Final = 20
_STYLE: Final = """
    svg { font: 12px ui-sans-serif, system-ui, sans-serif; background: #fff; color: #1b1f24 }
    rect { fill: #f3f6fa; stroke: #8a97a6 }
    text { fill: currentColor }
    .namespace, .figures { fill: #5a6675; font-size: 10px }
    .figures { paint-order: stroke; stroke: #fff; stroke-width: 3px }
    .edge { fill: none; stroke: #6b7c93; opacity: .75 }
    .head { fill: #6b7c93 }
    .fails .edge { stroke: #c62828 }
    .fails .head, .fails .figures { fill: #c62828 }
    @media (prefers-color-scheme: dark) {
      svg { background: #14181d; color: #e3e8ee }
      rect { fill: #222a33; stroke: #6a7785 }
      .namespace, .figures { fill: #9aa7b5 }
      .figures { stroke: #14181d }
      .fails .edge { stroke: #ff7a70 }
      .fails .head, .fails .figures { fill: #ff7a70 }
    }
"""


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    top: float
    width: float

    @property
    def middle(self) -> float:
        return self.top + _HEIGHT / 2

    @property
    def right(self) -> float:
        return self.left + self.width


def as_svg(services: ServiceMap) -> str:
    """Return a picture; every box and edge says in words what it shows."""
    layers = layers_of([edge.ends for edge in services.edges])
    boxes = _boxes(layers)
    width = max((box.right for box in boxes.values()), default=0) + _MARGIN
    height = max((box.top for box in boxes.values()), default=0) + _HEIGHT + _MARGIN
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    callers = Counter(dest for _, dest in map(_ends, services.edges))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>',
        f"  <title>{len(services.services)} services, {len(services.edges)} edges</title>",
        f"  <style>{_STYLE}  </style>",
    ]
    for edge in services.edges:
        source, dest = edge.ends
        way = [boxes[place] for place in (source, *layers.routes.get(edge.ends, ()), dest)]
        # Where edges are furthest from each other.
        lines += _edge(edge, way, is_near_dest=callers[dest] == 1)
    for name in services.nodes:
        lines += _box(name, boxes[name])
    return "".join(f"{line}\n" for line in [*lines, "</svg>"])


def _ends(edge: Edge) -> tuple[str, str]:
    return edge.ends


def _boxes(layers: Layers) -> dict[str, _Box]:
    """Return the box of each place; that of an edge on its way is empty."""
    passing = {place for route in layers.routes.values() for place in route}
    tallest = max(map(len, layers.ranks), default=0)
    boxes: dict[str, _Box] = {}
    left: float = _MARGIN
    for rank in layers.ranks:
        width = max(_text_width(name) for name in rank if name not in passing) + 2 * _PADDING
        first = _MARGIN + (tallest - len(rank)) * _ROW / 2
        boxes |= {name: _Box(left, first + at * _ROW, width) for at, name in enumerate(rank)}
        left += width + _BETWEEN
    return boxes


def _text_width(service: str) -> float:
    return _CHAR * max(cell_len(short_name(service)), cell_len(namespace_of(service)))


def _box(name: str, box: _Box) -> Iterator[str]:
    left = box.left + _PADDING
    yield f"  <g><title>{_text(name)}</title>"
    yield (
        f'    <rect x="{box.left:g}" y="{box.top:g}" width="{box.width:g}" '
        f'height="{_HEIGHT}" rx="6"/>'
    )
    yield f'    <text x="{left:g}" y="{box.top + 17:g}">{_text(short_name(name))}</text>'
    namespace = _text(namespace_of(name))
    yield f'    <text class="namespace" x="{left:g}" y="{box.top + 31:g}">{namespace}</text>'
    yield "  </g>"


def _edge(edge: Edge, way: Sequence[_Box], *, is_near_dest: bool) -> Iterator[str]:
    told = ", ".join(edge.figures)
    looks = ' class="fails"' if edge.fails else ""
    yield f"  <g{looks}><title>{_text(f'{edge.source} -> {edge.dest}: {told}')}</title>"
    width = width_of(edge.calls_per_minute)
    yield f'    <path class="edge" stroke-width="{width:g}" d="{_path(way)}"/>'
    dest = way[-1]
    yield f'    <path class="head" d="M{dest.left:g} {dest.middle:g} l-9 -4.5 v9 z"/>'
    first, last = way[-2:] if is_near_dest else way[:2]
    if first.right < last.left:
        share = 0.55 if is_near_dest else 0.45
        x = first.right + (last.left - first.right) * share
        y = _at(first.middle, last.middle, share) - 4
        short = _text(" · ".join(dict.fromkeys([edge.figures[0], edge.figures[-1]])))
        place = f'text-anchor="middle" x="{x:g}" y="{y:g}"'
        yield f'    <text class="figures" {place}>{short}</text>'
    yield "  </g>"


def _path(way: Sequence[_Box]) -> str:
    """Return a path from the right of the first box to the left of the last."""
    path = f"M{way[0].right:g} {way[0].middle:g}"
    for source, dest in pairwise(way):
        is_last = dest is way[-1]
        x, to_x = source.right, dest.left - (8 if is_last else 0)
        # What leads back goes around its boxes.
        bend = max((to_x - x) / 2, 60)
        path += (
            f" C{x + bend:g} {source.middle:g} {to_x - bend:g} {dest.middle:g} "
            f"{to_x:g} {dest.middle:g}"
        )
        if not is_last:
            path += f" H{dest.right:g}"
    return path


def _text(text: str) -> str:
    return escape(visible(text))


def _at(first: float, last: float, share: float) -> float:
    """Return how high the curve is, at a share of its way."""
    rest = 1 - share
    bezier = 3 * share * share * rest + share**3
    return first + (last - first) * bezier
