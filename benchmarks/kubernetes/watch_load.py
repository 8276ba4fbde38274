"""What a watch of 10,000 pods and 2,000 Services, and its table, cost with 100 changes a second.

    python benchmarks/kubernetes/watch_load.py [SECONDS]

The API server is the tests' small one, in a process of its own, over real HTTP. Changes are as of
deployments: a pod goes, another comes without an address, gets a node, and runs; between them
Services change. Each second the address of a pod that has just begun to run is looked up until it
is known, and how long that took from the event on is kept.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from api_server import ApiServer

    from framewalk.engine.kubernetes import LiveEntities

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
PODS, SERVICES, CHANGES_PER_S = 10_000, 2_000, 100
PROBE_EVERY_S = 1.0


def serve(folder: Path) -> None:
    from api_server import ApiServer  # noqa: PLC0415

    os.nice(10)
    with ApiServer() as api:
        api.is_fussy = False
        changes = made_changes(api)
        for _ in range(SERVICES + PODS):
            next(changes)
        api.kubeconfig(folder).rename(folder / "ready")
        at_s = probed_s = time.monotonic()
        for running in changes:
            now_s = time.monotonic()
            if running and now_s - probed_s >= PROBE_EVERY_S:
                probed_s = now_s
                print(now_s, *running, flush=True)
            for events in api.events.values():
                if len(events) > 2_000:
                    del events[:-1000]
            at_s += 1 / CHANGES_PER_S
            time.sleep(max(at_s - time.monotonic(), 0))


def made_changes(api: ApiServer) -> Iterator[tuple[str, str] | None]:
    """Make a change at each step; yields the address and name of a pod that runs from then on."""
    from test_watch import pod, service  # noqa: PLC0415

    def named(number: int, generation: int) -> tuple[str, str, str]:
        ip = f"10.{number >> 8}.{generation % 250}.{number & 255}"
        return f"p{number}-{generation}", ip, f"a{number % SERVICES}"

    for number in range(SERVICES):
        api.put(service(f"s{number}", f"10.96.{number >> 8}.{number & 255}", f"a{number}"))
        yield None
    for number in range(PODS):
        api.put(pod(*named(number, 0)))
        yield None
    for change in count():
        number, generation = change % PODS, change // PODS
        api.delete("Pod", f"shop/{named(number, generation)[0]}")
        yield None
        name, ip, app = named(number, generation + 1)
        one = pod(name, ip, app)
        waiting = {**one, "spec": {}, "status": {"phase": "Pending"}}
        for step in (waiting, {**waiting, "spec": one["spec"]}):
            api.put(step)
            yield None
        api.put(one)
        yield ip, f"s{number % SERVICES}.shop"
        if change % 5 == 0:
            address = f"10.96.{number % SERVICES >> 8}.{number % SERVICES & 255}"
            changed = service(f"s{number % SERVICES}", address, f"a{number % SERVICES}")
            changed["spec"]["ports"] = [{"port": 80 + change % 100}]
            api.put(changed)
            yield None


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Probes:
    """Looks addresses up until they are known, in a thread whose own time is not counted."""

    def __init__(self, live: LiveEntities, lines: Iterable[str]) -> None:
        self.took_s: list[float] = []
        self.spent_s: float = 0
        self._live = live
        self._lines = lines
        self._began_s = time.monotonic()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        for line in self._lines:
            at_s, ip, wanted = line.split()
            if float(at_s) < self._began_s:
                continue
            while self._name(ip) != wanted and time.monotonic() - float(at_s) < 30:
                time.sleep(0.05)
            self.took_s.append(time.monotonic() - float(at_s))
            self.spent_s = time.thread_time()

    def _name(self, ip: str) -> str | None:
        import polars as pl  # noqa: PLC0415

        asked = pl.DataFrame({"ip": [ip], "time_ns": [time.time_ns()]})
        return self._live.entities.lookup(asked)["service"][0]


def main() -> None:
    from framewalk.engine.kubernetes import ClusterAccess, LiveEntities  # noqa: PLC0415

    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    folder = Path(tempfile.mkdtemp())
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", folder], stdout=subprocess.PIPE, text=True
    )
    try:
        while not (folder / "ready").exists():
            time.sleep(0.1)
        access = ClusterAccess(folder / "ready")
        with LiveEntities((), time.time(), accesses=[access]) as live:
            assert live.wait_listed(60)
            probes = Probes(live, server.stdout)
            report(live, probes, seconds)
    finally:
        server.kill()
        server.wait()


def report(live: LiveEntities, probes: Probes, seconds: float) -> None:
    """Print what each minute, and all of it, cost."""
    began, spent, began_s = time.process_time(), probes.spent_s, time.monotonic()
    print(f"at the start: {resident_mib():.0f} MiB", flush=True)
    before, tables = live.entities, 0
    parts = [(began_s, began - spent, 0)]
    while time.monotonic() - began_s < seconds:
        time.sleep(0.25)
        tables += live.entities is not before
        before = live.entities
        now_s = time.monotonic()
        if now_s - parts[-1][0] >= 60 or now_s - began_s >= seconds:
            used = time.process_time() - probes.spent_s
            share = (used - parts[-1][1]) / (now_s - parts[-1][0])
            late_s = sorted(probes.took_s[parts[-1][2] :]) or [0.0]
            parts.append((now_s, used, len(probes.took_s)))
            print(
                f"{now_s - began_s:.0f} s: {share:.2%} of a core, {resident_mib():.0f} MiB, "
                f"{tables} tables, {before.lookups.intervals.height:,} intervals; right after "
                f"{late_s[len(late_s) // 2]:.2f} s, at most {late_s[-1]:.2f} s "
                f"({len(late_s)} probes)",
                flush=True,
            )
    share = (parts[-1][1] - parts[0][1]) / (parts[-1][0] - began_s)
    late = sum(one > 1 for one in probes.took_s)
    print(f"all: {share:.2%} of a core, {late} of {len(probes.took_s)} probes later than 1 s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]))
    else:
        main()
