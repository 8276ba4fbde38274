"""`framewalk serve --publish`: what engines share is what one of them would have."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from comparison import Values, differences, read_views
from crashing_sharing import crash_sharing
from followers import FollowerProcess
from prepared import framewalk
from processes import free_port
from publishers import has_published_all, publishers, reached
from recording import collect, recorded, wait_until
from serving import FEW, Serve, part_of_bookinfo

from framewalk.engine import Plan, Store, read_entities, replay
from framewalk.engine.captures import captures_in
from framewalk.engine.oal import make_plan
from framewalk.engine.sharing import Follower, SharedTable

PART = part_of_bookinfo()
DUMP = PART / "kubectl.yaml"
MESSAGES = sum(map(len, recorded(PART)))

KILLS = 5

pytest_plugins = ["servers"]


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


@pytest.fixture(scope="session")
def replayed(plan: Plan) -> Values:
    with Store(":memory:", plan) as store:
        replay(captures_in(PART), read_entities(DUMP), store)
        return read_views(store)


def followed(table_folder: Path) -> Values:
    """What a new store has that follows a table."""
    table = SharedTable(str(table_folder))
    assert table.open()
    with Store(":memory:", table.plan()) as store:
        for _ in Follower(store, table).follow(0):
            pass
        return read_views(store)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Serve]:
    """Start servers, each with a spool and a store of its name, which publish to one table."""
    with publishers(tmp_path, DUMP) as start:
        yield start


def test_what_two_servers_publish_equals_a_replay_of_all(
    engine: Serve, tmp_path: Path, replayed: Values
) -> None:
    servers = [engine(name) for name in ("one", "two")]
    streams = recorded(PART)
    for number, stream in enumerate(streams):
        collect(servers[number % 2].address, stream)
    for number, server in enumerate(servers):
        server.wait_until_stored(sum(map(len, streams[number::2])))
        wait_until(lambda server=server: has_published_all(server))
        told = server.status()
        assert told["framewalk_publish_failures"] == 0
        assert told["framewalk_publish_last_success_seconds"] > 0
        assert server.stop() == 0
    assert differences(followed(tmp_path / "table"), replayed) == []


def test_what_is_killed_at_any_moment_is_published_once(
    engine: Serve, tmp_path: Path, replayed: Values
) -> None:
    draws = random.Random(7)  # noqa: S311 - any numbers will do
    streams = recorded(PART)
    for part in range(4):
        server = engine("one")
        for stream in streams[part::4]:
            collect(server.address, stream)
        threading.Event().wait(draws.uniform(0, 1))
        os.kill(server.engine(), signal.SIGKILL)
        server.stop(signal.SIGKILL)
    server = engine("one")
    wait_until(lambda: has_published_all(server))
    assert server.stop() == 0
    assert differences(followed(tmp_path / "table"), replayed) == []


def test_commits_wait_while_the_storage_is_away(
    engine: Serve, tmp_path: Path, replayed: Values
) -> None:
    table, away = tmp_path / "table", tmp_path / "away"
    streams = recorded(PART)
    server = engine("one")
    collect(server.address, streams[0])
    server.wait_until_stored(len(streams[0]))
    wait_until(lambda: has_published_all(server))
    table.rename(away)
    table.write_text("the storage is no folder now")
    for stream in streams[1:]:
        collect(server.address, stream)
    server.wait_until_stored(MESSAGES)
    assert server.wait_for("commits are not published, they wait")["error"].startswith(str(table))
    assert server.metrics()["framewalk_publish_pending_commits"] > 0
    assert server.stop() == 0
    table.unlink()
    away.rename(table)
    server = engine("one")
    wait_until(lambda: has_published_all(server))
    assert server.stop() == 0
    assert differences(followed(table), replayed) == []


def test_what_does_not_fit_the_outbox_waits_in_the_spool(
    engine: Serve, tmp_path: Path, replayed: Values
) -> None:
    table, away = tmp_path / "table", tmp_path / "away"
    streams = recorded(PART)
    small = {"FRAMEWALK_PUBLISH_OUTBOX_BYTES": "1024"}
    server = engine("one", **small)
    collect(server.address, streams[0])
    wait_until(lambda: has_published_all(server))
    table.rename(away)
    table.write_text("the storage is no folder now")
    collect(server.address, streams[1])
    wait_until(lambda: server.metrics()["framewalk_publish_pending_commits"] == 1)
    for stream in streams[2:]:
        collect(server.address, stream)
    wait_until(lambda: server.metrics()["framewalk_engine_unread_bytes"] > 0)
    server.wait_for("outbox is full, nothing is computed until it is published")
    assert server.metrics()["framewalk_publish_pending_commits"] == 1
    table.unlink()
    away.rename(table)
    wait_until(lambda: has_published_all(server))
    assert server.stop() == 0
    assert differences(followed(table), replayed) == []


def test_of_two_engines_whose_stores_are_copies_one_publishes(
    engine: Serve, tmp_path: Path, replayed: Values
) -> None:
    streams = recorded(PART)
    with engine("one") as server:
        collect(server.address, streams[0])
        wait_until(lambda: has_published_all(server))
        assert server.stop() == 0
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    server, copy = engine("one"), engine("two")
    for stream in streams[1:]:
        collect(server.address, stream)
    wait_until(lambda: has_published_all(server))
    # The same logs, as of senders that do not know which of both they reach.
    for stream in streams[1:]:
        collect(copy.address, stream)
    told = copy.wait_for("commits are not published, they wait")["error"]
    assert "another engine publishes as this one" in told
    assert server.stop() == 0
    copy.stop()
    assert differences(followed(tmp_path / "table"), replayed) == []


def test_an_engine_with_other_definitions_does_not_start(engine: Serve, tmp_path: Path) -> None:
    with engine("one") as server:
        server.wait_for("engine ready")
        assert server.stop() == 0
    thresholds = tmp_path / "apdex.yml"
    thresholds.write_text("default: 400\n")
    server = engine("two", FRAMEWALK_APDEX_PATH=str(thresholds))
    assert server.wait() == 1
    (line,) = [one for one in server.lines if "states of other definitions" in one]
    assert str(tmp_path / "table") in line


def test_what_is_published_is_not_made_again(engine: Serve) -> None:
    port = str(free_port())
    with engine("one", FRAMEWALK_SQL="default", FRAMEWALK_SQL_LISTEN_PORT=port) as server:
        server.wait_for("engine ready")
        done = framewalk("recompute", "--store", server.store)
        assert "publishes what it computes" in done.stderr
        assert server.stop() == 0
    done = framewalk("recompute", "--store", server.store, "--oal", FEW)
    assert done.returncode == 1


def test_a_follower_answers_for_all_engines_while_they_publish(
    engine: Serve, tmp_path: Path, replayed: Values
) -> None:
    table = str(tmp_path / "table")
    streams = recorded(PART)
    # It is there first, and waits for the table.
    with FollowerProcess(tmp_path, "follower", table) as follower:
        servers = [engine(name) for name in ("one", "two")]
        for number, stream in enumerate(streams):
            collect(servers[number % 2].address, stream)
        for number, server in enumerate(servers):
            server.wait_until_stored(sum(map(len, streams[number::2])))
            wait_until(lambda server=server: has_published_all(server))
        follower.wait_for({name: reached(table, name) for name in ("one", "two")})
        with FollowerProcess(tmp_path, "late", table) as late:
            late.wait_for(follower.commits())
            refused = framewalk("recompute", "--store", late.store)
            assert "has what engines have published" in refused.stderr
            assert late.ask("SELECT bool_or(is_silent) FROM engines") == [(False,)]
            assert late.stop() == 0
        told_of_itself(follower, tmp_path)
        assert follower.stop() == 0
    for one in (follower, late):
        assert differences(read(one.store), replayed) == []


def told_of_itself(follower: FollowerProcess, folder: Path) -> None:
    """Check what `framewalk status` says of a follower of two engines, then of one without."""
    wait_until(lambda: follower.status()["framewalk_follow_version"] > 0)
    told = follower.status()
    assert told["framewalk_follow_up"] == 1
    assert told["framewalk_follow_version"] == told["framewalk_follow_table_version"]
    assert 0 < told["framewalk_follow_lag_seconds"] < time.time()
    assert told["framewalk_follow_rows"] > 0
    assert (told["framewalk_follow_engines"], told["framewalk_follow_silent_engines"]) == (2, 0)
    commits = told["framewalk_follow_engine_commits"]
    named = {label.partition(",")[2]: count for label, count in commits.items()}
    assert named == follower.commits()
    assert "engine one" in framewalk("status", "--store", follower.store).stdout
    failures = told["framewalk_follow_failures"]
    table, away = folder / "table", folder / "away"
    table.rename(away)
    table.write_text("the storage is no folder now")
    wait_until(lambda: follower.status()["framewalk_follow_up"] == 0)
    assert follower.status()["framewalk_follow_failures"] > failures
    done = framewalk("status", "--store", follower.store)
    assert (done.returncode, "away" in done.stdout) == (1, True)
    table.unlink()
    away.rename(table)
    wait_until(lambda: follower.status()["framewalk_follow_up"] == 1)


def test_a_follower_that_is_killed_has_each_commit_once(
    engine: Serve, tmp_path: Path, replayed: Values
) -> None:
    draws = random.Random(11)  # noqa: S311 - any numbers will do
    table = str(tmp_path / "table")
    server = engine("one", FRAMEWALK_PUBLISH_INTERVAL_SECONDS="0.05")
    streams = recorded(PART)
    for part in range(KILLS):
        with FollowerProcess(tmp_path, "follower", table) as follower:
            for stream in streams[part::KILLS]:
                collect(server.address, stream)
            wait_until(follower.commits)
            threading.Event().wait(draws.uniform(0, 0.4))
            follower.stop(signal.SIGKILL)
    wait_until(lambda: has_published_all(server))
    with FollowerProcess(tmp_path, "follower", table) as follower:
        follower.wait_for({"one": reached(table, "one")})
        assert follower.stop() == 0
    assert differences(read(follower.store), replayed) == []


def read(path: Path) -> Values:
    with Store(path, make_plan(())) as store:
        return read_views(store)


@pytest.mark.parametrize("kills", [5, pytest.param(40, marks=pytest.mark.long)])
def test_whatever_is_killed_of_a_cluster_each_stream_is_counted_once(
    kills: int, tmp_path: Path
) -> None:
    done = crash_sharing(tmp_path, kills, seed=4)
    assert done["streams"]
    assert done["stores that another was a copy of"] <= 1
