"""Sends hostile messages to a server, with honest streams between them, and checks both.

python tests/receiver/hostile.py --messages 1000000 --seeds 1 2 3
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import grpc
import httpx
from google.protobuf.message import DecodeError
from hostile_messages import ATTACKER, Hostile, calls_query, honest_calls, honest_stream
from http2_client import Http2Client, body_of
from recording import COLLECT, DEADLINE_S, Messages, call_of, own_connection, wait_until
from serving import Serving

from framewalk.engine.wire import access_log_pb2 as pb

CALLS_PER_CONNECTION = 1_000
ENGINE_BYTES = 2**30
RECEIVER_BYTES = 512 * 2**20
HONEST_EVERY_S = 0.1
HONEST_MESSAGES = 20
# How long an engine may take for all that it was sent.
LONG_S = 3 * 3_600


@dataclass
class Seen:
    """What became of the messages, and what they cost."""

    seed: int
    hostile: int = 0
    hostile_streams: int = 0
    no_protobuf: int = 0
    honest: int = 0
    honest_streams: int = 0
    refused: int = 0
    slowest_answer_s: float = 0
    sent_s: float = 0
    computed_s: float = 0
    engine_cpu_s: float = 0
    peak_bytes: dict[str, int] = field(default_factory=dict)
    bad_input: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, float] = field(default_factory=dict)


class Honest:
    """Sends a stream again and again over a connection of its own, as nobody else does."""

    def __init__(self, server: Serving, client: str, seen: Seen) -> None:
        self.client = client
        self.sent: list[tuple[int, int]] = []
        self._server = server
        self._seen = seen

    def send(self, done: threading.Event) -> None:
        with own_connection(self._server) as channel:
            while not done.wait(HONEST_EVERY_S):
                self._send_one(channel)

    def wait_for_more(self) -> None:
        enough = len(self.sent) + 1
        wait_until(lambda: len(self.sent) >= enough or self._seen.refused)

    def _send_one(self, channel: grpc.Channel) -> None:
        number = len(self.sent)
        messages = honest_stream(self.client, number, HONEST_MESSAGES, int(time.time()))
        started_s = time.monotonic()
        try:
            call_of(channel)(iter(messages), timeout=DEADLINE_S)
        except grpc.RpcError:
            self._seen.refused += 1
            return
        self.sent.append((number, HONEST_MESSAGES))
        slowest_s = max(self._seen.slowest_answer_s, time.monotonic() - started_s)
        self._seen.slowest_answer_s = slowest_s


def attack(folder: Path, messages: int, seed: int, stream_messages: int = 500) -> Seen:
    """Send that many hostile messages to a new server, and check what became of all."""
    seen = Seen(seed)
    server = Serving(folder, FRAMEWALK_FLUSH_INTERVAL_SECONDS="1", FRAMEWALK_OAL_PATHS="")
    try:
        server.wait_for("engine ready")
        honest = Honest(server, f"honest-{seed}", seen)
        started_s = time.monotonic()
        with _beside(honest.send):
            honest.wait_for_more()
            _send_hostile(server, seen, messages, stream_messages)
            seen.sent_s = time.monotonic() - started_s
            # The honest one goes on for as long as there is something to compute.
            wait_until(lambda: _counted(server) >= seen.hostile, LONG_S)
            honest.wait_for_more()
        seen.honest = sum(count for _, count in honest.sent)
        seen.honest_streams = len(honest.sent)
        wait_until(lambda: _counted(server) >= seen.hostile + seen.honest, LONG_S)
        seen.computed_s = time.monotonic() - started_s
        _check(server, seen, honest)
        assert server.stop() == 0
        assert not [line for line in server.lines if "Traceback" in line]
    finally:
        server.process.kill()
        server.wait()
    return seen


@contextmanager
def _beside(send: Callable[[threading.Event], None]) -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=send, args=(done,))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def send_hostile(address: str, streams: Iterator[Messages]) -> Iterator[int]:
    """Send streams one after the other, over few connections; yields how many messages each had."""
    client, left = None, 0
    for stream in streams:
        if client is None or client.gone or not left:
            if client is not None:
                client.socket.close()
            client, left = Http2Client(address, source=ATTACKER), CALLS_PER_CONNECTION
        left -= 1
        answer = client.call(COLLECT, body_of(stream))
        assert answer.status == "0", answer
        yield len(stream)
    if client is not None:
        client.socket.close()


def _send_hostile(server: Serving, seen: Seen, messages: int, stream_messages: int) -> None:
    hostile = Hostile(seen.seed, int(time.time()))

    def draw() -> Iterator[Messages]:
        while seen.hostile < messages:
            stream = hostile.stream(stream_messages)
            seen.no_protobuf += sum(not is_protobuf(message) for message in stream)
            yield stream

    for count in send_hostile(server.address, draw()):
        seen.hostile += count
        seen.hostile_streams += 1


def is_protobuf(message: bytes) -> bool:
    try:
        pb.EBPFAccessLogMessage.FromString(message)
    except DecodeError:
        return False
    return True


def _counted(server: Serving) -> float:
    assert server.process.poll() is None, server.lines
    return server.metrics().get("framewalk_engine_messages", 0)


def _check(server: Serving, seen: Seen, honest: Honest) -> None:
    told = server.metrics()
    for kind, counts in (("bad_input", seen.bad_input), ("dropped_logs", seen.dropped)):
        begin = f"framewalk_engine_{kind}{{"
        counts |= {name.split('"')[1]: told[name] for name in told if name.startswith(begin)}
    seen.peak_bytes = {
        "engine": peak_bytes(server.engine()),
        "receiver": peak_bytes(server.process.pid),
    }
    seen.engine_cpu_s = told["framewalk_engine_cpu_seconds"]
    # Nothing ended an engine, and each message is counted once, whatever it is.
    assert told["framewalk_engine_restarts"] == 0, server.lines
    assert told["framewalk_engine_messages"] == seen.hostile + seen.honest
    assert told["k8s_als_in_count"] == seen.hostile + seen.honest
    assert seen.bad_input.get("quarantined", 0) == 0
    # What protobuf's own parser does not take, or less: groups that do not end are taken here.
    assert 0.9 * seen.no_protobuf <= seen.bad_input["undecodable_message"] <= seen.no_protobuf
    # Who is honest had no refusal, and each of its logs is counted once.
    assert seen.refused == 0
    assert calls(server, honest.client) == honest_calls(honest.sent) | {"accept": seen.honest}
    assert seen.peak_bytes["engine"] < ENGINE_BYTES
    assert seen.peak_bytes["receiver"] < RECEIVER_BYTES


def calls(server: Serving, client: str) -> dict[str, int]:
    """Ask a server for the calls of a client's services."""
    port = server.environment["FRAMEWALK_SQL_LISTEN_PORT"]
    answer = httpx.post(
        f"http://127.0.0.1:{port}/sql", json={"query": calls_query(client)}, timeout=DEADLINE_S
    )
    assert answer.status_code == 200, answer.text
    return {row["name"]: int(row["calls"]) for row in answer.json()["rows"]}


def peak_bytes(process: int) -> int:
    """Return the most memory that a process ever had."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000, help="in all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    found = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            seen = attack(Path(folder), options.messages // len(options.seeds), seed)
        found.append(asdict(seen))
        print(json.dumps(found[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("no engine ended, and every message is counted once")


if __name__ == "__main__":
    main()
