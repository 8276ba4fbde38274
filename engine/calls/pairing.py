"""The two logs of each call, put together: each call once, seen by both sides or by one.

Both logs know the caller's Pod, the port that it called from and the Pod that was called. The port
that was called is not the same in both: in one way through the kernel it stays that of the Service.
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

_CONNECTION: Final = ("cluster", "client_pod", "client_port", "server_pod")
_ALIKE: Final = (*_CONNECTION, "method", "path", "status_code")
_SERVER: Final = "server"
_INT64_MAX: Final = 2**63 - 1
# How far the end of a call may be from what its other log says of it.
_SLACK_NS: Final = 1_000_000


def pair(logs: pl.DataFrame) -> pl.DataFrame:
    """Return the calls that HTTP logs are of; each log is in one of them.

    `logs` has the columns of HTTP_LOGS_SCHEMA. A call has CLIENT_LOG and SERVER_LOG (UInt32, rows
    of `logs`; one may be null), OBSERVED_BY (both, client, server), and when the client waited for
    it by the client's clock: `start_ns` and `end_ns` (null without its log). Logs in any order give
    the same calls. A proxy is a client.
    """
    sides = _sides(logs)
    is_server = pl.col("role") == _SERVER
    clients = sides.filter(~is_server).select(
        *_side("local", "remote"), *_rest(CLIENT_LOG), "start_ns", "end_ns"
    )
    servers = sides.filter(is_server).select(
        *_side("remote", "local"), *_rest(SERVER_LOG), "start_ns", "end_ns"
    )
    offsets = clock_offsets(clients, servers, list(_ALIKE))
    met = _within_one_run(_by_the_servers_clock(clients, servers, offsets), servers)
    calls = (
        clients.select(CLIENT_LOG, "start_ns", "end_ns")
        .join(met, on=CLIENT_LOG, how="left", maintain_order="left")
        .select(CLIENT_LOG, SERVER_LOG, "start_ns", "end_ns")
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


def _sides(logs: pl.DataFrame) -> pl.DataFrame:
    rows = logs.with_row_index("log").with_columns(window_expressions())
    return in_one_order(rows)


def _side(client: str, server: str) -> Sequence[pl.Expr]:
    return (
        pl.col("cluster"),
        pl.col(f"{client}_pod").alias("client_pod"),
        pl.col(f"{client}_port").alias("client_port"),
        pl.col(f"{server}_pod").alias("server_pod"),
    )


def _rest(log: str) -> Sequence[pl.Expr]:
    return (
        pl.col("log").alias(log),
        pl.col("node"),
        *(pl.col(name) for name in _ALIKE[len(_CONNECTION) :]),
    )


def _by_the_servers_clock(
    clients: pl.DataFrame, servers: pl.DataFrame, offsets: pl.DataFrame
) -> pl.DataFrame:
    """Shift the times of clients to the clock of the node on which the called Pod is."""
    nodes = servers.group_by("cluster", "server_pod").agg(server_node=pl.col("node").min())
    offset_ns = pl.col(OFFSET).fill_null(0)
    return (
        clients.join(nodes, on=["cluster", "server_pod"], how="inner", maintain_order="left")
        .rename({"node": "client_node"})
        .join(offsets, on=NODES, how="left", maintain_order="left")
        .with_columns(start_ns=pl.col("start_ns") + offset_ns, end_ns=pl.col("end_ns") + offset_ns)
    )


def _within_one_run(clients: pl.DataFrame, servers: pl.DataFrame) -> pl.DataFrame:
    """Return CLIENT_LOG and SERVER_LOG of the calls that both sides saw.

    Calls that are alike and overlap make a run; in it the first log of the one side is that of the
    first of the other. A call that overlaps no other is a run of its own.
    """
    runs = _runs(clients)
    placed = (
        servers.with_columns(middle_ns=pl.col("start_ns") // 2 + pl.col("end_ns") // 2 + _SLACK_NS)
        .sort("middle_ns", maintain_order=True)
        .join_asof(
            runs.select(*_ALIKE, "run", "run_start_ns", "run_end_ns")
            .unique("run", keep="first", maintain_order=True)
            .sort("run_start_ns", maintain_order=True),
            left_on="middle_ns",
            right_on="run_start_ns",
            by=list(_ALIKE),
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


def _runs(clients: pl.DataFrame) -> pl.DataFrame:
    """Number the runs of clients' logs that are alike and overlap, in order of time."""
    before_ns = pl.col("end_ns").cum_max().shift(1).over(_ALIKE)
    is_first = (before_ns.is_null() | (pl.col("start_ns") > before_ns)).cast(pl.UInt32)
    return (
        clients.sort(*_ALIKE, "start_ns", "end_ns", maintain_order=True)
        .with_columns(run=is_first.cum_sum())
        .with_columns(
            run_start_ns=pl.col("start_ns").min().over("run"),
            run_end_ns=pl.col("end_ns").max().over("run"),
        )
    )
