"""What has addresses that nobody knows waits for their names, and nothing else does."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from batches import as_batch
from segments import Segments

from framewalk.engine import Entities, Store, load_plan, replay
from framewalk.engine.captures.format import captures_in
from framewalk.engine.kubernetes.claims import ANY_PORT, Holder
from framewalk.engine.kubernetes.inventory import OPEN_END_NS, OPEN_START_NS
from framewalk.engine.kubernetes.table import lookups_of
from framewalk.engine.oal.plan import Plan
from framewalk.engine.runs.examining import suspected
from framewalk.engine.runs.live import SpoolFollower
from framewalk.engine.runs.reading import NOTE_NAME, ReadingNote
from framewalk.engine.stages.resolving import with_nameless
from framewalk.engine.wire import access_log_pb2 as pb

NS = 10**9
BASE_S = 1_714_564_800
WAIT_S = 5.0
IPS = ("10.0.0.1", "10.0.0.2", "203.0.113.9")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("plan") / "few.oal"
    path.write_text("calls = from(K8SServiceRelation.*).cpm();\n", encoding="utf-8")
    return load_plan(path)


def table(*ips: str, cluster: str = "", port: int = ANY_PORT) -> Entities:
    """Return a table in which these addresses were always somebody's."""
    return Entities(
        lookups_of(
            {
                (cluster, ip, port): [
                    (OPEN_START_NS, OPEN_END_NS, Holder("pod", "shop", f"at-{ip}", f"pod-{ip}"))
                ]
                for ip in ips
            }
        )
    )


def stream(name: str, ip: str, at_s: float, logs: int = 1, number: int = 1) -> pa.RecordBatch:
    """Return a stream of a pod of the Service `name` that calls an address."""
    made = pb.EBPFAccessLogMessage()
    made.node.name = "node"
    made.node.bootTime.seconds = BASE_S
    made.connection.local.kubernetes.serviceName = name
    made.connection.remote.ip.host = ip
    made.connection.remote.ip.port = 80
    for _ in range(logs):
        made.kernelLogs.add().write.startTime.offset.offset = int(at_s * NS)
    received_ns = int((BASE_S + at_s) * NS)
    return as_batch([(number, 0, received_ns, made.SerializeToString())])


def look(follower: SpoolFollower, entities: Entities, at_s: float, commit_logs: int = 10**6) -> int:
    clock_ns = int((BASE_S + at_s) * NS)
    flushed = follower.follow(entities, at_s, commit_logs, clock_ns=clock_ns)
    return sum(one.counters.messages for one in flushed)


def started(folder: Path, store: Store, at_s: float, wait_s: float = WAIT_S) -> SpoolFollower:
    follower = SpoolFollower(folder, store, at_s)
    follower.holding.wait_s = wait_s
    return follower


def counted(store: Store) -> dict[str, tuple[str, int]]:
    """Return whom each stream called, and how often."""
    sql = "SELECT source_service, dest_service, sum(calls)::INT FROM service_relation_minute"
    rows = store.query(f"{sql} GROUP BY ALL").fetchall()
    assert len({name for name, _, _ in rows}) == len(rows)
    return {name: (partner, calls) for name, partner, calls in rows}


@dataclass
class Stream:
    name: str
    ip: str
    received_s: float
    logs: int
    waits: bool = False

    def is_due(self, known: set[str], now_s: float) -> bool:
        """What waits does so to the end, whatever is learnt."""
        is_known = self.ip in known and not self.waits
        return is_known or now_s >= self.received_s + WAIT_S


@dataclass
class Run:
    """A spool, whoever follows it, and what must be in the store."""

    folder: Path
    store: Store
    now_s: float = 0
    known: set[str] = field(default_factory=set)
    streams: list[Stream] = field(default_factory=list)
    expected: dict[str, tuple[str, int]] = field(default_factory=dict)

    def expect(self, *, is_all: bool = False) -> None:
        for one in self.streams:
            if one.name not in self.expected and (is_all or one.is_due(self.known, self.now_s)):
                partner = f"at-{one.ip}" if one.ip in self.known else "Unknown"
                self.expected[one.name] = (partner, one.logs)
            one.waits = one.name not in self.expected

    def restart(self) -> None:
        for one in self.streams:
            one.waits = False

    def take_over(self, found: dict[str, tuple[str, int]]) -> None:
        """Take what a look did that was cut off: what it counted, it counted right."""
        self.expect()
        assert found.items() <= self.expected.items()
        self.expected = dict(found)


