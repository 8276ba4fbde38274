"""Relations between endpoints of calls whose two logs came to different engines."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from comparison import Values, differences, read_views

from framewalk.engine import CaptureReader, CaptureWriter, Store, read_entities, replay
from framewalk.engine.archive import Archive, ArchiveOptions, Mode, note_changed
from framewalk.engine.counters import Counters
from framewalk.engine.errors import StoreError, TableError
from framewalk.engine.oal import EndpointPatterns, Plan, make_plan
from framewalk.engine.remaking import RelatingOptions, relate
from framewalk.engine.sharing import (
    Follower,
    LogsFollower,
    LogsTable,
    Outbox,
    OutboxReader,
    SharedTable,
    open_for_publishing,
    publish,
)
from framewalk.engine.wire import access_log_pb2
from framewalk.fixtures import GenerateOptions, generate
from framewalk.server.following import KeptLogs
from framewalk.server.following.logs import FollowedLogs

LONG = pytest.mark.long
CALLED = ("endpoint_calls", "endpoint_tcp_relation")
LENGTHS = ("minute", "hour", "day")
Rows = dict[str, list[tuple[object, ...]]]


def now_us() -> int:
    return time.time_ns() // 1_000


@dataclass(frozen=True)
class Made:
    """A capture of several nodes, and what one machine has of it, by the archive's mode."""

    folder: Path
    nodes: dict[int, str]
    plan: Plan
    one: dict[Mode, tuple[Values, Rows]]

    @property
    def dump(self) -> Path:
        return self.folder / "dump.yaml"

    def shares(self, count: int) -> list[list[Path]]:
        """Return captures for so many engines, a first and a later part: of nodes, or of streams.

        Where there are more engines than nodes, the streams of a node are of several engines.
        """
        names = sorted(set(self.nodes.values()))
        share = {
            stream: names.index(node) if count <= len(names) else stream
            for stream, node in self.nodes.items()
        }
        shares = []
        for own in range(count):
            mine = {stream for stream, number in share.items() if number % count == own}
            late = set(sorted(mine)[1::3])
            parts = [(f"{own}-of-{count}", mine - late), (f"{own}-of-{count}-late", late)]
            shares.append([self.part(name, streams) for name, streams in parts if streams])
        return shares

    def part(self, name: str, streams: set[int]) -> Path:
        path = self.folder / f"part-{name}.capture.arrows"
        wanted = pa.array(sorted(streams), pa.uint64())
        with (
            CaptureReader(self.folder / "made.capture.arrows") as reader,
            CaptureWriter(path) as writer,
        ):
            for batch in reader:
                own = pa.compute.is_in(batch.messages["stream"], wanted)
                writer.write(batch.messages.filter(own))
        return path


@pytest.fixture(scope="module", params=["bookinfo", pytest.param("boutique", marks=LONG)])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, few_plan: Plan
) -> Made:
    folder = tmp_path_factory.mktemp("made")
    options = GenerateOptions(request.param, duration_s=100, requests_per_second=2)
    capture = folder / "made.capture.arrows"
    generate(options, capture, folder / "dump.yaml")
    one = {}
    for mode in (Mode.HTTP, Mode.ALL):
        with (
            Store(":memory:", few_plan) as store,
            Archive(store, folder / mode, ArchiveOptions(mode)) as archive,
        ):
            replay([capture], read_entities(folder / "dump.yaml"), store, archive=archive)
            relate(store, archive)
            one[mode] = read(store)
    return Made(folder, nodes_of(capture), few_plan, one)


def nodes_of(capture: Path) -> dict[int, str]:
    """Return the node that each stream is of: its first message says so."""
    nodes: dict[int, str] = {}
    with CaptureReader(capture) as reader:
        for batch in reader:
            rows = batch.messages.select(["stream", "message"]).to_pylist()
            for row in rows:
                if row["stream"] not in nodes:
                    message = access_log_pb2.EBPFAccessLogMessage.FromString(row["message"])
                    nodes[row["stream"]] = message.node.name
    return nodes


