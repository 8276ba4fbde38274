"""Compaction, expiry and upkeep of the store: what was asked before is answered the same after."""

from __future__ import annotations

import datetime as dt
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from conftest import CAPTURES
from processes import ending
from test_order import (
    BASE,
    NS,
    OTHER_FUNCTIONS,
    Views,
    as_batch,
    capture_table,
    copied,
    longest_write,
    mixed_rows,
    one_of_each,
    read_all,
    steps,
    stored_counters,
)

import framewalk.queries
from framewalk.engine import Entities, Plan, ScopeStates, States, load_plan, merge, read_entities
from framewalk.engine.captures.format import CapturePosition, CaptureReader, CaptureWriter
from framewalk.engine.runs.replayer import replay
from framewalk.engine.stages.pipeline import partial
from framewalk.engine.states.merging import MINUTE, VALUE
from framewalk.engine.store import Borders
from framewalk.engine.store.store import Compacted, Reached, Store

BOOKINFO = CAPTURES / "bookinfo"
QUERIES = Path(framewalk.queries.__path__[0])
END_OF_TIME = 2**31
NOTHING = Compacted(0, 0, 0)


@dataclass(frozen=True, repr=False)
class World:
    """Definitions with every function and kind of state, and an empty store of them."""

    plan: Plan
    empty_store: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    others, store = folder / "others.oal", folder / "empty.duckdb"
    others.write_text(OTHER_FUNCTIONS, encoding="utf-8")
    plan = one_of_each(load_plan([QUERIES / "oal", others]))
    Store(store, plan).close()
    return World(plan, store)


@pytest.fixture(scope="module")
def entities() -> Entities:
    return read_entities(BOOKINFO / "kubectl.yaml")


@pytest.fixture(scope="module")
def flushes(world: World, entities: Entities) -> list[States]:
    """The bookinfo capture as a live engine would commit it."""
    return pieces(BOOKINFO, world.plan, entities, 12)


@pytest.fixture
def store(world: World, tmp_path: Path) -> Iterable[Store]:
    with Store(copied(world.empty_store, tmp_path / "store.duckdb"), world.plan) as opened:
        yield opened


def pieces(scenario: Path, plan: Plan, entities: Entities, count: int) -> list[States]:
    """Cut a capture, its streams interleaved at random, and return the states of the pieces."""
    rows = capture_table(scenario)
    draws = random.Random(count)  # noqa: S311 - reproducible
    mixed = rows.take(mixed_rows(rows, draws))
    ends = sorted(draws.sample(range(1, rows.num_rows), count - 1))
    cut = (mixed.slice(start, end - start) for start, end in pairwise([0, *ends, rows.num_rows]))
    parts = list(steps(cut, entities, plan))
    draws.shuffle(parts)
    return parts


def commit_all(store: Store, parts: Iterable[States]) -> None:
    for number, states in enumerate(parts):
        position = CapturePosition(number, number, f"{number}")
        store.commit(None, Path(f"{number}"), [position], states)


def rows_of(store: Store) -> dict[str, tuple[int, int, int]]:
    """Return, per scope: rows of states, entities and minutes they are of, the most rows of one."""
    found = {}
    for scope in store.plan.scopes:
        tables = [f"internal.{scope.scope.view}_{kind}" for kind in ("states", "minutes")]
        rows = " UNION ALL ".join(f"SELECT time_bucket, entity FROM {one}" for one in tables)
        entities = f"SELECT count(*) AS n FROM ({rows}) GROUP BY time_bucket, entity"
        counted = (
            f"SELECT coalesce(sum(n), 0)::INT, count(*), coalesce(max(n), 0) FROM ({entities})"
        )
        found[scope.scope.view] = store.query(counted).fetchall()[0]
    return found


def assert_one_row_each(store: Store) -> None:
    assert {most for _, _, most in rows_of(store).values()} == {1}


