"""A capture counts once: replayed again, renamed, cut off, grown, or killed in the middle."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from prepared import COMMAND
from prepared import framewalk as run
from processes import ending

import framewalk.queries
from framewalk.engine.captures.format import CAPTURE_SCHEMA, CaptureReader, CaptureWriter
from framewalk.engine.kubernetes.addresses import Entities, read_entities
from framewalk.engine.oal.files.definitions import load_plan
from framewalk.engine.oal.plan import Plan, make_plan
from framewalk.engine.runs.replayer import ReplaySummary, replay
from framewalk.engine.stages.pipeline import partial
from framewalk.engine.store.store import Store

CAPTURES = Path(__file__).parent.parent / "fixtures" / "captures"
BOOKINFO = CAPTURES / "bookinfo" / "bookinfo.capture.arrows"
DUMP = CAPTURES / "bookinfo" / "kubectl.yaml"

OAL = Path(framewalk.queries.__path__[0]) / "oal"

BATCH_ROWS = 1_000
"""Short, so that many streams are open at the end of each record batch."""

Contents = dict[str, list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def some(plan: Plan) -> Plan:
    """Some metrics of every scope: a store of these is soon made."""
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
    return write_batches(tmp_path_factory.mktemp("capture") / "all.capture.arrows", cut(rows))


@pytest.fixture(scope="module")
def once(
    capture: Path, some: Plan, entities: Entities, tmp_path_factory: pytest.TempPathFactory
) -> Contents:
    """What a store holds after one replay without interruption."""
    with Store(tmp_path_factory.mktemp("once") / "once.duckdb", some) as store:
        replay([capture], entities, store)
        return contents(store)


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


@pytest.fixture(scope="module")
def empty(some: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "empty.duckdb"
    Store(path, some).close()
    return path


@pytest.fixture
def replayed(
    some: Plan, entities: Entities, store_path: Path, empty: Path
) -> Callable[..., tuple[ReplaySummary, Contents]]:
    """Open the store, replay captures, return the summary and what the store holds then."""

    def replay_into_store(*captures: Path) -> tuple[ReplaySummary, Contents]:
        if not store_path.exists():
            shutil.copyfile(empty, store_path)
        with Store(store_path, some) as store:
            return replay(captures, entities, store), contents(store)

    return replay_into_store


Replayed = Callable[..., tuple[ReplaySummary, Contents]]


def test_again_adds_nothing_and_says_so(  # noqa: PLR0913, PLR0917 - fixtures
    capture: Path, rows: pa.Table, some: Plan, entities: Entities, store_path: Path, once: Contents
) -> None:
    with Store(store_path, some) as store:
        first = replay([capture], entities, store)
        stored = stored_rows(store)
        second = replay([capture], entities, store)
        assert stored_rows(store) == stored
        assert contents(store) == once
    assert [one.known_messages for one in first.captures] == [0]
    assert first.counters.messages == rows.num_rows
    assert [one.known_messages for one in second.captures] == [rows.num_rows]
    assert (second.counters.messages, second.counters.logs, second.minutes) == (0, 0, frozenset())


def test_what_is_rolled_up_on_the_way_and_in_the_end_counts_once(  # noqa: PLR0913, PLR0917 - fixtures
    capture: Path,
    tmp_path: Path,
    some: Plan,
    entities: Entities,
    once: Contents,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("framewalk.engine.runs.replayer.ROLL_UP_ROWS", 1)
    monkeypatch.setattr("framewalk.engine.runs.replayer.ROLL_UP_MINUTES", 0)
    monkeypatch.setattr("framewalk.engine.runs.replayer._OPEN_MINUTES", 0)
    half = cut_after(capture, tmp_path / "half.capture.arrows", 2, 0)
    with Store(tmp_path / "store.duckdb", some) as store:
        for path in (half, capture):
            # What comes after the half is late for minutes and hours that are rolled up.
            replay([path], entities, store, commit_logs=2_000, roll_up=True)
            assert store.waiting_rows() == 0
        assert contents(store) == once


def test_again_after_reopening_and_under_another_name(
    capture: Path, tmp_path: Path, rows: pa.Table, replayed: Replayed, once: Contents
) -> None:
    replayed(capture)
    renamed = Path(shutil.copyfile(capture, tmp_path / "other.arrows"))
    for path in (capture, renamed):
        summary, found = replayed(path)
        assert found == once
        assert summary.captures[0].known_messages == rows.num_rows
        assert not summary.counters.messages


def test_the_same_capture_several_times_in_one_replay(
    capture: Path, tmp_path: Path, replayed: Replayed, once: Contents
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copyfile(capture, folder / "copy.capture.arrows")
    summary, found = replayed(capture, folder, capture)
    assert found == once
    assert [bool(one.counters.messages) for one in summary.captures] == [True, False, False]


def test_several_captures_at_once_count_as_one_after_the_other(
    capture: Path, tmp_path: Path, some: Plan, entities: Entities, replayed: Replayed
) -> None:
    boutique = CAPTURES / "boutique" / "boutique.capture.arrows"
    _, together = replayed(capture, boutique)
    with Store(tmp_path / "alone.duckdb", some) as store:
        replay([boutique], entities, store)
        replay([capture], entities, store)
        assert contents(store) == together
    again, found = replayed(boutique, capture)
    assert found == together
    assert not again.counters.messages


@pytest.mark.parametrize(
    ("batches", "torn_bytes"), [(0, 0), (0, 100), (1, 1), (5, 0), (5, 100), (12, 1)]
)
def test_a_cut_capture_first_then_the_whole(  # noqa: PLR0913, PLR0917 - fixtures
    capture: Path,
    tmp_path: Path,
    rows: pa.Table,
    replayed: Replayed,
    once: Contents,
    batches: int,
    torn_bytes: int,
) -> None:
    part = cut_after(capture, tmp_path / "cut.capture.arrows", batches, torn_bytes)
    summary, _ = replayed(part)
    assert summary.counters.messages == batches * BATCH_ROWS
    assert bool(summary.captures[0].warning) is bool(torn_bytes)
    summary, found = replayed(capture)
    assert found == once
    assert summary.captures[0].known_messages == batches * BATCH_ROWS
    assert summary.counters.messages == rows.num_rows - batches * BATCH_ROWS


@pytest.mark.parametrize(("batches", "torn_bytes"), [(1, 1), (5, 0), (5, 100)])
def test_the_whole_first_then_a_cut_capture(  # noqa: PLR0913, PLR0917 - fixtures
    capture: Path,
    tmp_path: Path,
    replayed: Replayed,
    once: Contents,
    batches: int,
    torn_bytes: int,
) -> None:
    replayed(capture)
    summary, found = replayed(
        cut_after(capture, tmp_path / "cut.capture.arrows", batches, torn_bytes)
    )
    assert found == once
    assert summary.captures[0].known_messages == batches * BATCH_ROWS
    assert not summary.counters.messages
    assert not replayed(capture)[0].counters.messages


def test_a_capture_that_grows_goes_on_where_the_store_ends(
    capture: Path, tmp_path: Path, rows: pa.Table, replayed: Replayed, once: Contents
) -> None:
    growing = tmp_path / "growing.capture.arrows"
    known = 0
    for batches, torn_bytes in ((2, 0), (2, 100), (3, 1), (7, 0), (7, 0), (12, 9)):
        summary, _ = replayed(cut_after(capture, growing, batches, torn_bytes))
        assert summary.captures[0].known_messages == known
        known = batches * BATCH_ROWS
    shutil.copyfile(capture, growing)
    summary, found = replayed(growing)
    assert summary.counters.messages == rows.num_rows - known
    assert found == once


@pytest.mark.parametrize("first", [0, 1])
def test_captures_that_begin_alike_are_both_counted(  # noqa: PLR0913, PLR0917 - fixtures
    rows: pa.Table, tmp_path: Path, some: Plan, entities: Entities, replayed: Replayed, first: int
) -> None:
    batches = cut(rows)
    assert_both_counted(
        [batches[:8], [*batches[:3], *batches[8:]]][:: -1 if first else 1],
        tmp_path,
        some,
        entities,
        replayed,
    )


def test_a_shorter_capture_that_begins_like_a_stored_one_is_counted(
    rows: pa.Table, tmp_path: Path, some: Plan, entities: Entities, replayed: Replayed
) -> None:
    """As `framewalk generate` makes them with the same seed and two durations."""
    batches = cut(rows)
    assert_both_counted(
        [batches[:8], [*batches[:3], batches[3].slice(0, 100)]],
        tmp_path,
        some,
        entities,
        replayed,
    )


@pytest.mark.parametrize("length", [4, 7])
def test_of_several_known_beginnings_the_furthest_counts(  # noqa: PLR0913, PLR0917 - fixtures
    capture: Path, rows: pa.Table, tmp_path: Path, some: Plan, entities: Entities, length: int
) -> None:
    """As where live engines and replays have each stored a beginning of the same capture."""
    path = write_batches(tmp_path / "some.capture.arrows", cut(rows)[:length])
    with CaptureReader(capture) as reader:
        positions = [batch.position for batch in reader]
    known = min(length, 5)
    with Store(tmp_path / "store.duckdb", some) as store:
        for count in (2, 5, 3):
            store.commit(None, Path(f"{count}"), positions[:count], partial([], entities, some))
        summary = replay([path], entities, store)
    assert [one.known_messages for one in summary.captures] == [known * BATCH_ROWS]
    assert summary.counters.messages == (length - known) * BATCH_ROWS


def assert_both_counted(
    captures: Sequence[Sequence[pa.RecordBatch]],
    folder: Path,
    plan: Plan,
    entities: Entities,
    replayed: Replayed,
) -> None:
    with Store(folder / "want.duckdb", plan) as store:
        for number, batches in enumerate(captures):
            states = partial(batches, entities, plan)
            store.commit(None, Path(f"{number}"), [], states)
        want = contents(store)
    paths = [
        write_batches(folder / f"{number}.capture.arrows", batches)
        for number, batches in enumerate(captures)
    ]
    for path in paths:
        _, found = replayed(path)
    assert found == want
    again, found = replayed(*paths)
    assert found == want
    assert not again.counters.messages


def test_the_command_says_that_nothing_was_added(
    capture: Path, rows: pa.Table, store_path: Path
) -> None:
    first = finished(capture, store_path)
    assert "already stored" not in first
    assert first["messages"] == f"{rows.num_rows:,}"
    second = finished(capture, store_path)
    assert second["already stored"] == f"{rows.num_rows:,} messages; nothing was added"
    assert (second["messages"], second["logs"]) == ("0", "0")


# ---- kill -9 ---------------------------------------------------------------

REPEATED = 20
"""Each message is followed by this many that say nothing, less one: several commits, soon done."""

KILLS = 3
MOST_KILLS = 15
"""The capture takes one commit more."""

DEFINITIONS = [OAL / "service.oal", OAL / "endpoint.oal"]


@dataclass(frozen=True)
class LongJob:
    """A replay with several commits, what it leads to, and how long it takes."""

    capture: Path
    messages: int
    plan: Plan
    empty_store: Path
    want: Contents
    duration_s: float


@pytest.fixture(scope="module")
def job(rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> LongJob:
    return long_job(rows, tmp_path_factory.mktemp("long"))


def long_job(rows: pa.Table, folder: Path) -> LongJob:
    plan = load_plan(DEFINITIONS)
    capture = write_batches(folder / "long.capture.arrows", cut(drawn_out(rows), 4_000))
    empty, whole = folder / "empty.duckdb", folder / "whole.duckdb"
    Store(empty, plan).close()
    started_s = time.monotonic()
    finished(capture, whole, *DEFINITIONS)
    duration_s = time.monotonic() - started_s
    with Store(whole, plan) as store:
        want = contents(store)
    return LongJob(capture, rows.num_rows * REPEATED, plan, empty, want, duration_s)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_replay_goes_on_where_it_stopped(
    job: LongJob, tmp_path: Path, workers: int
) -> None:
    """Killed as soon as the store is seen to change for the first, second, ... time.

    On a busy machine a kill may come before the first commit: it goes on until one comes between.
    """
    known: list[int] = []
    while len(known) < KILLS or not any(0 < messages < job.messages for messages in known):
        changes = len(known) + 1
        assert changes <= MOST_KILLS, f"no kill between two commits: {known}"
        known.append(killed_and_finished(job, tmp_path / f"{changes}.duckdb", changes, workers))


def killed_and_finished(job: LongJob, store: Path, changes: int, workers: int) -> int:
    """Check a replay that was killed and done again; return how much of it was not lost."""
    shutil.copyfile(job.empty_store, store)
    kill_after_changes(job.capture, store, changes, workers)
    return finished_exactly(job, store)


def finished_exactly(job: LongJob, store: Path) -> int:
    summary = finished(job.capture, store, *DEFINITIONS, killed=True)
    with Store(store, job.plan) as opened:
        assert contents(opened) == job.want
    return known_messages(summary)


def test_a_replay_killed_again_and_again_ends_exactly(job: LongJob, store_path: Path) -> None:
    """Killed at drawn moments, the making of the store and its closing included."""
    draws = random.Random(1)  # noqa: S311 - reproducible
    for _ in range(KILLS):
        kill_after(job.capture, store_path, draws.uniform(0, 1.5 * job.duration_s))
    finished_exactly(job, store_path)


def drawn_out(rows: pa.Table) -> pa.Table:
    """Repeat each message as ones that say nothing, so that there is more to read than to count."""
    frame = pl.from_arrow(rows)
    assert isinstance(frame, pl.DataFrame)
    repeated = frame.with_columns(copy=pl.lit(list(range(REPEATED)))).explode("copy")
    spread = repeated.with_columns(
        seq=pl.col("seq") * REPEATED + pl.col("copy").cast(pl.UInt32),
        message=pl.when(pl.col("copy") == 0).then("message").otherwise(pl.lit(b"")),
    )
    return spread.select(CAPTURE_SCHEMA.names).to_arrow().cast(CAPTURE_SCHEMA)


def arguments(capture: Path, store: Path, *definitions: Path) -> list[str]:
    paths = [str(capture), "--entities", str(DUMP), "--store", str(store)]
    chosen = [text for path in definitions for text in ("--oal", str(path))]
    return ["replay", *paths, *chosen, "--commit-logs", "3000"]


def finished(
    capture: Path, store: Path, *definitions: Path, killed: bool = False
) -> dict[str, str]:
    """Replay to the end; return the lines of the summary.

    One that was killed may have been reading: what it read is tried first, and is harmless.
    """
    done = run(*arguments(capture, store, *definitions))
    tried = f"warning: a replay ended while it read {capture}: its messages are tried apart\n"
    told = done.stderr.replace(f"{tried}they do no harm\n", "") if killed else done.stderr
    assert (done.returncode, told) == (0, "")
    lines = (re.fullmatch(r"(.+?)\s+(\d.*)", line) for line in done.stdout.splitlines())
    return dict(line.groups() for line in lines if line)


def known_messages(summary: dict[str, str]) -> int:
    return int(summary.get("already stored", "0").split()[0].replace(",", ""))


def started(capture: Path, store: Path, workers: int = 1) -> subprocess.Popen[bytes]:
    command = [COMMAND, *arguments(capture, store, *DEFINITIONS), "--workers", str(workers)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_after_changes(capture: Path, store: Path, changes: int, workers: int) -> None:
    """Kill a replay at the moment in which its store's log of changes grows again."""
    log = Path(f"{store}.wal")
    seen, size_bytes = 0, 0
    with ending(started(capture, store, workers)) as process:
        while process.poll() is None and seen < changes:
            grown = log.stat().st_size if log.exists() else 0
            seen += grown != size_bytes
            size_bytes = grown
            time.sleep(0.001)
        process.kill()


