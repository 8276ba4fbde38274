"""The budget of a store: the oldest days go, the file stays small, the others are as they were."""

from __future__ import annotations

import datetime as dt
import logging
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from test_upkeep import DAY_S, HOUR_S, NOW_S, YEAR_S, Engine

from framewalk.engine import Counters, Entities, ScopeStates, States, load_plan
from framewalk.engine.captures.format import CapturePosition
from framewalk.engine.oal.plan import Plan
from framewalk.engine.states.merging import MINUTE, TRAITS, empty_states
from framewalk.engine.store.room import delete_before
from framewalk.server.engine.budget import StoreBudget
from framewalk.server.engine.disks import DiskBudget, Reserve, disk_of, shortages

MIB = 2**20
NS = 10**9
BUDGET_BYTES = 11 * MIB
ROWS_OF_A_DAY = 60_000
SERVICES = 50
BYTES_OF_A_DAY = 565_000
# Of all tables, however few rows they have.
BASE_BYTES = 2_900_000
PARTS_OF_A_DAY = 4
MINUTES_OF_A_DAY = 1_440
MIDNIGHT_S = NOW_S - NOW_S % DAY_S
FIRST_DAY = dt.datetime.fromtimestamp(MIDNIGHT_S, dt.UTC)
NEVER_DAYS = 36_600

Start = Callable[..., Engine]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("plan") / "few.oal"
    path.write_text("calls = from(K8SService.*).cpm();\n", encoding="utf-8")
    return load_plan(path)


@pytest.fixture
def start(tmp_path: Path, plan: Plan) -> Iterator[Start]:
    made: list[Engine] = []

    def start_one(**settings: float) -> Engine:
        known: dict[str, float] = {
            "minute_ttl_days": NEVER_DAYS,
            "hour_ttl_days": NEVER_DAYS,
            "day_ttl_days": NEVER_DAYS,
            "store_budget_bytes": BUDGET_BYTES,
        }
        made.append(Engine(tmp_path, plan, Entities.empty(), **known | settings))
        return made[-1]

    yield start_one
    for engine in made:
        engine.store.close()


