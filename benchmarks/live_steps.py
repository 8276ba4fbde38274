"""A live engine at the size of a large cluster, step by step, by a clock of its own.

    python benchmarks/live_steps.py --services 1000 --minutes 25 --json steps.json

Another process writes the spool of a cluster, five seconds of logs at a time; the engine's parts
look at it as they do in a server, and see to the store between the looks. Nobody waits: the clock
goes on by five seconds with each look. Printed is the CPU time of each kind of step, the longest
time without a commit, and the most memory at the end of each kind of step and within it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

# As the engine of a server; before Polars is loaded.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

from large.cluster import make_cluster, write_dump
from large.minutes import FLUSH_NS, MINUTE_NS, START_NS, Minutes, S

from framewalk.engine import Store, load_plan
from framewalk.engine.runs import SpoolFollower
from framewalk.receiver.spool import Fsync, Spool, SpoolOptions
from framewalk.server.engine import EngineOptions, Naming, Upkeep, resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

_FLUSH_S: Final = FLUSH_NS // S
_MINUTE_S: Final = MINUTE_NS // S
_FLUSHES: Final = _MINUTE_S // _FLUSH_S
_VARIANTS: Final = 2
# So that an hour, and a day, end soon, and what is done once an hour comes soon, too.
_BEGIN_MINUTE_OF_DAY: Final = 23 * 60 + 52
_BEFORE_S: Final = 55 * 60
_DAY_NS: Final = 24 * 60 * MINUTE_NS
_MORE: Final = "more"
_SAMPLE_S: Final = 0.02
_MB: Final = 10**6


@dataclass(slots=True)
class Step:
    """All steps of a kind: how often, their CPU time, the longest of it, and the most memory."""

    count: int = 0
    cpu_s: float = 0
    longest_cpu_s: float = 0
    peak_bytes: int = 0


@dataclass(slots=True)
class Steps:
    """What was done, and how long no commit ended meanwhile, in CPU seconds."""

    each: defaultdict[str, Step] = field(default_factory=lambda: defaultdict(Step))
    longest_without_commit_s: float = 0
    commits: int = 0
    logs: int = 0
    store_bytes: int = 0
    _name: str = "start"
    _committed_s: float = field(default_factory=time.process_time)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what is done inside."""
        before, self._name = self._name, name
        began_s = time.process_time()
        try:
            yield
        finally:
            used_s = time.process_time() - began_s
            self._name = before
            own = self.each[name]
            own.count += 1
            own.cpu_s += used_s
            own.longest_cpu_s = max(own.longest_cpu_s, used_s)

    def committed(self, logs: int) -> None:
        """Note that a commit has ended."""
        now_s = time.process_time()
        self.longest_without_commit_s = max(
            self.longest_without_commit_s, now_s - self._committed_s
        )
        self._committed_s = now_s
        self.commits += 1
        self.logs += logs

    def sample(self) -> None:
        """Note how much memory there is now, for ever."""
        while True:
            own = self.each[self._name]
            own.peak_bytes = max(own.peak_bytes, resident_bytes())
            time.sleep(_SAMPLE_S)


