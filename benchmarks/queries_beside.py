"""How long acknowledgements take, and computing, while a server answers heavy queries.

    python benchmarks/queries_beside.py --rounds 5 --json beside.json

Runs `framewalk serve` and sends it a stream of some hundred messages every tenth of a second. In
turn nobody asks, or two clients in processes of their own ask the heaviest query of a protocol
again and again, in every round in another order. A stream counts from its first byte until it is
acknowledged. Ends with 1 where the median beside queries is more than is accepted above that of
the same rounds without.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from frame.asking import MIXED, Client, Shop, heavy_query
from frame.server import cpu_s, free_ports, running
from live import boutique_load, send_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from multiprocessing.sharedctypes import Synchronized

    from frame.server import Server
    from live import Framed, Load

NOBODY: Final = "nobody"
EVERY_S: Final = 0.1
ASKERS: Final = 2
MOST_LATER_MS: Final = 20
_WARM_STREAMS: Final = 100
_CATCH_UP_S: Final = 600


@dataclass(frozen=True)
class Beside:
    """What streams took while somebody asked, or nobody did."""

    asked: str
    answers: int
    latencies_ms: Sequence[float]
    receiver_cpu_s: float
    engine_cpu_s: float
    largest_lag_s: float
    caught_up_s: float


class Sending:
    """Sends streams in turn, none like another, and counts messages."""

    def __init__(self, server: Server, load: Load) -> None:
        self._server, self._stream = server, load.stream
        self._number = self.messages = 0

    def send(self) -> float:
        """Send the next stream, and return after how many ms it was acknowledged."""
        framed: Framed = self._stream(self._number)
        began_s = time.perf_counter()
        send_stream(self._server.port, framed.content)
        took_s = time.perf_counter() - began_s
        self._number += 1
        self.messages += framed.messages
        return 1_000 * took_s

    def wait_until_counted(self) -> float:
        """Wait until the engine has all of it, and return how many seconds that took."""
        began_s = time.monotonic()
        while self._server.told()["framewalk_engine_messages"] < self.messages:
            assert time.monotonic() < began_s + _CATCH_UP_S, self._server.told()
            time.sleep(0.1)
        return time.monotonic() - began_s


def ask_on(ports: Mapping[str, int], protocol: str, shop: Shop, answers: Synchronized[int]) -> None:
    """Ask the heaviest query of a protocol until this process is ended.

    What is refused for its time is asked again, and is no answer.
    """
    client, query = Client(ports), heavy_query(protocol, shop)
    while True:
        status, answer = client.ask(query)
        assert status in {200, 408, 503}, answer[:500]
        with answers.get_lock():
            answers.value += status == 200


def measure(rounds: int, seconds: float) -> list[Beside]:
    """Measure in turn beside each protocol's heavy query, and beside nobody."""
    load = boutique_load()
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / load.dump_name
        dump.write_text(load.dump_text)
        with running(dump, free_ports()) as server:
            sending = Sending(server, load)
            for _ in range(_WARM_STREAMS):
                sending.send()
            sending.wait_until_counted()
            shop = Shop.of(Client(server.query_ports))
            return [_beside(server, sending, asked, shop, seconds) for asked in _in_turn(rounds)]


def _in_turn(rounds: int) -> Iterator[str]:
    draw = random.Random(0)  # noqa: S311 - an order, no secret
    for _ in range(rounds):
        yield from draw.sample([NOBODY, *MIXED], len(MIXED) + 1)


def _beside(server: Server, sending: Sending, asked: str, shop: Shop, seconds: float) -> Beside:
    answers = multiprocessing.Value("i", 0)
    given = server.query_ports, asked, shop, answers
    askers = [
        multiprocessing.Process(target=ask_on, args=given, daemon=True)
        for _ in range(0 if asked == NOBODY else ASKERS)
    ]
    for asker in askers:
        asker.start()
    before = cpu_s(server.receiver), cpu_s(server.engine)
    latencies_ms, lags_s, end_s = [], [], time.monotonic() + seconds
    next_s = time.monotonic()
    while time.monotonic() < end_s:
        latencies_ms.append(sending.send())
        if len(latencies_ms) % 10 == 0:
            lags_s.append(server.told()["framewalk_engine_lag_seconds"])
        next_s += EVERY_S
        time.sleep(max(0, next_s - time.monotonic()))
    spent = cpu_s(server.receiver) - before[0], cpu_s(server.engine) - before[1]
    # What waits to be computed is computed beside the queries, too.
    caught_up_s = sending.wait_until_counted()
    for asker in askers:
        asker.terminate()
        asker.join()
    found = Beside(
        asked, answers.value, latencies_ms, *spent, max(lags_s, default=0.0), caught_up_s
    )
    print(_line(asked, [found]), flush=True)
    return found


def _line(asked: str, found: Sequence[Beside]) -> str:
    latencies_ms = sorted(one for round_ in found for one in round_.latencies_ms)
    count = len(latencies_ms)
    return (
        f"| {asked} | {sum(one.answers for one in found):,} | {count:,} "
        f"| {statistics.median(latencies_ms):.1f} | {latencies_ms[int(0.95 * count)]:.1f} "
        f"| {latencies_ms[-1]:.1f} "
        f"| {1_000 * sum(one.receiver_cpu_s for one in found) / count:.1f} "
        f"| {max(one.largest_lag_s for one in found):.1f} "
        f"| {max(one.caught_up_s for one in found):.1f} |"
    )


def main() -> int:
    """Measure and print; the exit code is 1 where acknowledgements come later beside queries."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of each protocol in a round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    print(
        "| who asks | answers | streams | median, ms | of 20 the slowest, ms | slowest, ms "
        "| receiver's CPU a stream, ms | largest lag, s | counted after, s |"
    )
    print("| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    found = measure(options.rounds, options.seconds)
    print("All rounds:")
    by_asked: dict[str, list[Beside]] = defaultdict(list)
    for one in found:
        by_asked[one.asked].append(one)
    medians_ms = {}
    for asked in (NOBODY, *MIXED):
        print(_line(asked, by_asked[asked]))
        medians_ms[asked] = statistics.median(
            one for round_ in by_asked[asked] for one in round_.latencies_ms
        )
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=2))
    return int(max(medians_ms.values()) > medians_ms[NOBODY] + MOST_LATER_MS)


if __name__ == "__main__":
    sys.exit(main())
