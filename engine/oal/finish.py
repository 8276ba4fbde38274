"""How merged states become values, as SQL over columns of states (analysis.md, section 4).

Each takes the columns, the minutes of the bucket (as SQL) and the function's literal arguments. The
contract of the columns is told in functions.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from framewalk.engine.latency_buckets import start_ns_sql, told_ns_sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from framewalk.engine.oal.bound import Metric

DEFAULT_LABELS: Final = 50
PERCENTILES: Final = (50, 75, 90, 95, 99)

# Of a number that has a bucket of latencies above its count: more logs are never counted.
_COUNT_BITS: Final = 52

_LARGEST: Final = 2**63 - 1
_SMALLEST: Final = -(2**63)


def _if_any(count: str, value: str) -> str:
    return f"CASE WHEN {count} > 0 THEN {value} END"


def finish_long_avg(states: Sequence[str], _minutes: str, _parameters: tuple[int, ...]) -> str:
    """Divide toward zero, as `//` of DuckDB does."""
    total, count = states
    return _if_any(count, f"{total} // {count}")


def finish_double_avg(states: Sequence[str], _minutes: str, _parameters: tuple[int, ...]) -> str:
    """Divide with decimals."""
    total, count = states
    return _if_any(count, f"{total}::DOUBLE / {count}")


def finish_sum(states: Sequence[str], _minutes: str, _parameters: tuple[int, ...]) -> str:
    """Show a sum of 0 only where something was added."""
    total, count = states
    return _if_any(count, total)


def finish_extreme(states: Sequence[str], _minutes: str, _parameters: tuple[int, ...]) -> str:
    """Return the extreme as it is."""
    return states[0]


def finish_count(states: Sequence[str], _minutes: str, _parameters: tuple[int, ...]) -> str:
    """Show no count of 0."""
    return _if_any(states[0], states[0])


def finish_cpm(states: Sequence[str], minutes: str, _parameters: tuple[int, ...]) -> str:
    """Divide a count by the minutes of the bucket."""
    return _if_any(states[0], f"{states[0]} // {minutes}")


def finish_ratio(states: Sequence[str], _minutes: str, _parameters: tuple[int, ...]) -> str:
    """Return ten-thousandths; no value at a denominator of 0."""
    numerator, denominator = states
    return _if_any(denominator, f"{numerator} * 10000 // {denominator}")


def finish_apdex(states: Sequence[str], _minutes: str, _parameters: tuple[int, ...]) -> str:
    """Count a tolerated log half."""
    total, satisfied, tolerated = states
    return _if_any(total, f"({satisfied} * 10000 + {tolerated} * 10000 // 2) // {total}")


def finish_percentile(states: Sequence[str], _minutes: str, parameters: tuple[int, ...]) -> str:
    """Find the bucket in which the running count reaches the rank, times its width."""
    return _at_ranks(states[0], f"key * {parameters[0]}")


def finish_relative_percentile(
    states: Sequence[str], _minutes: str, _parameters: tuple[int, ...]
) -> str:
    """Find the bucket in which the running count reaches the rank, and what it is told as.

    A bucket and its count are one number: those are sorted in half the time. What is left of the
    rank is counted down; below 0 it is the bucket, from -1 on.
    """
    entries = states[0]
    one_number = f"(e.key << {_COUNT_BITS}) | e.value"
    count = f"(e & {2**_COUNT_BITS - 1})"
    walk = (
        f"CASE WHEN a < 0 THEN a WHEN a > {count} THEN a - {count} "
        f"ELSE -1 - (e >> {_COUNT_BITS}) END"
    )
    bound = (
        f"[{{'buckets': list_sort(list_transform({entries}, lambda e: {one_number})), "
        f"'total': {_total(entries)}}}]"
    )
    # Each by itself: within another lambda the buckets would be copied for each.
    each = ", ".join(
        f"-1 - list_reduce(all_of.buckets, lambda a, e: {walk}, {rank_of(str(p), 'all_of.total')})"
        for p in PERCENTILES
    )
    keys = f"list_transform({bound}, lambda all_of: [{each}])[1]"
    return _named(entries, keys, told_ns_sql(start_ns_sql("key")))


def _at_ranks(entries: str, told: str) -> str:
    """Return a struct of what is told of the bucket (`key`) at each percentile's rank.

    Ranks are rounded half up. The sorted buckets and their total are bound to a lambda's parameter
    first: inside of another lambda they would be computed again for each bucket.
    """
    bound = f"[{{'buckets': list_sort({entries}), 'total': {_total(entries)}}}]"
    rank = rank_of("p", "all_of.total")
    reached = (
        f"list_reduce(all_of.buckets, lambda a, e: CASE WHEN a.value >= {rank} THEN a "
        "ELSE {'key': e.key, 'value': a.value + e.value} END).key"
    )
    each = f"list_transform({list(PERCENTILES)}, lambda p: {reached})"
    keys = f"list_transform({bound}, lambda all_of: {each})[1]"
    return _named(entries, keys, told)


def _total(entries: str) -> str:
    return f"list_sum(list_transform({entries}, lambda e: e.value))::BIGINT"


def rank_of(percentile: str, total: str) -> str:
    """Return how many of all logs a percentile reaches, rounded half up."""
    return f"({total} * {percentile} + 50) // 100"


def told_of_bucket(metric: Metric, key: str) -> str:
    """Return what a metric of percentiles tells of a bucket."""
    if metric.function.finish is finish_relative_percentile:
        return told_ns_sql(start_ns_sql(key))
    return f"{key} * {metric.parameters[0]}"


def _named(entries: str, keys: str, told: str) -> str:
    """Return a struct of what is told of the key at each percentile."""
    values = f"list_transform({keys}, lambda key: {told})"
    named = ", ".join(f"'p{p}': told[{at}]" for at, p in enumerate(PERCENTILES, start=1))
    structs = f"list_transform([{values}], lambda told: {{{named}}})[1]"
    return f"CASE WHEN {entries} IS NOT NULL THEN {structs} END"


def _sum_of_key(entries: str, key: str) -> str:
    matching = f"list_filter({entries}, lambda e: e.key = {key})"
    total = f"coalesce(list_sum(list_transform({matching}, lambda e: e.value)), 0)"
    return f"least(greatest({total}, {_SMALLEST}), {_LARGEST})::BIGINT"


def finish_histogram(states: Sequence[str], _minutes: str, parameters: tuple[int, ...]) -> str:
    """Return all buckets, empty ones included."""
    step, steps = parameters
    entry = f"{{'k': i * {step}, 'v': {_sum_of_key(states[0], 'i')}}}"
    all_buckets = f"list_transform(range({steps + 1}), lambda i: {entry})"
    return f"CASE WHEN {states[0]} IS NOT NULL THEN map_from_entries({all_buckets}) END"


def _top_labels(counts: str, sums: str, parameters: tuple[int, ...], value: str) -> str:
    """Return a map of the labels with the most logs; which ones does not depend on order.

    `value` is in terms of `logs`, a label's logs, and `total`, the sum of its values.
    """
    most = parameters[0] if parameters else DEFAULT_LABELS
    entries = (
        f"SELECT unnest({counts}) AS e, true AS counted "
        f"UNION ALL SELECT unnest({sums}) AS e, false AS counted"
    )
    clamped = f"least(greatest({{}}, {_SMALLEST}), {_LARGEST})::BIGINT"
    by_label = (
        f"SELECT e.key AS label, "
        f"{clamped.format('sum(e.value) FILTER (counted)')} AS logs, "
        f"{clamped.format('coalesce(sum(e.value) FILTER (NOT counted), 0)')} AS total "
        f"FROM ({entries}) GROUP BY ALL"
    )
    ranked = f"list({{'k': label, 'v': {value}}} ORDER BY logs DESC, label)[1:{most}]"
    return f"(SELECT map_from_entries({ranked}) FROM ({by_label}))"


def finish_label_count(states: Sequence[str], _minutes: str, parameters: tuple[int, ...]) -> str:
    """Return the labels with the most logs."""
    return _top_labels(
        states[0], 'NULL::STRUCT("key" VARCHAR, "value" BIGINT)[]', parameters, "logs"
    )


def finish_label_avg(states: Sequence[str], _minutes: str, parameters: tuple[int, ...]) -> str:
    """Return the averages of the labels with the most logs, 1 for what is cut to 0."""
    sums, counts = states
    average = "total // logs"
    shown = f"CASE WHEN {average} = 0 AND total <> 0 THEN 1 ELSE {average} END"
    return _top_labels(counts, sums, parameters, shown)
