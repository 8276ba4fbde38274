"""Where the services of a map stand: callers left of whom they call.

Cycles are broken at the edge that closes them, ranks are longest paths, and the order in a rank
comes from the neighbours' (barycentres). An edge has a place of its own in each rank that it
passes, so it passes between boxes. Equal maps give equal pictures: all begins with names.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SWEEPS: Final = 8

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Layers:
    """Ranks from left to right, each a list of places from top to bottom.

    A place is the name of a service, or one that an edge passes: `routes` has those of each edge
    that passes some, from its source on.
    """

    ranks: list[list[str]]
    routes: dict[Pair, list[str]]


def layers_of(pairs: Sequence[Pair]) -> Layers:
    """Return where the ends of a graph's edges stand."""
    edges = sorted({(source, dest) for source, dest in pairs if source != dest})
    names = sorted({name for edge in edges for name in edge} | {name for name, _ in pairs})
    heights = _ranks(names, _without_cycles(names, edges))
    ranks: list[list[str]] = [[] for _ in range(max(heights.values(), default=-1) + 1)]
    for name in names:
        ranks[heights[name]].append(name)
    routes: dict[Pair, list[str]] = {}
    for source, dest in edges:
        passed = range(heights[source] + 1, heights[dest])
        if passed:
            routes[source, dest] = [f"{source}\0{dest}\0{rank}" for rank in passed]
            for rank, place in zip(passed, routes[source, dest], strict=True):
                ranks[rank].append(place)
    steps = [step for edge in edges for step in pairwise((edge[0], *routes.get(edge, ()), edge[1]))]
    return Layers(_untangled(ranks, steps), routes)


def _without_cycles(names: Sequence[str], edges: Sequence[Pair]) -> dict[str, list[str]]:
    """Return whom each name calls, without edges that lead back to where a walk came from."""
    called: dict[str, list[str]] = defaultdict(list)
    for source, dest in edges:
        called[source].append(dest)
    has_caller = {dest for _, dest in edges}
    kept: dict[str, list[str]] = {name: [] for name in names}
    done: set[str] = set()
    # Walks begin where nobody calls, so that a cycle is broken far from there.
    for start in [*(name for name in names if name not in has_caller), *names]:
        _walk(start, called, kept, done)
    return kept


def _walk(
    start: str, called: Mapping[str, Sequence[str]], kept: dict[str, list[str]], done: set[str]
) -> None:
    if start in done:
        return
    path = {start}
    stack = [(start, iter(called.get(start, ())))]
    while stack:
        name, rest = stack[-1]
        dest = next(rest, None)
        if dest is None:
            stack.pop()
            path.discard(name)
            done.add(name)
        elif dest not in path:
            kept[name].append(dest)
            if dest not in done:
                path.add(dest)
                stack.append((dest, iter(called.get(dest, ()))))


def _ranks(names: Sequence[str], forward: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the length of the longest way to each name, in an acyclic graph."""
    waits = dict.fromkeys(names, 0)
    for dests in forward.values():
        for dest in dests:
            waits[dest] += 1
    ranks = dict.fromkeys(names, 0)
    ready = [name for name in names if not waits[name]]
    while ready:
        name = ready.pop()
        for dest in forward[name]:
            ranks[dest] = max(ranks[dest], ranks[name] + 1)
            waits[dest] -= 1
            if not waits[dest]:
                ready.append(dest)
    return ranks


def _untangled(layers: list[list[str]], edges: Sequence[Pair]) -> list[list[str]]:
    near: dict[str, list[str]] = defaultdict(list)
    for source, dest in edges:
        near[source].append(dest)
        near[dest].append(source)
    heights = {name: _height(at, layer) for layer in layers for at, name in enumerate(layer)}
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            layer.sort(key=lambda name: (_mean(near[name], heights, heights[name]), name))
            heights |= {name: _height(at, layer) for at, name in enumerate(layer)}
    return layers


def _height(at: int, layer: Sequence[str]) -> float:
    """Return how far down a place is in its rank, whose middle is at 0."""
    return at - (len(layer) - 1) / 2


def _mean(names: Sequence[str], heights: Mapping[str, float], otherwise: float) -> float:
    return sum(heights[name] for name in names) / len(names) if names else otherwise
