"""Stage 4: the addresses of each connection -> services and pods (analysis.md, section 2).

Distinct connections are resolved, not logs. Addresses mean something as of the event's time: the
moments at which one of a batch's addresses changes its meaning cut its time into epochs, and a
connection is resolved once for each epoch in which it has logs (nearly always one).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.counters import Counters
from framewalk.engine.kubernetes import NO_SERVICE
from framewalk.engine.schemas import (
    INSTANCE_LENGTH,
    MOST_SKEW_NS,
    NEAR_CHANGE,
    PEER_SCHEMA,
    ROLES,
    SERVICE_LENGTH,
    TLS_MODES,
    UNKNOWN,
    UNKNOWN_KEYS,
    UNKNOWN_PEERS_SCHEMA,
)
from framewalk.engine.stages.columns import remote_ip
from framewalk.engine.stages.streams import addresses_of
from framewalk.engine.states import components_expression, sum_expression

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.stages.flattening import LogFrames


# Of four bytes each.
_MOST_IN_TABLE: Final = 4 * 2**20
_NS_PER_HOUR: Final = 3600 * 10**9
# Which bytes of a log went over the wire.
_BYTES: Final = {"read": "l2_total_package_size_bytes", "write": "l4_total_package_size_bytes"}


@dataclass(frozen=True, slots=True)
class ResolvedLogs:
    """Logs whose connection is known to count.

    `operations` are log frames with `peer` (UInt32, a row of `peers`) in place of
    `connection`; `peers` has the columns of PEER_SCHEMA, each row once. `unknown` has
    UNKNOWN_PEERS_SCHEMA, each key once, those of logs that do not count for it included. Where logs
    are to be kept `operations` have `connection` and `message` beside.
    """

    peers: pl.DataFrame
    operations: Mapping[str, pl.DataFrame]
    counters: Counters
    unknown: pl.DataFrame


def resolve(logs: LogFrames, entities: Entities) -> ResolvedLogs:
    """Resolve the connections of the logs; drop and count logs that do not count."""
    span = _span(logs)
    boundaries_ns = _boundaries_within(logs, span, entities)
    pairs = {name: _pairs(frame, boundaries_ns) for name, frame in logs.operations.items()}
    visited, numbers = _visited(pairs, logs.connections.height * (boundaries_ns.len() + 1))
    frames = {
        operation: _visiting(frame, numbers[operation])
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
    addresses = _addresses(named, frames)
    near = _near_changes(named, frames, span, entities) if span is not None else 0
    quality = Counter({NEAR_CHANGE: near} if near else {})
    counters = logs.counters + Counters(dropped=dropped, quality=quality, addresses=addresses)
    return ResolvedLogs(peers, operations, counters, _unknown_peers(named, frames))


def _visiting(frame: pl.DataFrame, visits: pl.Series) -> pl.DataFrame:
    """Have the number of each log's visit in place of, or beside, that of its connection."""
    is_kept = "message" in frame.columns
    return (frame if is_kept else frame.drop("connection")).with_columns(visits)


def with_nameless(batches: Sequence[pa.RecordBatch], entities: Entities) -> list[bool]:
    """Tell of each record batch of CAPTURE_SCHEMA whether nobody knows one of its addresses.

    That is as of when the last of all the messages was received; logs are not looked at.
    """
    found = [False] * len(batches)
    rows = addresses_of(batches)
    if rows.is_empty():
        return found
    address = [name for name in rows.columns if name != "batch"]
    latest_ns = max(map(received_ns, batches))
    distinct = rows.select(address).unique().with_columns(time_ns=pl.lit(latest_ns))
    unknown = distinct.filter(entities.lookup(distinct)["kind"].is_null())
    for batch in rows.join(unknown, on=address, how="semi")["batch"].unique():
        found[batch] = True
    return found


def received_ns(batch: pa.RecordBatch) -> int:
    """Return when the last message of a record batch was received, in ns since 1970."""
    return int(batch["received_at"][-1].value) if batch.num_rows else 0


