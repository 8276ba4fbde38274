"""The functions of the definition language over the plain list of what each log contributed.

A contribution is whatever the function needs of one log; a function's value is computed from
all contributions at once, never from partial results.
"""

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, localcontext
from functools import cache
from typing import Any

from reference.definitions import Condition, Definition

MAX_LONG = 2**63 - 1
APDEX_DEFAULT_MS = 500
PERCENTILES = (50, 75, 90, 95, 99)
LABELS = 50
PLAIN = (
    "longAvg",
    "doubleAvg",
    "sum",
    "count",
    "cpm",
    "max",
    "min",
    "maxDouble",
    "minDouble",
    "percentile2",
    "percentile",
    "relativePercentile",
    "histogram",
)

Attributes = Mapping[str, Any]
Value = Any  # a number, or a map of numbers


def holds(condition: Condition, attributes: Attributes) -> bool:
    """Say whether a log meets a condition; an attribute that it does not have is null."""
    return OPERATORS[condition.operator](attributes.get(condition.attribute), condition.literal)


def contribution(
    definition: Definition, attributes: Attributes, thresholds: Mapping[str, int]
) -> Value:
    """Return what the log gives to the metric, None where it gives nothing."""
    wanted, arguments = definition.attribute, definition.arguments
    value = True if wanted == "*" else attributes.get(wanted)
    if value is None or definition.function in PLAIN:
        return value
    if definition.function == "percent":
        return holds(_condition(arguments[0]), attributes)
    named = tuple(attributes.get(path) for path in arguments[:2])
    if definition.function == "apdex":
        limit = thresholds.get(named[0], APDEX_DEFAULT_MS)
        return _apdex_class(value, limit, success=named[1] is True)
    if definition.function == "labelCount":
        return named[0]
    return None if None in named else named


def value_of(definition: Definition, given: Sequence[Any], minutes: int) -> Value:
    """Return the metric's value over all contributions, None where there is none."""
    if definition.function == "cpm":
        return len(given) // minutes
    return FUNCTIONS[definition.function](given, definition.arguments)


