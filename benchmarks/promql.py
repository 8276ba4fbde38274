"""CPU time of a PromQL range over 1,000 series and 60 steps; fails over its bound.

    python benchmarks/promql.py
    python benchmarks/promql.py --store build/day.duckdb

The store has 1,000 services and a day of minutes, and is made where it is not there. Times are CPU
times (user and system) of the whole process, the median of some runs: text to JSON, with all that
is in between.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from large.day import SERVICES, write_day

from framewalk.engine import open_for_reading
from framewalk.queries.promql import Timeline, answer

if TYPE_CHECKING:
    import duckdb

STEPS, MINUTE_MS = 60, 60_000
ROUNDS = 9
BOUND_MS = 150
CPM = "kubernetes_service_http_call_cpm"
QUERIES = {
    "the series": CPM,
    "a sum by namespace": f"sum by (namespace) ({CPM})",
    "a ratio of two metrics": f"kubernetes_service_http_call_time / {CPM}",
    "a rate": f"rate({CPM}[5m])",
    "ten of the largest": f"topk(10, {CPM})",
    "one service of all": f'{CPM}{{service="service-7.shop-7"}}',
}


def main() -> int:
    """Measure; the exit code is 1 where the series take longer than they may."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--store", type=Path)
    arguments.add_argument("--rounds", type=int, default=ROUNDS)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.store or Path(folder) / "day.duckdb"
        if not path.exists():
            write_day(path)
        with open_for_reading(path) as connection:
            ((end_ms,),) = connection.execute(
                "SELECT epoch_ms(max(time_bucket)) FROM service_minute"
            ).fetchall()
            found = {
                name: measure(connection, text, end_ms, options.rounds)
                for name, text in QUERIES.items()
            }
    for name, (took_ms, series) in found.items():
        print(f"{name:24} {took_ms:6.1f} ms {series:6,} series")
    assert found["the series"][1] >= SERVICES
    return int(found["the series"][0] > BOUND_MS)


def measure(
    connection: duckdb.DuckDBPyConnection, query: str, end_ms: int, rounds: int
) -> tuple[float, int]:
    """Return the median CPU time in ms, and how many series are answered."""
    took, content = [], b""
    timeline = Timeline.between(end_ms - (STEPS - 1) * MINUTE_MS, end_ms, MINUTE_MS)
    for _ in range(rounds):
        began = time.process_time()
        content = answer(connection, query, timeline)
        took.append(time.process_time() - began)
    return 1_000 * statistics.median(took), len(json.loads(content)["data"]["result"])


if __name__ == "__main__":
    sys.exit(main())
