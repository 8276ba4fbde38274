"""How far the clock of one node is ahead of another's, told by the calls between them.

A request is served within the time in which its caller waits for it. So each pair of logs that may
be of one call bounds the offset of its nodes' clocks from both sides, and the offset is where most
bounds agree: pairs that are not of one call agree on nothing.
"""

from __future__ import annotations

from typing import Final

import polars as pl

NODES: Final = ("client_node", "server_node")
OFFSET: Final = "offset_ns"
# Clocks that are further apart are not put right.
MOST_OFFSET_NS: Final = 5 * 10**9

# Pairs that are looked at, of logs that are alike and of two nodes.
_ALIKE_PAIRS: Final = 2_000
_NODE_PAIRS: Final = 20_000


def clock_offsets(clients: pl.DataFrame, servers: pl.DataFrame, alike: list[str]) -> pl.DataFrame:
    """Return NODES and OFFSET (ns that the server's clock is ahead), a row per pair of nodes.

    Both frames have `node`, `start_ns`, `end_ns` and the columns `alike`, in which the two logs of
    a call are equal. Two nodes without a call that both saw are not in it.
    """
    needed = ("node", "start_ns", "end_ns", *alike)
    clients, servers = clients.select(needed), servers.select(needed)
    pairs = _pairs(_thinned(clients, servers, alike), servers, alike)
    bounds = pairs.select(
        *NODES,
        low_ns=pl.min_horizontal("after_ns", "before_ns"),
        high_ns=pl.max_horizontal("after_ns", "before_ns"),
    )
    # At the same place a bound opens before another closes: the offset may be both.
    steps = pl.concat(
        [
            bounds.select(*NODES, at_ns="low_ns", closes=pl.lit(0), step=pl.lit(1)),
            bounds.select(*NODES, at_ns="high_ns", closes=pl.lit(1), step=pl.lit(-1)),
        ]
    ).sort(*NODES, "at_ns", "closes")
    agreeing = steps.with_columns(
        agree=pl.col("step").cum_sum().over(NODES), until_ns=pl.col("at_ns").shift(-1).over(NODES)
    )
    best = agreeing.filter(pl.col("agree") == pl.col("agree").max().over(NODES))
    middle_ns = pl.col("at_ns") + (pl.col("until_ns") - pl.col("at_ns")) // 2
    # Calls at regular intervals agree on several.
    return (
        best.select(*NODES, middle_ns.alias(OFFSET))
        .sort(*NODES, pl.col(OFFSET).abs(), OFFSET)
        .unique(NODES, keep="first", maintain_order=True)
    )


def _thinned(clients: pl.DataFrame, servers: pl.DataFrame, alike: list[str]) -> pl.DataFrame:
    """Return logs of clients that make a bounded number of pairs: of many that are alike a few."""
    counts = servers.group_by(alike).agg(servers=pl.len())
    met = clients.join(counts, on=alike, how="inner").sort("start_ns", "end_ns")
    place = pl.int_range(pl.len()).over(alike)
    step = (pl.len().over(alike) * pl.col("servers") - 1) // _ALIKE_PAIRS + 1
    few = met.filter(place % step == 0)
    groups = few.group_by("node", *alike).agg(pairs=pl.col("servers").sum())
    before = pl.col("pairs").cum_sum().over("node") - pl.col("pairs")
    chosen = groups.sort("node", "pairs", *alike).filter(before < _NODE_PAIRS)
    return few.join(chosen, on=["node", *alike], how="semi")


def _pairs(clients: pl.DataFrame, servers: pl.DataFrame, alike: list[str]) -> pl.DataFrame:
    """Return NODES of pairs of logs, and how much later the server's begins, and ends."""
    before_ns = pl.col("start_ns_right") - pl.col("start_ns")
    return (
        clients.lazy()
        .join(servers.lazy(), on=alike, how="inner")
        .filter(
            before_ns.is_between(-MOST_OFFSET_NS, MOST_OFFSET_NS)
            & (pl.col("node") != pl.col("node_right"))
        )
        .select(
            client_node="node",
            server_node="node_right",
            before_ns=before_ns,
            after_ns=pl.col("end_ns_right") - pl.col("end_ns"),
        )
        .collect()
    )