def _same(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right


def _among(value: object, literals: Iterable[object]) -> bool:
    return any(_same(value, literal) for literal in literals)


def _contains(value: Iterable[object] | None, literal: object) -> bool:
    return _among(literal, value or ())


def _compared(compare: Callable[[int, int], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, literal: value is not None and compare(value, literal)


def _like(value: str | None, pattern: str) -> bool:
    if value is None:
        return False
    text = pattern.strip("%")
    if pattern.startswith("%") and pattern.endswith("%"):
        return text in value
    if pattern.startswith("%"):
        return value.endswith(text)
    return value.startswith(text) if pattern.endswith("%") else value == text


def _condition(argument: object) -> Condition:
    if not isinstance(argument, Condition):
        raise TypeError(argument)
    return argument


def _total(values: Sequence[int]) -> int:
    return min(sum(values), MAX_LONG)


def _divide(dividend: int, divisor: int) -> int:
    quotient = abs(dividend) // abs(divisor)
    return quotient if (dividend < 0) == (divisor < 0) else -quotient


def _apdex_class(value: int, limit: int, *, success: bool) -> str:
    if not success or value > 4 * limit:
        return "neither"
    return "tolerated" if value > limit else "satisfied"


def _apdex(classes: Sequence[str]) -> int:
    satisfied, tolerated = classes.count("satisfied"), classes.count("tolerated")
    return (satisfied * 10_000 + tolerated * 10_000 // 2) // len(classes)


def _rate(pairs: Sequence[tuple[int, int]]) -> int | None:
    numerator = _total([pair[0] for pair in pairs])
    denominator = _total([pair[1] for pair in pairs])
    return None if denominator == 0 else min(_divide(numerator * 10_000, denominator), MAX_LONG)


def _percentiles(values: Sequence[int], precision: int) -> dict[str, int]:
    buckets = sorted(_divide(value, precision) for value in values)
    ranks = {p: (len(buckets) * p + 50) // 100 for p in PERCENTILES}
    return {f"p{p}": buckets[rank - 1] * precision for p, rank in ranks.items()}


def _relative_percentiles(values: Sequence[int]) -> dict[str, int]:
    """Find the exact values at the ranks, then what docs/semantics.md says they are told as."""
    ordered = sorted(values)
    ranks = {p: (len(ordered) * p + 50) // 100 for p in PERCENTILES}
    return {f"p{p}": _told_ns(ordered[rank - 1]) for p, rank in ranks.items()}


@cache
def _told_ns(duration_ns: int) -> int:
    kept = min(max(duration_ns, 1_000), 600 * 10**9)
    start = max(start for start in bucket_starts_ns() if start <= kept)
    return start + start // 100


@cache
def bucket_starts_ns() -> tuple[int, ...]:
    """Return the whole nanoseconds at which buckets begin, up to 10 minutes."""
    parts = 2**20
    with localcontext(prec=50):
        first = [
            int((1_000 * parts * Decimal(2) ** (Decimal(step) / 36)).to_integral_value())
            for step in range(36)
        ]
    starts = [one * 2**doublings // parts for doublings in range(30) for one in first]
    return tuple(start for start in starts if start <= 600 * 10**9)


def _histogram(values: Sequence[int], step: int, steps: int) -> dict[int, int]:
    counts = {index * step: 0 for index in range(steps + 1)}
    for value in values:
        counts[max(0, min(value // step, steps)) * step] += 1
    return counts


def _limit(arguments: Sequence[Any]) -> int:
    return int(arguments[0]) if arguments else LABELS


def _label_counts(labels: Sequence[Any], limit: int) -> dict[str, int]:
    counts = Counter(str(label) for label in labels)
    return _first_labels(counts, counts, limit)


def _first_labels(values: Mapping[str, int], counts: Counter[str], limit: int) -> dict[str, int]:
    kept = sorted(counts, key=lambda label: (-counts[label], label))[:limit]
    return {label: values[label] for label in kept}


def _label_averages(labelled: Sequence[tuple[Any, int]], limit: int) -> dict[str, int]:
    pairs = [(str(label), value) for label, value in labelled]
    counts = Counter(label for label, _ in pairs)
    sums = {one: _total([value for label, value in pairs if label == one]) for one in counts}
    averages = {
        label: _divide(sums[label], count) or int(sums[label] != 0)
        for label, count in counts.items()
    }
    return _first_labels(averages, counts, limit)


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": _same,
    "!=": lambda value, literal: not _same(value, literal),
    ">": _compared(operator.gt),
    "<": _compared(operator.lt),
    ">=": _compared(operator.ge),
    "<=": _compared(operator.le),
    "like": _like,
    "in": _among,
    "contain": _contains,
    "not contain": lambda value, literal: not _contains(value, literal),
}

FUNCTIONS: dict[str, Callable[[Sequence[Any], Sequence[Any]], Any]] = {
    "longAvg": lambda given, _: _divide(_total(given), len(given)),
    "doubleAvg": lambda given, _: _total(given) / len(given),
    "sum": lambda given, _: _total(given),
    "count": lambda given, _: len(given),
    "max": lambda given, _: max(given),
    "min": lambda given, _: min(given),
    "maxDouble": lambda given, _: float(max(given)),
    "minDouble": lambda given, _: float(min(given)),
    "percent": lambda given, _: sum(given) * 10_000 // len(given),
    "apdex": lambda given, _: _apdex(given),
    "rate": lambda given, _: _rate(given),
    "percentile2": lambda given, arguments: _percentiles(given, arguments[0]),
    "percentile": lambda given, arguments: _percentiles(given, arguments[0]),
    "relativePercentile": lambda given, _: _relative_percentiles(given),
    "histogram": lambda given, arguments: _histogram(given, *arguments),
    "labelCount": lambda given, arguments: _label_counts(given, _limit(arguments[1:])),
    "labelAvg": lambda given, arguments: _label_averages(given, _limit(arguments[2:])),
}
