"""A run of many requests that a seed makes, from a command line."""

from __future__ import annotations

import math
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path
from typing import TypeVar

import duckdb
from golden_stores import opened_golden_store
from waiting import DEADLINE_S

from framewalk.engine.oal.files.definitions import load_plan

_OF_A_SEED = 2_000
# While one waits for its turn of a processor, another one's answer is made.
_CONNECTIONS = 4
_Asked = TypeVar("_Asked")
_Given = TypeVar("_Given")
_Outcome = TypeVar("_Outcome", bound=Hashable)


def ask_together(
    port: int,
    requests: Iterable[_Given],
    ask: Callable[[HTTPConnection, _Given], _Outcome],
) -> Counter[_Outcome]:
    """Ask requests over some connections to a port of this machine, and count the outcomes.

    Raises what `ask` raises, once no connection asks any more.
    """
    given, taking = iter(requests), threading.Lock()
    has_failed = threading.Event()

    def take() -> _Given | None:
        with taking:
            return None if has_failed.is_set() else next(given, None)

    def ask_some() -> Counter[_Outcome]:
        outcomes: Counter[_Outcome] = Counter()
        with closing(HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)) as client:
            try:
                while (request := take()) is not None:
                    outcomes[_asked(client, request, ask)] += 1
            except BaseException:
                has_failed.set()
                raise
        return outcomes

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        parts = [pool.submit(ask_some) for _ in range(_CONNECTIONS)]
    return sum((one.result() for one in parts), Counter())


def _asked(
    client: HTTPConnection, request: _Given, ask: Callable[[HTTPConnection, _Given], _Outcome]
) -> _Outcome:
    """Ask; once more where the server has closed what nobody asked over for seconds."""
    try:
        return ask(client, request)
    except (RemoteDisconnected, BrokenPipeError, ConnectionResetError):
        client.close()
        return ask(client, request)


def fuzz(
    served: Callable[[duckdb.DuckDBPyConnection], AbstractContextManager[_Asked]],
    ask_all: Callable[[_Asked, int, int], Counter[int]],
) -> int:
    """Ask `[COUNT [SEED]]` requests of a store of what the OAP was fed; see `run`."""
    with (
        tempfile.TemporaryDirectory() as folder,
        opened_golden_store(Path(folder) / "golden.duckdb", load_plan()) as store,
        served(store.connection) as asked,
    ):
        return run(lambda seed, count: ask_all(asked, seed, count))


def run(ask_all: Callable[[int, int], Counter[_Outcome]]) -> int:
    """Ask `[COUNT [SEED]]` requests, 2,000 of each seed, and count the outcomes.

    Tells after each seed, and at the end, also where it is cut off: what was asked, which seeds
    failed, and how to go on. Returns the exit code.
    """
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    outcomes: Counter[_Outcome] = Counter()
    faults: dict[int, str] = {}
    began_s, seed, end = time.monotonic(), first, first + math.ceil(count / _OF_A_SEED)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for seed in range(first, end):
            wanted = min(count - (seed - first) * _OF_A_SEED, _OF_A_SEED)
            try:
                outcomes += ask_all(seed, wanted)
            except Exception as error:  # noqa: BLE001 - told at the end, whatever it is
                faults[seed] = f"{type(error).__name__}: {str(error)[:2_000]}"
                _tell(f"seed {seed} failed: {faults[seed]}")
            _tell(f"{outcomes.total():,} to seed {seed}: {dict(outcomes)}")
        seed = end
    except KeyboardInterrupt:
        _tell("cut off")
    _tell(
        f"{outcomes.total():,} asked, of {count:,} wanted, whole seeds {first} to {seed - 1}, in "
        f"{time.monotonic() - began_s:,.0f} s: {dict(outcomes)}; {len(faults)} seeds failed"
    )
    if seed < end:
        _tell(f"go on: python {sys.argv[0]} {count - (seed - first) * _OF_A_SEED} {seed}")
    return 1 if faults or seed < end else 0


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201
