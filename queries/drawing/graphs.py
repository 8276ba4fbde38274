"""A map of services in the languages of other tools: Graphviz' DOT, and Mermaid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from framewalk.queries.drawing.services import short_name, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from framewalk.queries.drawing.services import Edge, ServiceMap

_FAILING: Final = "#c62828"
# What Mermaid reads as its own language, and how it wants it written.
_MERMAID: Final = {ord(char): f"#{ord(char)};" for char in '#"<>|`\\[](){}'}


def as_dot(services: ServiceMap) -> str:
    """Return a graph for `dot`: a cluster for each namespace, width by the rate (logarithmic)."""
    return "".join(f"{line}\n" for line in _dot_lines(services))


def _dot_lines(services: ServiceMap) -> Iterator[str]:
    yield "digraph services {"
    yield "  rankdir=LR;"
    yield '  node [shape=box, style=rounded, fontname="sans-serif"];'
    yield '  edge [fontname="sans-serif", fontsize=10];'
    for number, (namespace, members) in enumerate(services.namespaces.items()):
        nodes = [
            f"{_quoted(service)} [label={_quoted(short_name(service))}];" for service in members
        ]
        if not namespace:
            yield from (f"  {node}" for node in nodes)
            continue
        yield f"  subgraph cluster_{number} {{"
        yield f"    label={_quoted(namespace)};"
        yield from (f"    {node}" for node in nodes)
        yield "  }"
    for edge in services.edges:
        ends = " -> ".join(map(_quoted, edge.ends))
        yield f"  {ends} [{_dot_looks(edge)}];"
    yield "}"


def _dot_looks(edge: Edge) -> str:
    looks = [
        f"label={_quoted(chr(10).join(edge.figures))}",
        f"penwidth={width_of(edge.calls_per_minute):g}",
    ]
    if edge.fails:
        looks += [f'color="{_FAILING}"', f'fontcolor="{_FAILING}"']
    return ", ".join(looks)


def _quoted(text: str) -> str:
    lines = (visible(line) for line in text.split("\n"))
    escaped = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return f'"{escaped}"'


def width_of(calls_per_minute: float) -> float:
    """Return the width of an edge in points: one more for each tenfold rate."""
    return round(1 + math.log10(max(calls_per_minute, 1)), 2)


def as_mermaid(services: ServiceMap) -> str:
    """Return a flow chart for Mermaid: a subgraph for each namespace."""
    return "".join(f"{line}\n" for line in _mermaid_lines(services))


def _mermaid_lines(services: ServiceMap) -> Iterator[str]:
    numbers = {service: f"s{number}" for number, service in enumerate(services.nodes)}
    yield "flowchart LR"
    for place, (namespace, members) in enumerate(services.namespaces.items()):
        nodes = [f"{numbers[one]}[{_mermaid_text(short_name(one))}]" for one in members]
        if not namespace:
            yield from (f"  {node}" for node in nodes)
            continue
        yield f"  subgraph n{place}[{_mermaid_text(namespace)}]"
        yield from (f"    {node}" for node in nodes)
        yield "  end"
    failing = []
    for place, edge in enumerate(services.edges):
        said = _mermaid_text(", ".join(edge.figures))
        source, dest = edge.ends
        yield f"  {numbers[source]} -->|{said}| {numbers[dest]}"
        if edge.fails:
            failing.append(str(place))
    if failing:
        yield f"  linkStyle {','.join(failing)} stroke:{_FAILING},color:{_FAILING}"


def _mermaid_text(text: str) -> str:
    return f'"{visible(text).translate(_MERMAID)}"'
