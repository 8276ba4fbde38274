"""Captures on object storage: read, counted once and told of as files are, and not copied."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dask_cluster import cluster_of
from hypothesis import given, settings
from hypothesis import strategies as st
from object_storage import Fault, ObjectStorage, object_storage
from prepared import framewalk
from test_cluster import files_of
from test_replay_once import cut, cut_after, write_batches
from test_spreading import Stored, pool_of, stored, without_paths

from framewalk.engine.captures import (
    CaptureBatch,
    CaptureReader,
    CaptureWriter,
    capture_path,
    find_captures,
    read_span,
)
from framewalk.engine.errors import CaptureError
from framewalk.engine.kubernetes.addresses import Entities, read_entities
from framewalk.engine.oal.plan import Plan, make_plan
from framewalk.engine.runs import Reading, ReadingNote, ReplayProgress, Span, suspected
from framewalk.engine.runs.replayer import ReplaySummary
from framewalk.engine.spreading import ClusterPool, ReplayOptions, replay_spread
from framewalk.engine.store.store import Store

BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"
CAPTURE = BOOKINFO / "bookinfo.capture.arrows"
DUMP = BOOKINFO / "kubectl.yaml"
FEW = Path(__file__).parent / "few.oal"
# One that asks to be quoted, and another in the same folder.
NAME = "a day/b+c %41/book info.capture.arrows"
FOLDER = "s3://shared/a day/b+c %41/"
WORDS = {
    Fault.FORBIDDEN: "storage refuses access",
    Fault.BUSY: "storage does not answer as it should",
    Fault.HANG: "storage does not answer as it should",
    Fault.CUT: "storage does not answer as it should",
}
Replayed = Callable[..., tuple[ReplaySummary, Stored]]


@pytest.fixture(scope="module")
def storage() -> Iterator[ObjectStorage]:
    with object_storage() as started, pytest.MonkeyPatch.context() as patched:
        for name, value in started.environment.items():
            patched.setenv(name, value)
        yield started


@pytest.fixture(autouse=True)
def mended(storage: ObjectStorage) -> Iterator[None]:
    yield
    storage.mend()


@pytest.fixture(scope="module")
def some(plan: Plan) -> Plan:
    return make_plan(plan.metrics[::12])


@pytest.fixture(scope="module")
def entities() -> Entities:
    return read_entities(DUMP)


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    with CaptureReader(CAPTURE) as reader:
        return pa.Table.from_batches([batch.messages for batch in reader])


@pytest.fixture(scope="module")
def capture(rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("capture")
    return write_batches(folder / "book info.capture.arrows", cut(rows, 500))


@pytest.fixture
def replayed(some: Plan, entities: Entities, tmp_path: Path) -> Replayed:
    """Replay captures into a store by its name; returns the summary, and what it holds then."""

    def into(
        name: str,
        *captures: str | Path,
        workers: int = 0,
        on_progress: Callable[[ReplayProgress], None] = lambda _: None,
    ) -> tuple[ReplaySummary, Stored]:
        options = ReplayOptions(commit_logs=5_000, on_progress=on_progress)
        with pool_of(workers, tmp_path) as pool, Store(tmp_path / name, some) as store:
            summary = replay_spread(captures, entities, store, pool, options)
            return summary, without_paths(stored(store))

    return into


@pytest.fixture(scope="module")
def want(capture: Path, some: Plan, entities: Entities) -> Stored:
    """What a store has of the capture, read from a file."""
    with Store(":memory:", some) as store:
        replay_spread(capture, entities, store, None)
        return without_paths(stored(store))


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framewalk.engine.stages.pipeline.BATCH_MESSAGES", 4_000)


def read(path: str | Path) -> tuple[list[CaptureBatch], str | None]:
    with CaptureReader(path) as reader:
        batches = list(reader)
        warning = reader.warning and reader.warning.removeprefix(str(reader.path))
        return batches, warning


@given(drawn=st.data())
@settings(max_examples=15)
def test_an_object_reads_as_the_file_does(
    storage: ObjectStorage,
    rows: pa.Table,
    tmp_path_factory: pytest.TempPathFactory,
    drawn: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("cut") / "cut.capture.arrows"
    write_batches(path, cut(rows, drawn.draw(st.sampled_from([40, 500, 4_000]))))
    content = path.read_bytes()
    path.write_bytes(content[: drawn.draw(st.integers(2_000, len(content)))])
    uri = storage.put("some/cut.capture.arrows", path.read_bytes())
    wanted, warning = read(path)
    assert read(uri) == (wanted, warning)
    ends = [one.position.offset_bytes for one in wanted]
    if len(ends) > 1:
        begin, end = sorted(drawn.draw(st.lists(st.sampled_from(ends), min_size=2, max_size=2)))
        assert read_span(capture_path(uri), begin, end) == read_span(path, begin, end)


@pytest.mark.parametrize("workers", [0, 2])
def test_it_counts_once_wherever_it_is(  # noqa: PLR0913, PLR0917 - fixtures
    storage: ObjectStorage,
    capture: Path,
    want: Stored,
    replayed: Replayed,
    tmp_path: Path,
    workers: int,
) -> None:
    growing = cut_after(capture, tmp_path / "growing.capture.arrows", 14, 100)
    storage.put(NAME, growing.read_bytes())
    storage.put(f"{NAME}.txt", b"not one")
    storage.put("a day/b+c %41/deeper/other.capture.arrows", b"not one")
    summary, _ = replayed("several", FOLDER, workers=workers)
    assert "torn or damaged" in str(summary.captures[0].warning)
    assert str(summary.captures[0].path) == f"s3://shared/{NAME}"
    storage.put(NAME, capture.read_bytes())
    summary, found = replayed("several", f"s3://shared/{NAME}", workers=workers)
    assert (summary.captures[0].known_messages, found) == (14 * 500, want)
    for again in (FOLDER, capture):
        summary, found = replayed("several", again, workers=workers)
        assert (summary.counters.messages, found) == (0, want)


@pytest.mark.parametrize(("fault", "workers"), [*((one, 0) for one in WORDS), (Fault.FORBIDDEN, 2)])
def test_storage_that_fails_is_no_damage(  # noqa: PLR0913, PLR0917 - fixtures
    storage: ObjectStorage,
    capture: Path,
    want: Stored,
    replayed: Replayed,
    fault: Fault,
    workers: int,
) -> None:
    uri = storage.put(NAME, capture.read_bytes())

    def fail(done: ReplayProgress) -> None:
        if done.logs > 10_000:
            storage.fault = fault

    # So that a capture is not fetched as a whole before the first commit: not by a reader that
    # fetches ahead, and not by workers, who have six stretches in flight.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("framewalk.engine.captures.objects._MOST_BYTES", 2**16)
        patched.setattr("framewalk.engine.stages.pipeline.BATCH_MESSAGES", 500)
        with pytest.raises(CaptureError, match=WORDS[fault]) as told:
            replayed("several", uri, workers=workers, on_progress=fail)
    assert told.value.place == uri
    storage.mend()
    summary, found = replayed("several", uri, workers=workers)
    assert found == want
    assert 0 < summary.captures[0].known_messages < 12_875


@pytest.mark.parametrize("fault", WORDS)
def test_storage_that_fails_is_told_before_a_store_is_made(
    storage: ObjectStorage, tmp_path: Path, fault: Fault
) -> None:
    uri = storage.put(NAME, CAPTURE.read_bytes())
    storage.fault = fault
    done = framewalk("replay", uri, "--store", tmp_path / "store.duckdb")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {uri}: {WORDS[fault]}")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "store.duckdb").exists()


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("s3://shared/nothing.capture.arrows", "there is no such object, and no folder"),
        ("s3://nowhere/x.capture.arrows", "there is no such object, and no folder"),
        ("s3://shared/empty", "no *.capture.arrows file in this folder"),
        ("s3://shared/empty/text", "this is not an Arrow stream"),
        ("s3://shared/empty/nothing", "the file is empty"),
        ("s3://", "this is no object or folder"),
        ("s3:///x", "this is no object or folder"),
        ("s3://shared//x", "this is no object or folder"),
        ("s3://shared/a/../x", "this is no object or folder"),
        ("gs://shared/x", "captures are read from files, and from storage of the S3 API"),
    ],
)
def test_what_is_no_capture_is_told(storage: ObjectStorage, named: str, words: str) -> None:
    storage.put("empty/text", b"some text")
    storage.put("empty/nothing", b"")
    with pytest.raises(CaptureError) as told:
        find_captures(named)
    assert str(told.value).startswith(f"{named}: {words}")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AWS_ALLOW_HTTP", "", "AWS_ENDPOINT_URL is without TLS"),
        ("AWS_TIMEOUT", "soon", "AWS_TIMEOUT is 'soon'"),
        ("AWS_CONNECT_TIMEOUT", "-1s", "AWS_CONNECT_TIMEOUT is '-1s'"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "storage does not answer as it should"),
    ],
)
def test_settings_that_cannot_be_are_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(CaptureError, match=f"^s3://shared/x: {words}"):
        find_captures("s3://shared/x")


def test_a_note_names_an_object(storage: ObjectStorage, some: Plan, tmp_path: Path) -> None:
    uri = storage.put(NAME, CAPTURE.read_bytes())
    path = capture_path(uri)
    note = ReadingNote(tmp_path / "note")
    with Store(tmp_path / "store.duckdb", some) as store:
        replay_spread(uri, read_entities(DUMP), store, None)
        end_bytes = max(one.position.offset_bytes for one in read(uri)[0])
        note.write(Reading((Span(path, 0, end_bytes), Span(CAPTURE, 0, 8))))
        assert note.read().spans == (Span(path, 0, end_bytes), Span(CAPTURE, 0, 8))
        assert str(note.read().spans[0].path) == uri
        assert suspected(note, store).spans == (Span(CAPTURE, 0, 8),)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_commands_read_it(storage: ObjectStorage, tmp_path: Path, workers: str) -> None:
    storage.put(NAME, CAPTURE.read_bytes())
    options = ["--entities", DUMP, "--oal", FEW]
    found: list[Any] = []
    for name, named in (("file", CAPTURE), ("object", FOLDER)):
        store = tmp_path / f"{name}.duckdb"
        done = framewalk("replay", named, "--store", store, *options, "--workers", workers)
        assert (done.returncode, done.stderr) == (0, "")
        with Store(store, make_plan(())) as opened:
            found.append(without_paths(stored(opened)))
    assert found[0] == found[1]
    again = ["recompute", "--captures", FOLDER, "--store", store, "--oal", FEW]
    done = framewalk(*again, "--workers", workers)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    other = tmp_path / "other.capture.arrows"
    with CaptureWriter(other) as writer:
        writer.write_messages([0], [0], [time.time_ns()], [b""])
    added = framewalk("replay", other, "--store", store, *options, "--workers", workers)
    assert added.returncode == 0, added.stderr
    done = framewalk("recompute", "--captures", other, "--store", store, "--oal", FEW)
    assert done.returncode == 1
    assert f"it has counted {FOLDER}{NAME.rpartition('/')[2]}, too" in " ".join(done.stderr.split())


def test_a_cluster_reads_it_itself(  # noqa: PLR0913, PLR0917 - fixtures
    storage: ObjectStorage,
    capture: Path,
    some: Plan,
    entities: Entities,
    want: Stored,
    tmp_path: Path,
) -> None:
    uri = storage.put(NAME, capture.read_bytes())
    with ExitStack() as stack:
        cluster = stack.enter_context(cluster_of(1, tmp_path / "cluster"))
        pool = stack.enter_context(ClusterPool(cluster.address, files_of(cluster)))
        store = stack.enter_context(Store(tmp_path / "several", some))
        options = ReplayOptions(commit_logs=5_000)
        replay_spread(uri, entities, store, pool, options)
        assert without_paths(stored(store)) == want