def read(store: Store) -> tuple[Values, Rows]:
    names = [f"{view}_{length}" for view in CALLED for length in LENGTHS]
    names += [f"endpoint_relation_{length}" for length in LENGTHS]
    has = "SELECT 1 FROM duckdb_views() WHERE view_name = ?"
    rows = {
        name: store.query(f"SELECT * FROM {name} ORDER BY ALL").fetchall()
        for name in names
        if store.run(has, [name])
    }
    return read_views(store), rows


class Engine:
    """A store with an archive and an outbox, and the tables that it publishes to."""

    def __init__(self, folder: Path, number: int, plan: Plan, mode: Mode = Mode.HTTP) -> None:
        self.folder = folder / f"logs-{number}"
        self.store = Store(folder / f"engine-{number}.duckdb", plan)
        self.outbox = self.store.outbound = Outbox(
            self.store, f"engine-{number}", now_us, takes_logs=True
        )
        self.archive = Archive(self.store, self.folder, ArchiveOptions(mode, gives_up=True))
        self.reader = OutboxReader(self.store.connection.cursor())
        self.table = SharedTable(str(folder / "table"))
        self.logs = LogsTable(str(folder / "table"))
        self.place = self.reader.place()

    def open(self) -> None:
        open_for_publishing(self.table, self.store.plan, self.place, self.logs)

    def replay(self, capture: Path, dump: Path) -> None:
        replay([capture], read_entities(dump), self.store, archive=self.archive, commit_logs=5_000)

    def publish(self) -> None:
        self.open()
        before = None
        while self.place != before:
            before = self.place
            self.place = publish(self.reader, self.table, before, self.logs)
        self.outbox.settle(self.place)

    def close(self) -> None:
        self.archive.close()
        self.store.close()


class Following:
    """A store that follows, as a process of its own would have it."""

    def __init__(self, folder: Path, name: str = "follower") -> None:
        self.states = SharedTable(str(folder / "table"))
        self.logs = LogsTable(str(folder / "table"))
        assert self.states.open()
        self.logs.open_beside(self.states)
        self.store = Store(folder / f"{name}.duckdb", self.states.plan())
        self.archive = Archive(self.store, folder / f"{name}-logs", ArchiveOptions(Mode.ALL))
        self.follower = Follower(self.store, self.states, lambda m: note_changed(self.store, m))
        self.logs_follower = LogsFollower(self.store, self.archive, self.logs)

    def relate(self) -> Iterator[object]:
        options = RelatingOptions(plan=self.states.plan(), at_most_once=True)
        while (done := relate(self.store, self.archive, options=options)).minutes:
            yield done

    def steps(self) -> Iterator[object]:
        self.states.open()
        yield from self.follower.follow(now_us())
        self.logs.open_beside(self.states)
        yield from self.logs_follower.follow()
        assert self.logs_follower.lacking() == []
        yield from self.relate()

    def follow(self) -> None:
        for _ in self.steps():
            pass

    def close(self) -> None:
        self.archive.close()
        self.store.close()


def assert_as_one(store: Store, one: tuple[Values, Rows]) -> None:
    values, rows = read(store)
    assert differences(values, one[0]) == []
    assert rows == one[1]


@pytest.mark.parametrize(
    ("count", "mode"),
    [(2, Mode.HTTP), (2, Mode.ALL), pytest.param(5, Mode.HTTP, marks=LONG), (1, Mode.SAMPLED)],
)
def test_relations_across_engines_equal_those_of_one_machine(
    made: Made, tmp_path: Path, count: int, mode: Mode
) -> None:
    engines = [Engine(tmp_path, number, made.plan, mode) for number in range(count)]
    shares = made.shares(count)
    for engine, parts in zip(engines, shares, strict=True):
        engine.replay(parts[0], made.dump)
        engine.publish()
    following = Following(tmp_path)
    following.follow()
    # Late ones have their minutes made again, whatever comes first of their states and logs.
    for engine, parts in zip(engines, shares, strict=True):
        for late in parts[1:]:
            engine.replay(late, made.dump)
            engine.publish()
        following.follow()
        engine.close()
    one = made.one[Mode.ALL if mode is Mode.ALL else Mode.HTTP]
    assert any(row for name, row in one[1].items() if name.startswith("endpoint_calls"))
    assert_as_one(following.store, one)
    following.close()
    another = Following(tmp_path, "another")
    another.follow()
    assert_as_one(another.store, one)
    another.close()


