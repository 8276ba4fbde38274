"""PromQL's aggregations and operators of two vectors, step by step and series by series.

Written from Prometheus' documentation of operators; shares no code with the product. A vector is a
mapping from labels (a frozenset of pairs, with the metric's name) to a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Labels: TypeAlias = frozenset[tuple[str, str]]
Vector: TypeAlias = Mapping[Labels, float]

NAME = "__name__"


class ManyError(Exception):
    """More series match than may."""


def _quotient(left: float, right: float) -> float:
    if right == 0:
        return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left)
    return left / right


ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _quotient,
}
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    ">": lambda left, right: left > right,
    "<=": lambda left, right: left <= right,
}


def only(labels: Labels, names: Sequence[str]) -> Labels:
    return frozenset(pair for pair in labels if pair[0] in names)


def without(labels: Labels, names: Sequence[str]) -> Labels:
    return frozenset(pair for pair in labels if pair[0] not in {*names, NAME})


def aggregate(name: str, vector: Vector, key: Callable[[Labels], Labels]) -> dict[Labels, float]:
    groups: dict[Labels, list[float]] = {}
    for labels, value in vector.items():
        groups.setdefault(key(labels), []).append(value)
    return {labels: _aggregated(name, values) for labels, values in groups.items()}


def _aggregated(name: str, values: list[float]) -> float:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    ordered = sorted(values)
    place = 0.5 * (len(values) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return {
        "sum": sum(values),
        "avg": mean,
        "min": ordered[0],
        "max": ordered[-1],
        "count": float(len(values)),
        "group": 1.0,
        "stdvar": variance,
        "stddev": math.sqrt(variance),
        "quantile": (low + high) / 2 if place % 1 else low,
    }[name]


def extremes(
    vector: Vector, key: Callable[[Labels], Labels], count: int, *, largest: bool
) -> dict[Labels, float]:
    """Return the first of each group; the vector's order decides between equals."""
    groups: dict[Labels, list[tuple[Labels, float]]] = {}
    for labels, value in vector.items():
        groups.setdefault(key(labels), []).append((labels, value))
    found: dict[Labels, float] = {}
    for members in groups.values():
        members.sort(key=lambda one: -one[1] if largest else one[1])
        found.update(members[:count])
    return found


@dataclass(frozen=True)
class Matching:
    """`result` gives the labels of a one-to-one result, without the name."""

    signature: Callable[[Labels], Labels]
    result: Callable[[Labels], Labels]
    many: str = ""
    include: Sequence[str] = ()


def binary(
    operator: str,
    left: Vector,
    right: Vector,
    how: Matching,
    *,
    is_bool: bool = False,
) -> dict[Labels, float]:
    signature, result, many, include = how.signature, how.result, how.many, how.include
    if not left or not right:
        return {}
    ones, manys = (left, right) if many == "right" else (right, left)
    by_signature: dict[Labels, Labels] = {}
    for labels in ones:
        if signature(labels) in by_signature:
            raise ManyError
        by_signature[signature(labels)] = labels
    found: dict[Labels, float] = {}
    for labels, value in manys.items():
        partner = by_signature.get(signature(labels))
        if partner is None:
            continue
        sides = (ones[partner], value) if many == "right" else (value, ones[partner])
        if operator in COMPARISONS and not is_bool:
            if not COMPARISONS[operator](*sides):
                continue
            number, base = sides[0], labels
        else:
            made = COMPARISONS[operator](*sides) if is_bool else ARITHMETIC[operator](*sides)
            number, base = float(made), frozenset(p for p in labels if p[0] != NAME)
        if many:
            kept = {pair for pair in base if pair[0] not in include}
            named = frozenset(kept | {pair for pair in partner if pair[0] in include})
        else:
            named = result(base)
        if named in found:
            raise ManyError
        found[named] = number
    return found


def sets(
    name: str, left: Vector, right: Vector, signature: Callable[[Labels], Labels]
) -> dict[Labels, float]:
    on_left = {signature(labels) for labels in left}
    on_right = {signature(labels) for labels in right}
    if name == "and":
        return {labels: one for labels, one in left.items() if signature(labels) in on_right}
    if name == "unless":
        return {labels: one for labels, one in left.items() if signature(labels) not in on_right}
    added = {labels: one for labels, one in right.items() if signature(labels) not in on_left}
    return {**left, **added}
