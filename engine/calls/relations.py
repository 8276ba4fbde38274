"""Calls -> states of relations between endpoints, per minute (analysis.md, sections 3 and 6)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.calls.connections import TCP_LOGS_SCHEMA, connections_of, counted
from framewalk.engine.calls.logs import HTTP_LOGS_SCHEMA, as_numbers
from framewalk.engine.calls.pairing import (
    CLIENT_LOG,
    OBSERVED_BY,
    SERVER_LOG,
    pair,
    pair_sides,
    sides_of,
)
from framewalk.engine.calls.sources import (
    DERIVATION,
    SOURCE_LOG,
    with_sources,
    with_sources_among,
)
from framewalk.engine.counters import Counters
from framewalk.engine.schemas import (
    LONGEST_SERVED_NS,
    PEER_SCHEMA,
    UNKNOWN,
    UNKNOWN_DERIVATION,
    UNKNOWN_PEERS_SCHEMA,
)
from framewalk.engine.stages import ResolvedLogs, endpoint_expression, log_states, roll_up
from framewalk.engine.states import MINUTE, empty_states, merge_scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from framewalk.engine.oal import EndpointPatterns, Plan, ScopePlan
    from framewalk.engine.states import ScopeStates

VIEW: Final = "endpoint_relation"
NS_PER_MINUTE: Final = 60 * 10**9
# How far the logs may be from a minute that take part in its calls: the longest request that is
# followed, and the largest offset between two clocks.
WINDOW_NS: Final = 65 * 10**9
_SEEN_BY: Final = ("both", "client", "server")
_KEYS: Final = ("source_service", "source_endpoint", "dest_service", "dest_endpoint", DERIVATION)
_NS_PER_MS: Final = 1_000_000
# What a metric may ask of a call, as the log has it whose figures count.
_FIGURES: Final = (
    "duration_ns",
    "serving_duration_ns",
    "tls_mode",
    "components",
    *(name for name in HTTP_LOGS_SCHEMA if name.endswith("_bytes")),
    "method",
    "path",
    "status_code",
)


def _no_connections() -> pl.DataFrame:
    return counted(TCP_LOGS_SCHEMA.to_frame().with_columns(source_endpoint=pl.lit(None, pl.String)))


@dataclass(frozen=True, slots=True)
class Relations:
    """The relations between endpoints: `states` of all metrics of their scope.

    `observed` has the names of a relation, `minute` and how many of its calls were seen by `both`
    sides, by the `client` or the `server` alone (Int64). `connections` are what `connections_of`
    gives.
    """

    states: ScopeStates
    observed: pl.DataFrame
    connections: pl.DataFrame = field(default_factory=_no_connections)

    @staticmethod
    def added(scope: ScopePlan, parts: Sequence[Relations]) -> Relations:
        """Return the relations of several frames of calls together; each call is in one."""
        observed = pl.concat([_observed(_no_calls()), *(part.observed for part in parts)])
        keys = [name for name in observed.columns if name not in _SEEN_BY]
        counts = observed.group_by(keys).agg(pl.col(_SEEN_BY).sum()).sort(keys)
        return Relations(merge_scope(scope, [part.states for part in parts]), counts)


def calls_of(logs: pl.DataFrame, patterns: EndpointPatterns | None = None) -> pl.DataFrame:
    """Return the calls that HTTP logs (HTTP_LOGS_SCHEMA) are of, each once.

    `time_ns` is when it counts: when the server began to serve, by its node's clock, else when the
    client began to write. `source_service`, `dest_service`, both endpoints, `derivation` and
    `observed_by` say who called whom for what; the figures are those of the server's log, else of
    the client's.
    """
    numbers = as_numbers(logs)
    every = _with_time(pair(numbers), logs)
    return _named(with_sources(every, numbers), logs, patterns)


def _named(
    calls: pl.DataFrame, logs: pl.DataFrame, patterns: EndpointPatterns | None
) -> pl.DataFrame:
    of_client = logs.select(source="local_service", dest="remote_service")[calls[CLIENT_LOG]]
    of_server = logs.select(source="remote_service", dest="local_service")[calls[SERVER_LOG]]
    counted = pl.select(pl.coalesce(calls[SERVER_LOG], calls[CLIENT_LOG])).to_series()
    asked = logs.select("method", "path", service="local_service")[calls[SOURCE_LOG]]
    rows = logs.select(_FIGURES)[counted].with_columns(
        time_ns=calls["time_ns"],
        source_service=_known(of_client["source"], of_server["source"]),
        source_endpoint=_endpoint(asked, asked["service"], patterns).fill_null(UNKNOWN),
        dest_service=_known(of_server["dest"], of_client["dest"]),
        derivation=calls[DERIVATION],
        observed_by=calls[OBSERVED_BY],
        latency_ms=pl.col("duration_ns") // _NS_PER_MS,
    )
    endpoint = _endpoint(rows, rows["dest_service"], patterns)
    return rows.with_columns(endpoint.alias("dest_endpoint"))


def _with_time(calls: pl.DataFrame, logs: pl.DataFrame) -> pl.DataFrame:
    """Say when calls count."""
    counted = pl.select(pl.coalesce(calls[SERVER_LOG], calls[CLIENT_LOG])).to_series()
    served_ns = logs["serving_start_ns"].gather(calls[SERVER_LOG])
    own_ns = logs["time_ns"].gather(counted)
    return calls.with_columns(time_ns=pl.coalesce(served_ns, "start_ns", own_ns))


def relations_of(
    logs: pl.DataFrame,
    plan: Plan,
    minutes: Iterable[int] | None = None,
    tcp: pl.DataFrame | None = None,
) -> Relations:
    """Return the relations of some minutes (since 1970), or of all that the logs have calls in.

    `logs` are all HTTP logs within WINDOW_NS of these minutes, or LONGEST_SERVED_NS before that,
    which may still have been served then. What comes of a minute depends on nothing else. `tcp` are
    logs of connections of these minutes, see `connections_of`.
    """
    numbers = as_numbers(logs)
    sides = sides_of(numbers)
    # As lengths: no end is beyond the range of times.
    lasts_ns = sides["end_ns"] - sides["start_ns"]
    ends_ns = sides["start_ns"] + lasts_ns.clip(upper_bound=LONGEST_SERVED_NS)
    if minutes is None:
        starts = pl.concat([sides["start_ns"], logs["time_ns"]]) // NS_PER_MINUTE
        minutes = pl.concat([starts - 1, starts, starts + 1]).unique().sort().to_list()
    if tcp is not None:
        endpoints = _endpoint(logs, logs["local_service"], plan.endpoint_patterns)
    none = numbers.clear()
    found, connections = [with_sources(_with_time(pair(none), none), none)], [_no_connections()]
    for minute in minutes:
        first_ns, end_ns = minute * NS_PER_MINUTE, (minute + 1) * NS_PER_MINUTE
        is_near = (sides["start_ns"] < end_ns + WINDOW_NS) & (ends_ns >= first_ns - WINDOW_NS)
        near = sides.filter(is_near)
        every = _with_time(pair_sides(near), numbers)
        of_minute = every.filter(pl.col("time_ns") // NS_PER_MINUTE == minute)
        found.append(with_sources_among(of_minute, numbers, every, near))
        if tcp is not None:
            own_tcp = tcp.filter(pl.col("time_ns") // NS_PER_MINUTE == minute)
            connections.append(connections_of(own_tcp, logs, endpoints, near, every))
    calls = _named(pl.concat(found), logs, plan.endpoint_patterns)
    scope = next(scope for scope in plan.scopes if scope.scope.view == VIEW)
    states = _states(calls, plan) if calls.height else empty_states(scope)
    return Relations(states, _observed(calls), pl.concat(connections))


def relations_as_called(logs: pl.DataFrame, plan: Plan) -> Relations:
    """Return relations of what called sides saw alone: from unknown endpoints.

    For logs (HTTP_LOGS_SCHEMA) that are too many to put them together.
    """
    rows = logs.filter(pl.col("role") == "server")
    calls = rows.select(_FIGURES).with_columns(
        rows.select(
            time_ns=pl.coalesce("serving_start_ns", "time_ns"),
            source_service="remote_service",
            dest_service="local_service",
        ),
        source_endpoint=pl.lit(UNKNOWN),
        derivation=pl.lit(UNKNOWN_DERIVATION),
        observed_by=pl.lit("server"),
        latency_ms=pl.col("duration_ns") // _NS_PER_MS,
    )
    endpoint = _endpoint(calls, calls["dest_service"], plan.endpoint_patterns)
    calls = calls.with_columns(endpoint.alias("dest_endpoint"))
    return Relations(_states(calls, plan), _observed(calls))


def _known(first: pl.Series, second: pl.Series) -> pl.Series:
    """Return who is at one end: as the one log knows it, else the other."""
    is_known = first.is_not_null() & (first != UNKNOWN)
    other = pl.coalesce(second, first)
    return pl.select(pl.when(is_known).then(first).otherwise(other)).to_series()


def _endpoint(
    rows: pl.DataFrame, services: pl.Series, patterns: EndpointPatterns | None
) -> pl.Series:
    return rows.select(
        pl.when(pl.col("path").is_not_null()).then(endpoint_expression(patterns, services))
    ).to_series()


def _states(calls: pl.DataFrame, plan: Plan) -> ScopeStates:
    """Compute the states of calls as those of logs are, by the called side."""
    scope = next(scope for scope in plan.scopes if scope.scope.view == VIEW)
    wanted = {str(share.log_state) for share in scope.shares}
    states = tuple(state for state in plan.log_states["http"] if str(state) in wanted)
    own = replace(plan, scopes=(scope,), log_states=MappingProxyType({"http": states}))
    rows = calls.with_columns(
        local_service=pl.col("dest_service"),
        local_instance=pl.lit(None, pl.String),
        local_known=pl.col("dest_service") != UNKNOWN,
        remote_service=pl.col("source_service"),
        remote_instance=pl.lit(None, pl.String),
        role=pl.lit("server"),
    )
    keys = [*PEER_SCHEMA, "source_endpoint", DERIVATION]
    peers = rows.select(keys).unique(maintain_order=True)
    numbers = rows.join(
        peers.with_row_index("peer"), on=keys, how="left", nulls_equal=True, maintain_order="left"
    )["peer"]
    http = rows.drop(*keys, *_KEYS, OBSERVED_BY, strict=False).with_columns(numbers)
    nobody = pl.DataFrame(schema=UNKNOWN_PEERS_SCHEMA)
    logs = ResolvedLogs(peers, {"http": http}, Counters(), nobody)
    return roll_up([log_states(logs, own)], own).scopes[VIEW]


def _observed(calls: pl.DataFrame) -> pl.DataFrame:
    return (
        calls.group_by(*_KEYS, (pl.col("time_ns") // NS_PER_MINUTE).alias(MINUTE))
        .agg((pl.col(OBSERVED_BY) == seen).sum().cast(pl.Int64).alias(seen) for seen in _SEEN_BY)
        .sort(*_KEYS, MINUTE)
    )


def _no_calls() -> pl.DataFrame:
    return calls_of(HTTP_LOGS_SCHEMA.to_frame())
