"""Stage 4: the addresses of each connection -> services and pods (analysis.md, section 2).

Distinct connections are resolved, not logs. Addresses mean something as of the event's time:
the moments at which any address changes its meaning cut the time of a batch into epochs, and
a connection is resolved once for each epoch in which it has logs (nearly always one).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.counters import Counters
from framewalk.engine.schemas import (
    COMPONENT_IDS,
    INSTANCE_LENGTH,
    PEER_SCHEMA,
    ROLES,
    SERVICE_LENGTH,
    TLS_MODES,
    UNKNOWN,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.stages.flattening import LogFrames


@dataclass(frozen=True, slots=True)
class ResolvedLogs:
    """Logs whose connection is known to count.

    `operations` are log frames with `peer` (UInt32, a row of `peers`) in place of
    `connection`; `peers` has the columns of PEER_SCHEMA, each row once.
    """

    peers: pl.DataFrame
    operations: Mapping[str, pl.DataFrame]
    counters: Counters


def resolve(logs: LogFrames, entities: Entities) -> ResolvedLogs:
    """Resolve the connections of the logs; drop and count logs that do not count."""
    boundaries_ns = _boundaries_within(logs, entities)
    pairs = {name: _pairs(frame, boundaries_ns) for name, frame in logs.operations.items()}
    visited = pl.concat(pairs.values()).unique().sort()
    frames = {
        operation: _with_visit(frame, pairs[operation], visited)
        for operation, frame in logs.operations.items()
    }
    logs, excluded = _numbered_policies(logs)
    visits = _visits(visited, logs, boundaries_ns)
    named = _name_sides(visits, excluded, entities)
    peers, peer_of_visit = _distinct_peers(named)
    reason_of_visit = _by_visit(named, "reason")

    dropped: Counter[str] = Counter()
    operations = {
        operation: _keep_counting(frame, peer_of_visit, reason_of_visit, dropped)
        for operation, frame in frames.items()
    }
    return ResolvedLogs(peers, operations, logs.counters + Counters(dropped=dropped))


def _numbered_policies(logs: LogFrames) -> tuple[LogFrames, pl.DataFrame]:
    """Give equal policies one number; return `policy` and `namespace` of all that they exclude."""
    distinct = (
        logs.policies.with_row_index("row")
        .group_by("exclude_namespaces", maintain_order=True)
        .agg("row")
        .with_row_index("policy")
    )
    number = distinct.select("policy", "row").explode("row").sort("row")["policy"]
    policy = number.gather(logs.connections["policy"]).alias("policy")
    excluded = (
        distinct.select("policy", namespace="exclude_namespaces")
        .explode("namespace")
        .drop_nulls()
        .unique()
    )
    return replace(logs, connections=logs.connections.with_columns(policy)), excluded


def _boundaries_within(logs: LogFrames, entities: Entities) -> pl.Series:
    """Return the moments inside the logs' time at which some address changes its meaning."""
    times = [frame["time_ns"] for frame in logs.operations.values() if frame.height]
    boundaries_ns = entities.boundaries_ns
    if not times:
        return boundaries_ns.clear()
    first = min(int(time.min()) for time in times)  # type: ignore[arg-type]
    last = max(int(time.max()) for time in times)  # type: ignore[arg-type]
    return boundaries_ns.filter((boundaries_ns > first) & (boundaries_ns <= last))


def _pairs(frame: pl.DataFrame, boundaries_ns: pl.Series) -> pl.Series:
    """Return each log's connection and epoch as one number."""
    connection = frame["connection"].cast(pl.UInt64)
    if boundaries_ns.is_empty():
        return connection.alias("pair")
    epoch = pl.Series(boundaries_ns.search_sorted(frame["time_ns"], side="right"))
    return (connection * (boundaries_ns.len() + 1) + epoch.cast(pl.UInt64)).alias("pair")


