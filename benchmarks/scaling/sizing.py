"""How many machines a cluster needs, from measured costs: arithmetic only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

US_PER_S: Final = 10**6
S_PER_MINUTE: Final = 60
S_PER_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured on one machine; docs/scale.md says by which command.

    A pod pair is a caller and a called pod that spoke in a minute. Both of their nodes send it, and
    each commit in which it is has rows for it: that is a side.
    """

    ingress_us: float
    log_us: float
    side_us: float
    logs_per_message: float
    logs_per_call: float
    rows_per_side: float
    publish_row_us: float
    follow_row_us: float
    table_row_bytes: float
    store_row_bytes: float
    table_commits_per_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """What a cluster sends."""

    nodes: int
    pod_pairs: int
    logs_per_s: float

    def at(self, nodes: int) -> Load:
        """Return a cluster of so many nodes that is like this one."""
        share = nodes / self.nodes
        return Load(nodes, round(self.pod_pairs * share), self.logs_per_s * share)


@dataclass(frozen=True, slots=True)
class Setting:
    """How engines are run: a core is to be busy for that share of the time."""

    commit_every_s: float
    busy: float


@dataclass(frozen=True, slots=True)
class Sized:
    """What a load needs. `engines` have one core for receiving and one for computing each."""

    engines: int
    ingress_cores: float
    engine_cores: float
    follower_cores: float
    tables: int
    commits_per_s: float
    rows_per_s: float
    table_bytes_per_day: float
    store_bytes_per_day: float


def sized(load: Load, costs: Costs, setting: Setting) -> Sized:
    """Return what a load needs.

    There are as many tables, each of a group of engines, as followers are needed that have a core
    each, and as commits need.
    """
    ingress = load.logs_per_s / costs.logs_per_message * costs.ingress_us / US_PER_S
    sides_per_s = 2 * load.pod_pairs / S_PER_MINUTE * appearances(load, costs, setting)
    rows_per_s = sides_per_s * costs.rows_per_side
    engine = load.logs_per_s * costs.log_us + sides_per_s * costs.side_us
    engine_cores = (engine + rows_per_s * costs.publish_row_us) / US_PER_S
    follower_cores = rows_per_s * costs.follow_row_us / US_PER_S
    engines = max(1, math.ceil(max(ingress, engine_cores) / setting.busy))
    commits_per_s = engines / setting.commit_every_s
    tables = max(
        math.ceil(follower_cores / setting.busy),
        math.ceil(commits_per_s / costs.table_commits_per_s),
    )
    # In a store both sides are one row.
    stored_per_s = load.pod_pairs / S_PER_MINUTE * costs.rows_per_side
    return Sized(
        engines,
        ingress,
        engine_cores,
        follower_cores,
        tables,
        commits_per_s,
        rows_per_s,
        rows_per_s * costs.table_row_bytes * S_PER_DAY,
        stored_per_s * costs.store_row_bytes * S_PER_DAY,
    )


def appearances(load: Load, costs: Costs, setting: Setting) -> float:
    """Return in how many commits of a minute a pair is, whose calls come at any time."""
    calls = load.logs_per_s * S_PER_MINUTE / costs.logs_per_call / load.pod_pairs
    commits = max(1.0, S_PER_MINUTE / setting.commit_every_s)
    return commits * (1 - (1 - 1 / commits) ** calls) if commits > 1 else min(calls, 1.0)
