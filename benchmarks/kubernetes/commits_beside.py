"""How long commits take with and without 100 changes a second of a watched cluster beside them.

    python benchmarks/kubernetes/commits_beside.py CAPTURE [ROUNDS]

Each round makes five commits of 1,400 messages while the small API server of `watch_load.py` is
stopped, and five while it goes on; who is first alternates.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from framewalk.engine import Store, load_plan
from framewalk.engine.captures import CaptureReader, CaptureWriter
from framewalk.engine.kubernetes import ClusterAccess, LiveEntities
from framewalk.engine.runs import SpoolFollower

MESSAGES, COMMITS, SETTLE_S = 1_400, 5, 1.0


class Commits:
    """Commits slices of a capture as segments of a spool, and keeps how long each took."""

    def __init__(self, capture: Path, spool: Path, store: Store) -> None:
        with CaptureReader(capture) as reader:
            batches = [one.messages for one in reader]
        self.wall_s: dict[bool, list[float]] = {False: [], True: []}
        self.cpu_s: dict[bool, list[float]] = {False: [], True: []}
        (self._messages,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
        self._spool = spool
        self._follower = SpoolFollower(spool, store, 0, "~")
        self._number = 0

    def one(self, live: LiveEntities, *, has_changes: bool) -> None:
        self._write()
        time.sleep(SETTLE_S / COMMITS)
        began_s, spent_s = time.monotonic(), time.thread_time()
        list(self._follower.follow(live.entities, float(self._number)))
        self.wall_s[has_changes].append(time.monotonic() - began_s)
        self.cpu_s[has_changes].append(time.thread_time() - spent_s)

    def _write(self) -> None:
        self._number += 1
        start = self._number * MESSAGES % (self._messages.num_rows - MESSAGES)
        batch = self._messages.slice(start, MESSAGES)
        path = self._spool / f"{10**18 + self._number:020d}.capture.arrows"
        with CaptureWriter(path) as writer:
            writer.write(batch)


def main() -> None:
    capture, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 6
    folder = Path(tempfile.mkdtemp())
    (folder / "spool").mkdir()
    program = Path(__file__).with_name("watch_load.py")
    server = subprocess.Popen(
        [sys.executable, program, "--serve", folder], stdout=subprocess.DEVNULL
    )
    try:
        while not (folder / "ready").exists():
            time.sleep(0.1)
        access = ClusterAccess(folder / "ready")
        with (
            LiveEntities((), time.time(), accesses=[access]) as live,
            Store(folder / "store.duckdb", load_plan()) as store,
        ):
            assert live.wait_listed(60)
            commits = Commits(capture, folder / "spool", store)
            for number in range(rounds):
                for has_changes in (bool(number % 2), not number % 2):
                    server.send_signal(signal.SIGCONT if has_changes else signal.SIGSTOP)
                    time.sleep(SETTLE_S)
                    for _ in range(COMMITS):
                        commits.one(live, has_changes=has_changes)
        for name, took_s in (("elapsed", commits.wall_s), ("CPU", commits.cpu_s)):
            without, beside = (statistics.median(took_s[one]) * 1000 for one in (False, True))
            print(f"{name}: {without:.1f} ms without, {beside:.1f} ms with, {beside / without:.3f}")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
