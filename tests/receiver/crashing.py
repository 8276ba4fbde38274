"""Kills servers at random moments while streams are sent: run it for as many kills as you like.

python tests/receiver/crashing.py --kills 100
python tests/receiver/crashing.py --kills 300 --hostile
python tests/receiver/crashing.py --kills 100 --sampled
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import polars as pl

sys.path.insert(0, str(Path(__file__).parent.parent))

from comparison import differences, read_views
from hostile_messages import (
    ATTACKER,
    Hostile,
    calls_query,
    honest_calls,
    honest_stream,
)
from http2_client import Http2Client, body_of
from processes import free_port
from recording import (
    COLLECT,
    DEADLINE_S,
    FRAMEWALK,
    Messages,
    call_of,
    recorded,
    wait_until,
)
from server_logs import ServerLog, show_if_test_fails

from framewalk.engine import Entities, Plan, Store, load_plan, read_entities, replay
from framewalk.engine.archive import (
    KINDS,
    Archive,
    ArchiveOptions,
    Mode,
    Sampling,
    archive_folder,
    view_name,
)
from framewalk.engine.remaking import relate

BOOKINFO = Path(__file__).parent.parent.parent / "fixtures" / "captures" / "bookinfo"
SENDERS = 4
LONGEST_PAUSE_S = 2.0
# Long enough for an engine to come to reading now and then.
LONG_PAUSE_S = 4.0
# How long a killed server may take until it takes in a stream again.
RECOVERY_S = DEADLINE_S
CLIENT = "honest"
COUNT_CALLS = calls_query(CLIENT)
HONEST_MESSAGES = 20
STREAMS_A_KILL = 10
HOSTILE_MESSAGES = 50
HOSTILE_EVERY_S = 0.1


SAMPLING = Sampling(5, 20)
SAMPLED = {
    "FRAMEWALK_ARCHIVE_MODE": str(Mode.SAMPLED),
    "FRAMEWALK_ARCHIVE_SAMPLE_ONE_IN": str(SAMPLING.one_in),
    "FRAMEWALK_ARCHIVE_SLOW_MS": str(SAMPLING.slow_ms),
}
REQUESTS = "SELECT * EXCLUDE (request) FROM http_logs ORDER BY ALL"
_LASTED_NS = pl.coalesce("serving_duration_ns", "duration_ns")
NOTABLE = (pl.col("status_code") >= 500) | (SAMPLING.slow_ms * 10**6 <= _LASTED_NS)


class Servers:
    """One server after the other, over the same spool and store."""

    def __init__(
        self,
        folder: Path,
        dump: Path | None,
        until: Callable[[], bool] = lambda: True,
        **environment: str,
    ) -> None:
        self._until = until
        self.port, self._metrics_port = free_port(), free_port()
        self.spool, self.store, self.log = folder / "spool", folder / "store", folder / "log"
        self._entities = () if dump is None else ("--entities", dump)
        self._environment = {
            "FRAMEWALK_FLUSH_INTERVAL_SECONDS": "0.2",
            "FRAMEWALK_SPOOL_SEGMENT_AGE_SECONDS": "2",
            "FRAMEWALK_SQL": "-",
            "SW_TELEMETRY_PROMETHEUS_PORT": str(self._metrics_port),
            "SW_CORE_GRPC_HOST": "127.0.0.1",
            "FRAMEWALK_ARCHIVE_DIRECTORY": str(folder / "archive"),
            "FRAMEWALK_ARCHIVE_MODE": Mode.ALL,
        } | environment
        self.process = self._start()
        has_ended = lambda: self.process.poll() is not None  # noqa: E731
        show_if_test_fails(ServerLog("the servers, one after the other", self._lines, has_ended))

    def _lines(self) -> list[str]:
        return self.log.read_text().splitlines(keepends=True)

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = ["--port", str(self.port), "--spool", self.spool, "--store", self.store]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [FRAMEWALK, "serve", *arguments, *self._entities],
                env=os.environ | {"SW_QUERY": "-", "SW_PROMQL": "-"} | self._environment,
                stderr=log,
            )

    def engine(self) -> int | None:
        """Return the process id of the engine, if there is one now."""
        main = self.process.pid
        with suppress(FileNotFoundError):
            children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
            return int(children[0]) if children else None
        return None

    def kill_receiver(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def kill_engine(self) -> bool:
        engine = self.engine()
        if engine is None:
            return False
        os.kill(engine, signal.SIGKILL)
        return True

    def end(self) -> None:
        """Start one that is left alone until it has read all, and stop it as an operator does."""
        self.kill_receiver()
        wait_until(self._until, RECOVERY_S)
        wait_until(self._has_read_all, RECOVERY_S)
        self.process.terminate()
        assert self.process.wait(RECOVERY_S) == 0, self.log.read_text()

    def _has_read_all(self) -> bool:
        try:
            told = httpx.get(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=DEADLINE_S)
        except httpx.TransportError:
            return False
        values = dict(re.findall(r"^framewalk_engine_(\w+) (\S+)$", told.text, re.MULTILINE))
        is_up = float(values.get("up", 0)) == 1
        return is_up and float(values.get("unread_bytes", 1)) == 0


class Sender:
    """Sends each stream until it is acknowledged, no faster than it is allowed to."""

    def __init__(self, port: int, streams: list[Messages]) -> None:
        self.attempts = 0
        self._streams = iter(streams)
        self._total = len(streams)
        self._next = threading.Lock()
        self._allowed = threading.Semaphore(0)
        self._port = port

    def allow(self, streams: int) -> None:
        self._allowed.release(max(streams, 1))

    def give_up(self) -> None:
        """Let everybody end who waits for leave to send."""
        self._streams = iter(())
        self.allow(SENDERS)

    def run(self) -> None:
        with ThreadPoolExecutor(SENDERS) as threads:
            for done in [threads.submit(self._send_some) for _ in range(SENDERS)]:
                done.result()

    def _send_some(self) -> None:
        fast = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
        own = [*fast, ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{self._port}", own) as channel:
            while True:
                self._allowed.acquire()
                with self._next:
                    stream = next(self._streams, None)
                if stream is None:
                    return
                self._send(channel, stream)

    def _send(self, channel: grpc.Channel, stream: Messages) -> None:
        end_s = time.monotonic() + RECOVERY_S
        while True:
            self.attempts += 1
            try:
                call_of(channel)(iter(stream), timeout=20, wait_for_ready=True)
            except grpc.RpcError:
                assert time.monotonic() < end_s
            else:
                return


class Attacker:
    """Sends hostile streams, ten a second at most, to whichever server is there."""

    def __init__(self, port: int, seed: int) -> None:
        self.acknowledged = 0
        self._address = f"127.0.0.1:{port}"
        self._hostile = Hostile(seed, int(time.time()))
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(HOSTILE_EVERY_S):
            # It is killed, too, and does not come back.
            with suppress(OSError, AssertionError):
                self._send()

    def end(self) -> None:
        self._done.set()

    def _send(self) -> None:
        with Http2Client(self._address, source=ATTACKER) as client:
            while not self._done.wait(HOSTILE_EVERY_S):
                stream = self._hostile.stream(HOSTILE_MESSAGES)
                self.acknowledged += client.call(COLLECT, body_of(stream)).status == "0"


@dataclass(frozen=True)
class Killing:
    """What is sent, and how often a server is killed meanwhile, after a drawn pause each time."""

    streams: list[Messages]
    kills: int
    seed: int
    longest_pause_s: float


def crash(
    folder: Path,
    capture: Path,
    kills: int,
    seed: int,
    until: Callable[[], bool] = lambda: True,
    **environment: str,
) -> Counter[str]:
    """Send a capture's streams to servers that are killed, and check what became of them.

    The last one is left alone until it has read all, and `until` holds.
    """
    streams = recorded(capture)
    servers = Servers(folder, capture / "kubectl.yaml", until, **environment)
    done = _send_and_kill(servers, Killing(streams, kills, seed, LONGEST_PAUSE_S))
    paths = environment.get("FRAMEWALK_OAL_PATHS")
    plan = load_plan(paths) if paths else load_plan()
    if environment.get("FRAMEWALK_ARCHIVE_MODE") == Mode.SAMPLED:
        _check_sampled(servers, capture, streams, plan)
    else:
        _check(servers, capture, streams, plan)
    return done


def crash_attacked(folder: Path, kills: int, seed: int, **environment: str) -> Counter[str]:
    """Do the same with honest streams beside hostile ones, and count the honest logs."""
    numbers, now_s = range(kills * STREAMS_A_KILL), int(time.time())
    streams = [honest_stream(CLIENT, number, HONEST_MESSAGES, now_s) for number in numbers]
    servers = Servers(folder, None, **environment)
    attacker = Attacker(servers.port, seed)
    done = _send_and_kill(servers, Killing(streams, kills, seed, LONG_PAUSE_S), attacker)
    done["hostile streams"] = attacker.acknowledged
    _check_attacked(servers, streams)
    return done


def _send_and_kill(
    servers: Servers, killing: Killing, attacker: Attacker | None = None
) -> Counter[str]:
    """Send streams, each until it is acknowledged, and kill both processes meanwhile."""
    draws = random.Random(killing.seed)  # noqa: S311 - any numbers will do
    sender = Sender(servers.port, killing.streams)
    done: Counter[str] = Counter()
    with ThreadPoolExecutor(2) as threads, _ended(servers, sender, attacker):
        sending = threads.submit(sender.run)
        attacking = threads.submit(attacker.run) if attacker else None
        while done.total() < killing.kills:
            sender.allow(len(killing.streams) // killing.kills)
            threading.Event().wait(draws.uniform(0, killing.longest_pause_s))
            if draws.random() < 0.5:
                servers.kill_receiver()
                done["receiver killed"] += 1
            elif done["engine killed"]:
                done["engine killed"] += servers.kill_engine()
            else:
                wait_until(servers.kill_engine, RECOVERY_S)
                done["engine killed"] += 1
        sender.allow(len(killing.streams) + SENDERS)
        sending.result()
        if attacker and attacking:
            wait_until(lambda: attacker.acknowledged or attacking.done())
            attacker.end()
            attacking.result()
        servers.end()
    done["streams"], done["attempts"] = len(killing.streams), sender.attempts
    return done


@contextmanager
def _ended(servers: Servers, sender: Sender, attacker: Attacker | None) -> Iterator[None]:
    try:
        yield
    finally:
        sender.give_up()
        if attacker:
            attacker.end()
        servers.process.kill()
        servers.process.wait()


def _check(servers: Servers, capture: Path, streams: list[Messages], plan: Plan) -> None:
    log = servers.log.read_text()
    assert "Traceback" not in log, log
    assert recorded(servers.spool) == streams
    with (
        Store(":memory:", plan) as whole,
        Store(servers.store, plan) as crashed,
        Archive(whole, servers.store.with_name("again"), ArchiveOptions(Mode.ALL)) as archive,
    ):
        entities = read_entities(capture / "kubectl.yaml")
        replay([capture], entities, whole, archive=archive)
        # A server may have made some by then.
        relate(whole, archive)
        folder = archive_folder(crashed)
        assert folder is not None
        with Archive(crashed, folder, ArchiveOptions(Mode.ALL)) as kept:
            relate(crashed, kept)
        for store in (whole, crashed):
            store.query("SELECT 1").fetchall()
        assert _wrong_counters(crashed, whole) == {}
        assert differences(read_views(crashed), read_views(whole)) == []
        for kind in KINDS:
            logs = f"SELECT * EXCLUDE (request) FROM {view_name(kind)} ORDER BY ALL"
            assert crashed.query(logs).pl().equals(whole.query(logs).pl()), kind


def _check_sampled(servers: Servers, capture: Path, streams: list[Messages], plan: Plan) -> None:
    """Metrics are whole, and of the requests those are left that stay, each once.

    Logs may have come after others were sampled: the other log of a slow call may be there or not,
    and relations are of what came before.
    """
    log = servers.log.read_text()
    assert "Traceback" not in log, log
    assert recorded(servers.spool) == streams
    options = ArchiveOptions(Mode.SAMPLED, sampling=SAMPLING)
    with (
        Store(":memory:", plan) as whole,
        Store(servers.store, plan) as crashed,
        Archive(whole, servers.store.with_name("again"), options) as archive,
    ):
        replay([capture], read_entities(capture / "kubectl.yaml"), whole, archive=archive)
        every = whole.query(REQUESTS).pl()
        folder = archive_folder(crashed)
        assert folder is not None
        with Archive(crashed, folder, options) as kept:
            _leave_some(crashed, kept)
        _leave_some(whole, archive)
        crashed.query("SELECT 1").fetchall()
        assert _wrong_counters(crashed, whole) == {}
        views = [read_views(store) | {"endpoint_relation": {}} for store in (crashed, whole)]
        assert differences(*views) == []
        found, left = (store.query(REQUESTS).pl() for store in (crashed, whole))
        told = [name for name in every.columns if name not in {"weight", "sample"}]
        counts = [Counter(one.select(told).rows()) for one in (found, every, left)]
        assert counts[0] <= counts[1]
        assert found.height < every.height
        notable = every.filter(NOTABLE)
        assert 0 < notable.height < left.height
        assert Counter(notable.select(told).rows()) <= counts[0]
        drawn = left.filter(pl.col("weight") > 1)
        assert drawn.height
        assert Counter(drawn.select(told).rows()) <= counts[0]


def _leave_some(store: Store, archive: Archive) -> None:
    relate(store, archive)
    while archive.compact(1, open_from_ns=2**62):
        pass


def _check_attacked(servers: Servers, streams: list[Messages]) -> None:
    log = servers.log.read_text()
    assert "Traceback" not in log, log
    assert list((servers.spool / "quarantine").glob("*.arrows")) == []
    # What was acknowledged is there, and once.
    kept = Counter(map(tuple, recorded(servers.spool)))
    assert [kept[tuple(one)] for one in streams] == [1] * len(streams)
    plan = load_plan()
    with Store(":memory:", plan) as whole, Store(servers.store, plan) as crashed:
        found = {str(name): int(calls) for name, calls in crashed.query(COUNT_CALLS).fetchall()}
        numbers = [(number, len(one)) for number, one in enumerate(streams)]
        accepts = sum(map(len, streams))
        assert found == honest_calls(numbers) | {"accept": accepts}
        # The same for those that are hostile.
        replay([servers.spool], Entities.empty(), whole)
        whole.query("SELECT 1").fetchall()
        assert _wrong_counters(crashed, whole) == {}


def _wrong_counters(crashed: Store, whole: Store) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the counters that differ, as they are and as they should be."""
    found, wanted = _counters(crashed), _counters(whole)
    both = {key: (found.get(key, 0), wanted.get(key, 0)) for key in found | wanted}
    return {key: (is_now, should) for key, (is_now, should) in both.items() if is_now != should}


def _counters(store: Store) -> dict[tuple[str, str], int]:
    sums = "SELECT kind, name, sum(count)::BIGINT FROM internal.counters GROUP BY ALL"
    return {(kind, name): count for kind, name, count in store.query(sums).fetchall()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--capture", type=Path, default=BOOKINFO, help="folder with kubectl.yaml")
    parser.add_argument(
        "--hostile", action="store_true", help="made streams, with hostile ones beside them"
    )
    parser.add_argument("--sampled", action="store_true", help="an archive in mode sampled")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.hostile:
            done = crash_attacked(Path(folder), options.kills, options.seed)
        else:
            mode = SAMPLED if options.sampled else {}
            done = crash(Path(folder), options.capture, options.kills, options.seed, **mode)
    print(*(f"{count:,} {what}" for what, count in done.items()), sep=", ")
    print("every stream is counted once: the store and its archive equal those of a replay")


if __name__ == "__main__":
    main()
