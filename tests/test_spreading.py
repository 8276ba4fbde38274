"""A replay that others compute: the same store, row by row, whoever dies meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from comparison import assert_same
from test_replay_once import cut, cut_after, write_batches

from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.caps import Caps
from framewalk.engine.captures.format import CaptureReader
from framewalk.engine.errors import CaptureError
from framewalk.engine.kubernetes.addresses import Entities, read_entities
from framewalk.engine.oal.plan import Plan, make_plan
from framewalk.engine.runs.replayer import ReplaySummary
from framewalk.engine.spreading import LocalPool, ReplayOptions, replay_spread
from framewalk.engine.stages.pipeline import partial, partial_files
from framewalk.engine.states.merging import merge
from framewalk.engine.store.store import Store
from framewalk.engine.wire.access_log_pb2 import EBPFAccessLogMessage

CAPTURES = Path(__file__).parent.parent / "fixtures" / "captures"
BOOKINFO = CAPTURES / "bookinfo" / "bookinfo.capture.arrows"
BOUTIQUE = CAPTURES / "boutique" / "boutique.capture.arrows"
DUMP = CAPTURES / "bookinfo" / "kubectl.yaml"
NS = 10**9

SHORT = ReplayOptions(commit_logs=5_000)
POOLS: list[LocalPool] = []

Stored = dict[str, list[tuple[Any, ...]]]
Replayed = Callable[..., tuple[ReplaySummary, Stored]]


@pytest.fixture(scope="module")
def some(plan: Plan) -> Plan:
    return make_plan(plan.metrics[::12])


@pytest.fixture(scope="module")
def entities() -> Entities:
    return read_entities(DUMP)


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    with CaptureReader(BOOKINFO) as reader:
        return pa.Table.from_batches([batch.messages for batch in reader])


@pytest.fixture(scope="module")
def capture(rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_batches(tmp_path_factory.mktemp("capture") / "all.capture.arrows", cut(rows, 500))


@pytest.fixture
def replayed(
    some: Plan, entities: Entities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Replayed:
    """Replay captures into a new store, or one that is there, in short stretches.

    Returns the summary, and what the store holds then, positions included.
    """
    monkeypatch.setattr("framewalk.engine.stages.pipeline.BATCH_MESSAGES", 1_000)

    def replay_into(
        name: str,
        workers: int,
        *captures: Path,
        on_broken: Callable[[str], None] = print,
        options: ReplayOptions = SHORT,
    ) -> tuple[ReplaySummary, Stored]:
        with pool_of(workers, tmp_path, on_broken) as pool, Store(tmp_path / name, some) as store:
            summary = replay_spread(captures, entities, store, pool, options)
            return summary, stored(store)

    return replay_into


@contextmanager
def pool_of(
    workers: int, folder: Path, on_broken: Callable[[str], None] = print
) -> Iterator[LocalPool | None]:
    if not workers:
        yield None
        return
    with LocalPool(workers, folder / "workers", on_broken) as pool:
        POOLS.append(pool)
        yield pool
    assert not (folder / "workers").exists()


def stored(store: Store) -> Stored:
    """Return what minutes have, of which hours and days are made, and what was counted."""
    minutes = [f"{scope.scope.view}_minute" for scope in store.plan.scopes]
    captures = ("internal.captures", "internal.positions")
    found = {
        name: store.query(f"FROM {name}").fetchall()
        for name in (*minutes, *captures, "entities", "unknown_peers")
    }
    found["counters"] = store.query(
        "SELECT kind, name, sum(count) FROM internal.counters GROUP BY ALL"
    ).fetchall()
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def same(one: tuple[ReplaySummary, Stored], other: tuple[ReplaySummary, Stored]) -> None:
    assert one[1] == other[1]
    assert one[0] == other[0]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_make_the_same_store(
    capture: Path, tmp_path: Path, replayed: Replayed, workers: int
) -> None:
    copy = Path(shutil.copyfile(capture, tmp_path / "copy.capture.arrows"))
    captures = (capture, copy, BOUTIQUE, capture)
    want = replayed("one", 0, *captures)
    same(replayed("several", workers, *captures), want)
    assert want[0].counters.logs > 90_000
    again, found = replayed("several", workers, *captures)
    assert (again.counters.messages, found) == (0, want[1])


def test_a_capture_that_has_grown_goes_on(
    capture: Path, tmp_path: Path, replayed: Replayed
) -> None:
    want = replayed("one", 0, capture)[1]
    growing = tmp_path / capture.name
    for batches, torn_bytes in ((3, 0), (14, 100)):
        cut_after(capture, growing, batches, torn_bytes)
        summary, _ = replayed("several", 2, growing)
        assert bool(summary.captures[0].warning) is bool(torn_bytes)
    shutil.copyfile(capture, growing)
    summary, found = replayed("several", 2, growing)
    assert summary.captures[0].known_messages == 14 * 500
    assert without_paths(found) == without_paths(want)


def without_paths(found: Stored) -> Stored:
    return {name: rows for name, rows in found.items() if name != "internal.captures"}


def test_late_data_is_added(rows: pa.Table, tmp_path: Path, replayed: Replayed) -> None:
    """What comes second is of the same minutes as what came first."""
    parts = [
        write_batches(tmp_path / f"{at}.capture.arrows", cut(part, 500))
        for at, part in enumerate(divided(rows))
    ]
    for part in parts:
        one, several = replayed("one", 0, part), replayed("several", 3, part)
        same(several, one)
    assert {len(part) for part in one[1].values()} != {0}


def divided(rows: pa.Table) -> list[pa.Table]:
    is_even = pl.Series(rows["stream"]) % 2 == 0
    return [rows.filter(is_even.to_arrow()), rows.filter((~is_even).to_arrow())]


@pytest.mark.parametrize("clocks", ["some", "all"])
def test_logs_ahead_of_their_arrival_are_decided_about_alike(
    rows: pa.Table, tmp_path: Path, replayed: Replayed, clocks: str
) -> None:
    frame = pl.DataFrame(pl.from_arrow(rows))
    behind = pl.lit(value=True) if clocks == "all" else pl.col("stream") % 5 == 0
    early = pl.col("received_at") - pl.duration(hours=2)
    moved = frame.with_columns(pl.when(behind).then(early).otherwise("received_at"))
    table = moved.to_arrow().cast(rows.schema)
    path = write_batches(tmp_path / "ahead.capture.arrows", cut(table, 500))
    want = replayed("one", 0, path)
    assert want[0].captures[0].warning
    same(replayed("several", 2, path), want)


@pytest.mark.parametrize("stretches", [1, 12])
def test_messages_that_cannot_be_decoded_say_nothing(
    rows: pa.Table, tmp_path: Path, replayed: Replayed, stretches: int
) -> None:
    """Their nodes and connections can be read, but not their logs.

    Each is the last of a stretch that says a connection, and its stream goes on in the next one.
    """
    messages, streams = rows["message"].to_pylist(), rows["stream"].to_pylist()
    ends = range(1_000, 1_000 * (stretches + 1), 1_000)
    chosen = [
        max(
            row
            for row in range(end - 1_000, end)
            if streams[row] in streams[end : end + 1_000]
            and EBPFAccessLogMessage.FromString(messages[row]).HasField("connection")
        )
        for end in ends
    ]
    for row in chosen:
        messages[row] += b"\x1a\x01\xff"
    table = rows.set_column(3, rows.schema.field(3), pa.array(messages, pa.binary()))
    path = write_batches(tmp_path / "bad.capture.arrows", cut(table, 500))
    want = replayed("one", 0, path)
    assert want[0].counters.quality["undecodable_message"] == len(chosen)
    same(replayed("several", 3, path), want)


@pytest.mark.parametrize(
    ("caps", "counter"),
    [
        (Caps(entities_per_stream=4), "stream_entities"),
        (Caps(endpoints_per_service=1), "other_endpoints"),
    ],
)
def test_caps_are_kept_alike(capture: Path, replayed: Replayed, caps: Caps, counter: str) -> None:
    want = replayed("one", 0, capture, BOUTIQUE, options=replace(SHORT, caps=caps))
    counters = want[0].counters
    assert (counters.dropped + counters.quality)[counter] > 0
    same(replayed("several", 2, capture, BOUTIQUE, options=replace(SHORT, caps=caps)), want)


def test_a_minute_has_room_for_so_many_entities(capture: Path, replayed: Replayed) -> None:
    """Which of them, depends on the order of rows that have none, in one process, too."""
    few = replace(SHORT, caps=Caps(entities_per_minute=9))
    want, found = (
        replayed(name, workers, capture, BOUTIQUE, options=few)
        for name, workers in (("one", 0), ("several", 2))
    )
    assert found[0].counters.logs == want[0].counters.logs
    assert want[0].counters.dropped["minute_entities"] > 0
    for _, rows in (want, found):
        named = [*rows["service_minute"], *rows["service_instance_minute"]]
        minutes = Counter(row[0] for row in named)
        assert max(minutes.values()) <= 9


@pytest.mark.parametrize("mode", [Mode.HTTP, Mode.ALL])
def test_logs_are_archived_alike(
    capture: Path, some: Plan, entities: Entities, tmp_path: Path, mode: Mode
) -> None:
    found = []
    for workers in (0, 2):
        path = tmp_path / f"{workers}.duckdb"
        with (
            pool_of(workers, tmp_path) as pool,
            Store(path, some) as store,
            Archive(store, tmp_path / f"{workers}", ArchiveOptions(mode)) as archive,
        ):
            options = ReplayOptions(archive=archive)
            replay_spread([capture], entities, store, pool, options)
            kinds = ("http",) if mode is Mode.HTTP else ("http", "connection", "transfer")
            archived = {kind: archived_rows(tmp_path / f"{workers}", kind) for kind in kinds}
            found.append((stored(store), archived))
    assert found[0] == found[1]
    assert all(found[0][1].values())


def archived_rows(folder: Path, kind: str) -> list[tuple[Any, ...]]:
    frames = [pl.read_parquet(one) for one in sorted((folder / kind).rglob("*.parquet"))]
    return sorted(pl.concat(frames, how="diagonal").rows(), key=repr) if frames else []


def test_what_a_killed_worker_was_at_is_done_again(capture: Path, replayed: Replayed) -> None:
    want = replayed("one", 0, capture, BOUTIQUE)
    told: list[str] = []
    killed: set[int] = set()

    def kill_one(_: object) -> None:
        for process in POOLS[-1].processes:
            if process not in killed and len(killed) < 3:
                killed.add(process)
                os.kill(process, signal.SIGKILL)
                return

    found = replayed(
        "several",
        2,
        capture,
        BOUTIQUE,
        on_broken=told.append,
        options=replace(SHORT, on_progress=kill_one),
    )
    same(found, want)
    assert len(killed) == 3
    assert told
    assert all("another worker does it again" in one for one in told)


def test_paths_make_the_states_that_their_messages_make(
    capture: Path, some: Plan, entities: Entities, tmp_path: Path
) -> None:
    folder = tmp_path / "captures"
    folder.mkdir()
    for one in (capture, BOUTIQUE):
        shutil.copyfile(one, folder / one.name)
    parts = [partial([*batches_of(one)], entities, some) for one in (capture, BOUTIQUE)]
    assert_same(some, partial_files([folder], entities, some), merge(some, *parts))


def batches_of(capture: Path) -> Iterator[pa.RecordBatch]:
    with CaptureReader(capture) as reader:
        yield from (batch.messages for batch in reader)


def test_what_is_no_capture_is_an_error_before_anything_is_read(
    capture: Path, replayed: Replayed, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.capture.arrows"
    wrong.write_bytes(b"no capture")
    with pytest.raises(CaptureError, match=f"^{wrong}: "):
        replayed("several", 2, capture, wrong)
    _, found = replayed("several", 2, BOUTIQUE)
    assert len(found["internal.captures"]) == 1
