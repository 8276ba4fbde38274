"""Processes that have grown: another engine goes on, a follower opens its store again."""

from __future__ import annotations

from pathlib import Path

from comparison import differences, read_views
from deadly import outgrown_environment
from followers import FollowerProcess
from publishers import has_published_all, publishers, reached
from recording import collect, recorded, wait_until
from serving import BOOKINFO, Serving

from framewalk.engine import Store, read_entities, replay
from framewalk.engine.oal.plan import Plan
from framewalk.server.engine.memory import Growth

OPENED_AGAIN = "follower has grown, its store is opened again"
HOUR_S = 3_600
MIB = 2**20


def looked(growth: Growth, *hours_mib: int) -> list[bool]:
    """Let hours pass in which a process has at least so much, and now and then a lot more."""
    found = []
    for number, least_mib in enumerate(hours_mib):
        for minute in range(60):
            more_mib = 400 if minute % 2 else 0
            growth.look((least_mib + more_mib) * MIB, number * HOUR_S + minute * 60)
        growth.look(least_mib * MIB, (number + 1) * HOUR_S)
        found.append(growth.is_much)
    return found


def test_what_fills_caches_and_what_a_moment_takes_is_no_growth() -> None:
    assert not any(looked(Growth(0), 100, 600, 610, 620, 700, 800))


def test_growth_is_much_from_a_quarter_of_a_gibibyte_on() -> None:
    assert looked(Growth(0), 300, 600, 855, 857) == [False, False, False, True]


def test_what_was_a_backlog_is_no_need() -> None:
    """The least of all hours after the first is what is needed."""
    assert looked(Growth(0), 900, 900, 500, 700, 760) == [False, False, False, False, True]


def test_engines_that_take_over_from_each_other_count_each_log_once(
    tmp_path: Path, few_plan: Plan
) -> None:
    environment = outgrown_environment(tmp_path / "outgrown")
    dump = BOOKINFO / "kubectl.yaml"
    with Serving(tmp_path, "--entities", dump, **environment) as server:
        engines = {server.engine()}
        for stream in recorded(BOOKINFO)[:12]:
            collect(server.address, stream)
            engines.add(server.engine())

        def many_took_over() -> bool:
            engines.add(server.engine())
            return len(engines) > 3

        wait_until(many_took_over)
        wait_until(server.has_stored_all)
        assert server.metrics()["framewalk_engine_restarts"] == 0
        assert server.find("engine has grown, another goes on")["memory_bytes"]
        assert server.stop() == 0
    with Store(server.store, few_plan) as store:
        found = read_views(store)
    with Store(":memory:", few_plan) as store:
        replay([server.spool], read_entities(dump), store)
        assert differences(found, read_views(store)) == []


def test_a_follower_that_opens_its_store_again_has_each_commit_once(
    tmp_path: Path, few_plan: Plan
) -> None:
    dump, streams = BOOKINFO / "kubectl.yaml", recorded(BOOKINFO)[:12]
    environment = outgrown_environment(tmp_path / "outgrown")
    table = str(tmp_path / "table")
    with publishers(tmp_path, dump) as start:
        server = start("one")
        with FollowerProcess(tmp_path, "follower", table, **environment) as follower:
            for stream in streams:
                collect(server.address, stream)
            server.wait_until_stored(sum(map(len, streams)))
            wait_until(lambda: has_published_all(server))
            follower.wait_for({"one": reached(table, "one")})
            wait_until(lambda: len(follower.told(OPENED_AGAIN)) > 2)
            assert follower.stop() == 0
        assert server.stop() == 0
    with Store(follower.store, few_plan) as store:
        found = read_views(store)
    with Store(":memory:", few_plan) as store:
        replay([tmp_path / "one" / "spool"], read_entities(dump), store)
        assert differences(found, read_views(store)) == []
