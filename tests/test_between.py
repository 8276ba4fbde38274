"""The macros of a range of time: what was in it, out of days, hours and minutes."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_upkeep import NOW_S, Engine, entities

from framewalk.engine import Entities, load_plan
from framewalk.engine.oal import SCOPES
from framewalk.engine.oal.plan import Plan
from framewalk.engine.views import parts_of_range
from framewalk.queries.narrowing import narrowed_text
from framewalk.queries.reading import read_tree, serialized

__all__ = ["entities"]

HOUR_S, DAY_S = 3_600, 86_400
# Around the borders of hours and days; of the last hour, which runs, the last one is not rolled up.
HOURS = (-13, 0, 1 / 60, 59 / 60, 1, 12 - 1 / 60, 12, 36, 37, 37 + 1 / 60)
MINUTES = [NOW_S + round(hours * HOUR_S) for hours in HOURS]
DEFINITIONS = """
logs = from(K8SService.*).count();
calls = from(K8SService.*).cpm();
longest = from(K8SService.write.duration).filter(type == "write").max();
kinds = from(K8SService.*).labelCount(type);
spread = from(K8SService.write.duration).percentile2(1);
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("plan") / "few.oal"
    path.write_text(DEFINITIONS, encoding="utf-8")
    return load_plan(path)


