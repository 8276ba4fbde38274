"""The two logs of each call, put together: each call once, seen by both sides or by one.

Both logs know the caller's Pod, the port that it called from and the Pod that was called. The port
that was called is not the same in both: in one way through the kernel it stays that of the Service.
One of them may have an address where the other has a Pod: that of a Service, or of a Pod that is
gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.calls.logs import HTTP_LOGS_SCHEMA
from framewalk.engine.calls.offsets import NODES, OFFSET, clock_offsets

if TYPE_CHECKING:
    from collections.abc import Sequence

CLIENT_LOG: Final = "client_log"
SERVER_LOG: Final = "server_log"
OBSERVED_BY: Final = "observed_by"

_REQUEST: Final = ("cluster", "client_port", "method", "path", "status_code")
# In what the two logs of a call are equal; where a client's log does not know the called Pod, and
# where a server's does not know the caller's. One number is told apart faster than many columns.
_ALIKE: Final = "alike"
_WITHOUT_SERVER: Final = "alike_without_server"
_WITHOUT_CLIENT: Final = "alike_without_client"
_EQUAL: Final = {
    _ALIKE: (*_REQUEST, "client_pod", "server_pod"),
    _WITHOUT_SERVER: (*_REQUEST, "client_pod"),
    _WITHOUT_CLIENT: (*_REQUEST, "server_pod"),
}
# What tells clients of services from each other.
CLIENTS: Final = ("cluster", "client_pod", "client_port", "local_service", "remote_service")
_TRACE: Final = ("trace_provider", "trace_id", "trace_segment_id", "trace_span_id")
_TIMES: Final = ("start_ns", "end_ns", "there_start_ns", "there_end_ns")
_SERVER: Final = "server"
_INT64_MAX: Final = 2**63 - 1
# How far the end of a call may be from what its other log says of it.
_SLACK_NS: Final = 1_000_000


def pair(logs: pl.DataFrame) -> pl.DataFrame:
    """Return the calls that HTTP logs are of; each log is in one of them.

    `logs` has the columns of HTTP_LOGS_SCHEMA. A call has CLIENT_LOG and SERVER_LOG (UInt32, rows
    of `logs`; one may be null), OBSERVED_BY (both, client, server), and when the client waited for
    it: `start_ns` and `end_ns` by the client's clock, `there_start_ns` and `there_end_ns` by that
    of the called Pod's node (null without the client's log). Logs in any order give the same calls.
    A proxy is a client.
    """
    return pair_sides(sides_of(logs))


def sides_of(logs: pl.DataFrame) -> pl.DataFrame:
    """Return of logs what `pair_sides` compares, in an order that hangs on what they say alone.

    `log` (UInt32) is the row of `logs`. Some of the rows make the calls that these logs alone make.
    """
    is_server = pl.col("role") == _SERVER
    rows = in_one_order(logs.with_row_index("log")).with_columns(
        window_expressions(),
        client_pod=pl.when(is_server).then("remote_pod").otherwise("local_pod"),
        client_port=pl.when(is_server).then("remote_port").otherwise("local_port"),
        server_pod=pl.when(is_server).then("local_pod").otherwise("remote_pod"),
    )
    return rows.select(
        "log",
        "start_ns",
        "end_ns",
        "node",
        "server_pod",
        *CLIENTS,
        *_TRACE,
        *(_numbers(rows, equal).alias(name) for name, equal in _EQUAL.items()),
        is_server=is_server,
        is_served=pl.col("serving_start_ns").is_not_null(),
        knows_other="remote_is_pod",
    )


def _numbers(rows: pl.DataFrame, equal: Sequence[str]) -> pl.Series:
    """Number what rows say in some columns, in its order; null where one of them is null."""
    groups = rows.select(equal).drop_nulls().unique().sort(equal).with_row_index("number")
    return rows.select(equal).join(groups, on=equal, how="left", maintain_order="left")["number"]


def pair_sides(sides: pl.DataFrame) -> pl.DataFrame:
    """Return the calls of logs that `sides_of` has, as `pair` does."""
    clients = sides.filter(~pl.col("is_server")).rename({"log": CLIENT_LOG})
    servers = sides.filter("is_server").rename({"log": SERVER_LOG})
    offsets = clock_offsets(clients, servers, [_ALIKE])
    met = _met(clients, servers, offsets, _ALIKE)
    for alike, log in ((_WITHOUT_SERVER, CLIENT_LOG), (_WITHOUT_CLIENT, SERVER_LOG)):
        left = clients.join(met, on=CLIENT_LOG, how="anti", maintain_order="left")
        other = servers.join(met, on=SERVER_LOG, how="anti", maintain_order="left")
        if log == CLIENT_LOG:
            left = left.filter(~pl.col("knows_other"))
        else:
            other = other.filter(~pl.col("knows_other"))
        met = pl.concat([met, _met(left, other, offsets, alike)])
    calls = (
        _with_times_there(clients, sides, offsets)
        .join(met, on=CLIENT_LOG, how="left", maintain_order="left")
        .select(CLIENT_LOG, SERVER_LOG, *_TIMES)
    )
    alone = servers.join(met, on=SERVER_LOG, how="anti", maintain_order="left")
    return pl.concat([calls, alone.select(SERVER_LOG)], how="diagonal").with_columns(
        pl.when(pl.col(CLIENT_LOG).is_null())
        .then(pl.lit("server"))
        .when(pl.col(SERVER_LOG).is_null())
        .then(pl.lit("client"))
        .otherwise(pl.lit("both"))
        .alias(OBSERVED_BY)
    )


def window_expressions() -> list[pl.Expr]:
    """Return when a log's request was served, or else when its log begins and ends."""
    start_ns = pl.coalesce("serving_start_ns", "time_ns")
    lasts_ns = pl.coalesce("serving_duration_ns", "duration_ns")
    end_ns = start_ns + pl.min_horizontal(lasts_ns, _INT64_MAX - start_ns)
    return [start_ns.alias("start_ns"), end_ns.alias("end_ns")]