def kill_after(capture: Path, store: Path, delay_s: float) -> None:
    with ending(started(capture, store)) as process:
        try:
            process.wait(timeout=delay_s)
        except subprocess.TimeoutExpired:
            process.kill()


def cut(rows: pa.Table, batch_rows: int = BATCH_ROWS) -> list[pa.RecordBatch]:
    return list(rows.combine_chunks().to_batches(max_chunksize=batch_rows))


def write_batches(path: Path, batches: Sequence[pa.RecordBatch]) -> Path:
    with CaptureWriter(path) as writer:
        for batch in batches:
            writer.write(batch)
    return path


def cut_after(capture: Path, path: Path, batches: int, torn_bytes: int) -> Path:
    """Copy a capture up to some bytes after the end of a record batch."""
    with CaptureReader(capture) as reader:
        ends = [reader.position.offset_bytes, *(one.position.offset_bytes for one in reader)]
    path.write_bytes(capture.read_bytes()[: ends[batches] + torn_bytes])
    return path


def contents(store: Store) -> Contents:
    """Return the rows of the views, the entities, and the sums of the counters."""
    names = [
        f"{scope.scope.view}_{resolution}"
        for scope in store.plan.scopes
        for resolution in ("minute", "hour", "day")
    ]
    found = {name: store.query(f"FROM {name}").fetchall() for name in [*names, "entities"]}
    found["counters"] = store.query(
        "SELECT kind, name, sum(count) FROM internal.counters GROUP BY ALL"
    ).fetchall()
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def stored_rows(store: Store) -> list[tuple[Any, ...]]:
    """Return how many rows each table has."""
    tables = store.query("SELECT table_name FROM duckdb_tables() ORDER BY ALL").fetchall()
    return [
        (name, *store.query(f"SELECT count(*) FROM internal.{name}").fetchall())
        for (name,) in tables
    ]