def at_minutes(states: States, minutes: Sequence[int]) -> States:
    """Return these states once for each of the minutes."""

    def moved(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.lit(list(minutes)).alias(MINUTE)).explode(MINUTE)

    return States(
        {
            view: ScopeStates(
                moved(found.scalars), {name: moved(one) for name, one in found.keyed.items()}
            )
            for view, found in states.scopes.items()
        },
        states.counters,
    )


def in_one_minute(states: States, plan: Plan) -> States:
    """Return these states as if all their logs were of minute 0."""
    return merge(plan, at_minutes(states, [0]))


# ---- values ----------------------------------------------------------------


@pytest.mark.parametrize(
    "scenario", ["bookinfo", pytest.param("boutique", marks=pytest.mark.long)], indirect=True
)
def test_values_are_those_of_before_and_of_a_replay_in_one_go(
    scenario: Path, world: World, store: Store, tmp_path: Path
) -> None:
    entities = read_entities(scenario / "kubectl.yaml")
    commit_all(store, pieces(scenario, world.plan, entities, 16))
    before, rows = read_all(store), rows_of(store)
    done = store.compact(END_OF_TIME)
    assert read_all(store) == before
    assert_one_row_each(store)
    assert done.rows_before == sum(count for count, _, _ in rows.values())
    assert done.rows_after == sum(groups for _, groups, _ in rows.values()) < done.rows_before / 2
    with Store(copied(world.empty_store, tmp_path / "once.duckdb"), world.plan) as once:
        replay([scenario], entities, once)
        assert read_all(once) == before
        assert rows_of(once) == rows_of(store)


def test_minutes_are_looked_at_when_they_are_over_and_have_got_rows(
    store: Store, flushes: Sequence[States]
) -> None:
    every = sorted({m for part in flushes for m in part.scopes["service"].scalars[MINUTE]})
    commit_all(store, flushes)
    assert store.compact(every[0]) == NOTHING
    first = store.compact(every[1])
    assert first.minutes == 1
    assert first.rows_after < first.rows_before
    assert store.compact(every[1]) == NOTHING
    assert store.compact(every[1] + 1).minutes == 1
    assert store.compact(END_OF_TIME).minutes == len(every) - 2
    assert store.compact(END_OF_TIME) == NOTHING
    assert_one_row_each(store)


def test_rows_that_get_nothing_are_not_written_again(
    store: Store, flushes: Sequence[States]
) -> None:
    commit_all(store, flushes[:2])
    store.compact(END_OF_TIME)
    each = "SELECT rowid, time_bucket, entity FROM internal.service_minutes"
    before = set(store.query(each).fetchall())
    commit_all(store, flushes[2:3])
    added = store.query("SELECT time_bucket, entity FROM internal.service_states").fetchall()
    store.compact(END_OF_TIME)
    after = set(store.query(each).fetchall())
    untouched = {row for row in before if row[1:] not in set(added)}
    assert 0 < len(untouched) < len(before)
    assert untouched <= after
    assert not before - untouched <= after


def test_late_logs_of_a_compacted_minute_are_merged_with_it(
    store: Store, flushes: Sequence[States], world: World, tmp_path: Path
) -> None:
    for part in flushes[:4]:
        commit_all(store, [part])
        before = minute_views(store)
        store.compact(END_OF_TIME)
        assert_one_row_each(store)
        assert minute_views(store) == before
    with Store(copied(world.empty_store, tmp_path / "once.duckdb"), world.plan) as once:
        commit_all(once, [merge(world.plan, *flushes[:4])])
        assert read_all(once) == read_all(store)


def test_what_was_committed_before_the_store_was_opened_is_found(
    world: World, flushes: Sequence[States], tmp_path: Path
) -> None:
    path = copied(world.empty_store, tmp_path / "store.duckdb")
    with Store(path, world.plan) as store:
        commit_all(store, flushes)
        before = read_all(store)
    with Store(path, world.plan) as store:
        assert store.compact(END_OF_TIME).rows_after > 0
        assert_one_row_each(store)
        assert read_all(store) == before
    with Store(path, world.plan) as store:
        assert store.compact(END_OF_TIME) == NOTHING
        assert read_all(store) == before


