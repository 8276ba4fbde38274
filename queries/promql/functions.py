"""Functions of vectors: a number becomes a number, or a label another."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from framewalk.queries.promql.series import (
    NAME,
    Bools,
    Floats,
    PromqlError,
    Scalar,
    Vector,
    labels_of,
    merged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from framewalk.queries.promql.selectors import Matcher, Regexes

_LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")


def _rounded(values: Floats, nearest: Floats) -> Floats:
    inverse = 1 / nearest
    return np.floor(values * inverse + 0.5) / inverse


# Of the values, then of numbers per step.
OF_VALUES: Final[Mapping[str, Callable[..., Floats]]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "exp": np.exp,
    "floor": np.floor,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sgn": np.sign,
    "sqrt": np.sqrt,
    "round": lambda values, nearest=np.ones(1): _rounded(values, nearest),  # noqa: B008
    "clamp_min": np.maximum,
    "clamp_max": np.minimum,
    "clamp": lambda values, least, most: np.minimum(np.maximum(values, least), most),
}
_KEEPS_KIND: Final = frozenset({"abs", "ceil", "floor", "round", "clamp", "clamp_min", "clamp_max"})


def of_values(name: str, vector: Vector, numbers: Sequence[Scalar]) -> Vector:
    """Return what a function of `OF_VALUES` makes of a vector."""
    with np.errstate(all="ignore"):
        values = OF_VALUES[name](vector.values, *(one.values for one in numbers))
    present = vector.present
    if name == "clamp":
        present = present & (numbers[0].values <= numbers[1].values)
    kept = vector.unsummable if name in _KEEPS_KIND else frozenset[str]()
    return merged(replace(vector, values=values, present=present, unsummable=kept).without_name())


def scalar(vector: Vector) -> Scalar:
    """Return the only value of each step, NaN where there is none or more than one."""
    alone: Bools = np.equal(vector.present.sum(axis=0), 1)
    return Scalar(np.where(alone, (vector.values * vector.present).sum(axis=0), np.nan))


def absent(vector: Vector, matchers: Sequence[Matcher], steps: int) -> Vector:
    """Return 1 where no series has a value, with the labels that are asked for by =."""
    held: Bools = np.logical_or.reduce(vector.present, axis=0, initial=False)
    gone = np.broadcast_to(~held, steps)
    asked: dict[str, list[str]] = {}
    for one in matchers:
        asked.setdefault(one.name, []).append(one.value if one.op == "=" else "")
    labels = labels_of(
        (name, values[0]) for name, values in asked.items() if len(values) == 1 and name != NAME
    )
    return Vector((labels,), np.ones((1, steps)), gone[np.newaxis, :])


def sorted_by_value(vector: Vector, *, descending: bool) -> Vector:
    """Return the series of an instant in the order of their values."""
    last = vector.values[:, -1] if vector.values.shape[1] else np.zeros(len(vector.labels))
    # NaN comes last either way; what is equal stays in its order.
    keys = np.where(np.isnan(last), np.inf, -last if descending else last)
    return replace(vector.chosen(np.argsort(keys, kind="stable")), is_ordered=True)


@dataclass(frozen=True, slots=True)
class Replacement:
    """The arguments of label_replace: which label becomes what of another that matches."""

    target: str
    replacement: str
    source: str
    pattern: str


def label_replace(vector: Vector, wanted: Replacement, regexes: Regexes) -> Vector:
    """Set a label to what a regular expression makes of another."""
    check_label(wanted.target)
    sources = [dict(labels).get(wanted.source, "") for labels in vector.labels]
    becomes = regexes.replaced(wanted.pattern, wanted.replacement, sources)
    labels = tuple(
        _with_label(own, wanted.target, becomes[text]) if text in becomes else own
        for own, text in zip(vector.labels, sources, strict=True)
    )
    return merged(replace(vector, labels=labels))


def label_join(vector: Vector, target: str, separator: str, sources: Sequence[str]) -> Vector:
    """Set a label to others, joined."""
    check_label(target)
    labels = []
    for own in vector.labels:
        values = dict(own)
        joined = separator.join(values.get(source, "") for source in sources)
        labels.append(_with_label(own, target, joined))
    return merged(replace(vector, labels=tuple(labels)))


def _with_label(
    labels: Sequence[tuple[str, str]], name: str, value: str
) -> tuple[tuple[str, str], ...]:
    return labels_of([*(pair for pair in labels if pair[0] != name), (name, value)])


def check_label(name: str) -> None:
    """Raise PromqlError where a text cannot be the name of a label."""
    if not _LABEL_NAME.match(name):
        problem = f"{name!r} is no name of a label"
        raise PromqlError(problem, "use letters, digits and _")