@pytest.fixture
def engines(made: Made, tmp_path: Path) -> Iterator[list[Engine]]:
    """Two engines of half of the nodes each, without what is late."""
    both = [Engine(tmp_path, number, made.plan) for number in range(2)]
    for engine, parts in zip(both, made.shares(2), strict=True):
        engine.replay(parts[0], made.dump)
        engine.publish()
    yield both
    for engine in both:
        engine.close()


def add_late(made: Made, engines: list[Engine]) -> None:
    for engine, parts in zip(engines, made.shares(2), strict=True):
        for late in parts[1:]:
            engine.replay(late, made.dump)


def test_logs_that_are_published_before_their_states_are_not_counted_twice(
    made: Made, engines: list[Engine], tmp_path: Path
) -> None:
    """As of an engine that is killed between both."""
    following = Following(tmp_path)
    following.follow()
    add_late(made, engines)
    for engine in engines:
        engine.open()
        batch = engine.reader.batch(engine.place, engine.table.layout, 10**9, 10**9)
        assert batch is not None
        rows = engine.reader.logs(engine.place, batch.last)
        engine.logs.append(engine.place.engine, batch.last, batch.token, rows)
    following.follow()
    for engine in engines:
        engine.publish()
    # One that follows from then on finds each log once.
    for one in (following, Following(tmp_path, "another")):
        one.follow()
        assert_as_one(one.store, made.one[Mode.HTTP])
        one.close()


def test_a_follower_of_logs_that_are_tidied_and_forgotten_has_each_once(
    made: Made, engines: list[Engine], tmp_path: Path
) -> None:
    following = Following(tmp_path)
    following.follow()
    add_late(made, engines)
    for engine in engines:
        engine.publish()
    logs = engines[0].logs
    logs.open()
    assert logs.tidy(None).merged_files > 1
    for version in range(logs.version):
        (tmp_path / "table" / "logs" / "_delta_log" / f"{version:020}.json").unlink(missing_ok=True)
    following.follow()
    assert_as_one(following.store, made.one[Mode.HTTP])
    following.close()


def test_a_table_of_logs_that_was_restored_is_found_out(
    made: Made, engines: list[Engine], tmp_path: Path
) -> None:
    logs, kept = tmp_path / "table" / "logs", tmp_path / "kept"
    shutil.copytree(logs, kept)
    add_late(made, engines)
    for engine in engines:
        engine.publish()
    shutil.rmtree(logs)
    kept.rename(logs)
    following = Following(tmp_path)
    for _ in following.follower.follow(now_us()):
        pass
    assert following.logs_follower.lacking() == ["engine-0", "engine-1"]
    following.close()
    engines[0].outbox.add_empty(Counters())
    fresh = LogsTable(str(tmp_path / "table"))
    fresh.open()
    with pytest.raises(TableError, match="does not have what this engine has published"):
        publish(engines[0].reader, engines[0].table, engines[0].place, fresh)


def test_minutes_whose_logs_found_no_room_keep_what_called_sides_saw(
    made: Made, engines: list[Engine], tmp_path: Path
) -> None:
    late = [parts[1] for parts in made.shares(2)]
    with (
        Store(":memory:", made.plan) as store,
        Archive(store, tmp_path / "one", ArchiveOptions(Mode.HTTP, gives_up=True)) as archive,
    ):
        entities = read_entities(made.dump)
        replay([parts[0] for parts in made.shares(2)], entities, store, archive=archive)
        with without_room(tmp_path / "one"):
            replay([late[1]], entities, store, archive=archive)
        replay([late[0]], entities, store, archive=archive)
        assert archive.given_up_rows > 0
        relate(store, archive)
        one = read(store)
    with without_room(engines[1].folder):
        engines[1].replay(late[1], made.dump)
    engines[0].replay(late[0], made.dump)
    for engine in engines:
        engine.publish()
    following = Following(tmp_path)
    following.follow()
    assert one[1] != made.one[Mode.HTTP][1]
    assert_as_one(following.store, one)
    following.close()