@pytest.fixture(scope="module")
def engine(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan, entities: Entities
) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("engine"), plan, entities)
    for count, minute_s in enumerate(MINUTES, 1):
        made.store_logs(minute_s, commits=count)
    made.store.compact(MINUTES[-1] // 60)
    made.store_logs(MINUTES[3])
    yield made
    made.store.close()


RANGES = [
    (NOW_S, NOW_S + 60),
    (NOW_S + 60, NOW_S + HOUR_S),
    (NOW_S, NOW_S + HOUR_S),
    (NOW_S + 60, NOW_S + 12 * HOUR_S),
    (NOW_S + 12 * HOUR_S, NOW_S + 36 * HOUR_S),
    (NOW_S - 12 * HOUR_S, NOW_S + 36 * HOUR_S),
    (NOW_S + 61, NOW_S + 12 * HOUR_S + 1),
    (NOW_S - 13 * HOUR_S, NOW_S + 37 * HOUR_S),
    (NOW_S + 60, MINUTES[-1]),
    (NOW_S + 60, MINUTES[-1] + 60),
    (MINUTES[-2] + 60, MINUTES[-1] + 120),
    (NOW_S - 5 * DAY_S, NOW_S + 5 * DAY_S),
]


@pytest.mark.parametrize(("since_s", "until_s"), RANGES)
def test_a_range_is_what_its_minutes_are(engine: Engine, since_s: int, until_s: int) -> None:
    since, until = (dt.datetime.fromtimestamp(one, dt.UTC) for one in (since_s, until_s))
    within = f"time_bucket >= TIMESTAMP '{since:%F %T}' AND time_bucket < TIMESTAMP '{until:%F %T}'"
    wanted = engine.store.query(
        "SELECT service, sum(logs)::INT, max(longest), sum(kinds['write'])::INT "
        f"FROM service_minute WHERE {within} GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    found = engine.store.query(
        "SELECT service, logs::INT, longest, kinds['write']::INT FROM "
        f"service_between(TIMESTAMP '{since:%F %T}', TIMESTAMP '{until:%F %T}') ORDER BY ALL"
    ).fetchall()
    assert found == wanted
    assert wanted


@pytest.mark.parametrize(("since_s", "until_s"), RANGES)
def test_percentiles_added_up_as_rows_are_the_same(
    engine: Engine, since_s: int, until_s: int
) -> None:
    times = (dt.datetime.fromtimestamp(one, dt.UTC) for one in (since_s, until_s))
    since, until = (f"TIMESTAMP '{one:%F %T}'" for one in times)
    wanted = engine.store.query(
        "SELECT service, unnest(spread) FROM "
        f"service_between({since}, {until}) WHERE spread IS NOT NULL ORDER BY ALL"
    ).fetchall()
    found = engine.store.query(
        "SELECT service, p50, p75, p90, p95, p99 FROM "
        f"service_percentiles_between({since}, {until}, 'spread') ORDER BY ALL"
    ).fetchall()
    assert found == wanted
    assert wanted


@pytest.mark.parametrize(("since_s", "until_s"), [*RANGES, (NOW_S + 60, NOW_S), (NOW_S, NOW_S)])
def test_a_range_that_is_narrowed_is_the_same(engine: Engine, since_s: int, until_s: int) -> None:
    """Ends are computed before, and tables without a part of the range are left out."""
    ends = f"to_timestamp({since_s}), make_timestamp({until_s * 10**6})"
    for query in (
        f"SELECT service, longest, kinds, minutes FROM service_between({ends}) ORDER BY ALL",
        f"SELECT calls FROM service_between({ends}, divide_by := 1) ORDER BY ALL",
        f"SELECT p50, p99 FROM service_percentiles_between({ends}, 'spread') ORDER BY ALL",
    ):
        tree = serialized(engine.store.connection, query)
        assert tree is not None
        narrow = narrowed_text(engine.store.connection, query, read_tree(tree))
        assert narrow is not None
        assert engine.store.query(narrow).fetchall() == engine.store.query(query).fetchall()


@given(
    since_s=st.integers(-3 * DAY_S, 3 * DAY_S),
    length_s=st.integers(-60, 4 * DAY_S),
    newest_s=st.none() | st.integers(-DAY_S, 5 * DAY_S),
)
def test_parts_are_the_range_each_once(since_s: int, length_s: int, newest_s: int | None) -> None:
    until_s = since_s + length_s
    newest_us = None if newest_s is None else newest_s * 10**6
    own = parts_of_range(SCOPES["K8SService"], since_s * 10**6, until_s * 10**6, newest_us)
    parts = []
    for table, condition in own:
        first_s, end_s = (int(one) // 10**6 for one in re.findall(r"-?\d+", condition))
        parts.append((table.rpartition("_")[2], first_s, end_s))
    rolled = sorted(parts[1:], key=lambda part: part[1:])
    assert parts[:1] == ([("states", since_s, until_s)] if length_s > 0 else [])
    ends = [since_s, *(end_s for _, _, end_s in rolled)]
    assert [first_s for _, first_s, _ in rolled] == ends[:-1]
    assert ends[-1] == max(until_s, since_s)
    is_all = newest_s is not None and until_s >= newest_s + 60
    for name, first_s, end_s in rolled:
        step_s = {"minutes": 1, "hours": HOUR_S, "days": DAY_S}[name]
        assert first_s % step_s == 0
        assert end_s % step_s == 0 or (is_all and name == "hours" and end_s == until_s)


def test_a_range_ends_with_the_newest_minute(engine: Engine) -> None:
    since = f"make_timestamp({(MINUTES[-1] - 9 * 60) * 10**6})"
    logs = len(MINUTES) + len(MINUTES) - 1
    sql = f"SELECT minutes, calls FROM service_between({since}, {since} + INTERVAL 2 DAY{{}})"
    assert engine.store.query(sql.format("")).fetchall() == [(10, logs // 10)]
    assert engine.store.query(sql.format(", divide_by := 1")).fetchall() == [(10, logs)]


def test_nothing_is_in_an_empty_range(engine: Engine) -> None:
    at = f"make_timestamp({NOW_S * 10**6})"
    assert engine.store.query(f"FROM service_between({at}, {at})").fetchall() == []
    sql = f"FROM service_between({at} + INTERVAL 1 DAY, {at})"
    assert engine.store.query(sql).fetchall() == []


def test_a_condition_on_names(engine: Engine) -> None:
    at = f"make_timestamp({NOW_S * 10**6})"
    sql = f"SELECT service FROM service_between({at}, {at} + INTERVAL 1 DAY) WHERE service = '{{}}'"
    assert engine.store.query(sql.format("local")).fetchall() == [("local",)]
    assert engine.store.query(sql.format("nobody")).fetchall() == []
