"""Clocks that are ahead: of some nodes their logs are dropped, of most it is the receiver's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from batches import Row, as_batch

from framewalk.engine import Entities, Store, load_plan, replay
from framewalk.engine.captures.format import (
    CAPTURE_SCHEMA,
    DIGEST_KEY,
    CaptureWriter,
    batch_digest,
)
from framewalk.engine.oal.plan import Plan
from framewalk.engine.runs.clocks import NodeClocks
from framewalk.engine.runs.live import SpoolFollower
from framewalk.engine.runs.pending import Pending
from framewalk.engine.stages.peer_states import PeerStates, with_ahead
from framewalk.engine.stages.pipeline import first_phase, partial
from framewalk.engine.stages.streams import Carried
from framewalk.engine.store import Reached
from framewalk.engine.wire import access_log_pb2 as pb

NS = 10**9
NOW_S = 1_714_564_800
DAY_S = 86_400
RIGHT_S = -5
AHEAD = "clocks of nodes are ahead, their logs are dropped"
CALM = "logs of nodes are no longer dropped for their clocks"
BEHIND = "clock of the receiver is behind those of most nodes, nothing is dropped for it"
AGREES = "clock of the receiver agrees with most nodes again"

NONE = Entities.empty()


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("plan") / "few.oal"
    path.write_text("calls = from(K8SService.*).cpm();\n", encoding="utf-8")
    return load_plan(path)


def message(node: str, event_ns: int, logs: int = 1, remote: str = "remote") -> bytes:
    """Return a message of a node, with logs of one moment."""
    made = pb.EBPFAccessLogMessage()
    made.node.name = node
    made.node.bootTime.seconds = event_ns // NS
    made.connection.local.kubernetes.serviceName = "local"
    made.connection.remote.kubernetes.serviceName = remote
    for _ in range(logs):
        made.kernelLogs.add().write.startTime.offset.offset = event_ns % NS
    return made.SerializeToString()


def rows_of(offsets_s: dict[str, float], logs: int = 1) -> list[Row]:
    """Return a message of each node, with logs that are so much ahead of its arrival."""
    return [
        (number, 0, NOW_S * NS, message(node, NOW_S * NS + int(offset_s * NS), logs))
        for number, (node, offset_s) in enumerate(offsets_s.items())
    ]


def phase(plan: Plan, offsets_s: dict[str, float], logs: int = 1) -> PeerStates:
    messages = pa.Table.from_batches([as_batch(rows_of(offsets_s, logs))])
    ((found, _),) = first_phase(messages, Carried(), NONE, plan)
    return found


def counted(clocks: NodeClocks, found: PeerStates, now_s: float = 0) -> tuple[int, int]:
    """Return how many logs count, and how many are dropped."""
    is_kept = clocks.keeps_ahead(found.clocks, now_s)
    counters = [part.counters for part in (with_ahead(found) if is_kept else [found])]
    dropped = sum(one.dropped.total() for one in counters)
    return sum(one.logs for one in counters) - dropped, dropped


# The drop itself


@pytest.mark.parametrize(
    ("ahead_ns", "dropped"), [(300 * NS, 0), (300 * NS + 1, 1), (DAY_S * NS, 1), (-DAY_S * NS, 0)]
)
def test_a_log_is_dropped_that_is_more_than_five_minutes_ahead(
    plan: Plan, ahead_ns: int, dropped: int
) -> None:
    rows = [(1, 0, NOW_S * NS, message("a", NOW_S * NS + ahead_ns))]
    states = partial([as_batch(rows)], NONE, plan)
    assert (
        states.counters.dropped.total() == states.counters.dropped["time_out_of_range"] == dropped
    )
    assert states.counters.logs == 1
    assert states.scopes["service"].scalars.height == 1 - dropped


@pytest.mark.parametrize(("most_s", "dropped"), [(0, 2), (59, 2), (60, 1), (3_600, 0)])
def test_how_far_is_a_setting(plan: Plan, most_s: float, dropped: int) -> None:
    rows = rows_of({"right": RIGHT_S, "minute": 60, "hour": 3_600})
    states = partial([as_batch(rows)], NONE, plan, most_ahead_s=most_s)
    assert states.counters.dropped["time_out_of_range"] == dropped


@pytest.mark.parametrize("received_ns", [-(2**63), 0, 2**63 - 1])
def test_any_arrival_is_taken(plan: Plan, received_ns: int) -> None:
    rows = [(1, 0, received_ns, message("a", NOW_S * NS))]
    for most_s in (0, 31_536_000):
        states = partial([as_batch(rows)], NONE, plan, most_ahead_s=most_s)
        assert states.counters.dropped.total() == (received_ns < NOW_S)


def test_each_log_has_one_reason_and_that_of_its_time_comes_first(plan: Plan) -> None:
    same = [
        (number, 0, NOW_S * NS, message("a", NOW_S * NS + ahead_s * NS, remote="local"))
        for number, ahead_s in enumerate((0, DAY_S))
    ]
    states = partial([as_batch(same)], NONE, plan)
    assert states.counters.dropped == {"same_service": 1, "time_out_of_range": 1}
    # Where it is not dropped for its time, it is for what comes next.
    messages = pa.Table.from_batches([as_batch([*same, *rows_of({"b": DAY_S, "c": DAY_S})])])
    ((found, _),) = first_phase(messages, Carried(), NONE, plan)
    assert NodeClocks().keeps_ahead(found.clocks, 0)
    (kept, ahead) = with_ahead(found)
    assert (kept.counters + ahead.counters).dropped == {"same_service": 2}
    assert kept.counters.logs == 4


def test_the_drop_does_not_depend_on_batches(plan: Plan) -> None:
    offsets = {f"node-{number}": number * 40.0 for number in range(30)}
    rows = rows_of(offsets, logs=3)
    whole = partial([as_batch(rows)], NONE, plan)
    single = partial([as_batch([row]) for row in rows], NONE, plan)
    assert whole.counters == single.counters
    assert whole.counters.dropped["time_out_of_range"] == 3 * sum(
        offset > 300 for offset in offsets.values()
    )
    columns = whole.scopes["service"].scalars.columns
    found, wanted = (one.scopes["service"].scalars.sort(columns) for one in (single, whole))
    assert found.equals(wanted)


# Whose clock it is


def test_one_node_of_several_is_dropped_and_told_with_its_offset(
    plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    clocks = NodeClocks()
    found = phase(plan, {"a": RIGHT_S, "b": RIGHT_S, "node\n9": DAY_S}, logs=5)
    assert counted(clocks, found) == (10, 5)
    for now_s in (0, 5, 10, 100):
        clocks.tell(now_s)
    (line,) = caplog.records
    assert line.message == AHEAD
    assert line.facts["nodes"] == "node?9 by 86,400 s (5 logs)"  # type: ignore[attr-defined]
    assert clocks.warning() == (
        "clocks of nodes are ahead, 5 of their logs were dropped: node?9 by 86,400 s (5 logs)"
    )


def test_most_nodes_ahead_are_right_and_nothing_is_dropped(
    plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clocks = NodeClocks()
    behind = phase(plan, {"a": 3_600, "b": 3_595, "c": RIGHT_S}, logs=5)
    assert counted(clocks, behind) == (15, 0)
    clocks.tell(0)
    (line,) = caplog.records
    assert (line.message, line.levelname) == (BEHIND, "ERROR")
    assert line.facts["ahead"] == 2  # type: ignore[attr-defined]
    assert "a by 3,600 s" in clocks.warning()
    # The clock is set right.
    right = phase(plan, {"a": RIGHT_S, "b": RIGHT_S, "c": RIGHT_S})
    assert counted(clocks, right, 60) == (3, 0)
    clocks.tell(60)
    assert [one.message for one in caplog.records] == [BEHIND, AGREES]


def test_one_node_cannot_outvote_the_receiver(plan: Plan) -> None:
    clocks = NodeClocks()
    assert counted(clocks, phase(plan, {"only": DAY_S})) == (0, 1)
    assert counted(clocks, phase(plan, {"only": DAY_S, "other": RIGHT_S})) == (1, 1)


def test_what_nodes_said_before_counts_in_a_commit_without_them(plan: Plan) -> None:
    clocks = NodeClocks()
    counted(clocks, phase(plan, {"a": RIGHT_S, "b": RIGHT_S, "c": RIGHT_S}))
    wrong = phase(plan, {"d": DAY_S, "e": DAY_S})
    assert counted(clocks, wrong, 5) == (0, 2)
    # After an hour of silence the others have no say.
    assert counted(clocks, wrong, 5 + 3_600) == (2, 0)


def test_it_stays_as_it_is_between_a_third_and_a_half(plan: Plan) -> None:
    right, ahead = phase(plan, {"a": RIGHT_S, "b": RIGHT_S, "c": RIGHT_S}), DAY_S
    clocks = NodeClocks()
    some = phase(plan, {"a": RIGHT_S, "b": RIGHT_S, "c": ahead, "d": ahead})
    assert counted(clocks, some) == (2, 2)
    assert counted(clocks, phase(plan, {"b": ahead, "c": ahead, "d": ahead})) == (3, 0)
    assert counted(clocks, some) == (4, 0)
    assert counted(clocks, right) == (3, 0)
    assert counted(clocks, some) == (2, 2)


def test_a_few_wild_logs_make_no_wrong_clock(plan: Plan) -> None:
    rows = [
        (node, seq, NOW_S * NS, message(f"node-{node}", (NOW_S + DAY_S * (seq == 0)) * NS))
        for node in range(5)
        for seq in range(4)
    ]
    messages = pa.Table.from_batches([as_batch(rows)])
    ((found, _),) = first_phase(messages, Carried(), NONE, plan)
    assert counted(NodeClocks(), found) == (15, 5)


def test_lines_are_few_however_many_nodes_are_ahead(
    plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clocks = NodeClocks()
    right = {f"right-{number}": RIGHT_S for number in range(400)}
    for number in range(60):
        names = {f"wrong-{number}-{each}": DAY_S + each for each in range(6)}
        found = phase(plan, {**right, **names} if not number else names)
        clocks.keeps_ahead(found.clocks, number)
        clocks.tell(number)
    clocks.tell(60)
    clocks.tell(61)
    assert [one.message for one in caplog.records] == [AHEAD, AHEAD]
    listed = caplog.records[1].facts["nodes"]  # type: ignore[attr-defined]
    assert listed.startswith("wrong-")
    assert listed.endswith(f", {59 * 6 - 10} others")
    clocks.tell(700)
    assert [one.message for one in caplog.records] == [AHEAD, AHEAD, CALM]


def test_made_up_names_take_bounded_room(plan: Plan) -> None:
    clocks = NodeClocks()
    for part in range(3):
        names = {f"{part}-{number}-{'x' * 300}": float(DAY_S) for number in range(6_000)}
        clocks.keeps_ahead(phase(plan, names).clocks, part)
    assert len(clocks._nodes) == 10_000  # noqa: SLF001 - what it holds is the point
    assert max(map(len, clocks._nodes)) == 253  # noqa: SLF001


# What is more than is held


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize(
    ("most_rows", "nodes_asked_of"),
    [
        (1_000, [4]),
        # Others are written before the commit: what is ahead waits for it.
        (30, [4]),
        # What is ahead is itself too much to hold.
        (12, [4] * 5 + [0]),
        (1, [1] * 40 + [0]),
    ],
)
def test_what_is_ahead_waits_for_the_commit_unless_it_is_too_much(
    plan: Plan, most_rows: int, nodes_asked_of: list[int], *, is_kept: bool
) -> None:
    """Ten minutes of four nodes, of which one is a day ahead."""
    asked_of: list[int] = []

    def keeps_ahead(clocks: pl.DataFrame) -> bool:
        asked_of.append(clocks.height)
        return is_kept

    offsets_s = [-60 * minute + DAY_S * (minute % 4 == 3) for minute in range(40)]
    with Store(":memory:", plan) as store:
        pending = Pending(store, keeps_ahead, most_rows=most_rows)
        for number, offset_s in enumerate(offsets_s):
            pending.add(phase(plan, {f"node-{number % 4}": offset_s}, logs=3))
        assert pending.has_written == (most_rows < 1_000)
        pending.decide()
        store.commit_many([Reached(None, Path("made"), [])], pending.rolled_up())
        minutes = store.query(
            "SELECT epoch(time_bucket)::BIGINT, sum(calls)::INT FROM service_minute GROUP BY 1"
        ).fetchall()
        dropped = store.query("SELECT count FROM internal.counters WHERE kind = 'dropped'")
        assert dropped.fetchall() == ([] if is_kept else [(30,)])
    counted = [offset_s for offset_s in offsets_s if is_kept or offset_s <= 0]
    assert dict(minutes) == {NOW_S + offset_s: 3 for offset_s in counted}
    assert asked_of == nodes_asked_of
    assert pending.counters.logs == 120
    assert pending.counters.dropped.total() == 3 * (len(offsets_s) - len(counted))
    # One of the service and one of its calls to the other.
    assert pending.rows == 2 * len(pending.minutes) == 2 * len(counted)


# At the edges: a replay and a live run


def capture(folder: Path, rows: Sequence[Row]) -> Path:
    path = folder / "made.capture.arrows"
    with CaptureWriter(path) as writer:
        writer.write(as_batch(rows))
    return path


@pytest.mark.parametrize(
    ("offsets_s", "dropped"),
    [
        ({"a": RIGHT_S, "b": RIGHT_S, "c": DAY_S}, 1),
        ({"a": DAY_S, "b": DAY_S, "c": RIGHT_S}, 0),
        ({"a": RIGHT_S, "b": RIGHT_S}, 0),
    ],
)
def test_a_replay_decides_for_a_capture(
    tmp_path: Path, plan: Plan, offsets_s: dict[str, float], dropped: int
) -> None:
    path = capture(tmp_path, rows_of(offsets_s))
    with Store(":memory:", plan) as store:
        (summary,) = replay(path, NONE, store).captures
        assert summary.counters.logs == len(offsets_s)
        assert summary.counters.dropped.total() == dropped
        kept = store.query("SELECT sum(count)::INT FROM internal.counters WHERE kind = 'dropped'")
        assert kept.fetchall() == [(dropped or None,)]
        minutes = len(set(offsets_s.values())) - bool(dropped)
        sql = "SELECT count(DISTINCT time_bucket) FROM service_minute"
        assert store.query(sql).fetchall() == [(minutes,)]
    is_odd = DAY_S in offsets_s.values()
    assert bool(summary.warning) is is_odd
    if is_odd:
        assert str(summary.warning).startswith(f"{path}: ")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[tuple[Path, pa.RecordBatchStreamWriter, pa.NativeFile]]:
    path = tmp_path / f"{10**18:020d}.capture.arrows"
    with pa.OSFile(str(path), "wb") as sink:
        yield tmp_path, pa.ipc.new_stream(sink, CAPTURE_SCHEMA), sink


def test_a_live_run_decides_commit_by_commit(
    spool: tuple[Path, pa.RecordBatchStreamWriter, pa.NativeFile],
    plan: Plan,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, writer, sink = spool
    with Store(":memory:", plan) as store:
        follower = SpoolFollower(folder, store, 0)

        def commit(offsets_s: dict[str, float]) -> tuple[int, int | None]:
            batch = as_batch(rows_of(offsets_s))
            writer.write_batch(batch, custom_metadata={DIGEST_KEY: batch_digest(batch)})
            sink.flush()
            (flushed,) = follower.follow(NONE, 0)
            latest = flushed.latest_minute
            return flushed.counters.dropped["time_out_of_range"], latest

        this_minute = NOW_S // 60 - 1
        assert commit({"a": RIGHT_S, "b": RIGHT_S, "c": 176 * 365 * DAY_S}) == (1, this_minute)
        assert commit({"c": 176 * 365 * DAY_S}) == (1, None)
        assert commit({"a": DAY_S, "b": DAY_S}) == (0, NOW_S // 60 + 1_440)
        assert [one.message for one in caplog.records] == [AHEAD, BEHIND]
        follower.most_ahead_s = 2 * DAY_S
        assert commit({"a": DAY_S, "b": DAY_S, "c": DAY_S}) == (0, NOW_S // 60 + 1_440)
