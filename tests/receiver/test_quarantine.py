"""A message that ends engines is set aside, and it alone; real processes, with a fault put in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from comparison import Values, differences, read_views
from deadly import FAULTS, LONG_FAULTS, MARK, environment
from recording import Messages, collect, recorded, wait_until
from serving import BOOKINFO, Serving

from framewalk.engine import CaptureWriter, Store, read_entities, replay
from framewalk.engine.oal.plan import Plan

DUMP = BOOKINFO / "kubectl.yaml"
SET_ASIDE = "message set aside, it ends the engine"
LONG_S = 600

Serve = Callable[..., Serving]


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    numbers = count()
    with ExitStack() as servers:

        def start(fault: str = "", **given: str) -> Serving:
            faulty = environment(tmp_path / f"fault {next(numbers)}", fault) if fault else {}
            known = {"FRAMEWALK_SQL": "-"} | faulty
            server = Serving(tmp_path, "--entities", DUMP, **known | given)
            return servers.enter_context(server)

        yield start


@pytest.fixture(scope="module")
def streams() -> list[Messages]:
    return recorded(BOOKINFO)[:16]


@pytest.fixture(scope="module")
def replayed(
    streams: list[Messages], plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> Values:
    """What a replay makes of these streams alone."""
    path, now_ns = tmp_path_factory.mktemp("streams") / "streams.capture.arrows", time.time_ns()
    with CaptureWriter(path) as writer:
        for number, one in enumerate(streams):
            count = len(one)
            writer.write_messages([number] * count, range(count), [now_ns] * count, one)
    with Store(":memory:", plan) as store:
        replay([path], read_entities(DUMP), store)
        return read_views(store)


def marked(streams: list[Messages]) -> list[Messages]:
    """Mark a message of logs in the middle of the longest stream."""
    longest = max(range(len(streams)), key=lambda at: len(streams[at]))
    middle = len(streams[longest]) // 2
    changed = [list(one) for one in streams]
    changed[longest][middle] += MARK
    return changed


def quality(server: Serving) -> float:
    return server.metrics().get('framewalk_engine_bad_input{kind="quarantined"}', 0)


def stored(server: Serving, plan: Plan, *captures: Path) -> Values:
    """Return the views of a server's store, after captures were replayed into it."""
    with Store(server.store, plan) as store:
        if captures:
            replay(captures, read_entities(DUMP), store)
        return read_views(store)


@pytest.mark.parametrize(
    "fault",
    [pytest.param(one, marks=[pytest.mark.long] * (one not in LONG_FAULTS)) for one in FAULTS],
)
def test_a_deadly_message_costs_itself(
    fault: str, serve: Serve, streams: list[Messages], replayed: Values, plan: Plan
) -> None:
    server = serve(fault)
    if fault == "never ends":
        # All is read at once, so what it is at when it is killed has the message.
        server.wait_for("engine ready")
        os.kill(server.engine(), signal.SIGSTOP)
    for one in marked(streams):
        collect(server.address, one)
    if fault == "never ends":
        # As the server does with an engine that tells nothing for ten minutes.
        os.kill(server.engine(), signal.SIGCONT)
        wait_until(lambda: is_reading(server), LONG_S)
        os.kill(server.engine(), signal.SIGKILL)
    wait_until(lambda: quality(server) == 1, LONG_S)
    total = sum(map(len, streams))
    wait_until(server.has_stored_all, LONG_S)
    assert server.metrics()["framewalk_engine_messages"] <= total
    told = server.find(SET_ASIDE)
    assert int(told["seq"]) == max(map(len, streams)) // 2
    (capture,) = (server.spool / "quarantine").glob("*.arrows")
    assert capture.name == told["capture"]
    assert server.stop() == 0
    # All others are counted once; it itself, by a version that lives on it, once as well.
    assert differences(stored(server, plan), replayed) != []
    assert differences(stored(server, plan, capture), replayed) == []
    assert differences(stored(server, plan, capture), replayed) == []


def test_kills_at_random_set_nothing_aside(
    serve: Serve, streams: list[Messages], replayed: Values, plan: Plan
) -> None:
    server = serve()
    fifth = len(streams) // 5
    for first in range(0, len(streams), fifth):
        for one in streams[first : first + fifth]:
            collect(server.address, one)
        if first < 3 * fifth:
            # While it reads, if it comes to that.
            wait_until(lambda: is_reading(server) or server.has_stored_all(), LONG_S)
            wait_until(lambda: server.metrics()["framewalk_engine_up"], LONG_S)
            os.kill(server.engine(), signal.SIGKILL)
    wait_until(server.has_stored_all, LONG_S)
    assert server.stop() == 0
    assert not list((server.spool / "quarantine").glob("*.arrows"))
    assert differences(stored(server, plan), replayed) == []


@pytest.mark.parametrize("asked", [b"", b"{", b"{}\n", b'{}\n{"spans": '])
def test_a_probe_whose_engine_died_ends_without_a_word(asked: bytes) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "framewalk.engine.runs.probe"],
        input=asked,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert done.stderr == b""


def is_reading(server: Serving) -> bool:
    return (server.spool / "reading.json").exists()