@pytest.mark.parametrize("draws", [*map(random.Random, range(2))])
def test_streams_wait_for_names_and_for_nothing_else(
    tmp_path: Path, plan: Plan, draws: random.Random
) -> None:
    """Through starts, kills, new segments and small commits, at every moment as it must be."""
    segments = Segments(tmp_path)
    with Store(":memory:", plan) as store:
        follower = started(tmp_path, store, 0)
        run = Run(tmp_path, store)
        for number in range(40):
            run.now_s += draws.choice([0, 0.5, 1, 1, 3])
            if draws.random() < 0.1:
                run.known = set(draws.sample(IPS, draws.randint(0, 2)))
            one = Stream(f"s{number}", draws.choice(IPS), run.now_s, draws.randint(1, 3))
            segments.write(stream(one.name, one.ip, one.received_s, one.logs, number))
            run.streams.append(one)
            if draws.random() < 0.1:
                segments.turn(is_torn=draws.random() < 0.2)
            entities = table(*run.known)
            what = draws.random()
            if what < 0.1:
                clock_ns = int((BASE_S + run.now_s) * NS)
                next(follower.follow(entities, run.now_s, 1, clock_ns=clock_ns), None)
                follower = started(tmp_path, store, run.now_s)
                run.take_over(counted(store))
                run.restart()
            elif what < 0.6:
                look(follower, entities, run.now_s, draws.choice([1, 10**6]))
                run.expect()
                assert counted(store) == run.expected
                is_waiting = len(run.expected) < len(run.streams)
                assert (follower.waits_since_ns is not None) == is_waiting
                assert follower.has_all
                assert (follower.unread_bytes() > 16) == is_waiting
            if what < 0.2:
                follower = started(tmp_path, store, run.now_s)
                run.restart()
        # Whoever goes on, with nothing in memory: a replay, or an engine that waits for none.
        segments.close()
        if draws.random() < 0.5:
            replay([tmp_path], table(*run.known), store)
        else:
            follower = SpoolFollower(tmp_path, store, run.now_s, "~")
            look(follower, table(*run.known), run.now_s)
            assert follower.unread_bytes() == 0
        run.expect(is_all=True)
        assert counted(store) == run.expected
        assert replay([tmp_path], Entities.empty(), store).counters.messages == 0
        assert store.query("FROM internal.held").fetchall() == []


def test_a_name_that_is_learnt_in_time_is_there_and_an_address_outside_only_waits(
    tmp_path: Path, plan: Plan
) -> None:
    segments = Segments(tmp_path)
    with Store(":memory:", plan) as store:
        follower = started(tmp_path, store, 0)
        segments.write(stream("early", "10.0.0.1", 0))
        segments.write(stream("outside", "203.0.113.9", 0))
        segments.write(stream("other", "10.0.0.2", 0))
        assert look(follower, table("10.0.0.2"), 1) == 1
        assert counted(store) == {"other": ("at-10.0.0.2", 1)}
        assert follower.waits_since_ns == BASE_S * NS
        assert look(follower, table("10.0.0.1", "10.0.0.2"), 4.9) == 0
        assert look(follower, table("10.0.0.1", "10.0.0.2"), 5) == 2
        assert follower.waits_since_ns is None
        assert counted(store)["early"] == ("at-10.0.0.1", 1)
        assert counted(store)["outside"] == ("Unknown", 1)


def test_what_is_old_does_not_wait_nor_where_nothing_is_learnt(tmp_path: Path, plan: Plan) -> None:
    segments = Segments(tmp_path)
    with Store(":memory:", plan) as store:
        segments.write(stream("old", "10.0.0.1", 0))
        assert look(started(tmp_path, store, 0), Entities.empty(), 5) == 1
        segments.write(stream("new", "10.0.0.1", 5))
        assert look(started(tmp_path, store, 0, wait_s=0), Entities.empty(), 5) == 1


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_a_clock_that_is_set_keeps_nothing_for_longer(
    tmp_path: Path, plan: Plan, step_s: float
) -> None:
    segments = Segments(tmp_path)
    with Store(":memory:", plan) as store:
        follower = started(tmp_path, store, 0)
        segments.write(stream("one", "10.0.0.1", 0))
        clocks = [(elapsed_s, int((BASE_S + step_s + elapsed_s) * NS)) for elapsed_s in (1, 5, 6)]
        found = [
            sum(
                one.counters.messages
                for one in follower.follow(Entities.empty(), elapsed_s, clock_ns=clock_ns)
            )
            for elapsed_s, clock_ns in clocks
        ]
        assert found == ([0, 0, 1] if step_s < 0 else [1, 0, 0])


