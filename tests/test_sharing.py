"""States that engines share: published once, followed once, the same as of one store."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from comparison import Values, differences, read_views
from prepared import framewalk
from prometheus_client import CollectorRegistry, start_http_server

from framewalk.engine import Store, partial, read_entities, replay
from framewalk.engine.captures import (
    CapturePosition,
    CaptureReader,
    CaptureWriter,
    captures_in,
)
from framewalk.engine.errors import StoreError, TableError
from framewalk.engine.oal import Plan
from framewalk.engine.sharing import (
    Follower,
    Outbox,
    OutboxReader,
    Place,
    SharedTable,
    open_for_publishing,
    publish,
)
from framewalk.engine.store import Reached
from framewalk.server.following import Following, FollowOptions, Kept
from framewalk.server.following.status import FollowerStatus, Versions
from framewalk.server.following.telemetry import FollowerTelemetry

BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"
ENTITIES = read_entities(BOOKINFO / "kubectl.yaml")


def now_us() -> int:
    return time.time_ns() // 1_000


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


@pytest.fixture(scope="session")
def whole(plan: Plan) -> tuple[Values, list[tuple[object, ...]]]:
    """What one store has of the capture: its views, and what else it tells."""
    with Store(":memory:", plan) as store:
        replay(captures_in(BOOKINFO), ENTITIES, store)
        return read_views(store), told(store)


def told(store: Store) -> list[tuple[object, ...]]:
    unknown = "SELECT * FROM unknown_peers ORDER BY ALL"
    counters = "SELECT kind, name, sum(count)::BIGINT FROM internal.counters GROUP BY ALL"
    return store.query(unknown).fetchall() + store.query(f"{counters} ORDER BY ALL").fetchall()


class Engine:
    """A store with an outbox, and the table that it publishes to."""

    def __init__(self, path: Path, plan: Plan, uri: Path) -> None:
        self.store = Store(path, plan)
        self.outbox = self.store.outbound = Outbox(self.store, path.stem, now_us)
        self.reader = OutboxReader(self.store.connection.cursor())
        self.table = SharedTable(str(uri))
        self.place: Place = self.reader.place()

    def replay(self, *captures: Path) -> None:
        replay(captures, ENTITIES, self.store)

    def publish(self) -> int:
        """Publish what waits; returns how many commits of the table that took."""
        open_for_publishing(self.table, self.store.plan, self.place)
        for count in range(1_000):
            before, self.place = self.place, publish(self.reader, self.table, self.place)
            if self.place == before:
                return count
        raise AssertionError

    def settle(self) -> None:
        self.outbox.settle(self.place)

    def close(self) -> None:
        self.store.close()


def shares(folder: Path, count: int) -> list[Path]:
    """Return the capture in parts, each with every so manieth stream of it."""
    (path,) = captures_in(BOOKINFO)
    parts = []
    for own in range(count):
        part = folder / f"part-{own}-of-{count}.capture.arrows"
        with CaptureReader(path) as reader, CaptureWriter(part) as writer:
            for batch in reader:
                numbers = batch.messages["stream"].to_numpy()
                writer.write(batch.messages.filter(pa.array(numbers % count == own)))
        parts.append(part)
    return parts


def follow(path: Path | str, uri: Path) -> Store:
    """Bring a store to where a table is, and return it."""
    table = SharedTable(str(uri))
    assert table.open()
    store = Store(path, table.plan())
    for _ in Follower(store, table).follow(now_us()):
        pass
    return store


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_engines_share_equals_one_replay_of_all(
    count: int, folder: Path, plan: Plan, whole: tuple[Values, list[tuple[object, ...]]]
) -> None:
    engines = [
        Engine(folder / f"engine-{one}.duckdb", plan, folder / "table") for one in range(count)
    ]
    parts = shares(folder, 2 * count)
    # The second half is late: all minutes of it are in the table already.
    for late in range(2):
        for number, engine in enumerate(engines):
            engine.replay(parts[number + late * count])
            assert engine.publish() == 1
            engine.settle()
            assert (engine.outbox.pending, engine.outbox.pending_bytes) == (0, 0)
    with follow(":memory:", folder / "table") as store:
        assert differences(read_views(store), whole[0]) == []
        assert told(store) == whole[1]
        names = store.query("SELECT name, commits, is_silent FROM engines ORDER BY name")
        assert names.fetchall() == [(f"engine-{one}", 2, False) for one in range(count)]


def test_what_is_in_the_table_and_not_noted_is_not_published_again(
    folder: Path, plan: Plan, whole: tuple[Values, list[tuple[object, ...]]]
) -> None:
    first, second = shares(folder, 2)
    engine = Engine(folder / "engine.duckdb", plan, folder / "table")
    engine.replay(first)
    engine.publish()
    # Killed before it was settled.
    engine.close()
    engine = Engine(folder / "engine.duckdb", plan, folder / "table")
    assert engine.outbox.pending == 1
    engine.replay(second)
    engine.publish()
    engine.settle()
    assert (engine.outbox.pending, engine.place.published) == (0, 2)
    with follow(":memory:", folder / "table") as store:
        assert differences(read_views(store), whole[0]) == []


def test_two_that_publish_as_one_engine_at_once_count_once(folder: Path, plan: Plan) -> None:
    first, second = shares(folder, 2)
    engine = Engine(folder / "engine.duckdb", plan, folder / "table")
    engine.publish()
    engine.close()
    shutil.copy(folder / "engine.duckdb", folder / "copy.duckdb")
    engine, copy = (
        Engine(folder / f"{one}.duckdb", plan, folder / "table") for one in ("engine", "copy")
    )
    engine.replay(first)
    copy.replay(second)
    # Both have seen the table before either has published.
    for one in (engine, copy):
        open_for_publishing(one.table, plan, one.place)
    engine.place = publish(engine.reader, engine.table, engine.place)
    with pytest.raises(TableError, match="Concurrent transaction"):
        publish(copy.reader, copy.table, copy.place)
    with pytest.raises(TableError, match="another engine publishes as this one"):
        copy.publish()
    with follow(":memory:", folder / "table") as store, Store(":memory:", plan) as alone:
        replay([first], ENTITIES, alone)
        assert differences(read_views(store), read_views(alone)) == []


def test_a_transaction_that_is_undone_leaves_no_commit(folder: Path, plan: Plan) -> None:
    engine = Engine(folder / "engine.duckdb", plan, folder / "table")
    (capture,) = shares(folder, 1)

    def fail() -> None:
        raise RuntimeError

    with CaptureReader(capture) as reader:
        states = partial([batch.messages for batch in reader], ENTITIES, plan)
    reached = Reached(None, capture, [CapturePosition(1, 1, "digest")])
    with pytest.raises(RuntimeError):
        engine.store.commit_many([reached], [states], also=fail)
    assert (engine.outbox.pending, engine.outbox.pending_bytes) == (0, 0)
    engine.store.commit_many([reached], [states])
    assert engine.outbox.pending == 1
    engine.publish()
    assert engine.place.published == 1


@pytest.mark.parametrize("is_away", [False, True], ids=["as it goes", "away for long"])
def test_what_is_tidied_is_neither_lost_nor_counted_twice(
    is_away: bool,  # noqa: FBT001 - a parameter
    folder: Path,
    plan: Plan,
    whole: tuple[Values, list[tuple[object, ...]]],
) -> None:
    table = SharedTable(str(folder / "table"))
    engines = [Engine(folder / f"{one}.duckdb", plan, folder / "table") for one in range(2)]
    for number, part in enumerate(shares(folder, 6)):
        engines[number % 2].replay(part)
        engines[number % 2].publish()
        if number == 2 or not is_away:
            follow(folder / "followed.duckdb", folder / "table").close()
        if number in {1, 4}:
            assert table.open()
            assert table.tidy(None).merged_files > 0
    if is_away:
        for log in (folder / "table" / "_delta_log").glob("*.json"):
            # The table has forgotten all but its state.
            if int(log.stem) < table.version:
                log.unlink()
    with follow(folder / "followed.duckdb", folder / "table") as store:
        assert differences(read_views(store), whole[0]) == []
        assert told(store) == whole[1]
    with follow(":memory:", folder / "table") as store:
        assert differences(read_views(store), whole[0]) == []


def test_days_that_are_deleted_in_the_table_stay_with_who_has_them(
    folder: Path, plan: Plan, whole: tuple[Values, list[tuple[object, ...]]]
) -> None:
    engine = Engine(folder / "engine.duckdb", plan, folder / "table")
    engine.replay(*shares(folder, 1))
    engine.publish()
    follow(folder / "followed.duckdb", folder / "table").close()
    table = SharedTable(str(folder / "table"))
    assert table.open()
    days = {file.day for file in table.files()}
    assert table.tidy(max(days)).expired_files > 0
    with follow(folder / "followed.duckdb", folder / "table") as store:
        assert differences(read_views(store), whole[0]) == []
    with follow(":memory:", folder / "table") as store:
        assert store.query("FROM service_minute").fetchall() == []


def test_files_are_told_in_the_order_of_their_minutes(folder: Path, plan: Plan) -> None:
    """Whoever reads all of them writes an hour once then, and not again for each of its minutes."""
    engine = Engine(folder / "engine.duckdb", plan, folder / "table")
    engine.replay(*shares(folder, 1))
    engine.publish()
    rows = pl.concat([rows for file in engine.table.files() for rows in engine.table.rows(file)])
    minutes = sorted(rows["minute"].drop_nulls().unique())
    assert len(minutes) > 5
    table = SharedTable(str(folder / "other"))
    table.create(plan)
    for number, minute in enumerate(reversed(minutes), 1):
        table.append("engine", number, number, rows.filter(pl.col("minute") == minute))
        table.open()
    told = [row["minute"].unique().item() for file in table.files() for row in table.rows(file)]
    assert told == minutes


def test_a_whole_table_is_read_on_where_it_was_cut_off(
    folder: Path, plan: Plan, whole: tuple[Values, list[tuple[object, ...]]]
) -> None:
    engines = [Engine(folder / f"{one}.duckdb", plan, folder / "table") for one in range(3)]
    for engine, part in zip(engines, shares(folder, 3), strict=True):
        engine.replay(part)
        engine.publish()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("framewalk.engine.sharing.following._MOST_BYTES", 1)
        for _ in range(20):
            table = SharedTable(str(folder / "table"))
            assert table.open()
            with Store(folder / "followed.duckdb", plan) as store:
                if next(Follower(store, table).follow(now_us()), None) is None:
                    break
    with Store(folder / "followed.duckdb", plan) as store:
        assert differences(read_views(store), whole[0]) == []
        assert told(store) == whole[1]


def test_a_table_that_is_gone_or_another_is_not_made_anew(folder: Path, plan: Plan) -> None:
    engine = Engine(folder / "engine.duckdb", plan, folder / "table")
    engine.replay(*shares(folder, 1))
    engine.publish()
    engine.settle()
    follow(folder / "followed.duckdb", folder / "table").close()
    engine.close()
    (folder / "table").rename(folder / "elsewhere")
    engine = Engine(folder / "engine.duckdb", plan, folder / "table")
    with pytest.raises(TableError, match="the table is gone"):
        engine.publish()
    other = Engine(folder / "other.duckdb", plan, folder / "table")
    other.publish()
    with pytest.raises(TableError, match="has published to another table"):
        engine.publish()
    with pytest.raises(StoreError, match="follows another table"):
        follow(folder / "followed.duckdb", folder / "table")
    other.replay(*shares(folder, 1))
    other.close()
    with pytest.raises(StoreError, match="of captures or of a server"):
        follow(folder / "other.duckdb", folder / "table")


def test_one_that_catches_up_rolls_up_what_it_has(
    folder: Path,
    plan: Plan,
    whole: tuple[Values, list[tuple[object, ...]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock that stands still: it does not wait for the next time to do so."""
    engine = Engine(folder / "engine.duckdb", plan, folder / "table")
    for part in shares(folder, 4):
        engine.replay(part)
        engine.publish()
    engine.close()
    monkeypatch.setattr("framewalk.engine.sharing.following._MOST_BYTES", 1)
    monkeypatch.setattr("framewalk.server.following.upkeep._MUCH_ROWS", 100)
    options = FollowOptions(str(folder / "table"), 5, tidy_every_s=0, table_days=8)
    now_s, waited, left = time.time(), [], []
    with Following(options, Kept((7, 7, 7), 2**40), folder / "store.duckdb") as following:
        store = following.open(now_s, 0.0)
        assert store is not None
        while following.step(now_s, 0.0) < options.every_s:
            waited.append(store.waiting_rows())
            left.append(following.status.files_left)
        assert differences(read_views(store), whole[0]) == []
    # After each of four merges it had nothing left that waits.
    assert waited.count(0) >= 4
    # It tells how many files it has still to read.
    table = SharedTable(options.uri)
    assert table.open()
    expected = [*reversed(range(len(table.files())))]
    assert [files for files, _ in itertools.groupby(left)] == expected


def test_status_tells_what_is_left_of_a_table_that_is_read_as_a_whole() -> None:
    status = FollowerStatus(is_reading=True, files_left=1_203, states=Versions(-1, 1_440))
    registry = CollectorRegistry()
    registry.register(FollowerTelemetry(lambda: status))
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        done = framewalk("status", "--url", f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("files to read")]
    assert "1,203" in line
