"""What a cluster needs of machines, and how far answers lag when something fails.

    python benchmarks/scale.py --nodes 10000 --logs-per-second 1000000

Prints two tables in Markdown, which docs/scale.md has: machines for clusters up to this size, from
costs that were measured on one machine (`COSTS`), and a simulation of one group of engines with
faults.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import TYPE_CHECKING, Final

from scaling.simulation import ENGINES, FOLLOWER, STORAGE, Fault, Group, simulate
from scaling.sizing import Costs, Load, Setting, sized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scaling.sizing import Sized

# docs/scale.md, "What was measured", says where each is from.
COSTS: Final = Costs(
    ingress_us=10.7,
    log_us=2.6,
    side_us=64.0,
    logs_per_message=3.0,
    logs_per_call=6.0,
    rows_per_side=2.7,
    publish_row_us=11.1,
    follow_row_us=16.0,
    table_row_bytes=95.0,
    store_row_bytes=67.0,
    table_commits_per_s=60.0,
)
PAIRS_PER_NODE: Final = 300
BUSY: Final = 0.5
FREQUENT: Final = Setting(commit_every_s=5, busy=BUSY)
SELDOM: Final = Setting(commit_every_s=60, busy=BUSY)
FOLLOW_EVERY_S: Final = 5
_SIZES: Final = (10, 100, 1_000, 10_000)
_SIMULATED_S: Final = 14_400
_AT_S: Final = 600
_BYTES_PER_GB: Final = 10**9
_MACHINES: Final = (
    "nodes",
    "logs/s",
    "a commit every",
    "pod pairs a minute",
    "cores: receiving, computing, following",
    "engines",
    "tables",
    "commits/s",
    "rows/s",
    "tables, GB/day",
    "stores, GB/day",
)
_LAGS: Final = (
    "what fails",
    "oldest rows when a follower has them, s",
    "rows that waited in engines",
    "rows that waited in the table",
    "well again after, s",
)
_FAULTS: Final = (
    ("nothing", ()),
    ("an engine is away for 60 s", (Fault(ENGINES, _AT_S, 60),)),
    ("a third of the engines are away for 5 minutes", (Fault(ENGINES, _AT_S, 300, -1),)),
    ("storage is away for 10 minutes", (Fault(STORAGE, _AT_S, 600),)),
    ("the follower is away for an hour", (Fault(FOLLOWER, _AT_S, 3_600),)),
)


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--logs-per-second", type=float, default=10**6)
    options = parser.parse_args()
    pairs = options.nodes * PAIRS_PER_NODE
    largest = Load(options.nodes, pairs, options.logs_per_second)
    loads = [largest.at(nodes) for nodes in _SIZES if nodes < largest.nodes] + [largest]
    print("\n".join(machine_lines(loads)))
    print()
    print("\n".join(fault_lines(largest)))
    return 0


def machine_lines(loads: Sequence[Load]) -> list[str]:
    """Return what clusters need, as lines of a table."""
    lines = [
        _line(*_MACHINES),
        _line(*("---:" for _ in _MACHINES)),
    ]
    for load, setting in itertools.product(loads, (FREQUENT, SELDOM)):
        found = sized(load, COSTS, setting)
        cores = (found.ingress_cores, found.engine_cores, found.follower_cores)
        lines.append(
            _line(
                f"{load.nodes:,}",
                f"{load.logs_per_s:,.0f}",
                f"{setting.commit_every_s:.0f} s",
                f"{load.pod_pairs:,}",
                ", ".join(f"{one:.2f}" for one in cores),
                f"{found.engines}",
                f"{found.tables}",
                f"{found.commits_per_s:.1f}",
                f"{found.rows_per_s:,.0f}",
                f"{found.table_bytes_per_day / _BYTES_PER_GB:,.0f}",
                f"{found.store_bytes_per_day / _BYTES_PER_GB:,.0f}",
            )
        )
    return lines


def fault_lines(load: Load) -> list[str]:
    """Return what faults do to one table's engines and a follower of it, as lines of a table."""
    group = group_of(sized(load, COSTS, SELDOM), SELDOM)
    lines = [
        _line(*_LAGS),
        _line("---", *("---:" for _ in _LAGS[1:])),
    ]
    for name, faults in _FAULTS:
        own = [
            Fault(
                one.what,
                one.from_s,
                one.for_s,
                one.count if one.count > 0 else group.engines // 3,
            )
            for one in faults
        ]
        lags = simulate(group, own, _SIMULATED_S)
        ended_s = max((one.from_s + one.for_s for one in own), default=0)
        again = "never" if lags.well_again_s is None else f"{max(0, lags.well_again_s - ended_s):,}"
        lines.append(
            _line(
                name,
                f"{lags.most_lag_s:,.0f}",
                f"{lags.most_unpublished_rows:,.0f}",
                f"{lags.most_unfollowed_rows:,.0f}",
                again if faults else "-",
            )
        )
    return lines


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def group_of(found: Sized, setting: Setting) -> Group:
    """Return one of the groups of engines that have a table of their own."""
    engines = max(1, round(found.engines / found.tables))
    return Group(
        engines=engines,
        rows_per_s=found.rows_per_s / found.tables,
        # A core computes what it is sized for, and the rest of it when it must catch up.
        engine_rows_per_s=found.rows_per_s / found.tables / engines / setting.busy,
        follower_rows_per_s=10**6 / COSTS.follow_row_us,
        commits_per_s=COSTS.table_commits_per_s,
        publish_every_s=round(setting.commit_every_s),
        follow_every_s=FOLLOW_EVERY_S,
    )


if __name__ == "__main__":
    sys.exit(main())
