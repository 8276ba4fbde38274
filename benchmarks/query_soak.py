"""Memory of a `framewalk query-server` that answers mixed queries for a long time.

    python benchmarks/query_soak.py --queries 200000 --json soak.json

Replays the captures of this project into a store of the few definitions that are asked for (or
of all, which makes each statement longer), serves it with a process of its own, and asks
SQL, GraphQL, PromQL and MQE from four connections of each at once; of a hundred queries one hangs
up before its answer, and some have faults. Prints a table, and ends with 1 where the mean of the
last quarter is above those of the two before by more than is accepted, or an answer is a 500:
allocators give memory back at times, so that a quarter may have less for no reason that lasts.
A run that is cut off (SIGINT, SIGTERM) says what it saw, and ends with 1.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frame.asking import DEFINED, Client, Shop, draw_query
from frame.server import cpu_s, serving_store

from framewalk.engine import Store, load_plan, read_entities, replay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from framewalk.engine import Plan

# Of what the server had in the quarters before.
MOST_GROWTH: Final = 0.02
CLIENTS: Final = 4
SAMPLES: Final = 40
_LEFT: Final = 0.01
_CAPTURES: Final = Path(__file__).parents[1] / "fixtures" / "captures"


@dataclass(frozen=True)
class Sample:
    """What the server had after so many queries."""

    queries: int
    rss_mb: float
    peak_mb: float
    cpu_s: float
    threads: int
    files: int


class Load:
    """Clients that ask in threads, each its share, and what they were answered."""

    def __init__(self, ports: Mapping[str, int], shop: Shop, count: int, seed: int) -> None:
        self.statuses: Counter[str] = Counter()
        self.faults: list[str] = []
        self._ports, self._shop, self._seed = ports, shop, seed
        self._numbers = iter(range(count))
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(at,), daemon=True) for at in range(CLIENTS)
        ]

    @property
    def asked(self) -> int:
        """How many queries were asked and answered, or left."""
        return self.statuses.total()

    @property
    def is_over(self) -> bool:
        """Whether all queries were asked, or a client gave up."""
        return not all(one.is_alive() for one in self._threads)

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each client end with the query that it has asked."""
        with self._lock:
            self.faults.append(f"cut off after {self.asked:,} queries")
            self._numbers = iter(())
        self.wait()

    def wait(self) -> None:
        """Wait until all clients are at their end."""
        for thread in self._threads:
            thread.join()

    def _ask(self, at: int) -> None:
        draw = random.Random(f"{self._seed} {at}")  # noqa: S311 - the same ones again
        client = Client(self._ports)
        try:
            while (number := self._next()) is not None:
                query = draw_query(draw, self._shop, number)
                if draw.random() < _LEFT:
                    client.leave(query)
                    outcome = f"{query.protocol} left"
                else:
                    status, answer = client.ask(query)
                    outcome = f"{query.protocol} {status}"
                    if status == 500:
                        self.faults.append(f"{query.body!r}: {answer[:500]!r}")
                with self._lock:
                    self.statuses[outcome] += 1
        except Exception as error:  # noqa: BLE001 - told at the end, whatever it is
            self.faults.append(f"client {at}: {error!r}")
        finally:
            client.close()

    def _next(self) -> int | None:
        with self._lock:
            return next(self._numbers, None)


def measure(queries: int, seed: int, *, has_all: bool) -> tuple[list[Sample], Load]:
    """Ask so many queries, and return samples of the server's memory while it answers."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "metrics.duckdb"
        make_store(store, load_plan() if has_all else _few_definitions(Path(folder)))
        with serving_store(store) as server:
            shop = Shop.of(Client(server.ports))
            load = Load(server.ports, shop, queries, seed)
            samples = [sample(server.process, 0)]
            load.start()
            try:
                for at in range(1, SAMPLES):
                    while load.asked < queries * at // SAMPLES and not load.is_over:
                        time.sleep(0.05)
                    samples.append(sample(server.process, load.asked))
                    print(row(samples[-1], samples[-2]), flush=True)
                load.wait()
                samples.append(sample(server.process, load.asked))
                print(row(samples[-1], samples[-2]), flush=True)
            except KeyboardInterrupt:
                load.stop()
    return samples, load


def _few_definitions(folder: Path) -> Plan:
    shipped = sorted((Path(__file__).parents[1] / "queries" / "oal").glob("*.oal"))
    lines = (line for file in shipped for line in file.read_text().splitlines(keepends=True))
    definitions = "".join(line for line in lines if not line.startswith("//")).split(";")
    wanted = [one for one in definitions if set(one.partition("=")[0].split()[-1:]) & {*DEFINED}]
    few = folder / "few.oal"
    few.write_text("".join(f"{one};" for one in wanted))
    return load_plan(few)


def make_store(path: Path, plan: Plan) -> None:
    """Replay both captures, of two shops, into one store."""
    with Store(path, plan) as store:
        for name in ("bookinfo", "boutique"):
            entities = read_entities(_CAPTURES / name / "kubectl.yaml")
            replay([_CAPTURES / name], entities, store)


def sample(process: int, queries: int) -> Sample:
    """Return what a process has now."""
    told = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines()
    )
    rss_mb, peak_mb = (int(told[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    files = sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
    return Sample(queries, rss_mb, peak_mb, cpu_s(process), int(told["Threads"]), files)


def row(one: Sample, before: Sample) -> str:
    """Return a sample as a row of a table."""
    each_ms = 1_000 * (one.cpu_s - before.cpu_s) / max(1, one.queries - before.queries)
    return (
        f"| {one.queries:,} | {one.rss_mb:,.1f} | {one.peak_mb:,.1f} | {each_ms:.1f} "
        f"| {one.threads} | {one.files} |"
    )


def growth(samples: list[Sample]) -> tuple[float, float]:
    """Return the higher mean of the second and the third quarter, and that of the last, in MB."""
    quarter = max(1, len(samples) // 4)
    quarters = [samples[-at * quarter :][:quarter] for at in (3, 2, 1)]
    *before, last = (statistics.fmean(one.rss_mb for one in each) for each in quarters)
    return max(before), last


def main() -> int:
    """Measure and print; the exit code is 1 where memory grows or an answer is a 500."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--queries", type=int, default=200_000)
    parser.add_argument("--all-definitions", action="store_true", help="a store of all metrics")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    print("| queries | RSS, MB | peak, MB | CPU a query, ms | threads | files |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    samples, load = measure(options.queries, options.seed, has_all=options.all_definitions)
    before_mb, last_mb = growth(samples)
    print(dict(sorted(load.statuses.items())))
    print(f"before {before_mb:.1f} MB, last quarter {last_mb:.1f} MB", *load.faults, sep="\n")
    if options.json is not None:
        content = {"samples": [asdict(one) for one in samples], "statuses": load.statuses}
        options.json.write_text(json.dumps(content, indent=2))
    return int(bool(load.faults) or last_mb > before_mb * (1 + MOST_GROWTH))


if __name__ == "__main__":
    sys.exit(main())