def feed(folder: Path, services: int, start_ns: int, asked: Connection) -> None:
    """Write the streams of one flush of the cluster after the other, as often as asked."""
    minutes = Minutes(make_cluster(services), start_ns)
    made = [minutes.make(number) for number in range(_VARIANTS)]
    size_bytes = len(made[0].content)
    options = SpoolOptions(folder, segment_bytes=size_bytes, fsync=Fsync.NEVER)
    spool = Spool(options)
    number = 0
    asked.send(None)
    while asked.recv():
        minute, flush = divmod(number, _FLUSHES)
        one = made[minute % _VARIANTS]
        if not flush:
            one.move_to(minute)
        for stream in range(one.streams * flush // _FLUSHES, one.streams * (flush + 1) // _FLUSHES):
            messages = one.stream_messages(stream)
            first = int(one.firsts[stream])
            received_ns = one.received_ns[first : first + len(messages)]
            times = (received_ns + start_ns + minute * MINUTE_NS).tolist()
            spool.append(messages, times).result()
        number += 1
        asked.send(None)
    spool.close()


def drive(services: int, minutes: int) -> Steps:
    """Drive an engine for so many minutes of logs."""
    first_ns = START_NS - START_NS % _DAY_NS + _BEGIN_MINUTE_OF_DAY * MINUTE_NS
    steps = Steps()
    threading.Thread(target=steps.sample, daemon=True).start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dump = folder / "kubectl.json"
        write_dump(make_cluster(services), dump)
        spool = folder / "spool"
        spool.mkdir()
        own, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        feeder = context.Process(target=feed, args=(spool, services, first_ns, other), daemon=True)
        feeder.start()
        own.recv()
        options = engine_options(folder, dump)
        with Store(options.store_path, load_plan()) as store:
            store.limit_memory()
            begin_s = first_ns / S + _FLUSH_S
            with (
                Naming(options, store, begin_s) as naming,
                SpoolFollower(spool, store, 0.0, "") as follower,
            ):
                follower.holding.wait_s = options.name_wait_s
                before_s = begin_s - _BEFORE_S
                upkeep = Upkeep(options, store, follower, before_s, -float(_BEFORE_S))
                count_steps(upkeep, store, steps)
                for number in range(minutes * _FLUSHES):
                    own.send(_MORE)
                    own.recv()
                    elapsed_s = float((number + 1) * _FLUSH_S)
                    see_to(steps, (naming, follower, upkeep), begin_s + elapsed_s, elapsed_s)
            steps.store_bytes = options.store_path.stat().st_size
        own.send(None)
        feeder.join()
    return steps


def see_to(
    steps: Steps, parts: tuple[Naming, SpoolFollower, Upkeep], now_s: float, elapsed_s: float
) -> None:
    """See to everything once, as an engine process does."""
    naming, follower, upkeep = parts
    with steps.step("upkeep"):
        upkeep.run(now_s, elapsed_s)
    with steps.step("names"):
        naming.refresh(now_s, elapsed_s)
    entities = naming.entities
    with steps.step("look"):
        for flushed in follower.follow(entities, elapsed_s, clock_ns=int(now_s * S)):
            steps.committed(flushed.counters.logs)
            naming.count(flushed.counters.addresses, elapsed_s)
            upkeep.make_room(elapsed_s)
    with steps.step("names kept"):
        naming.keep(elapsed_s)


def count_steps(upkeep: Upkeep, store: Store, steps: Steps) -> None:
    """Count the parts of upkeep by themselves from now on."""
    jobs = ("_compact", "_measure", "_expire", "_relate", "_merge", "_keep_budget", "make_room")
    for target, names in ((upkeep, jobs), (store, ("checkpoint",))):
        for name in names:
            _count(target, name, steps)


def _count(target: object, name: str, steps: Steps) -> None:
    original = getattr(target, name)

    def counted(*arguments: object, **named: object) -> object:
        with steps.step(f"  {name.strip('_').replace('_', ' ')}"):
            return original(*arguments, **named)

    setattr(target, name, counted)


def engine_options(folder: Path, dump: Path) -> EngineOptions:
    """Return the options of an engine that has everything in a folder."""
    return EngineOptions(
        spool_folder=folder / "spool",
        complete_through="",
        retention_s=3_600,
        budget_bytes=10 * 2**30,
        store_path=folder / "metrics.duckdb",
        minute_ttl_days=7,
        hour_ttl_days=7,
        day_ttl_days=7,
        flush_interval_s=_FLUSH_S,
        max_ahead_s=300,
        entities_paths=(dump,),
        entities_reload_s=30,
        name_wait_s=5,
        oal_paths=(),
        apdex_path=None,
        sql=None,
        log_format="text",
        log_level="info",
    )


def main() -> int:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--services", type=int, default=1_000)
    parser.add_argument("--minutes", type=int, default=25)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    steps = drive(options.services, options.minutes)
    print(f"{'step':<20} {'times':>6} {'CPU s':>8} {'longest':>8} {'MB':>6}")
    for name, one in steps.each.items():
        figures = f"{one.cpu_s:>8.1f} {one.longest_cpu_s:>8.2f} {one.peak_bytes / _MB:>6,.0f}"
        print(f"{name:<20} {one.count:>6} {figures}")
    print(f"{steps.commits} commits of {steps.logs:,} logs, {steps.store_bytes / _MB:,.0f} MB")
    print(f"without a commit    {steps.longest_without_commit_s:.2f} CPU s at most")
    if options.json is not None:
        found = {
            "steps": {name: asdict(one) for name, one in steps.each.items()},
            "commits": steps.commits,
            "logs": steps.logs,
            "store_bytes": steps.store_bytes,
            "longest_without_commit_s": steps.longest_without_commit_s,
        }
        options.json.write_text(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