def _addresses(named: pl.DataFrame, frames: Mapping[str, pl.DataFrame]) -> Counter[str]:
    """Count the addresses of logs by whether they stand for somebody."""
    is_ip = {side: ~pl.col(f"{side}_is_kubernetes") for side in _SIDES}
    is_known = {side: pl.col(f"{side}_reason").is_null() for side in _SIDES}
    known = pl.sum_horizontal((is_ip[side] & is_known[side]).cast(pl.UInt8) for side in _SIDES)
    every = pl.sum_horizontal(is_ip[side].cast(pl.UInt8) for side in _SIDES)
    # Both are at most two: one number tells both of a visit.
    of_visit = _by_visit(named.select("visits", both=known + every * 4), "both")
    of_logs = pl.concat(of_visit.gather(frame["visit"]) for frame in frames.values())
    found: Counter[str] = Counter()
    for both, count in of_logs.value_counts().iter_rows():
        found["known"] += both % 4 * count
        found["unknown"] += (both // 4 - both % 4) * count
    return +found


def _near_changes(
    named: pl.DataFrame, frames: Mapping[str, pl.DataFrame], span: tuple[int, int], table: Entities
) -> int:
    """Count the logs that have an address which changes hands at about the time of their event."""
    within = table.changes(span[0] - MOST_SKEW_NS, span[1] + MOST_SKEW_NS)
    if within.is_empty():
        return 0
    asked = pl.concat(
        named.select(
            "port",
            cluster="cluster_name",
            ip=f"{side}_ip",
            is_called=(pl.col("role") == "server") == (side == "local"),
            is_ip=~pl.col(f"{side}_is_kubernetes"),
        ).with_row_index("named")
        for side in _SIDES
    ).filter("is_ip")
    found = table.changes_of(asked, within)
    if found.is_empty():
        return 0
    changes = found.select(asked["named"].gather(found["row"]), "boundary_ns").unique()
    rows = changes.select(pl.col("named").unique())
    changing = named.select("visits").with_row_index("named").join(rows, on="named", how="semi")
    named_of_visit = _by_visit(changing, "named")
    logs = pl.concat(
        frame.select(
            "time_ns", named=pl.lit(named_of_visit.gather(frame["visit"], null_on_oob=True))
        ).drop_nulls()
        for frame in frames.values()
    )
    near = logs.sort("time_ns").join_asof(
        changes.sort("boundary_ns"),
        left_on="time_ns",
        right_on="boundary_ns",
        by="named",
        strategy="nearest",
        tolerance=MOST_SKEW_NS,
        coalesce=False,
        check_sortedness=False,  # polars cannot check it within groups, and says so
    )["boundary_ns"]
    return len(near) - near.null_count()


def _span(logs: LogFrames) -> tuple[int, int] | None:
    """Return the times of the first and of the last log; None without any."""
    times = [frame["time_ns"] for frame in logs.operations.values() if frame.height]
    if not times:
        return None
    first = min(int(time.min()) for time in times)  # type: ignore[arg-type]
    last = max(int(time.max()) for time in times)  # type: ignore[arg-type]
    return first, last


def _boundaries_within(
    logs: LogFrames, span: tuple[int, int] | None, entities: Entities
) -> pl.Series:
    """Return the moments inside the logs' time at which one of their addresses changes."""
    if span is None:
        return pl.Series("boundary_ns", dtype=pl.Int64)
    ips = (logs.connections[name] for name in ("local_ip", "remote_ip", "ztunnel_ip"))
    return entities.boundaries_of(ips, *span)


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
    """Return PEER_SCHEMA, what unknown peers are made of, `visits` (those that agree) and `reason`.

    `reason` is why logs are dropped.
    """
    ports = [f"{side}_{port}" for side in _SIDES for port in ("port", "pod_port")]
    visits = visits.with_columns(port=_called_port()).drop(ports)
    columns = [name for name in visits.columns if name != "visit"]
    distinct = visits.group_by(columns).agg(visits="visit").with_columns(remote_ip=remote_ip())
    looked_up = pl.concat([distinct, *_looked_up(distinct, entities)], how="horizontal")
    return (
        looked_up.with_columns(*_side("local"), *_side("remote"))
        .with_columns(
            reason=_reason(),
            role=_member(ROLES, "role"),
            tls_mode=_member(TLS_MODES, "tls_mode").fill_null(TLS_MODES[0]),
            components=components_expression(),
            local_known=pl.col("local_service").is_not_null(),
            local_reason=_why_nameless("local"),
            remote_reason=_why_nameless("remote"),
        )
        .with_columns(
            pl.col("local_service", "remote_service").fill_null(UNKNOWN),
            local_instance=_instance("local"),
            remote_instance=_instance("remote"),
        )
        .select(*PEER_SCHEMA, *_OF_UNKNOWN, "visits", "reason")
    )


_OF_UNKNOWN: Final = (
    *("cluster_name", "node_name", "port"),
    *(f"{side}_{name}" for side in ("local", "remote") for name in ("ip", "pod", "reason")),
    *(f"{side}_is_kubernetes" for side in ("local", "remote")),
)
_SIDES: Final = ("local", "remote")
_SERVER: Final = ROLES.index("server")


def _is_called(side: str) -> pl.Expr:
    is_server = pl.col("role") == _SERVER
    return is_server if side == "local" else ~is_server


def _called_port() -> pl.Expr:
    """Return the port of the called side, if it is an IP address; else 0.

    The other side's is a new one for each connection.
    """
    is_local = _is_called("local")
    is_kubernetes = pl.when(is_local).then("local_is_kubernetes").otherwise("remote_is_kubernetes")
    port = pl.when(is_local).then("local_port").otherwise("remote_port")
    return pl.when(is_kubernetes).then(pl.lit(0)).otherwise(port).cast(pl.Int32)


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


def cluster_prefix(column: str) -> pl.Expr:
    """Return what stands before the name of a service that was found: its cluster, if any."""
    name = pl.col(column)
    return pl.when(name != "").then(name + "::").otherwise(pl.lit(""))


def _side(side: str) -> list[pl.Expr]:
    """Name one side: null where it is unresolved, cut to its limit."""
    is_kubernetes = pl.col(f"{side}_is_kubernetes")
    service = (
        pl.when(is_kubernetes)
        .then(_not_empty(f"{side}_service"))
        .otherwise(cluster_prefix("cluster_name") + pl.col(f"{side}_found_service"))
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
    local, remote = pl.col("local_service"), pl.col("remote_service")
    return (
        pl.when(local.is_null() & remote.is_null())
        .then(pl.lit("both_unknown"))
        .when(local == remote)
        .then(pl.lit("same_service"))
    )


def _member(names: tuple[str, ...], column: str) -> pl.Expr:
    """Name an enum number; null where it is not in the enum."""
    return pl.col(column).replace_strict(
        list(range(len(names))), list(names), default=None, return_dtype=pl.String
    )


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


def _unknown_peers(named: pl.DataFrame, frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return UNKNOWN_PEERS_SCHEMA, each key once.

    `named` has a row per distinct connection: both sides as sent and as named, `local_reason` and
    `remote_reason` (null: it has a name) and `visits`, the list of its numbers. `frames` are log
    frames with `visit`.
    """
    sides = {side: named.filter(pl.col(f"{side}_reason").is_not_null()) for side in _SIDES}
    keyed = {
        side: some.select("visits", **_described(side))
        for side, some in sides.items()
        if some.height
    }
    if not keyed:
        return pl.DataFrame(schema=UNKNOWN_PEERS_SCHEMA)
    keys = pl.concat(one.select(UNKNOWN_KEYS) for one in keyed.values()).unique()
    keys = keys.with_row_index("peer")
    counted: list[pl.LazyFrame] = []
    for rows in keyed.values():
        numbered = rows.join(keys, on=UNKNOWN_KEYS, how="left", nulls_equal=True)
        peer_of_visit = _by_visit(numbered, "peer")
        for operation, frame in frames.items():
            peer = peer_of_visit.gather(frame["visit"], null_on_oob=True)
            if peer.null_count() < frame.height:
                counted.append(_counted(operation, frame, peer))
    if not counted:
        return pl.DataFrame(schema=UNKNOWN_PEERS_SCHEMA)
    return (
        pl.concat(counted)
        .group_by("peer", hour=pl.col("time_ns") // _NS_PER_HOUR)
        .agg(
            first_ns=pl.col("time_ns").min(),
            last_ns=pl.col("time_ns").max(),
            logs=pl.len().cast(pl.Int64),
            bytes=sum_expression(pl.col("size_bytes"), exact=False).cast(pl.Int64),
            http_calls=pl.col("is_http").sum().cast(pl.Int64),
        )
        .join(keys.lazy(), on="peer", how="inner")
        .select(*UNKNOWN_PEERS_SCHEMA)
        .cast(UNKNOWN_PEERS_SCHEMA)
        .collect()
    )


def _described(side: str) -> dict[str, pl.Expr]:
    other = "remote" if side == "local" else "local"
    is_server = pl.col("role") == "server"
    is_called = is_server if side == "local" else ~is_server
    is_kubernetes = pl.col(f"{side}_is_kubernetes")
    return {
        "cluster": pl.col("cluster_name"),
        "address": pl.when(is_kubernetes).then(f"{side}_pod").otherwise(f"{side}_ip"),
        "port": pl.when(is_called & ~is_kubernetes).then("port").otherwise(pl.lit(0)),
        "side": pl.when(is_called).then(pl.lit("server")).otherwise(pl.lit("client")),
        "partner": pl.col(f"{other}_service").fill_null(UNKNOWN),
        "node": pl.col("node_name"),
        "reason": pl.col(f"{side}_reason"),
    }


def _counted(operation: str, frame: pl.DataFrame, peer: pl.Series) -> pl.LazyFrame:
    """Return the logs of a frame that have such a peer, with what is counted of them."""
    size_bytes = pl.col(_BYTES[operation]) if operation in _BYTES else pl.lit(0, pl.Int64)
    return (
        frame.lazy()
        .select(
            "time_ns",
            peer=pl.lit(peer),
            size_bytes=size_bytes,
            is_http=pl.lit(operation == "http"),
        )
        .drop_nulls("peer")
    )
