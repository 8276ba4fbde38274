"""A message that ends replays is set aside, and it alone; real processes, with a fault put in."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from comparison import Values, differences, read_views
from deadly import (
    DEADLY_PATH,
    FAULTS,
    LONG_FAULTS,
    MARK,
    archiving_environment,
    environment,
)
from prepared import framewalk
from processes import ending
from recording import Messages, recorded
from serving import BOOKINFO, FEW
from waiting import wait_until

from framewalk.engine import CaptureWriter, Plan, Store, read_entities, replay
from framewalk.engine.wire.access_log_pb2 import EBPFAccessLogMessage

DUMP = BOOKINFO / "kubectl.yaml"
COMMAND = (sys.executable, "-m", "framewalk.cli")
NOW_NS = 1_800_000_000 * 10**9


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


@pytest.fixture(scope="module")
def streams() -> list[Messages]:
    return recorded(BOOKINFO)[:16]


@pytest.fixture(scope="module")
def replayed(
    streams: list[Messages], plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> Values:
    """What a replay makes of these streams where no message is deadly."""
    path = written(tmp_path_factory.mktemp("streams"), streams)
    with Store(":memory:", plan) as store:
        replay([path], read_entities(DUMP), store)
        return read_views(store)


def written(folder: Path, streams: list[Messages], mark: tuple[int, int] | None = None) -> Path:
    """Write streams as a capture, one record batch each; `mark` is a stream and a message of it."""
    path = folder / "streams.capture.arrows"
    with CaptureWriter(path) as writer:
        for number, one in enumerate(streams):
            messages = list(one)
            if mark is not None and mark[0] == number:
                messages[mark[1]] += MARK
            count = len(messages)
            writer.write_messages([number] * count, range(count), [NOW_NS] * count, messages)
    return path


def command(path: Path, store: Path) -> list[str | Path]:
    options = ["--entities", DUMP, "--store", store, "--oal", FEW, "--commit-logs", "1"]
    return [*COMMAND, "replay", path, *options]


def listed(store: Path) -> list[dict[str, str]]:
    done = framewalk("quarantine", "list", "--store", store, "--format", "csv")
    done.check_returncode()
    return list(csv.DictReader(done.stdout.splitlines()))


def views(store: Path, plan: Plan, *captures: Path) -> Values:
    """Return what a store has, after captures were replayed into it by what lives on everything."""
    with Store(store, plan) as opened:
        if captures:
            replay(captures, read_entities(DUMP), opened)
        return read_views(opened)


@pytest.mark.parametrize(
    ("fault", "workers"),
    [
        ("aborts", "2"),
        *(
            pytest.param(one, "1", marks=[pytest.mark.long] * (one in LONG_FAULTS))
            for one in FAULTS
        ),
    ],
)
def test_a_deadly_message_costs_itself(  # noqa: PLR0913, PLR0917 - fixtures
    fault: str,
    workers: str,
    streams: list[Messages],
    replayed: Values,
    plan: Plan,
    tmp_path: Path,
) -> None:
    longest = max(range(len(streams)), key=lambda at: len(streams[at]))
    middle = len(streams[longest]) // 2
    path = written(tmp_path, streams, (longest, middle))
    store = tmp_path / "metrics.duckdb"
    faulty = environment(tmp_path / "fault", fault)
    done = subprocess.run(
        [*command(path, store), "--workers", workers],
        env=os.environ | faulty,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert ("3 workers have ended over it" in " ".join(done.stderr.split())) is (workers != "1")
    assert f"stream {longest}, message {middle}: set aside" in " ".join(done.stderr.split())
    assert "bad input: quarantined" in done.stdout
    (entry,) = listed(store)
    assert (entry["stream"], entry["seq"]) == (str(longest), str(middle))
    (capture,) = (tmp_path / "metrics.duckdb.quarantine").glob("*.arrows")
    assert capture.name == entry["capture"]
    # Again, in as bad a version: nothing is left to read.
    again = subprocess.run(
        command(path, store), env=os.environ | faulty, capture_output=True, check=True, text=True
    )
    assert "nothing was added" in again.stdout
    # All others are counted once; it itself, by a version that lives on it, once as well.
    assert differences(views(store, plan), replayed) != []
    assert differences(views(store, plan, capture), replayed) == []
    assert differences(views(store, plan, capture), replayed) == []
    assert sorted(one.name for one in tmp_path.glob("*.reading*")) == []


def test_a_message_that_ends_what_archives_it_costs_itself(
    streams: list[Messages], tmp_path: Path
) -> None:
    changed = [list(one) for one in streams[:2]]
    # A request of a connection that another message names, and that counts.
    stream, at = 0, 7
    message = EBPFAccessLogMessage.FromString(streams[stream][at])
    assert message.HasField("protocolLog")
    assert not message.HasField("connection")
    message.protocolLog.http.request.path = DEADLY_PATH
    changed[stream][at] = message.SerializeToString()
    path, store = written(tmp_path, changed), tmp_path / "metrics.duckdb"
    done = subprocess.run(
        [*command(path, store), "--archive", tmp_path / "logs"],
        env=os.environ | archiving_environment(tmp_path / "fault"),
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"stream {stream}, message {at}: set aside" in " ".join(done.stderr.split())
    (entry,) = listed(store)
    left = {one.name for one in (tmp_path / "metrics.duckdb.quarantine").iterdir()}
    assert left == {entry["capture"], "set-aside.json"}
    with duckdb.connect(store, read_only=True) as opened:
        ((logs, deadly),) = opened.execute(
            "SELECT count(*), count(*) FILTER (path = ?) FROM http_logs", [DEADLY_PATH]
        ).fetchall()
    assert (logs > 0, deadly) == (True, 0)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(one, marks=pytest.mark.long) for one in (1, 2))]
)
def test_kills_at_random_set_nothing_aside(
    seed: int, streams: list[Messages], replayed: Values, plan: Plan, tmp_path: Path
) -> None:
    """Of the process that works, or of both; what is run again goes on."""
    path, store = written(tmp_path, streams), tmp_path / "metrics.duckdb"
    draws = random.Random(seed)  # noqa: S311 - reproducible
    for _ in range(6):
        with ending(subprocess.Popen(command(path, store), stderr=subprocess.DEVNULL)) as process:
            time.sleep(draws.uniform(0, 3))
            victims = [process.pid] if draws.random() < 0.3 else children(process.pid)
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            process.wait()
    done = subprocess.run(command(path, store), capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "metrics.duckdb.quarantine" / "set-aside.json").exists()
    assert differences(views(store, plan), replayed) == []


def test_a_worker_ends_with_the_command(streams: list[Messages], tmp_path: Path) -> None:
    path, store = written(tmp_path, streams), tmp_path / "metrics.duckdb"
    faulty = environment(tmp_path / "fault", "never ends")
    path = written(tmp_path, streams, (0, 1))
    with ending(
        subprocess.Popen(command(path, store), stderr=subprocess.DEVNULL, env=os.environ | faulty)
    ) as process:
        note = tmp_path / "metrics.duckdb.reading"
        wait_until(note.exists)
        (worker,) = children(process.pid)
        process.kill()
        process.wait()
        wait_until(lambda: not Path(f"/proc/{worker}").exists())


def children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    try:
        return [int(one) for one in path.read_text(encoding="ascii").split()]
    except OSError:
        return []
