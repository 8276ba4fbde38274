"""What an engine does beside its commits, at times that are passed in: nobody waits here."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from batches import as_batch
from engine_options import engine_options
from small_disk import small_disk

from framewalk.engine import CaptureWriter, Entities, Store, read_entities, replay
from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.captures.format import CapturePosition
from framewalk.engine.errors import StoreRoomError
from framewalk.engine.oal.plan import Plan
from framewalk.engine.runs.live import SpoolFollower
from framewalk.engine.stages.pipeline import partial
from framewalk.engine.store import Borders, room
from framewalk.engine.wire import access_log_pb2 as pb
from framewalk.fixtures import GenerateOptions, generate
from framewalk.server.engine.link import ArchiveSettings
from framewalk.server.engine.upkeep import Upkeep

NS = 10**9
HOUR_S = 3_600
DAY_S = 86_400
YEAR_S = 365 * DAY_S
TTL_DAYS = 7
NOW_S = 1_714_564_800
"""2024-05-01T12:00:00Z."""
BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"


@pytest.fixture(scope="module")
def entities() -> Entities:
    return read_entities(BOOKINFO / "kubectl.yaml")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    from framewalk.engine import load_plan  # noqa: PLC0415

    path = tmp_path_factory.mktemp("plan") / "few.oal"
    text = "calls = from(K8SService.*).cpm();\nlogs = from(K8SService.*).count();\n"
    path.write_text(text, encoding="utf-8")
    return load_plan(path)


class Engine:
    """A store with an upkeep, both at times that a test says; the clock is right unless it lies."""

    def __init__(self, folder: Path, plan: Plan, entities: Entities, **settings: object) -> None:
        self._settings = settings
        self.store = Store(folder / "metrics.duckdb", plan)
        self._entities = entities
        self._numbers = itertools.count()
        self.folder = folder
        self.elapsed_s = 0.0
        self.lie_s = 0.0
        self.start()

    def start(self) -> None:
        """Begin anew, as a process that was started again."""
        spool = self.folder / "spool"
        spool.mkdir(exist_ok=True)
        self.follower = SpoolFollower(spool, self.store, self.elapsed_s)
        chosen = engine_options(self.folder, **self._settings)
        now_s = self.now_s + self.lie_s
        self.upkeep = Upkeep(chosen, self.store, self.follower, now_s, self.elapsed_s)

    @property
    def now_s(self) -> float:
        """The true time."""
        return NOW_S + self.elapsed_s

    def store_logs(self, minute_s: float, commits: int = 1, service: str = "local") -> None:
        """Commit logs of a minute."""
        for _ in range(commits):
            number = next(self._numbers)
            rows = [(0, 0, int(minute_s) * NS, message(int(minute_s), service))]
            states = partial([as_batch(rows)], self._entities, self.store.plan)
            position = CapturePosition(number, number, str(number))
            self.store.commit(None, Path(str(number)), [position], states)

    def run_after(self, seconds: float) -> None:
        self.elapsed_s += seconds
        self.upkeep.run(self.now_s + self.lie_s, self.elapsed_s)

    def minutes(self) -> dict[float, int]:
        """Return the minutes in the store, and how many rows each has."""
        rows = "FROM internal.service_states UNION ALL FROM internal.service_minutes"
        sql = f"SELECT epoch(time_bucket), count(*) FROM ({rows}) GROUP BY 1"
        return dict(self.store.query(sql).fetchall())


def message(event_s: int, service: str) -> bytes:
    """Return a message with a log of one service."""
    made = pb.EBPFAccessLogMessage()
    made.node.name = "node-1"
    made.node.bootTime.seconds = event_s
    made.connection.local.kubernetes.serviceName = service
    made.connection.remote.kubernetes.serviceName = "remote"
    made.kernelLogs.add().write.startTime.offset.offset = 1
    return made.SerializeToString()


@pytest.fixture
def engine(tmp_path: Path, plan: Plan, entities: Entities) -> Iterator[Engine]:
    made = Engine(tmp_path, plan, entities)
    yield made
    made.store.close()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


OLD_S = NOW_S - (TTL_DAYS + 2) * DAY_S


def test_metrics_expire_by_a_clock_that_is_right(engine: Engine) -> None:
    engine.store_logs(OLD_S)
    engine.store_logs(NOW_S)
    engine.run_after(HOUR_S)
    assert list(engine.minutes()) == [NOW_S]


@pytest.mark.parametrize("jump_s", [2 * DAY_S, 10 * YEAR_S, 200 * YEAR_S])
def test_a_clock_that_jumps_ahead_deletes_nothing(
    engine: Engine, jump_s: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine.store_logs(NOW_S - TTL_DAYS * DAY_S + HOUR_S)
    engine.store_logs(NOW_S)
    engine.run_after(HOUR_S)
    before = engine.minutes()
    assert len(before) == 2
    engine.lie_s = jump_s
    engine.run_after(HOUR_S)
    engine.run_after(HOUR_S)
    assert engine.minutes() == before
    assert told(caplog) == ["metrics do not expire"]
    # A start within the jump does not make it true.
    engine.start()
    engine.run_after(HOUR_S)
    assert engine.minutes() == before
    engine.lie_s = 0
    engine.run_after(HOUR_S)
    assert engine.minutes() == before
    engine.run_after(2 * DAY_S)
    assert list(engine.minutes()) == [NOW_S]


def test_a_clock_that_was_wrong_at_the_start_is_believed_once_it_is_right(engine: Engine) -> None:
    engine.store_logs(OLD_S)
    engine.store_logs(NOW_S)
    engine.lie_s = 10 * YEAR_S
    engine.start()
    engine.run_after(HOUR_S)
    assert len(engine.minutes()) == 2
    engine.lie_s = 0
    engine.run_after(HOUR_S)
    assert list(engine.minutes()) == [NOW_S]
    # What the clock said at the start is no excuse for saying it again.
    engine.lie_s = 10 * YEAR_S
    engine.run_after(HOUR_S)
    assert list(engine.minutes()) == [NOW_S]


def test_after_a_long_rest_metrics_expire_when_logs_come_again(engine: Engine) -> None:
    engine.store_logs(NOW_S)
    engine.elapsed_s += 30 * DAY_S
    engine.start()
    engine.run_after(HOUR_S)
    assert list(engine.minutes()) == [NOW_S]
    engine.store_logs(engine.now_s)
    engine.run_after(HOUR_S)
    assert NOW_S not in engine.minutes()
    # Once confirmed, an engine without logs goes by the clock that is never set.
    engine.run_after(30 * DAY_S)
    assert engine.minutes() == {}


def test_a_minute_of_the_year_2200_confirms_no_clock(engine: Engine) -> None:
    engine.store_logs(NOW_S)
    engine.store_logs(NOW_S + 176 * YEAR_S)
    engine.lie_s = 10 * YEAR_S
    engine.start()
    engine.run_after(HOUR_S)
    assert len(engine.minutes()) == 2


def test_a_store_without_minutes_is_left_alone(engine: Engine) -> None:
    engine.run_after(HOUR_S)
    assert engine.minutes() == {}


@pytest.mark.parametrize("away_s", [-30 * DAY_S, -HOUR_S, HOUR_S, DAY_S, 176 * YEAR_S])
def test_every_closed_minute_is_compacted_whatever_its_age(engine: Engine, away_s: int) -> None:
    minute_s = NOW_S + away_s
    engine.store_logs(minute_s, commits=3)
    engine.store_logs(NOW_S, commits=3)
    assert engine.minutes() == {minute_s: 3, NOW_S: 3}
    engine.run_after(300)
    # That of five minutes ago is closed, one that is an hour ahead has no more logs to come.
    assert engine.minutes() == {minute_s: 1, NOW_S: 1}
    engine.store_logs(minute_s)
    engine.run_after(299)
    assert engine.minutes() == {minute_s: 2, NOW_S: 1}
    engine.run_after(1)
    assert engine.minutes() == {minute_s: 1, NOW_S: 1}


@pytest.mark.parametrize("ahead_s", [-120, 0, 240])
def test_a_minute_that_is_open_is_left_alone(engine: Engine, ahead_s: int) -> None:
    engine.store_logs(NOW_S + 300 + ahead_s, commits=3)
    engine.run_after(300)
    assert set(engine.minutes().values()) == {3}


def test_views_are_as_before_when_later_minutes_are_compacted(engine: Engine) -> None:
    for minute_s in (NOW_S, NOW_S + DAY_S):
        engine.store_logs(minute_s, commits=3)
    wanted = engine.store.query("FROM service_minute ORDER BY ALL").pl()
    engine.run_after(300)
    assert engine.store.query("FROM service_minute ORDER BY ALL").pl().equals(wanted)
    assert wanted.select(pl.len()).item() == 2


def test_the_newest_minute_is_told_up_to_a_time(engine: Engine) -> None:
    assert engine.store.newest_minute_s(NOW_S) is None
    for minute_s in (NOW_S, NOW_S + DAY_S):
        engine.store_logs(minute_s)
    until = dt.datetime.fromtimestamp(NOW_S + 59, dt.UTC).timestamp()
    assert engine.store.newest_minute_s(until) == NOW_S
    assert engine.store.newest_minute_s(NOW_S - 1) is None
    assert engine.store.newest_minute_s(NOW_S + DAY_S) == NOW_S + DAY_S


# Late logs come for every age: at each border, one resolution has them and the finer one has not.
TTL = {"minute_ttl_days": 2, "hour_ttl_days": 4, "day_ttl_days": 8}
AGES = (0, 1, 2, 3, 4, 5, 8, 9)


def logs_by_age(engine: Engine, resolution: str) -> dict[int, int]:
    """Return the logs of each day before today, by one resolution."""
    sql = (
        f"SELECT date_diff('day', time_bucket, make_timestamp({NOW_S * 10**6})), sum(logs)::INT "
        f"FROM service_{resolution} WHERE service = 'local' GROUP BY 1"
    )
    return dict(engine.store.query(sql).fetchall())


def test_minutes_hours_and_days_expire_each_at_its_border(
    tmp_path: Path, plan: Plan, entities: Entities
) -> None:
    engine = Engine(tmp_path, plan, entities, **TTL)
    for age in AGES:
        engine.store_logs(NOW_S - age * DAY_S)
        engine.store_logs(NOW_S - age * DAY_S, service=f"only {age} days ago")
    for count in (1, 2, 3):
        engine.run_after(HOUR_S)
        # What is late is rolled up before its minutes are gone, and counted where it is kept.
        assert logs_by_age(engine, "minute") == dict.fromkeys((0, 1, 2), count)
        assert logs_by_age(engine, "hour") == dict.fromkeys((0, 1, 2, 3, 4), count)
        assert logs_by_age(engine, "day") == dict.fromkeys((0, 1, 2, 3, 4, 5, 8), count)
        for age in AGES:
            engine.store_logs(NOW_S - age * DAY_S)
    named = "SELECT names['service'] FROM entities WHERE scope = 'K8SService'"
    assert {name for (name,) in engine.store.query(named).fetchall()} == {
        "local",
        *(f"only {age} days ago" for age in AGES if age <= TTL["day_ttl_days"]),
    }
    engine.store.close()


def test_what_is_not_rolled_up_waits_for_it_before_it_expires(engine: Engine) -> None:
    engine.store_logs(NOW_S - 3 * DAY_S)
    border = [dt.datetime.fromtimestamp(NOW_S - days * DAY_S, dt.UTC) for days in (2, 4, 8)]
    assert engine.store.expire(Borders(*border)) == 0
    engine.store.compact(2**31)
    assert engine.store.expire(Borders(*border)) > 0
    assert logs_by_age(engine, "minute") == {}
    assert logs_by_age(engine, "hour") == logs_by_age(engine, "day") == {3: 1}


@pytest.mark.parametrize("minutes", [1, 30, 90])
def test_hours_say_how_much_of_them_has_passed(engine: Engine, minutes: int) -> None:
    asked = "SELECT minutes FROM service_{} ORDER BY time_bucket"
    engine.store_logs(NOW_S)
    engine.store_logs(NOW_S + 60 * (minutes - 1))
    for _ in range(2):
        found = engine.store.query(asked.format("hour")).fetchall()
        assert found == ([(60,), (minutes - 60,)] if minutes > 60 else [(minutes,)])
        assert engine.store.query(asked.format("day")).fetchall() == [(12 * 60 + minutes,)]
        engine.run_after(300)


def test_what_a_day_takes_is_told_and_whether_the_budget_holds_it(
    tmp_path: Path, plan: Plan, entities: Entities, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    # A row a minute, reckoned with 150 bytes.
    day_bytes = 1_440 * 150
    for budget_bytes, warnings in ((3 * 7 * day_bytes, 0), (day_bytes, 1)):
        caplog.clear()
        folder = tmp_path / str(budget_bytes)
        folder.mkdir()
        engine = Engine(folder, plan, entities, store_budget_bytes=budget_bytes)
        for minute_s in (NOW_S, NOW_S + 60):
            engine.store_logs(minute_s)
        for _ in range(3):
            engine.run_after(600)
        assert engine.upkeep.bytes_per_day["service"] == day_bytes
        assert engine.upkeep.bytes_per_day["endpoint"] == 0
        assert told(caplog).count("store has not room for what it is to keep") == warnings
        engine.store.close()


def test_a_compaction_gives_way_to_commits_and_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A transaction has one entity, and as many rows are enough until the next look.
    monkeypatch.setattr("framewalk.engine.store.compact.PART_CELLS", 1)
    monkeypatch.setattr("framewalk.engine.store.compact.SLICE_ROWS", 1)
    monkeypatch.setattr("framewalk.server.engine.upkeep._ROWS_AT_ONCE", 1)
    monkeypatch.setattr("framewalk.server.engine.upkeep._COMPACT_ROWS", 1)
    for hours in (1, 0):
        for number in range(5):
            engine.store_logs(NOW_S - hours * HOUR_S, commits=2, service=f"service-{number}")
    before = engine.store.query("FROM service_hour ORDER BY ALL").pl()
    assert before.height == 10
    assert waiting(engine) == 20
    # What comes late while it goes on is for the next one.
    late_s = NOW_S - 2 * HOUR_S
    left = []
    for looks in range(8):
        engine.run_after(5 if looks else 300)
        left.append(waiting(engine) - looks)
        engine.store_logs(late_s)
        rows = engine.store.query("FROM service_hour ORDER BY ALL").pl()
        assert rows[1:].equals(before)
    # Other scopes have their turns, too.
    assert left[0] in (18, 20)
    assert all(one - other in (0, 2) for one, other in itertools.pairwise([20, *left]))
    for _ in range(30):
        engine.run_after(5)
    assert waiting(engine) == 8
    engine.run_after(300)
    for _ in range(5):
        engine.run_after(5)
    assert waiting(engine) == 0


def test_an_expiry_gives_way_to_commits_and_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_minute = functools.partial(room.delete_before, rows_at_once=1)
    monkeypatch.setattr(room, "delete_before", by_minute)
    monkeypatch.setattr("framewalk.server.engine.upkeep._EXPIRE_ROWS", 1)
    for minute in range(4):
        engine.store_logs(OLD_S + 60 * minute)
    engine.store_logs(NOW_S)
    left = []
    for looks in range(4):
        engine.run_after(5 if looks else HOUR_S)
        left.append(len(engine.minutes()))
        engine.store_logs(NOW_S)
    assert left == [4, 3, 2, 1]
    for coarser in (1, 0):
        engine.run_after(5)
        assert len(logs_by_age(engine, "hour")) == 1
        assert len(logs_by_age(engine, "day")) == 1 + coarser
    engine.run_after(HOUR_S)
    assert logs_by_age(engine, "day") == {0: 5}


def waiting(engine: Engine) -> int:
    """Return how many rows of services are not rolled up."""
    return int(engine.store.query("SELECT count(*) FROM internal.service_states").fetchall()[0][0])


def test_archived_logs_are_merged_and_expire(
    tmp_path: Path, plan: Plan, entities: Entities
) -> None:
    logs = tmp_path / "logs"
    settings = ArchiveSettings("all", logs, ttl_days=3, budget_bytes=2**30, texts=())
    engine = Engine(tmp_path, plan, entities, archive=settings)
    options = ArchiveOptions(Mode.ALL, gives_up=True)
    files = "SELECT count(*), sum(rows)::BIGINT FROM internal.archived"
    with engine.store, Archive(engine.store, logs, options) as archive:
        engine.follower.archive = archive
        for number in range(3):
            event_s = NOW_S - 2 * HOUR_S + number
            path = tmp_path / f"{number}.capture.arrows"
            with CaptureWriter(path) as writer:
                writer.write(as_batch([(number, 0, event_s * NS, message(event_s, "local"))]))
            replay([path], entities, engine.store, archive=archive)
        assert engine.store.query(files).fetchall() == [(3, 3)]
        engine.run_after(60)
        assert engine.store.query(files).fetchall() == [(1, 3)]
        # A query that has begun may be reading what was replaced.
        assert len(list(logs.glob("transfer/*/*"))) == 4
        engine.run_after(60)
        assert len(list(logs.glob("transfer/*/*"))) == 1
        engine.store_logs(NOW_S)
        engine.run_after(HOUR_S)
        assert engine.store.query(files).fetchall() == [(1, 3)]
        engine.store_logs(NOW_S + 3 * DAY_S)
        engine.run_after(3 * DAY_S)
        assert engine.store.query(files).fetchall() == [(0, None)]


def test_a_full_disk_costs_logs_and_no_metrics(
    tmp_path: Path, plan: Plan, entities: Entities
) -> None:
    path = tmp_path / "one.capture.arrows"
    with CaptureWriter(path) as writer:
        writer.write(as_batch([(1, 0, NOW_S * NS, message(NOW_S, "local"))]))
    logs = tmp_path / "logs"
    with Store(":memory:", plan) as store:
        with Archive(store, logs, ArchiveOptions(Mode.ALL, gives_up=True)) as archive:
            # A file where a folder is wanted: as good as a disk without room.
            (logs / "transfer").touch()
            replay([path], entities, store, archive=archive)
            assert archive.given_up_rows == 1
        assert store.query("SELECT calls FROM service_minute").fetchall() == [(1,)]
        assert store.query("SELECT count(*) FROM transfer_logs").fetchall() == [(0,)]
        again = tmp_path / "again.capture.arrows"
        with CaptureWriter(again) as writer:
            writer.write(as_batch([(2, 0, NOW_S * NS, message(NOW_S + 1, "local"))]))
        with (
            Archive(store, logs, ArchiveOptions(Mode.ALL)) as archive,
            pytest.raises(StoreRoomError, match="run this again"),
        ):
            replay([again], entities, store, archive=archive)
        assert store.query("SELECT calls FROM service_minute").fetchall() == [(1,)]


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk(64 * 1024**2) as folder:
        yield folder


def test_a_disk_that_is_nearly_full_costs_archived_logs_first(
    tmp_path: Path, disk: Path, plan: Plan, entities: Entities
) -> None:
    settings = ArchiveSettings("all", disk / "logs", ttl_days=3, budget_bytes=2**30, texts=())
    engine = Engine(tmp_path, plan, entities, archive=settings)
    options = ArchiveOptions(Mode.ALL, gives_up=True)
    files = "SELECT count(*) FROM internal.archived"
    with engine.store, Archive(engine.store, disk / "logs", options) as archive:
        engine.follower.archive = archive
        for number in range(2):
            event_s = NOW_S - number * HOUR_S
            path = tmp_path / f"{number}.capture.arrows"
            with CaptureWriter(path) as writer:
                writer.write(as_batch([(number, 0, event_s * NS, message(event_s, "local"))]))
            replay([path], entities, engine.store, archive=archive)
        engine.run_after(1)
        assert engine.store.query(files).fetchall() == [(2,)]
        free = os.statvfs(disk)
        left_bytes = free.f_blocks * free.f_frsize // 20
        with (disk / "filler").open("wb") as filler:
            # A page less than is to be free: the older of two files is enough.
            room = free.f_bavail * free.f_frsize - left_bytes + 4096
            os.posix_fallocate(filler.fileno(), 0, room)
        engine.run_after(1)
        assert engine.store.query(files).fetchall() == [(1,)]
        ((hour,),) = engine.store.query("SELECT hour FROM internal.archived").fetchall()
        assert hour == NOW_S // HOUR_S
        # What waits for queries is as good as gone.
        engine.run_after(1)
        assert engine.store.query(files).fetchall() == [(1,)]
        assert engine.store.query("SELECT sum(calls) FROM service_minute").fetchall() == [(2,)]
        engine.run_after(300)
        assert len(list((disk / "logs").glob("transfer/*/*"))) == 1


def test_relations_are_made_of_minutes_that_are_over(tmp_path: Path, plan: Plan) -> None:
    begins = dt.datetime.fromtimestamp(NOW_S - 120, dt.UTC)
    options = GenerateOptions("bookinfo", duration_s=240, requests_per_second=0.5, start=begins)
    path = tmp_path / "made.capture.arrows"
    generate(options, path, tmp_path / "dump.yaml")
    entities = read_entities(tmp_path / "dump.yaml")
    engine = Engine(tmp_path, plan, entities)
    made = "SELECT DISTINCT epoch(time_bucket)::BIGINT FROM endpoint_calls_minute ORDER BY 1"
    kept = ArchiveOptions(Mode.HTTP)
    with engine.store, Archive(engine.store, tmp_path / "logs", kept) as archive:
        engine.follower.archive = archive
        replay([path], entities, engine.store, archive=archive)
        engine.run_after(60)
        engine.run_after(60)
        # Those of the four minutes before are not over, nor are the last two.
        assert engine.store.query(made).fetchall() == [(NOW_S - 120,)]
        for _ in range(8):
            engine.run_after(60)
        wanted = [(NOW_S + after_s,) for after_s in (-120, -60, 0, 60)]
        assert engine.store.query(made).fetchall() == wanted
        assert archive.changed_minutes() == []
