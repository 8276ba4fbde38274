"""What it costs to publish states of a large cluster to a shared table, and to follow it.

    python benchmarks/sharing.py --services 1000 --minutes 5

Commits minutes of states (benchmarks/large/hours.py) to two stores, one of which has an outbox,
publishes that to a table on this machine's disk, and makes a store of the table. Told are CPU
microseconds a row and bytes a row: a row is what the store has of an entity and a minute.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from large.cluster import make_cluster, write_dump
from large.hours import FIRST_MINUTE, states_of_minute, varied
from large.minutes import Minutes

from framewalk.engine import Store, load_plan
from framewalk.engine.sharing import (
    Follower,
    Outbox,
    OutboxReader,
    SharedTable,
    open_for_publishing,
    publish,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from framewalk.engine import Plan, States

_US_PER_S: Final = 10**6
_BYTES_PER_MB: Final = 10**6


@dataclass
class Clock:
    """CPU seconds of parts of the work, one after the other."""

    since_s: float = 0.0

    def __post_init__(self) -> None:
        self.since_s = time.process_time()

    def part(self) -> float:
        """Return what this process has worked since the last part."""
        before_s, self.since_s = self.since_s, time.process_time()
        return self.since_s - before_s


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--services", type=int, default=1_000)
    parser.add_argument("--minutes", type=int, default=5)
    options = parser.parse_args()
    plan = load_plan()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        minutes = list(_minutes(options.services, options.minutes, folder, plan))
        _measure(folder, plan, minutes)
    return 0


def _minutes(services: int, count: int, folder: Path, plan: Plan) -> Iterator[States]:
    minutes = Minutes(make_cluster(services))
    dump = folder / "kubectl.json"
    write_dump(minutes.cluster, dump)
    made = states_of_minute(minutes, 0, dump, plan)
    for number in range(count):
        yield varied(made, number, FIRST_MINUTE + number)


def _measure(folder: Path, plan: Plan, minutes: list[States]) -> None:
    rows = sum(scope.scalars.height for one in minutes for scope in one.scopes.values())
    clock = Clock()
    with Store(folder / "alone.duckdb", plan) as store:
        for one in minutes:
            store.commit(None, folder, [], one)
        alone_s = clock.part()
    with Store(folder / "engine.duckdb", plan) as store:
        store.outbound = outbox = Outbox(store, "engine", lambda: time.time_ns() // 1_000)
        clock.part()
        for one in minutes:
            store.commit(None, folder, [], one)
        with_outbox_s, waiting_bytes = clock.part(), outbox.pending_bytes
        table = SharedTable(str(folder / "table"))
        place = outbox.place
        open_for_publishing(table, plan, place)
        reader = OutboxReader(store.connection.cursor())
        clock.part()
        commits = 0
        while table.open() and (reached := publish(reader, table, place)) != place:
            place, commits = reached, commits + 1
        published_s = clock.part()
    table_bytes = sum(one.size_bytes for one in table.files())
    with Store(folder / "follower.duckdb", table.plan()) as store:
        clock.part()
        followed = sum(one.rows for one in Follower(store, table).follow(time.time_ns() // 1_000))
        followed_s = clock.part()
        store.compact()
        compacted_s = clock.part()
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{rows:,} rows of {len(minutes)} minutes, {commits} commits of the table,"
        f" {followed:,} read"
    )
    for name, cpu_s in (
        ("a commit, without an outbox", alone_s),
        ("more of it for the outbox", with_outbox_s - alone_s),
        ("publishing", published_s),
        ("following: merging", followed_s),
        ("following: hours and days", compacted_s),
    ):
        print(f"{name:30}{cpu_s * _US_PER_S / rows:8.1f} us a row")
    print(f"{'in the outbox':30}{waiting_bytes / rows:8.1f} bytes a row")
    print(f"{'in the table':30}{table_bytes / rows:8.1f} bytes a row")
    print(f"{'memory':30}{peak_bytes / _BYTES_PER_MB:8.0f} MB at most, the states included")


if __name__ == "__main__":
    sys.exit(main())
