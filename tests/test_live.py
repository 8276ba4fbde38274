"""Following a spool: whenever it is looked at, and started anew, each message counts once."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from comparison import Values, differences, read_views
from segments import Segments
from sql_serving import ask, serving
from waiting import wait_until

from framewalk.engine import Entities, Store, read_entities, replay
from framewalk.engine.captures.format import (
    CAPTURE_SCHEMA,
    CaptureReader,
    captures_in,
)
from framewalk.engine.errors import StoreMemoryError
from framewalk.engine.oal.plan import Plan
from framewalk.engine.runs.live import SpoolFollower
from framewalk.engine.runs.segments import forgettable
from framewalk.engine.stages.pipeline import BATCH_BYTES, pieces
from framewalk.engine.wire.access_log_pb2 import EBPFAccessLogMessage

BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


@pytest.fixture(scope="module")
def entities() -> Entities:
    return read_entities(BOOKINFO / "kubectl.yaml")


@pytest.fixture(scope="module")
def streams() -> list[pa.RecordBatch]:
    """Each stream of the capture as one record batch, as a spool has them."""
    with CaptureReader(next(BOOKINFO.glob("*.arrows"))) as reader:
        table = pa.Table.from_batches([batch.messages for batch in reader]).combine_chunks()
    numbers = table["stream"].to_pylist()
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    ordered = table.take(order).combine_chunks()
    ends = [at for at in range(1, len(order)) if numbers[order[at]] != numbers[order[at - 1]]]
    bounds = zip([0, *ends], [*ends, len(order)], strict=True)
    return [ordered.slice(start, end - start).to_batches()[0] for start, end in bounds]


@pytest.fixture(scope="module")
def replayed(plan: Plan, entities: Entities) -> Values:
    with Store(":memory:", plan) as store:
        replay([BOOKINFO], entities, store)
        return read_views(store)


def run(follower: SpoolFollower, entities: Entities, now_s: float = 0, **limits: Any) -> int:  # noqa: ANN401 - handed on
    """Look once, and return how many messages were committed."""
    return sum(flushed.counters.messages for flushed in follower.follow(entities, now_s, **limits))


def waiting(follower: SpoolFollower, wait_s: float) -> SpoolFollower:
    follower.holding.wait_s = wait_s
    return follower


@pytest.mark.parametrize("wait_s", [pytest.param(0, marks=pytest.mark.long), 30])
def test_looks_and_starts_at_any_moment(
    tmp_path: Path,
    plan: Plan,
    streams: Sequence[pa.RecordBatch],
    replayed: Values,
    wait_s: float,
) -> None:
    """Whether streams with addresses that nobody knows, most of these, wait or not."""
    draws = random.Random(wait_s)  # noqa: S311 - not a secret
    entities = read_entities(BOOKINFO / "kubectl.yaml")
    spool = tmp_path / "spool"
    spool.mkdir()
    segments = Segments(spool)
    store = Store(tmp_path / "store.duckdb", plan)
    follower = waiting(SpoolFollower(spool, store, 0), wait_s)
    for stream in streams:
        segments.write(stream)
        now_s = stream["received_at"][-1].value / 10**9 + draws.random()
        now = {"now_s": now_s, "clock_ns": int(now_s * 10**9)}
        if draws.random() < 0.1:
            segments.turn(is_torn=draws.random() < 0.3)
        if draws.random() < 0.05:
            run(follower, entities, **now, commit_logs=draws.choice([1, 5_000, 500_000]))
        if draws.random() < 0.03:
            # As if killed: a look that gets no further than its first commit.
            next(follower.follow(entities, **now, commit_logs=1), None)
            store.close()
            store = Store(tmp_path / "store.duckdb", plan)
            follower = waiting(SpoolFollower(spool, store, now_s), wait_s)
        if draws.random() < 0.05:
            store.compact(2**40)
    segments.close()
    follower.complete_through = "~"
    run(follower, entities)
    assert run(follower, entities) == 0
    assert follower.unread_bytes() == 0
    assert differences(read_views(store), replayed) == []
    store.close()


def test_segments_are_removed_when_stored_for_long_or_in_the_way(
    tmp_path: Path, plan: Plan, entities: Entities, streams: Sequence[pa.RecordBatch]
) -> None:
    segments = Segments(tmp_path)
    for stream in streams[:5]:
        segments.write(stream)
        segments.turn(is_torn=False)
    paths = captures_in(tmp_path)
    much = 10**12
    with Store(":memory:", plan) as store:
        follower = SpoolFollower(tmp_path, store, 100)
        assert follower.remove(10**9, 0, 0) == []  # nothing is stored yet
        run(follower, entities, now_s=100)
        assert follower.remove(159, 60, much) == []
        sizes_bytes = sum(path.stat().st_size for path in paths)
        assert follower.remove(159, 60, sizes_bytes - 1) == paths[:1]
        assert follower.remove(160, 60, much) == paths[1:5]
        # What is still written stays, however old.
        assert captures_in(tmp_path) == paths[5:]
        assert follower.remove(10**9, 0, 0) == []
        known = sorted(store.paths())
        assert sorted(forgettable(store, tmp_path, 2 * 10**9)) == known
        assert forgettable(store, tmp_path, 0) == []


def test_segments_stored_before_a_start_are_not_read_again(
    tmp_path: Path, plan: Plan, entities: Entities, streams: Sequence[pa.RecordBatch]
) -> None:
    segments = Segments(tmp_path)
    for stream in streams[:3]:
        segments.write(stream)
        segments.turn(is_torn=False)
    with Store(":memory:", plan) as store:
        run(SpoolFollower(tmp_path, store, 0), entities)
        follower = SpoolFollower(tmp_path, store, 50)
        # Damage in what is counted already changes nothing.
        first = captures_in(tmp_path)[0]
        first.write_bytes(first.read_bytes()[:-40] + b"\1" * 40)
        assert run(follower, entities, now_s=51) == 0
        assert follower.remove(109, 60, 10**12) == []
        assert len(follower.remove(110, 60, 10**12)) == 3


def test_thousands_of_small_segments_need_few_files_at_once(
    tmp_path: Path, plan: Plan, entities: Entities, streams: Sequence[pa.RecordBatch]
) -> None:
    segments = Segments(tmp_path)
    for _ in range(150):
        segments.write(streams[0])
        segments.turn(is_torn=False)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Store(":memory:", plan) as store:
        highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 90, before[1]))
        try:
            follower = SpoolFollower(tmp_path, store, 0)
            assert run(follower, entities) == 150 * streams[0].num_rows
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        follower.close()


def test_other_captures_in_the_folder_are_left_alone(
    tmp_path: Path, plan: Plan, entities: Entities, streams: Sequence[pa.RecordBatch]
) -> None:
    shutil.copy(next(BOOKINFO.glob("*.arrows")), tmp_path / "bookinfo.capture.arrows")
    segments = Segments(tmp_path)
    segments.write(streams[0])
    with Store(":memory:", plan) as store:
        follower = SpoolFollower(tmp_path, store, 0)
        assert run(follower, entities) == streams[0].num_rows
        assert follower.remove(10**9, 0, 0) == []
        segments.write(streams[1])
        assert run(follower, entities) == streams[1].num_rows


@pytest.mark.parametrize("place", [-200, -2_000])
def test_a_damaged_segment_that_was_read_is_not_counted_again_by_a_replay(
    tmp_path: Path,
    plan: Plan,
    entities: Entities,
    streams: Sequence[pa.RecordBatch],
    place: int,
) -> None:
    segments = Segments(tmp_path)
    for stream in streams[:4]:
        segments.write(stream)
    segments.close()
    (path,) = captures_in(tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with Store(":memory:", plan) as store:
        counted = run(SpoolFollower(tmp_path, store, 0, "~"), entities)
        assert 0 < counted < sum(stream.num_rows for stream in streams[:4])
        assert replay([tmp_path], entities, store).counters.messages == 0


def test_what_cannot_be_forced_to_disk_is_not_counted_yet(
    tmp_path: Path,
    plan: Plan,
    entities: Entities,
    streams: Sequence[pa.RecordBatch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It could be lost with the system, and its sender would send it again."""
    segments = Segments(tmp_path)
    for stream in streams[:2]:
        segments.write(stream)
        segments.turn(is_torn=False)
    broken = captures_in(tmp_path)[1].stat().st_ino

    def fail(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Store(":memory:", plan) as store:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(OSError, match="Input/output error"):
                run(SpoolFollower(tmp_path, store, 0), entities)
        assert store.paths() == {}
        assert not any(read_views(store).values())
        messages = sum(stream.num_rows for stream in streams[:2])
        assert run(SpoolFollower(tmp_path, store, 0), entities) == messages


def test_what_was_cut_off_after_it_was_counted_is_not_counted_again(
    tmp_path: Path, plan: Plan, entities: Entities, streams: Sequence[pa.RecordBatch]
) -> None:
    segments = Segments(tmp_path)
    for stream in streams[:3]:
        segments.write(stream)
    (path,) = captures_in(tmp_path)
    with Store(":memory:", plan) as store:
        for _ in range(2):
            run(SpoolFollower(tmp_path, store, 0), entities)
            os.truncate(path, path.stat().st_size // 2)
        assert run(SpoolFollower(tmp_path, store, 0, "~"), entities) == 0


def torn_after(path: Path, size_bytes: int) -> bytes:
    """Cut a file in the middle of what comes after; return what was cut off."""
    content = path.read_bytes()
    half_bytes = (size_bytes + len(content)) // 2
    os.truncate(path, half_bytes)
    return content[half_bytes:]


LATER_S = 10**10


def test_a_write_that_stalls_in_its_middle_is_waited_for_however_long(
    tmp_path: Path, plan: Plan, entities: Entities, streams: Sequence[pa.RecordBatch]
) -> None:
    segments = Segments(tmp_path)
    segments.write(streams[0])
    (path,) = captures_in(tmp_path)
    size_bytes = path.stat().st_size
    segments.write(streams[1])
    rest = torn_after(path, size_bytes)
    with Store(":memory:", plan) as store:
        follower = SpoolFollower(tmp_path, store, 0)
        assert run(follower, entities) == streams[0].num_rows
        # Whatever the file says of its age, and whoever looks.
        os.utime(path, (0, 0))
        for _ in range(2):
            assert run(follower, entities, now_s=LATER_S) == 0
            assert not follower.has_all
            assert follower.unread_bytes() == path.stat().st_size - size_bytes
            assert follower.remove(LATER_S, 0, 0) == []
            follower = SpoolFollower(tmp_path, store, LATER_S)
        with path.open("ab") as file:
            file.write(rest)
        (flushed,) = follower.follow(entities, LATER_S)
        assert flushed.damages == ()
        assert flushed.counters.messages == streams[1].num_rows
        assert follower.has_all


@pytest.mark.parametrize("word", ["later segment", "later start"])
def test_a_torn_tail_is_damage_once_its_writer_has_ended(
    tmp_path: Path,
    plan: Plan,
    entities: Entities,
    streams: Sequence[pa.RecordBatch],
    word: str,
) -> None:
    segments = Segments(tmp_path)
    segments.write(streams[0])
    (path,) = captures_in(tmp_path)
    size_bytes = path.stat().st_size
    segments.write(streams[1])
    torn_after(path, size_bytes)
    with Store(":memory:", plan) as store:
        follower = SpoolFollower(tmp_path, store, 0)
        run(follower, entities)
        assert not follower.has_all
        if word == "later segment":
            segments.turn(is_torn=False)
            torn_after(path, size_bytes)
            segments.write(streams[2])
        else:
            follower = SpoolFollower(tmp_path, store, 0, complete_through=path.name)
        (flushed,) = follower.follow(entities, 0)
        (damage,) = flushed.damages
        assert (damage.path, damage.offset_bytes) == (path, size_bytes)
        assert flushed.counters.quality["damaged_bytes"] == damage.size_bytes
        assert follower.has_all
        assert follower.unread_bytes() == 0
        assert follower.remove(LATER_S, 0, 0) == [path]


def test_damage_in_the_newest_segment_is_passed_once_nothing_is_written(
    tmp_path: Path, plan: Plan, entities: Entities, streams: Sequence[pa.RecordBatch]
) -> None:
    segments = Segments(tmp_path)
    ends = []
    for stream in streams[:3]:
        segments.write(stream)
        ends.append(next(iter(captures_in(tmp_path))).stat().st_size)
    (path,) = captures_in(tmp_path)
    with path.open("r+b") as file:
        file.seek(ends[0] + 200)
        file.write(b"\0" * 64)
    with Store(":memory:", plan) as store:
        follower = SpoolFollower(tmp_path, store, 0)
        assert run(follower, entities) == streams[0].num_rows
        assert not follower.has_all
        segments.turn(is_torn=False)
        assert run(follower, entities) == streams[2].num_rows
        assert follower.has_all


def test_a_segment_that_cannot_be_read_costs_itself(
    tmp_path: Path, plan: Plan, entities: Entities, streams: Sequence[pa.RecordBatch]
) -> None:
    segments = Segments(tmp_path)
    segments.write(streams[0])
    missing = tmp_path / f"{10**17:020d}.capture.arrows"
    missing.symlink_to(tmp_path / "nowhere")
    with Store(":memory:", plan) as store:
        follower = SpoolFollower(tmp_path, store, 0)
        for _ in range(2):
            run(follower, entities)
            assert list(follower.unreadable) == [missing]
            assert not follower.has_all
        # It is tried again at each look.
        shutil.copy(captures_in(tmp_path)[-1], tmp_path / "nowhere")
        assert run(follower, entities) == streams[0].num_rows
        assert follower.unreadable == {}
        assert follower.has_all


def large_messages(streams: int, messages: int, logs: int) -> list[pa.RecordBatch]:
    """Return streams of messages of 10 kB, most of which is a field that nobody knows."""
    message = EBPFAccessLogMessage()
    message.node.name = "node"
    message.node.bootTime.seconds = 1_700_000_000
    message.connection.remote.ip.host = "10.0.0.1"
    for _ in range(logs):
        write = message.kernelLogs.add().write
        write.startTime.offset.offset = 3_300_000_000_000
        write.endTime.offset.offset = 3_300_000_000_123
    content = message.SerializeToString() + b"\xc2\x3e\x90\x4e" + bytes(10_000)
    columns = [
        pa.array([0] * messages, pa.uint64()),
        pa.array(range(messages), pa.uint32()),
        pa.array([2 * 10**18] * messages, pa.timestamp("ns", tz="UTC")),
        pa.array([content] * messages, pa.binary()),
    ]
    return [pa.RecordBatch.from_arrays(columns, schema=CAPTURE_SCHEMA)] * streams


def test_large_messages_are_committed_in_bounded_parts(
    tmp_path: Path, plan: Plan, entities: Entities
) -> None:
    segments = Segments(tmp_path)
    big, *others = large_messages(streams=4, messages=1_800, logs=10)
    big = pa.concat_batches([big] * 2)
    # Work on one is cut up, but what is committed always ends where a record batch does.
    assert len(list(pieces([big]))) == 2 < big.nbytes / BATCH_BYTES + 1
    for stream in (big, *others):
        segments.write(stream)
    segments.close()
    with Store(":memory:", plan) as store:
        follower = SpoolFollower(tmp_path, store, 0, "~")
        commits = [one.counters.logs for one in follower.follow(entities, 0, commit_logs=30_000)]
        assert commits == [36_000, 36_000, 18_000]
        replayed = replay([tmp_path], entities, store)
        assert replayed.counters.messages == 0


def test_a_backlog_is_told_and_stored_segments_make_room_while_it_shrinks(
    tmp_path: Path, plan: Plan, entities: Entities, streams: Sequence[pa.RecordBatch]
) -> None:
    segments = Segments(tmp_path)
    for stream in streams[:6]:
        segments.write(stream)
        segments.turn(is_torn=False)
    segments.close()
    sizes_bytes = {path: path.stat().st_size for path in captures_in(tmp_path)}
    with Store(tmp_path / "store.duckdb", plan) as store:
        follower = SpoolFollower(tmp_path, store, 0, "~")
        assert follower.unread_bytes() == sum(sizes_bytes.values())
        left, removed, messages = [], [], 0
        for flushed in follower.follow(entities, 0, commit_logs=1):
            messages += flushed.counters.messages
            left.append(follower.unread_bytes())
            removed.append(len(follower.remove(0, 0, 0)))
        assert messages == sum(stream.num_rows for stream in streams[:6])
        assert sorted(set(left), reverse=True) == left
        assert left[0] < sum(sizes_bytes.values())
        assert sum(removed[:-1]) >= 4
        assert run(follower, entities) == follower.unread_bytes() == 0
        follower.remove(0, 0, 0)
        assert captures_in(tmp_path) == []


def test_a_segment_that_cannot_be_deleted_is_tried_again(
    tmp_path: Path, plan: Plan, entities: Entities, streams: Sequence[pa.RecordBatch]
) -> None:
    segments = Segments(tmp_path)
    for stream in streams[:2]:
        segments.write(stream)
        segments.turn(is_torn=False)
    first, second, _ = captures_in(tmp_path)
    with Store(":memory:", plan) as store:
        follower = SpoolFollower(tmp_path, store, 0)
        run(follower, entities)
        first.unlink()
        first.mkdir()
        assert follower.remove(100, 60, 10**12) == [second]
        assert list(follower.undeletable) == [first]
        assert run(follower, entities) == 0
        assert list(follower.undeletable) == [first]
        first.rmdir()
        assert follower.remove(100, 60, 10**12) == [first]
        assert run(follower, entities) == 0
        assert follower.undeletable == {}


def test_a_folder_that_is_gone_is_not_an_empty_one(
    tmp_path: Path, plan: Plan, entities: Entities
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    with Store(":memory:", plan) as store:
        follower = SpoolFollower(spool, store, 0)
        run(follower, entities)
        assert follower.has_all
        spool.rmdir()
        with pytest.raises(FileNotFoundError):
            run(follower, entities)


def test_a_new_segment_costs_the_same_however_many_captures_are_known(
    tmp_path: Path, plan: Plan, entities: Entities, streams: Sequence[pa.RecordBatch]
) -> None:
    segments = Segments(tmp_path)
    with Store(":memory:", plan) as store:
        store.query("FROM range(100_000) AS t(i)").create("numbers")
        for values in (
            "captures SELECT i + 1, '/spool/' || i || '.capture.arrows' FROM numbers",
            "positions SELECT i + 1, i + 1000, 10, md5(i::VARCHAR) FROM numbers",
        ):
            store.connection.execute(f"INSERT INTO internal.{values}").fetchall()
        run(SpoolFollower(tmp_path, store, 0), entities)
        tracemalloc.start()
        try:
            follower = SpoolFollower(tmp_path, store, 0)
            for stream in streams[:3]:
                segments.write(stream)
                segments.turn(is_torn=False)
                assert run(follower, entities) == stream.num_rows
            _, most_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # Reading all captures takes 100 MB.
    assert most_bytes < 10_000_000


# The build side of a join stays in memory as long as the other side comes.
HOLDING = (
    "SELECT count(*) FROM range(1_000_000_000_000) AS t(j) "
    "JOIN (SELECT i, repeat('x', 1000) || i AS held FROM range(60_000) AS u(i)) "
    "ON j % 60_000 = i WHERE held <> j::VARCHAR"
)


@pytest.mark.parametrize("left_bytes", [100_000, 2_500_000])
def test_queries_give_way_to_a_commit_that_finds_no_memory(  # noqa: PLR0913, PLR0917 - fixtures
    tmp_path: Path,
    plan: Plan,
    entities: Entities,
    streams: Sequence[pa.RecordBatch],
    replayed: Values,
    left_bytes: int,
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    segments = Segments(spool)
    for stream in streams:
        segments.write(stream)
    segments.close()
    store = Store(tmp_path / "store.duckdb", plan)
    with store, serving(store.connection, store.path) as server, ThreadPoolExecutor(1) as readers:
        reader = readers.submit(ask, server, HOLDING)
        wait_until(lambda: holds_steadily(store))
        limit = f"SET memory_limit = '{used_bytes(store) + left_bytes} bytes'"
        store.connection.execute(limit).fetchall()
        try:
            with pytest.raises(StoreMemoryError, match="no memory left for this"):
                run(SpoolFollower(spool, store, 0, "~"), entities)
            follower = SpoolFollower(spool, store, 0, "~", server.cancel_queries)
            run(follower, entities)
        finally:
            server.cancel_queries()
        assert reader.result().status_code == 503
        assert follower.has_all
        assert differences(read_views(store), replayed) == []


def used_bytes(store: Store) -> int:
    return int(store.query("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchall()[0][0])


def holds_steadily(store: Store) -> bool:
    """Tell whether the query has all the memory that it is going to have."""
    seen = {used_bytes(store) for _ in range(200)}
    return len(seen) == 1 and seen.pop() > 60_000_000


def test_what_was_read_and_not_committed_is_unread(
    tmp_path: Path, plan: Plan, entities: Entities, streams: Sequence[pa.RecordBatch]
) -> None:
    unread: list[int] = []

    class Watched(Store):
        """A store that looks at its follower just before each commit."""

        def commit_many(self, *arguments: Any, **options: Any) -> tuple[int, ...]:  # noqa: ANN401 - handed on
            unread.append(follower.unread_bytes())
            return super().commit_many(*arguments, **options)

    segments = Segments(tmp_path)
    for stream in streams[:3]:
        segments.write(stream)
    segments.close()
    (path,) = captures_in(tmp_path)
    with Watched(":memory:", plan) as store:
        follower = SpoolFollower(tmp_path, store, 0, "~")
        run(follower, entities)
        assert unread == [path.stat().st_size]
        assert follower.unread_bytes() == 0
