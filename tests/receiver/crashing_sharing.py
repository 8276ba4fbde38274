"""Kills engines that publish to one table, and followers of it, at random moments.

python tests/receiver/crashing_sharing.py --kills 300

Two engines, a third whose store is a copy of the first one's and that is sent the same streams,
and two followers; the table is a folder. With --batches a Dask cluster beside them replays a
capture again and again, and its scheduler, nanny and worker are killed, too.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import polars as pl
from comparison import differences, read_views
from crashing import CLIENT, HONEST_MESSAGES, RECOVERY_S, SENDERS, Sender, Servers
from dask_batches import VICTIMS, Batches
from followers import FollowerProcess
from hostile_messages import honest_stream
from recording import DEADLINE_S, Messages, recorded, wait_until

from framewalk.engine import Entities, Store, load_plan, replay
from framewalk.engine.oal import make_plan
from framewalk.engine.sharing import SharedTable

FEW = Path(__file__).parent.parent / "few.oal"
STREAMS_A_KILL = 2
LONGEST_PAUSE_S = 1.0
ENGINES = ("one", "two", "copy")
FOLLOWERS = ("follower", "other-follower")


class Cluster:
    """All processes, each over its own folder, and the table that they share."""

    def __init__(self, folder: Path, *, has_batches: bool) -> None:
        self.folder = folder
        self.table = folder / "table"
        self.servers = {name: self._server(name) for name in ("one", "two")}
        for one in self.servers.values():
            wait_until(lambda one=one: one.engine() is not None and self.table.is_dir(), RECOVERY_S)
        # What is copied is a store that has an identity.
        self.servers["one"].end()
        shutil.copytree(folder / "one", folder / "copy")
        for name in ("one", "copy"):
            self.servers[name] = self._server(name)
        self.followers = {name: self._follower(name) for name in FOLLOWERS}
        self.batches = Batches(folder / "batches", FEW) if has_batches else None

    def _server(self, name: str) -> Servers:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return Servers(
            folder,
            None,
            FRAMEWALK_OAL_PATHS=str(FEW),
            FRAMEWALK_ARCHIVE_MODE="none",
            FRAMEWALK_PUBLISH_URI=str(self.table),
            FRAMEWALK_PUBLISH_INTERVAL_SECONDS="0.2",
            FRAMEWALK_PUBLISH_ENGINE_NAME=name,
        )

    def _follower(self, name: str) -> FollowerProcess:
        # Both tidy: one of them may find that the other was faster.
        return FollowerProcess(self.folder, name, str(self.table), "--tidy-every", "3")

    def kill(self, name: str) -> str:
        """Kill a process; returns of which kind it was, empty where it was not there."""
        if self.batches is not None and name in VICTIMS:
            return f"{name} of Dask killed" if self.batches.kill(name) else ""
        if name in self.followers:
            self.followers[name].stop(signal.SIGKILL)
            self.followers[name] = self._follower(name)
            return "follower killed"
        server, _, part = name.partition(" ")
        if part == "engine":
            wait_until(self.servers[server].kill_engine, RECOVERY_S)
            return "engine killed"
        self.servers[server].kill_receiver()
        return "receiver killed"

    def end(self) -> None:
        """Have all published and merged, and stop as an operator does."""
        if self.batches is not None:
            self.batches.end(RECOVERY_S)
        for one in self.servers.values():
            one.end()
        for one in self.servers.values():
            # A second time, for what there was no time to publish.
            wait_until(lambda one=one: _publishes_all(one), RECOVERY_S)
        reached = _reached(self.table)
        for one in self.followers.values():
            wait_until(lambda one=one: one.ask(_SUM) == [(reached,)], RECOVERY_S)
            assert one.stop() == 0

    def close(self) -> None:
        if self.batches is not None:
            self.batches.close()
        for server in self.servers.values():
            server.process.kill()
            server.process.wait(DEADLINE_S)
        for follower in self.followers.values():
            follower.process.kill()
            follower.process.wait(DEADLINE_S)


_COPIED = "publishes as this one"
_SUM = "SELECT sum(commits)::BIGINT FROM engines"


def _publishes_all(server: Servers) -> bool:
    """Start a server again until all is published, or it is known that another does."""
    log = server.log.read_text()
    of = 'FROM internal.outbox WHERE "commit" > (SELECT published FROM internal.publishing)'
    with Store(server.store, make_plan(())) as store:
        ((left,),) = store.run(f"SELECT count(*) {of}")
    if not left or _COPIED in log:
        return True
    server.kill_receiver()
    server.end()
    return False


def _reached(uri: Path) -> int:
    """Return the sum of the last commits of all engines in a table."""
    table = SharedTable(str(uri))
    assert table.open()
    last: dict[str, int] = {}
    for file in table.files():
        for rows in table.rows(file):
            for engine, commit in rows.group_by("engine").agg(pl.col("commit").max()).iter_rows():
                last[engine] = max(last.get(engine, 0), commit)
    return sum(last.values())


def crash_sharing(
    folder: Path, kills: int, seed: int, *, has_batches: bool = False, minutes: float = math.inf
) -> Counter[str]:
    """Send streams to engines while processes are killed, and check what followers have.

    After so many minutes nothing more is killed.
    """
    cluster = Cluster(folder, has_batches=has_batches)
    count = max(kills, 10) * STREAMS_A_KILL
    streams = [honest_stream(CLIENT, number, HONEST_MESSAGES, _now_s()) for number in range(count)]
    shares = {"one": streams[0::2], "two": streams[1::2], "copy": streams[0::2]}
    senders = [Sender(cluster.servers[name].port, share) for name, share in shares.items()]
    draws = random.Random(seed)  # noqa: S311 - any numbers will do
    victims = [*FOLLOWERS, *ENGINES, *(f"{name} engine" for name in ENGINES)]
    victims += VICTIMS if has_batches else ()
    end_s = time.monotonic() + minutes * 60
    done: Counter[str] = Counter()
    with ThreadPoolExecutor(len(senders)) as threads, _ended(cluster, senders):
        sending = [threads.submit(one.run) for one in senders]
        while done.total() < kills and time.monotonic() < end_s:
            for one in senders:
                one.allow(STREAMS_A_KILL // 2)
            threading.Event().wait(draws.uniform(0, LONGEST_PAUSE_S))
            kind = cluster.kill(draws.choice(victims))
            if kind:
                done[kind] += 1
        for one in senders:
            one.allow(count + SENDERS)
        for each in sending:
            each.result()
        cluster.end()
    _check(cluster, shares)
    logs = [cluster.servers[name].log.read_text() for name in ("one", "copy")]
    done["stores that another was a copy of"] = sum(_COPIED in log for log in logs)
    done["streams"] = count
    if cluster.batches is not None:
        cluster.batches.check()
        done["replays on Dask"] = cluster.batches.finished
    return done


@contextmanager
def _ended(cluster: Cluster, senders: list[Sender]) -> Iterator[None]:
    with ExitStack() as stack:
        stack.callback(cluster.close)
        for one in senders:
            stack.callback(one.give_up)
        yield


def _now_s() -> int:
    return int(time.time())


def _check(cluster: Cluster, shares: dict[str, list[Messages]]) -> None:
    for name, server in cluster.servers.items():
        log = server.log.read_text()
        assert "Traceback" not in log, log
        assert recorded(server.spool) == sorted(shares[name]), name
    with Store(":memory:", load_plan(FEW)) as whole:
        replay([cluster.servers[name].spool for name in ("one", "two")], Entities.empty(), whole)
        wanted = read_views(whole)
        counters = _counters(whole)
    for follower in cluster.followers.values():
        with Store(follower.store, make_plan(())) as store:
            assert differences(read_views(store), wanted) == []
            assert _counters(store) == counters


def _counters(store: Store) -> list[tuple[object, ...]]:
    sums = "SELECT kind, name, sum(count)::BIGINT FROM internal.counters GROUP BY ALL ORDER BY ALL"
    return store.query(sums).fetchall()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batches", action="store_true", help="with a Dask cluster beside")
    parser.add_argument("--minutes", type=float, default=math.inf, help="kill no more after that")
    options = parser.parse_args()
    own = {"has_batches": options.batches, "minutes": options.minutes}
    with tempfile.TemporaryDirectory() as folder:
        done = crash_sharing(Path(folder), options.kills, options.seed, **own)
    print(*(f"{count:,} {what}" for what, count in done.items()), sep=", ")
    print("every stream is counted once: both followers equal a replay of all")


if __name__ == "__main__":
    main()