def _with_visit(frame: pl.DataFrame, pairs: pl.Series, visited: pl.Series) -> pl.DataFrame:
    """Put `visit` in place of `connection`: the number of its pair among those that occur."""
    visit = pl.Series("visit", visited.search_sorted(pairs), dtype=pl.UInt32)
    return frame.drop("connection").with_columns(visit)


def _visits(visited: pl.Series, logs: LogFrames, boundaries_ns: pl.Series) -> pl.DataFrame:
    """Return the connection columns of each visit, and a `time_ns` inside its epoch."""
    epochs = boundaries_ns.len() + 1
    times = [frame["time_ns"].min() for frame in logs.operations.values()]
    first_ns = min((time for time in times if isinstance(time, int)), default=0)
    starts_ns = pl.concat([pl.Series([first_ns], dtype=pl.Int64), boundaries_ns.cast(pl.Int64)])
    return logs.connections[visited // epochs].with_columns(
        visit=pl.int_range(visited.len(), dtype=pl.UInt32, eager=True),
        time_ns=starts_ns.gather(visited % epochs),
    )


def _name_sides(visits: pl.DataFrame, excluded: pl.DataFrame, entities: Entities) -> pl.DataFrame:
    """Return PEER_SCHEMA, `visits` (the list of visits that agree) and `reason` to drop."""
    columns = [name for name in visits.columns if name != "visit"]
    distinct = visits.group_by(columns).agg(visits="visit").with_columns(remote_ip=_remote_ip())
    found = {
        side: entities.lookup(distinct.select(f"{side}_ip", "time_ns").rename({f"{side}_ip": "ip"}))
        for side in ("local", "remote")
    }
    looked_up = pl.concat(
        [
            distinct,
            *(
                frame.select(pl.all().name.prefix(f"{side}_found_"))
                for side, frame in found.items()
            ),
        ],
        how="horizontal",
    )
    for side in ("local", "remote"):
        looked_up = _with_exclusion(looked_up, side, excluded)
    return (
        looked_up.with_columns(*_side("local"), *_side("remote"))
        .with_columns(
            reason=_reason(),
            role=_member(ROLES, "role"),
            tls_mode=_member(TLS_MODES, "tls_mode").fill_null(TLS_MODES[0]),
            components=_components(),
            local_known=pl.col("local_service").is_not_null(),
        )
        .with_columns(
            pl.col("local_service", "remote_service").fill_null(UNKNOWN),
            local_instance=_instance("local"),
            remote_instance=_instance("remote"),
        )
        .select(*PEER_SCHEMA, "visits", "reason")
    )


def _remote_ip() -> pl.Expr:
    outbound = pl.col("has_ztunnel") & (pl.col("ztunnel_by") == 0) & (pl.col("ztunnel_ip") != "")
    return pl.when(outbound).then("ztunnel_ip").otherwise("remote_ip")


def _with_exclusion(looked_up: pl.DataFrame, side: str, excluded: pl.DataFrame) -> pl.DataFrame:
    """Add whether the node's policy excludes the namespace that was found for a side."""
    name = f"{side}_excluded"
    if excluded.is_empty():
        return looked_up.with_columns(pl.lit(value=False).alias(name))
    return looked_up.join(
        excluded.with_columns(pl.lit(value=True).alias(name)),
        left_on=["policy", f"{side}_found_namespace"],
        right_on=["policy", "namespace"],
        how="left",
        maintain_order="left",
    ).with_columns(pl.col(name).fill_null(value=False))


def _side(side: str) -> list[pl.Expr]:
    """Name one side: null where it is unresolved, cut to its limit."""
    is_kubernetes = pl.col(f"{side}_is_kubernetes")
    prefix = (
        pl.when(pl.col("cluster_name") != "")
        .then(pl.col("cluster_name") + "::")
        .otherwise(pl.lit(""))
    )
    service = (
        pl.when(is_kubernetes)
        .then(_not_empty(f"{side}_service"))
        .otherwise(prefix + pl.col(f"{side}_found_service"))
    )
    instance = (
        pl.when(is_kubernetes).then(_not_empty(f"{side}_pod")).otherwise(f"{side}_found_instance")
    )
    return [
        service.str.head(SERVICE_LENGTH).alias(f"{side}_service"),
        instance.str.head(INSTANCE_LENGTH).alias(f"{side}_instance"),
        (~is_kubernetes & pl.col(f"{side}_excluded")).alias(f"{side}_excluded"),
    ]