def test_two_rows_from_before_the_store_was_opened_are_enough(
    world: World, flushes: Sequence[States], tmp_path: Path
) -> None:
    path = copied(world.empty_store, tmp_path / "store.duckdb")
    with Store(path, world.plan) as store:
        commit_all(store, [flushes[0], flushes[0]])
        assert {most for _, _, most in rows_of(store).values()} == {2}
        before = minute_views(store)
    with Store(path, world.plan) as store:
        done = store.compact(END_OF_TIME)
        assert done.rows_after * 2 == done.rows_before > 0
        assert_one_row_each(store)
        assert minute_views(store) == before


def test_more_rows_than_are_worked_on_at_once(
    store: Store, flushes: Sequence[States], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framewalk.engine.store.compact.PART_CELLS", 1_000)
    monkeypatch.setattr("framewalk.engine.store.compact.SLICE_ROWS", 10)
    commit_all(store, flushes)
    before = read_all(store)
    store.compact(END_OF_TIME)
    assert_one_row_each(store)
    assert read_all(store) == before


# ---- other definitions -------------------------------------------------------

COUNT = 'w_count = from(K8SService.*).filter(type == "write").count();'
OTHERS = """
w_sum = from(K8SService.write.duration).filter(type == "write").sum();
w_avg = from(K8SService.write.duration).filter(type == "write").longAvg();
w_share = from(K8SService.*).percent(type == "write");
w_max = from(K8SService.write.duration).filter(type == "write").max();
by_kind = from(K8SService.*).labelCount(type);
time_by_kind = from(K8SService.*).labelAvg(type, write.duration);
latencies = from(K8SService.protocol.http.latency).percentile2(10);
"""


@pytest.mark.parametrize("compacting", ["narrow", "wide"])
def test_rows_of_other_definitions_stay_apart(
    tmp_path: Path, entities: Entities, compacting: str
) -> None:
    """The narrow definitions do not have the columns that the wide ones brought."""
    texts = {"narrow": COUNT, "wide": COUNT + OTHERS}
    plans = {}
    for name, text in texts.items():
        (tmp_path / f"{name}.oal").write_text(text, encoding="utf-8")
        plans[name] = load_plan([tmp_path / f"{name}.oal"])
    parts = {name: pieces(BOOKINFO, plan, entities, 12) for name, plan in plans.items()}
    path = tmp_path / "store.duckdb"
    for number in range(4):
        name = ("narrow", "wide")[number % 2]
        with Store(path, plans[name]) as store:
            commit_all(store, parts[name][number * 3 : number * 3 + 3])
    with Store(path, plans[compacting]) as store:
        before = service_views(store)
        store.compact(END_OF_TIME)
        assert service_views(store) == before
        rows, groups, most = rows_of(store)["service"]
        assert most == 2
        assert groups < rows <= 2 * groups
    with Store(path, plans["wide"]) as store:
        assert service_views(store) == before
        assert any(row[-1] is None for row in before["service_minute"])
        assert any(row[-1] is not None for row in before["service_minute"])


def service_views(store: Store) -> Views:
    """Return the views of services with the columns of all definitions."""
    return {
        name: sorted(store.query(f"FROM {name}").fetchall(), key=repr)
        for name in ("service_minute", "service_hour", "service_day", "entities")
    }


# ---- the ends of 64 bits -------------------------------------------------------


def test_sums_that_stop_at_the_end_of_the_range(tmp_path: Path, entities: Entities) -> None:
    definition = tmp_path / "ends.oal"
    definition.write_text(COUNT + OTHERS, "utf-8")
    plan = load_plan([definition])
    rows = [(stream, 0, BASE * NS, longest_write()) for stream in range(5)]
    with Store(tmp_path / "once.duckdb", plan) as once:
        commit_all(once, [partial([as_batch(rows)], entities, plan)])
        want = service_views(once)
    with Store(tmp_path / "store.duckdb", plan) as store:
        commit_all(store, [partial([as_batch([row])], entities, plan) for row in rows])
        assert service_views(store) == want
        store.compact(END_OF_TIME)
        assert service_views(store) == want
        assert f"{2**63 - 1}" in repr(want)


@pytest.mark.parametrize(
    ("end", "other", "total"),
    [(2**63 - 1, -(2**61), 2**63 - 2), (-(2**63), 2**61, -(2**63))],
)
def test_a_sum_beyond_the_range_that_others_bring_back(
    tmp_path: Path, entities: Entities, end: int, other: int, total: int
) -> None:
    """Only the views see all rows of an hour, so nothing may stop at the end before them."""
    definition = tmp_path / "ends.oal"
    definition.write_text(COUNT + OTHERS, "utf-8")
    plan = load_plan([definition])
    some = partial([as_batch([(1, 0, BASE * NS, longest_write())])], entities, plan)
    minute = some.scopes["service"].scalars[MINUTE][0]
    part = with_sums(some, end)
    others = at_minutes(with_sums(some, other), [minute + 1, minute + 2])
    with Store(tmp_path / "store.duckdb", plan) as store:
        commit_all(store, [part, part, others, others])
        before = service_views(store)
        store.compact(END_OF_TIME)
        assert service_views(store) == before
        assert {row[-1] for row in sums(store, "service_hour")} == {total}
        assert rows_of(store)["service"][0] == 4


def with_sums(states: States, value: int) -> States:
    """Return these states with another sum of durations, by label too."""
    service = states.scopes["service"]
    (name,) = [name for name in service.scalars.columns if ".sum(" in name]
    scalars = service.scalars.with_columns(pl.lit(value).alias(name))
    keyed = {
        name: one.with_columns(pl.lit(value).alias(VALUE)) if ".sum(" in name else one
        for name, one in service.keyed.items()
    }
    return States({**states.scopes, "service": ScopeStates(scalars, keyed)}, states.counters)


def sums(store: Store, view: str) -> list[tuple[Any, ...]]:
    return store.query(f"SELECT service, w_sum FROM {view}").fetchall()


# ---- kill -9 ------------------------------------------------------------------

KILLS = 3
MOST_KILLS = 15
COMPACT = """
import sys
from pathlib import Path
import framewalk.engine.store.compact
from framewalk.engine import Store, load_plan
framewalk.engine.store.compact.PART_CELLS = 200_000
framewalk.engine.store.compact.SLICE_ROWS = 2_000
framewalk.engine.store.compact.ROWS_AT_ONCE = 1
with Store(sys.argv[1], load_plan([Path(sys.argv[2])])) as store:
    store.compact(2**31)
"""


def test_killed_while_it_compacts(tmp_path: Path, entities: Entities) -> None:
    """Killed as soon as the log of changes has grown for the first, second, ... time."""
    definition = tmp_path / "some.oal"
    definition.write_text(COUNT + OTHERS, "utf-8")
    plan = load_plan([definition])
    parts = [in_one_minute(part, plan) for part in pieces(BOOKINFO, plan, entities, 6)]
    whole = tmp_path / "whole.duckdb"
    with Store(whole, plan) as store:
        commit_all(store, [at_minutes(part, range(40)) for part in parts])
        before = minute_views(store)
        all_rows = total(store)
    left: list[int] = []
    done = all_rows
    # On a busy machine a kill may come late: it goes on until one comes between.
    while len(left) < KILLS or not any(done < rows < all_rows for rows in left):
        changes = len(left) + 1
        assert changes <= MOST_KILLS, f"no kill between two transactions: {left}"
        path = Path(shutil.copyfile(whole, tmp_path / f"{changes}.duckdb"))
        kill_after_changes(COMPACT, path, definition, changes)
        with Store(path, plan) as store:
            assert minute_views(store) == before
            left.append(total(store))
            store.compact(END_OF_TIME)
            assert minute_views(store) == before
            assert_one_row_each(store)
            done = total(store)


def minute_views(store: Store) -> Views:
    """Return the rows of the views of minutes, which are the cheapest."""
    names = [f"{scope.scope.view}_minute" for scope in store.plan.scopes]
    return {name: sorted(store.query(f"FROM {name}").fetchall(), key=repr) for name in names}


def total(store: Store) -> int:
    return sum(rows for rows, _, _ in rows_of(store).values())


def kill_after_changes(script: str, path: Path, definition: Path, changes: int) -> None:
    log = Path(f"{path}.wal")
    seen, size_bytes = 0, 0
    command = [sys.executable, "-c", script, str(path), str(definition)]
    with ending(subprocess.Popen(command)) as process:
        while process.poll() is None and seen < changes:
            grown = log.stat().st_size if log.exists() else 0
            seen += grown != size_bytes
            size_bytes = grown
            time.sleep(0.001)
        process.kill()


# Days from which on minutes, hours and days are kept: each border is crossed on its own.
KEPT_FROM = {"minute": 4, "hour": 3, "day": 2}
DAYS = 6
EXPIRE = f"""
import datetime as dt, functools, sys
from pathlib import Path
import framewalk.engine.store.room as room
from framewalk.engine import Store, load_plan
from framewalk.engine.store import Borders
# A transaction for each bucket.
room.delete_before = functools.partial(room.delete_before, rows_at_once=1)
borders = [dt.datetime(1970, 1, 1 + day, tzinfo=dt.UTC) for day in {list(KEPT_FROM.values())}]
with Store(sys.argv[1], load_plan([Path(sys.argv[2])])) as store:
    store.expire(Borders(*borders))
"""


def test_killed_while_it_expires(tmp_path: Path, entities: Entities) -> None:
    """Each minute, hour and day is there as a whole or gone, and a later expiry goes on."""
    definition = tmp_path / "some.oal"
    definition.write_text(COUNT, "utf-8")
    plan = load_plan([definition])
    states = merge(plan, *pieces(BOOKINFO, plan, entities, 2))
    whole = tmp_path / "whole.duckdb"
    minutes = [1440 * day + minute for day in range(DAYS) for minute in (0, 1, 60)]
    with Store(whole, plan) as store:
        commit_all(store, [at_minutes(in_one_minute(states, plan), minutes)])
        store.compact(END_OF_TIME)
        before = buckets(store)
    kept = {
        name: {bucket: rows for bucket, rows in found.items() if bucket.day > KEPT_FROM[name]}
        for name, found in before.items()
    }
    assert [len(found) for found in kept.values()] == [2 * 3, 3 * 2, 4]
    borders = [dt.datetime(1970, 1, 1 + day, tzinfo=dt.UTC) for day in KEPT_FROM.values()]
    left = []
    for changes in (2, 10, 15):
        path = Path(shutil.copyfile(whole, tmp_path / f"{changes}.duckdb"))
        kill_after_changes(EXPIRE, path, definition, changes)
        with Store(path, plan) as store:
            found = buckets(store)
            left.append(sum(map(len, found.values())))
            for name, rows in found.items():
                assert kept[name].items() <= rows.items() <= before[name].items()
            if changes == 2:
                # Late, and before all borders: gone with the rest.
                commit_all(store, [at_minutes(in_one_minute(states, plan), [0, 1441])])
            store.expire(Borders(*borders))
            assert buckets(store) == kept
    assert any(16 < count < sum(map(len, before.values())) for count in left), "no kill in between"


def buckets(store: Store) -> dict[str, dict[dt.datetime, list[tuple[Any, ...]]]]:
    """Return the rows of each bucket over all scopes, by resolution."""
    found: dict[str, dict[dt.datetime, list[tuple[Any, ...]]]] = {}
    for resolution in KEPT_FROM:
        rows = found.setdefault(resolution, {})
        for scope in store.plan.scopes:
            view = scope.scope.view
            for bucket, *values in store.query(f"FROM {view}_{resolution} ORDER BY ALL").fetchall():
                rows.setdefault(bucket, []).append((view, *values))
    return found


# ---- readers ------------------------------------------------------------------


def test_readers_neither_stop_compaction_nor_notice_it(
    store: Store, flushes: Sequence[States]
) -> None:
    commit_all(store, flushes)
    asked = "FROM service_minute ORDER BY ALL"
    before = store.query(asked).fetchall()
    inside = store.connection.cursor()
    inside.execute("BEGIN TRANSACTION READ ONLY")
    assert inside.execute(asked).fetchall() == before
    streaming = store.connection.cursor()
    streaming.execute("SELECT * FROM service_minute, range(100000)").fetchone()
    assert store.compact(END_OF_TIME).rows_after > 0
    assert store.checkpoint()
    assert inside.execute(asked).fetchall() == before
    inside.execute("ROLLBACK")
    inside.close()
    streaming.close()
    assert store.checkpoint()
    assert store.query(asked).fetchall() == before


def test_a_checkpoint_waits_for_another_writer(store: Store, flushes: Sequence[States]) -> None:
    commit_all(store, flushes[:1])
    other = store.connection.cursor()
    other.execute("BEGIN")
    other.execute("CREATE TABLE another (a INT)").fetchall()
    assert not store.checkpoint()
    other.execute("ROLLBACK")
    assert store.checkpoint()


# ---- size -----------------------------------------------------------------------


def test_a_steady_load_does_not_make_the_file_grow(
    world: World, store: Store, flushes: Sequence[States]
) -> None:
    """All logs are of one minute, so that there is never more to keep than after the first."""
    parts = [in_one_minute(part, world.plan) for part in flushes[:6]]
    sizes = []
    for _ in range(6):
        commit_all(store, parts)
        store.compact(END_OF_TIME)
        assert store.checkpoint()
        sizes.append(store.path.stat().st_size)
    assert max(sizes[2:]) <= sizes[1] + 4 * 262_144
    assert not Path(f"{store.path}.wal").exists() or not Path(f"{store.path}.wal").stat().st_size


# ---- expiry ----------------------------------------------------------------------


@pytest.mark.parametrize("zone", [None, dt.UTC, dt.timezone(dt.timedelta(hours=5))])
def test_minutes_before_a_time_expire(
    store: Store, flushes: Sequence[States], zone: dt.tzinfo | None
) -> None:
    commit_all(store, flushes)
    buckets = "SELECT DISTINCT time_bucket FROM service_minute ORDER BY 1"
    minutes = [minute for (minute,) in store.query(buckets).fetchall()]
    kept = {
        name: [row for row in rows if row[0] >= minutes[1]]
        for name, rows in minute_views(store).items()
    }
    before = minutes[1] if zone is None else minutes[1].replace(tzinfo=dt.UTC).astimezone(zone)
    rows = total(store)
    deleted = store.expire(before)
    assert deleted == rows - total(store) > 0
    assert minute_views(store) == kept
    assert store.expire(before) == 0
    assert store.compact(END_OF_TIME).minutes == len(minutes) - 1
    assert minute_views(store) == kept


# ---- positions and captures --------------------------------------------------------


@pytest.fixture
def batches(tmp_path: Path) -> Path:
    """The bookinfo capture in many record batches."""
    path = tmp_path / "batches.capture.arrows"
    with CaptureWriter(path) as writer:
        for batch in capture_table(BOOKINFO).combine_chunks().to_batches(max_chunksize=1_000):
            writer.write(batch)
    return path


def commit_live(store: Store, path: Path, flushes: Sequence[States], step: int = 3) -> int:
    """Commit a capture as a live engine does, a few record batches at a time."""
    with CaptureReader(path) as reader:
        reached = [batch.position for batch in reader]
    capture: int | None = None
    for start in range(0, len(reached), step):
        states = flushes[start // step]
        now = Reached(capture, path, reached[start : start + step])
        (capture,) = store.commit_many([now], [states], ends_only=True)
    assert capture is not None
    return capture


def test_a_live_capture_keeps_few_positions_and_is_recognised(
    store: Store, batches: Path, flushes: Sequence[States], entities: Entities, tmp_path: Path
) -> None:
    with CaptureReader(batches) as reader:
        reached = [batch.position for batch in reader]
    capture = commit_live(store, batches, flushes)
    assert store.positions(capture) == {reached[0], *reached[2::3], reached[-1]}
    assert store.captures() == {capture: reached[0]}
    assert store.paths() == {capture: batches}
    before = read_all(store), stored_counters(store)
    assert_known(store, shutil.copyfile(batches, tmp_path / "copy.capture.arrows"), entities)
    store.finish(capture)
    assert store.positions(capture) == {reached[0], reached[-1]}
    assert_known(store, shutil.copyfile(batches, tmp_path / "copy.capture.arrows"), entities)
    assert (read_all(store), stored_counters(store)) == before
    counted = store.query("SELECT kind, name, count(*) FROM internal.counters GROUP BY ALL")
    assert {row[2] for row in counted.fetchall()} == {1}


def assert_known(store: Store, copy: Path, entities: Entities) -> None:
    rows = capture_table(BOOKINFO).num_rows
    summary = replay([copy], entities, store)
    assert [one.known_messages for one in summary.captures] == [rows]
    assert not summary.counters.messages


def test_several_captures_in_one_commit(store: Store, flushes: Sequence[States]) -> None:
    def positions(*offsets: int) -> list[CapturePosition]:
        return [CapturePosition(offset, offset, f"{offset}") for offset in offsets]

    one, two = Reached(None, Path("1"), positions(1, 2, 3)), Reached(None, Path("2"), positions(7))
    first, second = store.commit_many([one, two], [flushes[0]], ends_only=True)
    assert store.positions(first) == {*positions(1, 3)}
    assert store.positions(second) == {*positions(7)}
    one, two = Reached(first, Path("1"), positions(4, 5)), Reached(second, Path("2"), [])
    assert store.commit_many([one, two], [flushes[1]], ends_only=True) == (first, second)
    assert store.positions(first) == {*positions(1, 3, 5)}
    store.commit_many([Reached(first, Path("1"), positions(6, 8))], [flushes[2]])
    assert store.positions(first) == {*positions(1, 3, 5, 6, 8)}
    store.finish(first, second)
    assert store.positions(first) == {*positions(1, 8)}
    assert store.positions(second) == {*positions(7)}
    assert stored_counters(store) == merge(store.plan, *flushes[:3]).counters


def test_a_commit_that_fails_leaves_nothing(store: Store, flushes: Sequence[States]) -> None:
    commit_all(store, flushes[:1])
    before, rows = read_all(store), total(store)
    broken = Reached(99, Path("x"), [CapturePosition(2**70, 0, "")])
    with pytest.raises((duckdb.Error, OverflowError)):
        store.commit_many([Reached(None, Path("y"), []), broken], [flushes[1]])
    assert (read_all(store), total(store)) == (before, rows)
    assert len(store.paths()) == 1
    commit_all(store, flushes[1:2])
    assert total(store) > rows


def test_forgotten_captures_leave_their_counters(store: Store, flushes: Sequence[States]) -> None:
    commit_all(store, flushes)
    dropped = (QUERIES / "sql" / "dropped.sql").read_text(encoding="utf-8")
    views, counters = read_all(store), stored_counters(store)
    totals = totals_of(store, dropped)
    first, second, third, *others = sorted(store.paths())
    for gone in ([first, second], [], [third], [first]):
        store.forget(gone)
    assert sorted(store.paths()) == sorted(store.captures()) == others
    assert (read_all(store), stored_counters(store)) == (views, counters)
    assert totals_of(store, dropped) == totals
    named = {capture for capture, *_ in store.query(dropped).fetchall()}
    assert len(named) == len(others) + 1


def totals_of(store: Store, dropped: str) -> Counter[tuple[str, str]]:
    rows = store.query(dropped).fetchall()
    found: Counter[tuple[str, str]] = Counter()
    for _, kind, name, count in rows:
        found[kind, name] += count
    return found
