"""Stage 4: the addresses of each connection -> services and pods (analysis.md, section 2).

Distinct connections are resolved, not logs. Addresses mean something as of the event's time:
the moments at which any address changes its meaning cut the time of a batch into epochs, and
a connection is resolved once for each epoch in which it has logs (nearly always one).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.counters import Counters
from framewalk.engine.kubernetes import NO_SERVICE
from framewalk.engine.schemas import (
    COMPONENT_IDS,
    INSTANCE_LENGTH,
    NAMELESS_SCHEMA,
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


# Of four bytes each.
_MOST_IN_TABLE: Final = 4 * 2**20


@dataclass(frozen=True, slots=True)
class ResolvedLogs:
    """Logs whose connection is known to count.

    `operations` are log frames with `peer` (UInt32, a row of `peers`) in place of
    `connection`; `peers` has the columns of PEER_SCHEMA, each row once. `nameless` has
    NAMELESS_SCHEMA, each row once.
    """

    peers: pl.DataFrame
    operations: Mapping[str, pl.DataFrame]
    counters: Counters
    nameless: pl.DataFrame


def resolve(logs: LogFrames, entities: Entities) -> ResolvedLogs:
    """Resolve the connections of the logs; drop and count logs that do not count."""
    boundaries_ns = _boundaries_within(logs, entities)
    pairs = {name: _pairs(frame, boundaries_ns) for name, frame in logs.operations.items()}
    visited, numbers = _visited(pairs, logs.connections.height * (boundaries_ns.len() + 1))
    frames = {
        operation: frame.drop("connection").with_columns(numbers[operation])
        for operation, frame in logs.operations.items()
    }
    visits = _visits(visited, logs, boundaries_ns)
    named = _name_sides(visits, entities)
    peers, peer_of_visit = _distinct_peers(named)
    reason_of_visit = _by_visit(named, "reason")

    dropped: Counter[str] = Counter()
    operations = {
        operation: _keep_counting(frame, peer_of_visit, reason_of_visit, dropped)
        for operation, frame in frames.items()
    }
    counters = logs.counters + Counters(dropped=dropped)
    return ResolvedLogs(peers, operations, counters, _nameless(named, peer_of_visit))


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


def _visited(pairs: Mapping[str, pl.Series], most: int) -> tuple[pl.Series, dict[str, pl.Series]]:
    """Return the pairs that occur, in order, and the number of each log's pair as `visit`.

    There are at most `most` pairs. As long as they are few, a table of all is a tenth of the work
    of a search.
    """
    if most > _MOST_IN_TABLE:
        visited = pl.concat(pairs.values()).unique().sort()
        found = {
            name: pl.Series("visit", visited.search_sorted(each), dtype=pl.UInt32)
            for name, each in pairs.items()
        }
        return visited, found
    occurs = pl.zeros(most, dtype=pl.Boolean, eager=True)
    for each in pairs.values():
        occurs = occurs.scatter(each, values=True) if len(each) else occurs
    numbers = (occurs.cast(pl.UInt32).cum_sum() - occurs.cast(pl.UInt32)).alias("visit")
    return occurs.arg_true().cast(pl.UInt64), {
        name: numbers.gather(each) for name, each in pairs.items()
    }


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


def _name_sides(visits: pl.DataFrame, entities: Entities) -> pl.DataFrame:
    """Return PEER_SCHEMA, what NAMELESS_SCHEMA has, `visits` (those that agree) and `reason`.

    `reason` is why logs are dropped.
    """
    visits = visits.with_columns(port=_called_port(entities)).drop("local_port", "remote_port")
    columns = [name for name in visits.columns if name != "visit"]
    distinct = visits.group_by(columns).agg(visits="visit").with_columns(remote_ip=_remote_ip())
    looked_up = pl.concat([distinct, *_looked_up(distinct, entities)], how="horizontal")
    return (
        looked_up.with_columns(*_side("local"), *_side("remote"))
        .with_columns(
            reason=_reason(),
            role=_member(ROLES, "role"),
            tls_mode=_member(TLS_MODES, "tls_mode").fill_null(TLS_MODES[0]),
            components=_components(),
            local_known=pl.col("local_service").is_not_null(),
            local_reason=_why_nameless("local"),
            remote_reason=_why_nameless("remote"),
        )
        .with_columns(
            pl.col("local_service", "remote_service").fill_null(UNKNOWN),
            local_instance=_instance("local"),
            remote_instance=_instance("remote"),
        )
        .select(*PEER_SCHEMA, *_OF_NAMELESS, "visits", "reason")
    )


_OF_NAMELESS: Final = [name for name in NAMELESS_SCHEMA if name != "peer"]
_SIDES: Final = ("local", "remote")
_SERVER: Final = ROLES.index("server")


def _is_called(side: str) -> pl.Expr:
    is_server = pl.col("role") == _SERVER
    return is_server if side == "local" else ~is_server


def _called_port(entities: Entities) -> pl.Expr:
    """Return the port of the called side where it is a part of its address.

    The other side's is a new one for each connection.
    """
    is_local = pl.when(_is_called("local"))
    is_ip = is_local.then(~pl.col("local_is_kubernetes")).otherwise(~pl.col("remote_is_kubernetes"))
    ip = pl.when(_is_called("local")).then("local_ip").otherwise("remote_ip")
    port = pl.when(_is_called("local")).then("local_port").otherwise("remote_port")
    matters = is_ip & ~ip.is_in(entities.plain_ips.implode())
    return pl.when(matters).then(port).otherwise(pl.lit(0)).cast(pl.Int32)


def _looked_up(distinct: pl.DataFrame, entities: Entities) -> list[pl.DataFrame]:
    """Return what is known of the IP addresses of both sides; nulls where a side has none."""
    sides = [
        distinct.select(
            "time_ns",
            "port",
            cluster="cluster_name",
            ip=f"{side}_ip",
            is_called=_is_called(side),
            is_ip=~pl.col(f"{side}_is_kubernetes"),
        )
        for side in _SIDES
    ]
    both = pl.concat(sides)
    # Most sides are Pods that Rover named itself.
    found = entities.lookup(both.filter("is_ip"))
    number = pl.when(both["is_ip"]).then(both["is_ip"].cum_sum() - 1)
    placed = found.select(pl.all().gather(number))
    halves = (placed.head(distinct.height), placed.tail(distinct.height))
    return [
        half.select(pl.all().name.prefix(f"{side}_found_"))
        for half, side in zip(halves, _SIDES, strict=True)
    ]


def _remote_ip() -> pl.Expr:
    outbound = pl.col("has_ztunnel") & (pl.col("ztunnel_by") == 0) & (pl.col("ztunnel_ip") != "")
    return pl.when(outbound).then("ztunnel_ip").otherwise("remote_ip")


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
    ]


def _why_nameless(side: str) -> pl.Expr:
    """Say why a side has no name; null where it has one."""
    why = (
        pl.when(pl.col(f"{side}_is_kubernetes"))
        .then(pl.lit(NO_SERVICE))
        .otherwise(f"{side}_found_reason")
    )
    return pl.when(pl.col(f"{side}_service").is_null()).then(why)


def _not_empty(column: str) -> pl.Expr:
    return pl.when(pl.col(column) != "").then(column)


def _instance(side: str) -> pl.Expr:
    """An unresolved side has the instance Unknown, whatever its pod is called."""
    unresolved = pl.col(f"{side}_service").is_null()
    return pl.when(unresolved).then(pl.lit(UNKNOWN)).otherwise(f"{side}_instance")


def _reason() -> pl.Expr:
    return pl.when(pl.col("local_service") == pl.col("remote_service")).then(pl.lit("same_service"))


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


def _nameless(named: pl.DataFrame, peer_of_visit: pl.Series) -> pl.DataFrame:
    """Return the connections with an end that has no name."""
    some = named.filter(
        pl.col("local_reason").is_not_null() | pl.col("remote_reason").is_not_null()
    )
    peer = peer_of_visit.gather(some["visits"].list.first(), null_on_oob=True)
    return some.select(peer.alias("peer"), *_OF_NAMELESS).unique().cast(NAMELESS_SCHEMA)


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