def _not_empty(column: str) -> pl.Expr:
    return pl.when(pl.col(column) != "").then(column)


def _instance(side: str) -> pl.Expr:
    """An unresolved side has the instance Unknown, whatever its pod is called."""
    unresolved = pl.col(f"{side}_service").is_null()
    return pl.when(unresolved).then(pl.lit(UNKNOWN)).otherwise(f"{side}_instance")


def _reason() -> pl.Expr:
    return (
        pl.when(pl.col("local_excluded") | pl.col("remote_excluded"))
        .then(pl.lit("excluded_namespace"))
        .when(pl.col("local_service") == pl.col("remote_service"))
        .then(pl.lit("same_service"))
    )


def _member(names: tuple[str, ...], column: str) -> pl.Expr:
    """Name an enum number; null where it is not in the enum."""
    return pl.col(column).replace_strict(
        list(range(len(names))), list(names), default=None, return_dtype=pl.String
    )


_HTTP_PROTOCOLS: Final = (1, 2)
_TLS: Final = 1
_MTLS: Final = 0


def _components() -> pl.Expr:
    """Return the bits of the component ids (analysis.md, section 3)."""
    http = pl.col("protocol").is_in(_HTTP_PROTOCOLS)
    tls = pl.col("tls_mode") == _TLS
    mtls = pl.col("ztunnel_policy") == _MTLS
    return (
        pl.when("has_ztunnel")
        .then(pl.when(mtls).then(_bits(142, 162)).otherwise(_bits(162)))
        .when(http)
        .then(pl.when(tls).then(_bits(129)).otherwise(_bits(49)))
        .otherwise(pl.when(tls).then(_bits(130)).otherwise(_bits(110)))
    )


def _bits(*component_ids: int) -> pl.Expr:
    return pl.lit(sum(1 << COMPONENT_IDS.index(component_id) for component_id in component_ids))


def _distinct_peers(named: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """Return the distinct peers of visits that count, and the peer of each visit."""
    grouped = (
        named.filter(pl.col("reason").is_null())
        .group_by(*PEER_SCHEMA)
        .agg(pl.col("visits").explode())
        .with_row_index("peer")
    )
    return grouped.select(*PEER_SCHEMA).cast(PEER_SCHEMA), _by_visit(grouped, "peer")


def _by_visit(frame: pl.DataFrame, column: str) -> pl.Series:
    """Return `column` so that element number v is that of visit v; null for other visits."""
    pairs = frame.select("visits", column).explode("visits").sort("visits")
    highest = pairs["visits"].max()
    length = highest + 1 if isinstance(highest, int) else 0
    every = pl.DataFrame({"visits": pl.int_range(length, dtype=pl.UInt32, eager=True)})
    return every.join(pairs, on="visits", how="left", maintain_order="left")[column]


def _keep_counting(
    frame: pl.DataFrame, peer_of_visit: pl.Series, reason_of_visit: pl.Series, dropped: Counter[str]
) -> pl.DataFrame:
    reason = reason_of_visit.gather(frame["visit"])
    keep = reason.is_null()
    if keep.all():
        peer = peer_of_visit.gather(frame["visit"])
        return frame.drop("visit").insert_column(0, peer.alias("peer"))
    for name, count in reason.drop_nulls().value_counts().rows():
        dropped[name] += count
    frame = frame.filter(keep)
    peer = peer_of_visit.gather(frame["visit"])
    return frame.drop("visit").insert_column(0, peer.alias("peer"))