def test_what_waits_is_bounded(
    tmp_path: Path, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    segments = Segments(tmp_path)
    with Store(":memory:", plan) as store:
        follower = started(tmp_path, store, 0)
        size_bytes = stream("one", "10.0.0.1", 0).nbytes
        follower.holding.most_bytes = 10 * size_bytes + size_bytes // 2
        for number in range(25):
            segments.write(stream(f"s{number:02}", "10.0.0.1", 0, number=number))
        assert look(follower, Entities.empty(), 1) == 15
        assert "too much waits for names" in caplog.text
        segments.write(stream("more", "10.0.0.1", 1))
        assert look(follower, Entities.empty(), 2) == 1
        assert look(follower, Entities.empty(), 5) == 10


def test_segments_that_stay_open_for_what_waits_are_few(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framewalk.engine.runs.live._MOST_ENDED", 4)
    segments = Segments(tmp_path)
    with Store(":memory:", plan) as store:
        for number in range(7):
            segments.write(stream(f"s{number}", "10.0.0.1", 0, number=number))
            segments.turn(is_torn=False)
        follower = started(tmp_path, store, 0)
        assert look(follower, Entities.empty(), 1) == 3
        assert look(follower, Entities.empty(), 5) == 4
        assert len(follower.remove(10**9, 0, 0)) == 7


def test_what_waits_stays_in_its_segment(tmp_path: Path, plan: Plan) -> None:
    segments = Segments(tmp_path)
    with Store(":memory:", plan) as store:
        segments.write(stream("waits", "10.0.0.1", 0))
        segments.write(stream("goes", "10.0.0.2", 0))
        segments.turn(is_torn=False)
        path = captures_in(tmp_path)[0]
        for _ in range(2):
            follower = started(tmp_path, store, 0)
            look(follower, table("10.0.0.2"), 1)
            assert follower.remove(10**9, 0, 0) == []
            assert 0 < follower.unread_bytes() < path.stat().st_size
        # A segment is known by its first record batch, whether that is counted or not.
        first = store.query(
            "SELECT end_bytes IN (SELECT offset_bytes FROM internal.positions) FROM internal.held"
        )
        assert first.fetchall() == [(True,)]
        # What an engine was reading when it died is tried apart, as long as it is not stored.
        note = ReadingNote(tmp_path / NOTE_NAME)
        engine = started(tmp_path, store, 1)
        with pytest.raises(ZeroDivisionError):
            look_and_die(engine, store, table("10.0.0.2"))
        (span,) = suspected(note, store).spans
        assert span.path == path
        assert span.begin_bytes < span.end_bytes
        assert look(started(tmp_path, store, 5), Entities.empty(), 5) == 1
        assert suspected(note, store).spans == ()
        copied = tmp_path / "copy"
        copied.mkdir()
        (copied / "one.capture.arrows").write_bytes(path.read_bytes())
        assert replay([copied], Entities.empty(), store).counters.messages == 0


def look_and_die(follower: SpoolFollower, store: Store, entities: Entities) -> None:
    """Look, and end before the commit."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    commit_many = store.commit_many
    store.commit_many = fail  # type: ignore[assignment, method-assign]
    try:
        look(follower, entities, 5)
    finally:
        store.commit_many = commit_many  # type: ignore[method-assign]


def test_a_segment_that_lost_what_waits_says_so(tmp_path: Path, plan: Plan) -> None:
    segments = Segments(tmp_path)
    with Store(":memory:", plan) as store:
        for name, ip in (("first", "10.0.0.2"), ("waits", "10.0.0.1"), ("goes", "10.0.0.2")):
            segments.write(stream(name, ip, 0))
        segments.turn(is_torn=False)
        path = captures_in(tmp_path)[0]
        look(started(tmp_path, store, 0), table("10.0.0.2"), 1)
        ((begin_bytes, end_bytes),) = store.query(
            "SELECT begin_bytes, end_bytes FROM internal.held"
        ).fetchall()
        content = bytearray(path.read_bytes())
        content[end_bytes - 40] ^= 1
        path.write_bytes(content)
        follower = started(tmp_path, store, 1)
        (flushed,) = follower.follow(table("10.0.0.2"), 2)
        assert flushed.counters.messages == 0
        assert flushed.counters.quality["damaged_bytes"] == end_bytes - begin_bytes
        assert counted(store).keys() == {"first", "goes"}
        assert follower.unread_bytes() <= 8
        assert store.query("FROM internal.held").fetchall() == []


# Which streams are about addresses that nobody knows


def changed(change: Callable[[pb.EBPFAccessLogMessage], object]) -> pa.RecordBatch:
    made = pb.EBPFAccessLogMessage.FromString(stream("one", "10.0.0.1", 0)["message"][0].as_py())
    change(made)
    return as_batch([(1, 0, BASE_S * NS, made.SerializeToString())])


def in_a_tunnel(made: pb.EBPFAccessLogMessage) -> None:
    made.connection.attachment.zTunnel.real_destination_ip = "10.0.0.2"


def from_a_cluster(made: pb.EBPFAccessLogMessage) -> None:
    made.node.clusterName = "eu"


def called_by(made: pb.EBPFAccessLogMessage) -> None:
    made.connection.role = 1


def with_local_address(made: pb.EBPFAccessLogMessage) -> None:
    made.connection.local.ip.host = "10.0.0.2"


def of_pods(made: pb.EBPFAccessLogMessage) -> None:
    made.connection.remote.kubernetes.serviceName = "other"


@pytest.mark.parametrize(
    ("change", "known", "is_nameless"),
    [
        (str, table("10.0.0.1"), False),
        (str, table("10.0.0.2"), True),
        (in_a_tunnel, table("10.0.0.2"), False),
        (in_a_tunnel, table("10.0.0.1"), True),
        (with_local_address, table("10.0.0.1"), True),
        (with_local_address, table("10.0.0.1", "10.0.0.2"), False),
        (of_pods, Entities.empty(), False),
        (from_a_cluster, table("10.0.0.1", cluster="eu"), False),
        (str, table("10.0.0.1", cluster="eu"), True),
        (str, table("10.0.0.1", port=80), False),
        (called_by, table("10.0.0.1", port=80), True),
        (str, table("10.0.0.1", port=443), True),
    ],
)
def test_an_address_is_known_as_it_is_when_it_is_counted(
    change: Callable[[pb.EBPFAccessLogMessage], object], known: Entities, *, is_nameless: bool
) -> None:
    assert with_nameless([changed(change)], known) == [is_nameless]


def test_each_record_batch_is_looked_at_for_itself() -> None:
    """However many there are, of one or of many messages, and whatever is in between."""
    known, unknown = stream("one", "10.0.0.1", 0), stream("one", "10.0.0.2", 0)
    bad = as_batch([(1, 0, BASE_S * NS, b"\xff"), (1, 1, BASE_S * NS, b"")])
    empty = as_batch([(1, 0, BASE_S * NS, b"")])
    long = pa.concat_batches([known] * 25_000)
    last = pa.concat_batches([long, unknown])
    batches = [known, unknown, bad, long, last, empty, known, unknown]
    expected = [False, True, False, False, True, False, False, True]
    assert with_nameless(batches, table("10.0.0.1")) == expected
    assert with_nameless([], table()) == []


def test_what_a_stream_says_of_its_cluster_goes_for_all_of_it() -> None:
    first = changed(from_a_cluster)
    made = pb.EBPFAccessLogMessage.FromString(first["message"][0].as_py())
    made.ClearField("node")
    later = as_batch([(1, 1, BASE_S * NS, made.SerializeToString())] * 25_000)
    long = pa.concat_batches([first, later])
    assert with_nameless([long, long], table("10.0.0.1", cluster="eu")) == [False, False]
    another = stream("one", "10.0.0.1", 0)
    assert with_nameless([long, another], table("10.0.0.1", cluster="eu")) == [False, True]
