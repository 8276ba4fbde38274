"""Kills servers at random moments while streams are sent: run it for as many kills as you like.

python tests/receiver/crashing.py --kills 100
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parent.parent))

from comparison import differences, read_views
from recording import FRAMEWALK, Messages, call_of, free_port, recorded, wait_until

from framewalk.engine import Store, load_plan, read_entities, replay

BOOKINFO = Path(__file__).parent.parent.parent / "fixtures" / "captures" / "bookinfo"
SENDERS = 4
LONGEST_PAUSE_S = 2.0
# How long a killed server may take until it takes in a stream again.
RECOVERY_S = 300


class Servers:
    """One server after the other, over the same spool and store."""

    def __init__(self, folder: Path, dump: Path, **environment: str) -> None:
        self.port = free_port()
        self.spool, self.store, self.log = folder / "spool", folder / "store", folder / "log"
        self._dump = dump
        self._environment = {
            "FRAMEWALK_FLUSH_INTERVAL_SECONDS": "0.2",
            "FRAMEWALK_SPOOL_SEGMENT_AGE_SECONDS": "2",
            "FRAMEWALK_SQL": "-",
            "SW_TELEMETRY": "none",
            "SW_CORE_GRPC_HOST": "127.0.0.1",
        } | environment
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = ["--port", str(self.port), "--spool", self.spool, "--store", self.store]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [FRAMEWALK, "serve", *arguments, "--entities", self._dump],
                env=os.environ | self._environment,
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
        """Start one that is left alone, and stop it as an operator does."""
        told = self.log.read_bytes().count(b"engine ready")
        self.kill_receiver()
        wait_until(lambda: self.log.read_bytes().count(b"engine ready") > told, RECOVERY_S)
        self.process.terminate()
        assert self.process.wait(RECOVERY_S) == 0, self.log.read_text()


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


def crash(folder: Path, capture: Path, kills: int, seed: int, **environment: str) -> Counter[str]:
    """Send a capture's streams to servers that are killed, and check what became of them."""
    draws = random.Random(seed)  # noqa: S311 - any numbers will do
    streams = recorded(capture)
    servers = Servers(folder, capture / "kubectl.yaml", **environment)
    sender = Sender(servers.port, streams)
    done: Counter[str] = Counter()
    with ThreadPoolExecutor(1) as thread, _ended(servers, sender):
        sending = thread.submit(sender.run)
        while done.total() < kills:
            sender.allow(len(streams) // kills)
            threading.Event().wait(draws.uniform(0, LONGEST_PAUSE_S))
            if draws.random() < 0.5:
                servers.kill_receiver()
                done["receiver killed"] += 1
            else:
                done["engine killed"] += servers.kill_engine()
        sender.allow(len(streams) + SENDERS)
        sending.result()
        servers.end()
    _check(servers, capture, streams)
    done["streams"], done["attempts"] = len(streams), sender.attempts
    return done


@contextmanager
def _ended(servers: Servers, sender: Sender) -> Iterator[None]:
    try:
        yield
    finally:
        sender.give_up()
        servers.process.kill()
        servers.process.wait()


def _check(servers: Servers, capture: Path, streams: list[Messages]) -> None:
    log = servers.log.read_text()
    assert "Traceback" not in log, log
    assert recorded(servers.spool) == streams
    plan = load_plan()
    with Store(":memory:", plan) as whole, Store(servers.store, plan) as crashed:
        replay([capture], read_entities(capture / "kubectl.yaml"), whole)
        for store in (whole, crashed):
            store.query("SELECT 1").fetchall()
        assert _counters(crashed) == _counters(whole)
        assert differences(read_views(crashed), read_views(whole)) == []


def _counters(store: Store) -> dict[tuple[str, str], int]:
    sums = "SELECT kind, name, sum(count)::BIGINT FROM internal.counters GROUP BY ALL"
    return {(kind, name): count for kind, name, count in store.query(sums).fetchall()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--capture", type=Path, default=BOOKINFO, help="folder with kubectl.yaml")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = crash(Path(folder), options.capture, options.kills, options.seed)
    print(*(f"{count:,} {what}" for what, count in done.items()), sep=", ")
    print("every stream is counted once: the store equals a replay of the capture")


if __name__ == "__main__":
    main()