def in_one_order(logs: pl.DataFrame) -> pl.DataFrame:
    """Sort logs by all that they say, so that the order in which they came does not matter."""
    return logs.sort("time_ns", *(name for name in HTTP_LOGS_SCHEMA if name != "time_ns"))


def _with_times_there(
    clients: pl.DataFrame, sides: pl.DataFrame, offsets: pl.DataFrame
) -> pl.DataFrame:
    """Return CLIENT_LOG and _TIMES of the logs of clients."""
    local_pod = pl.when("is_server").then("server_pod").otherwise("client_pod")
    nodes = sides.group_by("cluster", server_pod=local_pod).agg(server_node=pl.col("node").min())
    with_nodes = clients.join(
        nodes, on=["cluster", "server_pod"], how="left", maintain_order="left"
    )
    return _with_offset(with_nodes, offsets).select(
        CLIENT_LOG,
        "start_ns",
        "end_ns",
        there_start_ns=pl.col("start_ns") + pl.col(OFFSET),
        there_end_ns=pl.col("end_ns") + pl.col(OFFSET),
    )


def _with_offset(clients: pl.DataFrame, offsets: pl.DataFrame) -> pl.DataFrame:
    """Add how far the clock of `server_node` is ahead of that of `node`; 0 if nothing tells it."""
    return clients.join(
        offsets, left_on=["node", "server_node"], right_on=NODES, how="left", maintain_order="left"
    ).with_columns(pl.col(OFFSET).fill_null(0))