def made_day(day: int, rows: int = ROWS_OF_A_DAY) -> pl.DataFrame:
    """Return rows of a day, counted from that of NOW_S, whose counts hardly compress."""
    draws = random.Random(day)  # noqa: S311 - reproducible
    first = (MIDNIGHT_S + day * DAY_S) // 60
    return pl.DataFrame(
        {
            "service": [f"service {number % SERVICES}" for number in range(rows)],
            MINUTE: [first + number // SERVICES for number in range(rows)],
            TRAITS: [0] * rows,
            "count": [draws.getrandbits(48) for _ in range(rows)],
        }
    )


def as_states(plan: Plan, rows: pl.DataFrame) -> States:
    scopes = {scope.scope.view: empty_states(scope) for scope in plan.scopes}
    (state,) = plan.scopes[0].scalar_states
    scopes["service"] = ScopeStates(rows.rename({"count": state.name}), {})
    return States(scopes, Counters())


def store_day(engine: Engine, day: int, rows: int = ROWS_OF_A_DAY) -> int:
    """Commit a day while it passes; returns the largest size of the files meanwhile."""
    made = made_day(day, rows)
    size = -(-rows // PARTS_OF_A_DAY)
    largest_bytes = 0
    for number, start in enumerate(range(0, rows, size)):
        states = as_states(engine.store.plan, made.slice(start, size))
        commit(engine, states, Path(f"{day} {number}"))
        engine.run_after(DAY_S / PARTS_OF_A_DAY)
        largest_bytes = max(largest_bytes, file_bytes(engine))
    return largest_bytes


def commit(engine: Engine, states: States, path: Path) -> None:
    position = CapturePosition(1, 1, str(path))
    engine.store.commit(None, path, [position], states)


def file_bytes(engine: Engine) -> int:
    path = engine.store.path
    log = path.with_name(f"{path.name}.wal")
    return path.stat().st_size + (log.stat().st_size if log.exists() else 0)


def stored_days(engine: Engine) -> list[int]:
    return [(day.begin - FIRST_DAY).days for day in engine.store.days()]


def rows_of(engine: Engine, day: int) -> pl.DataFrame:
    """Return what the store has of a day, as it was made."""
    sql = (
        "SELECT service, epoch(time_bucket)::BIGINT // 60 AS minute, 0::BIGINT AS traits, "
        "state_0 AS count "
        "FROM (FROM internal.service_states UNION ALL FROM internal.service_minutes) "
        "JOIN internal.service_entities USING (entity) WHERE time_bucket::DATE = ?"
    )
    date = (FIRST_DAY + dt.timedelta(days=day)).date()
    return engine.store.connection.sql(sql, params=[date]).pl()


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [record.facts for record in caplog.records if record.message == event]


@pytest.mark.parametrize(
    ("count", "lie_s"),
    [
        (20, 10 * YEAR_S),
        pytest.param(20, -10 * YEAR_S, marks=pytest.mark.long),
        pytest.param(30, 0, marks=pytest.mark.long),
    ],
)
def test_the_budget_keeps_the_file_small_and_the_newest_days_whole(
    start: Start, count: int, lie_s: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    engine = start()
    engine.lie_s = lie_s
    sizes_bytes = [store_day(engine, day) for day in range(count)]
    engine.run_after(HOUR_S)
    days = stored_days(engine)
    # The newest, without a gap, and not fewer than have room.
    assert days == list(range(count - len(days), count))
    assert engine.store.room().used_bytes <= BUDGET_BYTES + BYTES_OF_A_DAY
    assert len(days) * BYTES_OF_A_DAY > 0.7 * (BUDGET_BYTES - BASE_BYTES)
    for day in days:
        assert_frame_equal(rows_of(engine, day), made_day(day), check_row_order=False)
    # A checkpoint writes anew before it frees.
    assert max(sizes_bytes) < BUDGET_BYTES + BASE_BYTES + 4 * BYTES_OF_A_DAY
    told = lines(caplog, "oldest metrics deleted")
    assert sum(one["rows"] for one in told) == engine.upkeep.budget.deleted_rows
    assert engine.upkeep.budget.deleted_days == len(told) == count - len(days)
    assert told[0]["days"] == f"{FIRST_DAY:%Y-%m-%d}"
    assert told[0]["why"] == "its budget is used up"
    assert told[0]["used_bytes"] > told[0]["budget_bytes"] == BUDGET_BYTES


def test_one_day_that_is_too_large_stays_and_is_told(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    engine = start(store_budget_bytes=MIB)
    cancelled: list[str] = []
    engine.upkeep.budget.cancel_queries = lambda: cancelled.append("")
    store_day(engine, 0)
    engine.run_after(HOUR_S)
    # Nobody is in the way of what stays.
    assert len(cancelled) == 1
    assert rows_of(engine, 0).height == ROWS_OF_A_DAY
    (told,) = lines(caplog, "store has too much, its only day stays")
    assert told["day"] == f"{FIRST_DAY:%Y-%m-%d}"
    assert told["used_bytes"] > told["budget_bytes"] == MIB
    assert "FRAMEWALK_STORE_BUDGET_BYTES" in told["remedy"]
    # The next day takes its place.
    store_day(engine, 1)
    assert stored_days(engine) == [1]
    assert rows_of(engine, 1).height == ROWS_OF_A_DAY


def test_readers_are_cancelled_before_a_day_goes_that_has_room(start: Start) -> None:
    engine = start()
    store_day(engine, 0)
    reader = engine.store.connection.cursor()
    cancelled: list[int] = []

    def cancel() -> None:
        cancelled.append(engine.store.room().used_bytes)
        reader.rollback()

    engine.upkeep.budget.cancel_queries = cancel
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM internal.service_minutes").fetchall()
    # While it reads, each checkpoint takes blocks of its own.
    for day in range(1, 12):
        store_day(engine, day)
    assert stored_days(engine) == list(range(12))
    (before_bytes,) = cancelled
    assert engine.store.room().used_bytes < BUDGET_BYTES < before_bytes


def test_what_a_reader_keeps_makes_no_other_day_go(start: Start) -> None:
    engine = start(store_budget_bytes=2**40)
    for day in range(12):
        store_day(engine, day)
    reader = engine.store.connection.cursor()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM internal.service_minutes").fetchall()
    engine.upkeep.budget = StoreBudget(engine.store, BASE_BYTES + 8 * BYTES_OF_A_DAY)
    for _ in range(20):
        engine.run_after(60)
    days = stored_days(engine)
    assert days[0] in {3, 4, 5}
    assert engine.store.room().used_bytes > BASE_BYTES + 10 * BYTES_OF_A_DAY
    reader.rollback()
    store_day(engine, 12)
    assert engine.store.room().used_bytes <= BASE_BYTES + 10 * BYTES_OF_A_DAY


def test_many_days_of_few_rows_go_at_once(start: Start) -> None:
    engine = start()
    store_day(engine, 0)
    for day in range(-400, 0):
        commit(engine, as_states(engine.store.plan, made_day(day, 1)), Path(f"{day}"))
    assert len(stored_days(engine)) == 401
    engine.upkeep.budget = StoreBudget(engine.store, MIB)
    for _ in range(3):
        engine.run_after(60)
    assert stored_days(engine) == [0]


def test_a_budget_forgets_captures_as_expiry_does(start: Start, tmp_path: Path) -> None:
    engine = start(store_budget_bytes=MIB)
    spool = tmp_path / "spool"
    paths = [spool / f"{(MIDNIGHT_S + at_s) * NS:020d}.capture.arrows" for at_s in (1, 2, DAY_S)]
    # One of the day that goes is still in the spool.
    paths[0].touch()
    for day, path in zip((0, 0, 1), paths, strict=True):
        commit(engine, as_states(engine.store.plan, made_day(day, 20_000)), path)
    engine.run_after(HOUR_S)
    assert stored_days(engine) == [1]
    assert set(engine.store.paths().values()) == {paths[0], paths[2]}


def test_rows_are_deleted_a_bounded_number_at_a_time(start: Start) -> None:
    engine = start()
    store_day(engine, 0)
    store_day(engine, 1)
    left: list[int] = []

    def look() -> None:
        seen = engine.store.connection.cursor()
        left.append(seen.execute("SELECT count(*) FROM internal.service_minutes").fetchall()[0][0])

    tables = ["internal.service_minutes", "internal.endpoint_minutes"]
    before = FIRST_DAY.replace(tzinfo=None) + dt.timedelta(days=1)
    deleted = 0
    for rows in delete_before(engine.store.connection, tables, before, 10_000):
        deleted += rows
        look()
    assert deleted == ROWS_OF_A_DAY
    assert left[-1] == ROWS_OF_A_DAY
    steps = [one - two for one, two in pairwise([2 * ROWS_OF_A_DAY, *left])]
    assert len(steps) == 7
    # Whole minutes, of some 40 rows each.
    assert max(steps) < 10_200


def test_a_reserve_has_the_size_that_is_set(tmp_path: Path) -> None:
    store = tmp_path / "metrics.duckdb"
    path = tmp_path / "metrics.duckdb.reserve"
    assert not Reserve(store, MIB).release("there is none")
    for size_bytes in (MIB, 3 * MIB, MIB // 2):
        reserve = Reserve(store, size_bytes)
        reserve.restore(left_bytes=0)
        assert not reserve.is_missing
        found = path.stat()
        assert found.st_blocks * 512 >= found.st_size == size_bytes
        assert found.st_mode & 0o077 == 0
    reserve.release_if_full()
    assert not reserve.is_missing
    assert reserve.release("it is needed")
    assert reserve.is_missing
    reserve.restore(left_bytes=0)
    Reserve(store, 0).restore(left_bytes=0)
    assert not path.exists()
    assert not Reserve(store, 0).is_missing


def test_a_reserve_that_finds_no_room_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    reserve = Reserve(tmp_path / "metrics.duckdb", MIB)
    for _ in range(3):
        reserve.restore(left_bytes=2**60)
    assert reserve.is_missing
    assert len(lines(caplog, "no room for a reserve")) == 1


def test_budgets_of_one_disk_are_added_up(tmp_path: Path) -> None:
    free_bytes = disk_of(tmp_path).free_bytes
    used_bytes, half = 2**40, (free_bytes + 2**40) // 2
    path = tmp_path / "not" / "there"
    fits = [
        DiskBudget("A", tmp_path, half - 2**34, used_bytes),
        DiskBudget("B", path, half - 2**34, 0),
    ]
    assert not list(shortages(fits))
    (shortage,) = shortages([*fits, DiskBudget("C", path, 2**36, 0)])
    assert [one.name for one in shortage.budgets] == ["A", "B", "C"]
    assert abs(shortage.has_bytes - free_bytes - used_bytes) < 2**34
