"""Engines that publish their archives: calls between them are put together by whoever follows."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from comparison import Values, differences, read_views
from followers import FollowerProcess
from publishers import has_published_all, publishers
from recording import collect, recorded, wait_until
from serving import BOOKINFO, Serve, part_of_bookinfo

from framewalk.engine import Plan, Store, read_entities, replay
from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.captures import captures_in
from framewalk.engine.oal import make_plan
from framewalk.engine.remaking import relate

PART = part_of_bookinfo()
DUMP = PART / "kubectl.yaml"
KILLS = 3
ENGINES = 5
CALLS = "SELECT * FROM endpoint_calls_minute ORDER BY ALL"
OTHERS = (
    "SELECT * EXCLUDE (request) FROM http_logs ORDER BY ALL",
    "SELECT kind, name, sum(count)::BIGINT FROM internal.counters GROUP BY ALL ORDER BY ALL",
)

pytest_plugins = ["servers"]

Rows = list[tuple[object, ...]]


@pytest.fixture(scope="session")
def replayed(few_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Values, Rows]:
    folder = tmp_path_factory.mktemp("replayed")
    with (
        Store(":memory:", few_plan) as store,
        Archive(store, folder, ArchiveOptions(Mode.HTTP)) as archive,
    ):
        replay(captures_in(PART), read_entities(DUMP), store, archive=archive)
        relate(store, archive)
        rows = store.query(CALLS).fetchall()
        assert len(rows) > 1
        return read_views(store), rows


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Serve]:
    """Start servers of a name each, which publish what they archive."""

    def archiving(folder: Path) -> dict[str, str]:
        return {
            "FRAMEWALK_ARCHIVE_MODE": "http",
            "FRAMEWALK_ARCHIVE_DIRECTORY": str(folder / "logs"),
            "FRAMEWALK_PUBLISH_LOGS": "true",
        }

    with publishers(tmp_path, DUMP, archiving) as start:
        yield start


def follower_in(folder: Path) -> FollowerProcess:
    archive = {"FRAMEWALK_ARCHIVE_DIRECTORY": str(folder / "follower-logs")}
    return FollowerProcess(folder, "follower", str(folder / "table"), **archive)


def test_a_follower_that_is_killed_has_the_relations_of_one_machine(
    engine: Serve, tmp_path: Path, replayed: tuple[Values, Rows]
) -> None:
    draws = random.Random(13)  # noqa: S311 - any numbers will do
    streams = recorded(PART)
    servers = [engine(name) for name in ("one", "two")]
    for part in range(KILLS):
        with follower_in(tmp_path) as follower:
            for number, stream in enumerate(streams):
                if number % KILLS == part:
                    collect(servers[number % 2].address, stream)
            if part == 1:
                # What it has published by then, and what not yet, it finds out.
                os.kill(servers[0].engine(), signal.SIGKILL)
            wait_until(follower.commits)
            threading.Event().wait(draws.uniform(0, 1))
            follower.stop(signal.SIGKILL)
    for server in servers:
        wait_until(lambda server=server: has_published_all(server))
        assert server.stop() == 0
    with follower_in(tmp_path) as follower:
        wait_until(lambda: follower.ask(CALLS) == replayed[1])
        ((requests,),) = follower.ask("SELECT count(*) FROM http_logs")
        assert requests > 0
        assert follower.stop() == 0
    with Store(follower.store, make_plan(())) as store:
        assert differences(read_views(store), replayed[0]) == []
        assert store.query(CALLS).fetchall() == replayed[1]


@pytest.mark.long
def test_five_engines_and_late_halves_make_what_one_process_makes(
    engine: Serve, tmp_path: Path, few_plan: Plan
) -> None:
    with (
        Store(":memory:", few_plan) as whole,
        Archive(whole, tmp_path / "one", ArchiveOptions(Mode.HTTP)) as archive,
    ):
        replay(captures_in(BOOKINFO), read_entities(DUMP), whole, archive=archive)
        relate(whole, archive)
        wanted, calls = read_views(whole), whole.query(CALLS).fetchall()
        others = [whole.query(sql).fetchall() for sql in OTHERS]
    assert all(len(rows) > 1 for rows in others)
    streams = recorded(BOOKINFO)
    servers = [engine(f"engine-{number}") for number in range(ENGINES)]
    with follower_in(tmp_path) as follower:
        for half in range(2):
            for number, stream in enumerate(streams[half::2]):
                collect(servers[number % ENGINES].address, stream)
            for server in servers:
                wait_until(lambda server=server: has_published_all(server))
            if not half:
                # Relations are made of the first half before the second one comes.
                wait_until(lambda: follower.ask(CALLS))
        assert sorted(follower.commits()) == [f"engine-{number}" for number in range(ENGINES)]
        wait_until(lambda: follower.ask(CALLS) == calls)
        assert follower.stop() == 0
    for server in servers:
        assert server.stop() == 0
    with Store(follower.store, make_plan(())) as store:
        assert differences(read_views(store), wanted) == []
        assert store.query(CALLS).fetchall() == calls
        assert [store.query(sql).fetchall() for sql in OTHERS] == others


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("true", "false", "engines publish their archived logs there, and this one does not"),
        ("false", "true", "engines publish no logs there, and this one does"),
    ],
)
def test_all_engines_of_a_table_publish_logs_or_none(
    engine: Serve, first: str, second: str, told: str
) -> None:
    with engine("one", FRAMEWALK_PUBLISH_LOGS=first) as server:
        server.wait_for("engine ready")
        assert server.stop() == 0
    server = engine("two", FRAMEWALK_PUBLISH_LOGS=second)
    assert server.wait() == 1
    assert any(told in line for line in server.lines)


@pytest.mark.parametrize("mode", ["none", "off"])
def test_logs_are_not_published_without_an_archive(engine: Serve, mode: str) -> None:
    server = engine("one", FRAMEWALK_ARCHIVE_MODE=mode)
    assert server.wait() == 1
    assert any("logs are to be published, and none are archived" in one for one in server.lines)