def _met(
    clients: pl.DataFrame, servers: pl.DataFrame, offsets: pl.DataFrame, alike: str
) -> pl.DataFrame:
    """Return CLIENT_LOG and SERVER_LOG of the calls that both saw, alike in this column."""
    times = ("start_ns", "end_ns", "node", alike)
    clients, servers = clients.select(CLIENT_LOG, *times), servers.select(SERVER_LOG, *times)
    nodes = servers.group_by(alike).agg(server_node=pl.col("node").min())
    with_nodes = clients.join(nodes, on=alike, how="inner", maintain_order="left")
    by_the_servers_clock = _with_offset(with_nodes, offsets).with_columns(
        pl.col("start_ns", "end_ns") + pl.col(OFFSET)
    )
    nearest = _nearest(by_the_servers_clock, servers, alike)
    left = by_the_servers_clock.join(nearest, on=CLIENT_LOG, how="anti", maintain_order="left")
    other = servers.join(nearest, on=SERVER_LOG, how="anti", maintain_order="left")
    return pl.concat([nearest, _within_one_run(left, other, alike)])


def _nearest(clients: pl.DataFrame, servers: pl.DataFrame, alike: str) -> pl.DataFrame:
    """Return the logs that lie within that of the last client before, if no others do."""
    return (
        servers.sort("start_ns", "end_ns", maintain_order=True)
        .join_asof(
            clients.select(CLIENT_LOG, alike, "start_ns", client_end_ns="end_ns").sort(
                "start_ns", maintain_order=True
            ),
            on="start_ns",
            by=alike,
            strategy="backward",
            check_sortedness=False,  # polars cannot check it within groups, and says so
        )
        .filter(
            pl.col(CLIENT_LOG).is_not_null()
            & (pl.len().over(CLIENT_LOG) == 1)
            & (pl.col("end_ns") <= pl.col("client_end_ns") + _SLACK_NS)
        )
        .select(CLIENT_LOG, SERVER_LOG)
    )


def _within_one_run(clients: pl.DataFrame, servers: pl.DataFrame, alike: str) -> pl.DataFrame:
    """Return logs of calls, several of which may be within each other's time.

    Calls that are alike and overlap make a run; in it the first log of the one side is that of the
    first of the other. A call that overlaps no other is a run of its own.
    """
    runs = _runs(clients, alike)
    placed = (
        servers.with_columns(middle_ns=pl.col("start_ns") // 2 + pl.col("end_ns") // 2 + _SLACK_NS)
        .sort("middle_ns", maintain_order=True)
        .join_asof(
            runs.select(alike, "run", "run_start_ns", "run_end_ns")
            .unique("run", keep="first", maintain_order=True)
            .sort("run_start_ns", maintain_order=True),
            left_on="middle_ns",
            right_on="run_start_ns",
            by=alike,
            strategy="backward",
            coalesce=False,
            check_sortedness=False,  # polars cannot check it within groups, and says so
        )
        .filter(pl.col("middle_ns") <= pl.col("run_end_ns") + 2 * _SLACK_NS)
        .sort("start_ns", "end_ns", maintain_order=True)
    )
    place = pl.int_range(pl.len()).over("run").alias("place")
    return (
        runs.select(CLIENT_LOG, "run", place)
        .join(placed.select(SERVER_LOG, "run", place), on=["run", "place"], how="inner")
        .select(CLIENT_LOG, SERVER_LOG)
    )


def _runs(clients: pl.DataFrame, alike: str) -> pl.DataFrame:
    """Number the runs of clients' logs that are alike and overlap, in order of time."""
    before_ns = pl.col("end_ns").cum_max().shift(1).over(alike)
    is_first = (before_ns.is_null() | (pl.col("start_ns") > before_ns)).cast(pl.UInt32)
    return (
        clients.sort(alike, "start_ns", "end_ns", maintain_order=True)
        .with_columns(run=is_first.cum_sum())
        .with_columns(
            run_start_ns=pl.col("start_ns").min().over("run"),
            run_end_ns=pl.col("end_ns").max().over("run"),
        )
    )
