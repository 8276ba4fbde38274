"""Which request a call was made for (analysis.md, section 6): told by its trace, or by time alone.

A call was made for a request that was being served in the caller's Pod over the whole call. That is
found without comparing each call with each request: of those that began before the call, the one
that ends last is it if no other ends after the call, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.calls.pairing import CLIENT_LOG, SERVER_LOG, sides_of
from framewalk.engine.schemas import UNKNOWN_DERIVATION

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE_LOG: Final = "source_log"
DERIVATION: Final = "derivation"
EXACT: Final = "exact"
INFERRED: Final = "inferred"

_POD: Final = ("cluster", "pod")
_TRACE: Final = ("trace_provider", "trace_id")
_CONTEXT: Final = ("trace_segment_id", "trace_span_id")
_REQUESTS: Final = "requests"
_GROUP: Final = "group"


def with_sources(calls: pl.DataFrame, logs: pl.DataFrame) -> pl.DataFrame:
    """Add SOURCE_LOG (UInt32: the request's own log, a row of `logs`, or null) and DERIVATION.

    `calls` are those that `pair` makes of `logs`.
    """
    return with_sources_among(calls, logs, calls, sides_of(logs))


def with_sources_among(
    calls: pl.DataFrame, logs: pl.DataFrame, every: pl.DataFrame, sides: pl.DataFrame
) -> pl.DataFrame:
    """Do the same for some calls of `every` that `pair_sides` makes of `sides`."""
    requests = _requests(sides)
    asked = _asked(calls, logs)
    served = requests.filter("is_served")
    traced = served.filter(pl.col("trace_id").is_not_null())
    by_trace = _over_whole_call(asked, traced, [*_POD, *_TRACE])
    # The others are asked only where the trace does not tell.
    of_several = _only(asked, by_trace[_REQUESTS] > 1)
    by_context = _over_whole_call(of_several, traced, [*_POD, *_TRACE, *_CONTEXT])
    unseen = _unseen_requests(every, logs)
    of_none = _only(asked, by_trace[_REQUESTS] == 0)
    by_time = _over_whole_call(of_none, pl.concat([requests, unseen], how="diagonal"), list(_POD))
    found = asked.select(
        "end_ns",
        *_TRACE,
        **_named(by_trace, "trace"),
        **_named(by_context, "context"),
        **_named(by_time, "time"),
        named=_carrying_the_same(asked, traced),
    )
    exact = (
        pl.when(pl.col("end_ns").is_null())
        .then("named")
        .when(pl.col("trace_requests") == 1)
        .then("trace_log")
        .when((pl.col("trace_requests") > 1) & (pl.col("context_requests") == 1))
        .then("context_log")
    )
    is_open = pl.col("trace_requests") == 0
    inferred = pl.when(is_open & (pl.col("time_requests") == 1)).then("time_log")
    picked = found.select(exact=exact, inferred=inferred, **{n: pl.col(n) for n in _TRACE})
    picked = picked.with_columns(_without_contradiction(picked, requests))
    return calls.with_columns(
        picked.select(
            pl.coalesce("exact", "inferred").alias(SOURCE_LOG),
            pl.when(pl.col("exact").is_not_null())
            .then(pl.lit(EXACT))
            .when(pl.col("inferred").is_not_null())
            .then(pl.lit(INFERRED))
            .otherwise(pl.lit(UNKNOWN_DERIVATION))
            .alias(DERIVATION),
        )
    )


def served_meanwhile(
    asked: pl.DataFrame, sides: pl.DataFrame, logs: pl.DataFrame, calls: pl.DataFrame
) -> pl.Series:
    """Return the one request (a row of `logs`) that was being served over each time, or null.

    `asked` has `cluster`, `pod`, `start_ns` and `end_ns`, as `logs` have them; `calls` are those
    that `pair_sides` makes of `sides`.
    """
    served = _requests(sides).select("log", "start_ns", "end_ns", "is_served")
    served = served.with_columns(logs.select("cluster", pod="local_pod")[served["log"]])
    requests = pl.concat([served, _unseen_requests(calls, logs)], how="diagonal")
    found = _over_whole_call(asked, requests, list(_POD))
    only = found.select(pl.when(pl.col(_REQUESTS) == 1).then("log").alias("log"))
    known = served.filter("is_served").select("log", own="log")
    # An unseen request has the number of its client's log, and was not served for all we know.
    return only.join(known, on="log", how="left", maintain_order="left")["own"]


def _requests(sides: pl.DataFrame) -> pl.DataFrame:
    """Return the requests that servers saw; one that nothing tells the serving of is not served."""
    return sides.filter("is_server").select(
        "log",
        "cluster",
        *_TRACE,
        *_CONTEXT,
        "start_ns",
        "end_ns",
        "is_served",
        pod="server_pod",
    )


def _unseen_requests(calls: pl.DataFrame, logs: pl.DataFrame) -> pl.DataFrame:
    """Return the requests that only their clients saw: somebody else may have been served."""
    alone = calls.filter(pl.col(SERVER_LOG).is_null())
    called = logs.select("cluster", pod="remote_pod")[alone[CLIENT_LOG]]
    return called.with_columns(
        log=alone[CLIENT_LOG], start_ns=alone["there_start_ns"], end_ns=alone["there_end_ns"]
    )


def _asked(calls: pl.DataFrame, logs: pl.DataFrame) -> pl.DataFrame:
    """Return the Pod, the time and the trace of each call, in the order of `calls`."""
    own = logs.select("cluster", *_TRACE, *_CONTEXT, pod="local_pod")[calls[CLIENT_LOG]]
    other = logs.select("cluster", *_TRACE, *_CONTEXT, pod="remote_pod")[calls[SERVER_LOG]]
    # All that is said of a trace is from the same log.
    is_own = own["trace_id"].is_not_null() | other["trace_id"].is_null()
    columns = {
        name: pl.coalesce(own[name], other[name])
        if name in _POD
        else pl.when(is_own).then(own[name]).otherwise(other[name])
        for name in own.columns
    }
    return calls.select("start_ns", "end_ns", **columns)


def _only(asked: pl.DataFrame, which: pl.Series) -> pl.DataFrame:
    """Leave out the times of what is not asked, which then has no answer."""
    return asked.with_columns(pl.when(which).then(pl.col("start_ns", "end_ns")))


def _over_whole_call(asked: pl.DataFrame, requests: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Return how many of the requests that are alike in `by` lasted over each call, and the first.

    `requests` is 0, 1, or 2 for several; `log` is that of the one.
    """
    place = pl.int_range(pl.len(), dtype=pl.UInt32)
    last_start_ns, first_end_ns = asked["start_ns"].max(), asked["end_ns"].min()
    lasting = (pl.col("start_ns") <= pl.lit(last_start_ns, pl.Int64)) & (
        pl.col("end_ns") >= pl.lit(first_end_ns, pl.Int64)
    )
    requests = requests.filter(lasting)
    # One number is told apart faster than several columns.
    groups = requests.select(by).unique().with_row_index(_GROUP)
    last_ns, before_ns = pl.col("last_ns"), pl.col("before_ns")
    begun = (
        requests.with_columns(_group_of(requests, groups, by))
        .sort("start_ns", maintain_order=True)
        .with_columns(last_ns=pl.col("end_ns").cum_max().over(_GROUP))
        .with_columns(before_ns=last_ns.shift(1).over(_GROUP))
        .with_columns(
            # The second that ends last: what is overtaken, or does not overtake.
            second_ns=pl.when(before_ns.is_not_null())
            .then(pl.min_horizontal("end_ns", before_ns))
            .otherwise(-1),
            last_log=pl.when(pl.col("end_ns") > before_ns.fill_null(-1)).then("log"),
        )
        .select(
            _GROUP,
            "last_ns",
            pl.col("second_ns").cum_max().over(_GROUP),
            pl.col("last_log").forward_fill().over(_GROUP),
            begun_ns="start_ns",
        )
    )
    return (
        asked.select(place.alias("place"), "start_ns", "end_ns", _group_of(asked, groups, by))
        .drop_nulls(["start_ns", _GROUP])
        .sort("start_ns", maintain_order=True)
        .join_asof(
            begun,
            left_on="start_ns",
            right_on="begun_ns",
            by=_GROUP,
            strategy="backward",
            check_sortedness=False,  # polars cannot check it within groups, and says so
        )
        .select(
            "place",
            log="last_log",
            requests=(pl.col("last_ns") >= pl.col("end_ns")).fill_null(value=False).cast(pl.UInt8)
            + (pl.col("second_ns") >= pl.col("end_ns")).fill_null(value=False).cast(pl.UInt8),
        )
        .join(asked.select(place.alias("place")), on="place", how="right", maintain_order="right")
        .select("log", pl.col(_REQUESTS).fill_null(0))
    )


def _group_of(rows: pl.DataFrame, groups: pl.DataFrame, by: list[str]) -> pl.Series:
    return rows.select(by).join(groups, on=by, how="left", maintain_order="left")[_GROUP]


def _named(found: pl.DataFrame, name: str) -> dict[str, pl.Series]:
    return {f"{name}_log": found["log"], f"{name}_requests": found[_REQUESTS]}


def _carrying_the_same(asked: pl.DataFrame, traced: pl.DataFrame) -> pl.Series:
    """Return the one request of the caller's Pod that came with the trace headers of the call."""
    by = [*_POD, *_TRACE, *_CONTEXT]
    only = traced.group_by(by).agg(pl.col("log").min(), count=pl.len()).filter(pl.col("count") == 1)
    return asked.join(only, on=by, how="left", maintain_order="left")["log"]


def _without_contradiction(picked: pl.DataFrame, requests: pl.DataFrame) -> Sequence[pl.Expr]:
    """Take back what is inferred of a request that nothing tells, or is of another trace."""
    of_request = picked.select(log="inferred").join(
        requests.select("log", "is_served", *_TRACE), on="log", how="left", maintain_order="left"
    )
    is_other = (of_request["trace_provider"] == picked["trace_provider"]) & (
        of_request["trace_id"] != picked["trace_id"]
    )
    holds = of_request["is_served"].fill_null(value=False) & ~is_other.fill_null(value=False)
    return [pl.when(pl.lit(holds)).then("inferred").alias("inferred")]
