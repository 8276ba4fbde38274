"""Operators: of numbers, of a vector and a number, of two vectors whose labels match."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from framewalk.queries.promql.series import (
    NAME,
    Bools,
    ExecutionError,
    Floats,
    Labels,
    Scalar,
    Vector,
    check_size,
    labels_of,
    merged,
    nothing,
    shown,
    without_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ARITHMETIC: Final[Mapping[str, Callable[[Floats, Floats], Floats]]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
}
COMPARISONS: Final[Mapping[str, Callable[[Floats, Floats], Bools]]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}
SETS: Final = ("and", "or", "unless")
# A product with a count, or a ratio, may be summed: so are means weighed.
_KEEPS_KIND: Final = ("+", "-", "%")


@dataclass(frozen=True, slots=True)
class Matching:
    """How the series of two vectors find each other.

    By the labels `names` if `is_on`, else by all others. `many` is the side of which several match
    one: "left", "right", or none; `include` are labels that they get of the other side.
    """

    names: tuple[str, ...] = ()
    is_on: bool = False
    many: str = ""
    include: tuple[str, ...] = ()

    def signature(self, labels: Labels) -> Labels:
        """Return what a series is matched by."""
        if self.is_on:
            return tuple(pair for pair in labels if pair[0] in self.names)
        return tuple(pair for pair in labels if pair[0] not in {*self.names, NAME})


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator; `is_bool` has a comparison answer 0 or 1."""

    name: str
    is_bool: bool = False

    @property
    def is_filter(self) -> bool:
        """Whether it lets values through, and makes none."""
        return self.name in COMPARISONS and not self.is_bool

    def of(self, left: Floats, right: Floats) -> Floats:
        """Return what it makes of numbers; of a comparison 0 or 1."""
        with np.errstate(all="ignore"):
            if self.name in COMPARISONS:
                return COMPARISONS[self.name](left, right).astype(np.float64)
            return ARITHMETIC[self.name](left, right)

    def kept(self, *sides: frozenset[str]) -> frozenset[str]:
        """Return what of its result cannot be summed."""
        if self.is_filter:
            return sides[0]
        return frozenset().union(*sides) if self.name in _KEEPS_KIND else frozenset()


def of_scalars(operator: Operator, left: Scalar, right: Scalar) -> Scalar:
    """Return what an operator makes of two numbers."""
    return Scalar(operator.of(left.values, right.values))


def with_scalar(operator: Operator, vector: Vector, number: Scalar, *, swapped: bool) -> Vector:
    """Return what an operator makes of a vector and a number; `swapped`: the number is left."""
    sides = (number.values, vector.values) if swapped else (vector.values, number.values)
    found = operator.of(*sides)
    if operator.is_filter:
        return vector.with_values(vector.values, vector.present & (found != 0))
    scales = operator.name in {"*", "/"} and not swapped
    kept = vector.unsummable if scales else operator.kept(vector.unsummable)
    return merged(replace(vector, values=found, unsummable=kept).without_name())


def of_vectors(operator: Operator, left: Vector, right: Vector, matching: Matching) -> Vector:
    """Return what an operator makes of the series that match.

    Raises ExecutionError where more match than may.
    """
    if not left.labels or not right.labels:
        return nothing(left.values.shape[1])
    one, many = (left, right) if matching.many == "right" else (right, left)
    ones = _by_signature(one, matching)
    # Where the other side has nothing, nothing can match twice.
    seen = one.present & many.present.any(axis=0)
    _check_one(seen, ones, "left" if matching.many == "right" else "right")
    partners = [ones.get(matching.signature(labels), []) for labels in many.labels]
    check_size(sum(map(len, partners)), left.values.shape[1])
    pairs = [(row, other) for row, others in enumerate(partners) for other in others]
    if not pairs:
        return nothing(left.values.shape[1])
    many_rows, one_rows = (np.array(rows, dtype=np.intp) for rows in zip(*pairs, strict=True))
    sides = (many_rows, one_rows) if one is right else (one_rows, many_rows)
    left_values, right_values = left.values[sides[0]], right.values[sides[1]]
    present = left.present[sides[0]] & right.present[sides[1]]
    values = operator.of(left_values, right_values)
    if operator.is_filter:
        present &= values != 0
        values = left_values
    labels = tuple(
        _result_labels(many.labels[row], one.labels[other], operator, matching)
        for row, other in pairs
    )
    found = Vector(labels, values, present, operator.kept(left.unsummable, right.unsummable))
    try:
        return merged(found)
    except ExecutionError as error:
        problem = "multiple matches for labels"
        remedy = (
            "grouping labels must ensure unique matches"
            if matching.many
            else "many-to-one matching must be explicit (group_left/group_right)"
        )
        raise ExecutionError(problem, remedy) from error


def _by_signature(vector: Vector, matching: Matching) -> dict[Labels, list[int]]:
    found: dict[Labels, list[int]] = {}
    for row, labels in enumerate(vector.labels):
        found.setdefault(matching.signature(labels), []).append(row)
    return found


def _check_one(present: Bools, groups: Mapping[Labels, list[int]], side: str) -> None:
    for signature, rows in groups.items():
        if len(rows) > 1 and (present[rows].sum(axis=0) > 1).any():
            problem = (
                f"found duplicate series for the match group {shown(signature)} on the {side} "
                "hand-side of the operation"
            )
            remedy = "many-to-many matching not allowed: matching labels must be unique on one side"
            raise ExecutionError(problem, remedy)


def _result_labels(many: Labels, one: Labels, operator: Operator, matching: Matching) -> Labels:
    labels = many if operator.is_filter else without_name(many)
    if matching.many:
        others = dict(one)
        kept = [pair for pair in labels if pair[0] not in matching.include]
        return labels_of([*kept, *((name, others.get(name, "")) for name in matching.include)])
    if matching.is_on:
        return tuple(pair for pair in labels if pair[0] in matching.names)
    return tuple(pair for pair in labels if pair[0] not in matching.names)


def of_sets(name: str, left: Vector, right: Vector, matching: Matching) -> Vector:
    """Return the series of both, of one, or of the left without the right, step by step."""
    numbers: dict[Labels, int] = {}
    left_at = _numbered(left, matching, numbers)
    right_at = _numbered(right, matching, numbers)
    shape = (len(numbers), left.values.shape[1])
    if name == "or":
        on_left = np.zeros(shape, dtype=np.bool_)
        np.logical_or.at(on_left, left_at, left.present)
        added = right.with_values(right.values, right.present & ~on_left[right_at])
        return _together(left, added)
    on_right = np.zeros(shape, dtype=np.bool_)
    np.logical_or.at(on_right, right_at, right.present)
    matched = on_right[left_at]
    present = left.present & (matched if name == "and" else ~matched)
    return left.with_values(left.values, present)


def _numbered(
    vector: Vector, matching: Matching, numbers: dict[Labels, int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    signatures: Iterable[Labels] = map(matching.signature, vector.labels)
    return np.array([numbers.setdefault(one, len(numbers)) for one in signatures], dtype=np.intp)


def _together(left: Vector, right: Vector) -> Vector:
    check_size(len(left.labels) + len(right.labels), left.values.shape[1])
    both = Vector(
        (*left.labels, *right.labels),
        np.concatenate([left.values, right.values]),
        np.concatenate([left.present, right.present]),
        left.unsummable | right.unsummable,
    )
    return merged(both)