@contextmanager
def without_room(folder: Path) -> Iterator[None]:
    """Have an archive that cannot write requests."""
    (folder / "http").rename(folder.with_suffix(".away"))
    (folder / "http").write_text("no folder")
    yield
    (folder / "http").unlink()
    folder.with_suffix(".away").rename(folder / "http")


def test_commits_that_wait_without_their_logs_are_not_published_with_logs(
    made: Made, tmp_path: Path
) -> None:
    with Store(tmp_path / "waits.duckdb", made.plan) as store:
        outbox = Outbox(store, "waits", now_us)
        outbox.add_empty(Counters())
        with pytest.raises(StoreError, match="made without their logs"):
            Outbox(store, "waits", now_us, takes_logs=True)


def test_the_archive_of_a_follower_is_merged_and_expires(
    made: Made, engines: list[Engine], tmp_path: Path
) -> None:
    states = SharedTable(str(tmp_path / "table"))
    assert states.open()
    kept = KeptLogs(tmp_path / "followed", ttl_days=3, budget_bytes=2**30, longest_query_s=0)
    newest_s = made.one[Mode.HTTP][1]["endpoint_calls_minute"][-1][0].timestamp()  # type: ignore[attr-defined]
    with Store(tmp_path / "follower.duckdb", states.plan()) as store:
        with FollowedLogs(store, states, kept, newest_s, 0) as logs:
            late = list(zip(engines, [parts[1] for parts in made.shares(2)], strict=True))
            for part in range(3):
                for _ in Follower(store, states, logs.note_minutes).follow(now_us()):
                    pass
                while logs.step(newest_s + 7_200, 100 * part):
                    pass
                for engine, capture in late[part : part + 1]:
                    engine.replay(capture, made.dump)
                    engine.publish()
                states.open()
            assert_as_one(store, made.one[Mode.HTTP])
            count = store.run("SELECT count(*) FROM http_logs")
            files = store.run("SELECT count(*) FROM internal.archived")
            logs.upkeep(newest_s + 7_200, 7_200)
            assert store.run("SELECT count(*) FROM internal.archived") < files
            assert store.run("SELECT count(*) FROM http_logs") == count
            # A clock that was set is not gone by.
            logs.upkeep(newest_s + 5 * 86_400, 10_800)
            assert store.run("SELECT count(*) FROM http_logs") == count
            logs.upkeep(newest_s + 5 * 86_400, 5 * 86_400)
            assert store.run("SELECT count(*) FROM http_logs") == [(0,)]
        assert_as_one(store, made.one[Mode.HTTP])


@pytest.mark.usefixtures("engines")
def test_a_follower_relates_no_more_requests_than_it_may(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states = SharedTable(str(tmp_path / "table"))
    assert states.open()
    kept = KeptLogs(tmp_path / "followed", 3, 2**30, 0, most_requests=1)
    with (
        Store(":memory:", states.plan()) as store,
        FollowedLogs(store, states, kept, time.time(), 0) as logs,
    ):
        for _ in Follower(store, states, logs.note_minutes).follow(now_us()):
            pass
        while logs.step(time.time(), 0):
            pass
        sources = store.query("SELECT DISTINCT source_endpoint FROM endpoint_calls_minute")
        assert sources.fetchall() == [("Unknown",)]
    assert "calls are too many to put together" in caplog.text


def test_a_table_tells_followers_what_endpoints_are_called_and_when_they_satisfy(
    few_plan: Plan, tmp_path: Path
) -> None:
    patterns = EndpointPatterns(("/users/{id}",), {"shop.eu": ("/items/{id}", "/a/{b}")})
    metrics = few_plan.metrics
    for plan in (few_plan, make_plan(metrics, {"shop.eu": 70}, 400, patterns)):
        table = SharedTable(str(tmp_path / str(plan.apdex_default_ms)))
        table.create(plan)
        told = table.plan()
        assert told.endpoint_patterns == plan.endpoint_patterns
        assert told.apdex_thresholds_ms == plan.apdex_thresholds_ms
        assert told.apdex_default_ms == plan.apdex_default_ms
