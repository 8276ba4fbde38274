"""The spool: what is on disk after an answer, and after everything that can go wrong."""

from __future__ import annotations

import errno
import gc
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from waiting import DEADLINE_S, wait_until

from framewalk.engine.captures.format import CaptureReader
from framewalk.engine.captures.growing import segments_in as segments
from framewalk.receiver.spool.spool import (
    Fsync,
    Spool,
    SpoolDiskError,
    SpoolFullError,
    SpoolLockedError,
    SpoolOptions,
)

# Not what anything takes: what a slow machine may take.


def stream(name: str, messages: int = 3, size_bytes: int = 20) -> list[bytes]:
    return [f"{name} {seq} ".encode().ljust(size_bytes, b".") for seq in range(messages)]


def keep(spool: Spool, messages: list[bytes]) -> bool:
    received_at_ns = range(1, len(messages) + 1)
    return spool.append(messages, list(received_at_ns)).result(DEADLINE_S)


def kept(folder: Path) -> list[list[bytes]]:
    """All streams of all segments, each in its own order."""
    return [messages for path in segments(folder) for messages in kept_in(path)]


def kept_in(path: Path) -> list[list[bytes]]:
    streams: dict[int, list[bytes]] = {}
    with CaptureReader(path) as reader:
        for batch in reader:
            for row in batch.messages.drop_columns("received_at").to_pylist():
                messages = streams.setdefault(row["stream"], [])
                assert row["seq"] == len(messages)
                messages.append(row["message"])
    return list(streams.values())


@contextmanager
def opened(folder: Path, **options: object) -> Iterator[Spool]:
    spool = Spool(SpoolOptions(folder, **options))  # type: ignore[arg-type]
    try:
        spool.opening.result(DEADLINE_S)
        yield spool
    finally:
        spool.close()


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """A full disk, as far as a file can tell: it cannot grow any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_answer_means_that_the_stream_is_in_the_folder(tmp_path: Path) -> None:
    with opened(tmp_path / "new" / "spool") as spool:
        for name in "abc":
            assert keep(spool, stream(name))
            assert kept(spool.options.folder)[-1] == stream(name)
    assert kept(tmp_path / "new" / "spool") == [stream(name) for name in "abc"]


def test_large_streams_are_kept_as_they_are_and_are_no_more_in_memory(tmp_path: Path) -> None:
    sizes = (0, 1, 2**20, 3 * 2**20, 17)
    sent = [[os.urandom(size) for size in sizes] for _ in range(10)]
    largest = [one[3] for one in sent]
    before = [sys.getrefcount(message) for message in largest]
    gc.disable()
    try:
        with opened(tmp_path) as spool:
            waiting = [spool.append(list(one), range(len(one))) for one in sent]
            assert all(future.result(60) for future in waiting)
            wait_until(lambda: [sys.getrefcount(message) for message in largest] == before)
    finally:
        gc.enable()
    assert kept(tmp_path) == sent


def test_a_large_stream_that_could_not_be_forced_to_disk_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, fdatasync = [os.urandom(2**22), b"small"], os.fdatasync

    def fail(descriptor: int) -> None:
        if os.fstat(descriptor).st_size > 2**20:
            raise OSError(errno.EIO, "no")
        fdatasync(descriptor)

    with opened(tmp_path) as spool:
        assert keep(spool, stream("before"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(SpoolDiskError):
                keep(spool, large)
        assert keep(spool, stream("after"))
        assert keep(spool, large)
    assert kept(tmp_path) == [stream("before"), large, stream("after")]


def test_times_are_those_of_the_messages(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        spool.append([b"a", b"b"], [1_000, 2_001]).result(DEADLINE_S)
    with CaptureReader(segments(tmp_path)[0]) as reader:
        times = next(iter(reader)).messages["received_at"]
    assert times.cast("int64").to_pylist() == [1_000, 2_001]


def test_streams_that_wait_together_are_written_together(tmp_path: Path) -> None:
    flushes: list[float] = []
    go_on = threading.Event()

    def hold(duration_s: float) -> None:
        flushes.append(duration_s)
        go_on.wait(DEADLINE_S)

    spool = Spool(SpoolOptions(tmp_path), hold)
    first = spool.append(stream("first"), [1, 2, 3])
    wait_until(lambda: bool(flushes))
    others = [spool.append(stream(f"other {number}"), [1, 2, 3]) for number in range(50)]
    go_on.set()
    assert all(future.result(DEADLINE_S) for future in [first, *others])
    spool.close()
    assert len(flushes) == 2
    assert len(kept(tmp_path)) == 51


def test_large_streams_that_wait_are_not_written_all_at_once(tmp_path: Path) -> None:
    flushes: list[float] = []
    go_on = threading.Event()

    def hold(duration_s: float) -> None:
        flushes.append(duration_s)
        go_on.wait(DEADLINE_S)

    spool = Spool(SpoolOptions(tmp_path), hold)
    first = spool.append(stream("first"), [1, 2, 3])
    wait_until(lambda: bool(flushes))
    half_a_group = bytes(5 * 2**20)
    others = [spool.append([half_a_group, b"%d" % number], [1, 2]) for number in range(3)]
    go_on.set()
    assert all(future.result(DEADLINE_S) for future in [first, *others])
    spool.close()
    assert len(flushes) == 3


def test_a_stream_that_is_given_up_in_time_is_not_kept(tmp_path: Path) -> None:
    is_held, go_on = threading.Event(), threading.Event()

    def hold(_duration_s: float) -> None:
        is_held.set()
        go_on.wait(DEADLINE_S)

    spool = Spool(SpoolOptions(tmp_path), hold)
    spool.append(stream("first"), [1, 2, 3])
    assert is_held.wait(DEADLINE_S)
    assert spool.append(stream("given up"), [1, 2, 3]).cancel()
    go_on.set()
    assert keep(spool, stream("last"))
    spool.close()
    assert kept(tmp_path) == [stream("first"), stream("last")]


@pytest.mark.parametrize("segment_bytes", [1, 2**20])
def test_the_same_stream_again_is_kept_once(tmp_path: Path, segment_bytes: int) -> None:
    with opened(tmp_path, segment_bytes=segment_bytes) as spool:
        assert [keep(spool, stream(name)) for name in "aba"] == [True, True, False]
    with opened(tmp_path, segment_bytes=segment_bytes) as spool:
        assert spool.recovered.streams == 2
        assert [keep(spool, stream(name)) for name in "abc"] == [False, False, True]
    assert kept(tmp_path) == [stream(name) for name in "abc"]


def test_streams_of_the_newest_two_segments_are_known_however_large_they_are(
    tmp_path: Path,
) -> None:
    """The newest may just have been begun: who asks again may mean the one before."""
    with opened(tmp_path, segment_bytes=1) as spool:
        assert all(keep(spool, stream(name)) for name in "abc")
    with opened(tmp_path, remembered_bytes=1) as spool:
        assert spool.recovered.segments == 3
        assert [keep(spool, stream(name)) for name in "cba"] == [False, False, True]


def test_messages_cut_differently_are_another_stream(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        for messages in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"abc", b""]):
            assert keep(spool, messages)


def test_segments_end_by_size_and_by_age(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=1) as spool:
        for name in "abc":
            keep(spool, stream(name))
        assert len(segments(tmp_path)) == 3
    aged = tmp_path / "aged"
    with opened(aged, segment_age_s=0.05) as spool:
        keep(spool, stream("a"))
        # Nothing more comes, and the end marker is there all the same.
        wait_until(lambda: segments(aged)[0].read_bytes().endswith(b"\xff\xff\xff\xff\0\0\0\0"))
        keep(spool, stream("b"))
        assert len(segments(aged)) == 2


def test_names_are_in_order_when_the_clock_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for times in (2_000, 1_000, 1_000):
        monkeypatch.setattr(time, "time_ns", lambda times=times: times)
        with opened(tmp_path) as spool:
            keep(spool, stream(f"{len(segments(tmp_path))}"))
    assert [int(path.name.split(".")[0]) for path in segments(tmp_path)] == [2_000, 2_001, 2_002]
    assert kept(tmp_path) == [stream("0"), stream("1"), stream("2")]


@pytest.mark.parametrize(("fsync", "least"), [("batch", 5), ("interval", 1), ("never", 0)])
def test_data_is_forced_to_disk_as_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: str, least: int
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    with opened(tmp_path, fsync=Fsync(fsync), fsync_interval_s=0.02) as spool:
        for name in "abcde":
            before = len(calls)
            keep(spool, stream(name))
            assert fsync != "batch" or len(calls) > before
        wait_until(lambda: len(calls) >= least)
    assert len(calls) >= least
    assert fsync != "never" or not calls


def test_names_of_segments_are_forced_to_disk_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: set[str] = set()

    def sync_folder(descriptor: int) -> None:
        named.update(os.listdir(descriptor))

    with opened(tmp_path, fsync=Fsync.INTERVAL, fsync_interval_s=0.02) as spool:
        monkeypatch.setattr(os, "fsync", sync_folder)
        # Nothing more comes: the open segment's name must not wait for a stream that is due.
        keep(spool, stream("a"))
        wait_until(lambda: segments(tmp_path)[0].name in named)
    with opened(tmp_path, fsync=Fsync.INTERVAL, fsync_interval_s=60, segment_bytes=1) as spool:
        for name in "bcd":
            keep(spool, stream(name))
    assert len(segments(tmp_path)) == 4
    assert {path.name for path in segments(tmp_path)} <= named


def test_what_comes_after_data_was_forced_to_disk_is_forced_in_time_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fdatasync", calls.append)
    with opened(tmp_path, fsync=Fsync.INTERVAL, fsync_interval_s=0.2) as spool:
        for name in "ab":
            before = len(calls)
            keep(spool, stream(name))
            wait_until(lambda: len(calls) > before)  # noqa: B023 - it is over when the next begins


def test_over_the_budget_a_stream_is_refused_until_there_is_room(tmp_path: Path) -> None:
    large = stream("large", size_bytes=1_000)
    with opened(tmp_path, budget_bytes=3_500, segment_bytes=1, compression=None) as spool:
        keep(spool, stream("small", size_bytes=200))
        with pytest.raises(SpoolFullError, match=r"the spool's budget of 3,500 bytes is used up"):
            keep(spool, large)
        assert keep(spool, stream("tiny"))
        segments(tmp_path)[0].unlink()
        segments(tmp_path)[0].unlink()
        assert keep(spool, large)
    assert kept(tmp_path) == [large]


def test_a_stream_may_fill_the_budget_to_the_last_byte(tmp_path: Path) -> None:
    fitting = stream("fitting", messages=3, size_bytes=1_000)
    with opened(tmp_path, budget_bytes=3_000) as spool:
        with pytest.raises(SpoolFullError, match="budget"):
            keep(spool, [*fitting, b"."])
        assert keep(spool, fitting)
    assert kept(tmp_path) == [fitting]


def test_on_a_full_disk_the_segment_keeps_its_whole_batches(tmp_path: Path) -> None:
    with opened(tmp_path, compression=None) as spool:
        keep(spool, stream("before"))
        with largest_file(8_000):
            with pytest.raises(SpoolFullError, match="file too large"):
                keep(spool, stream("too large", size_bytes=20_000))
            with pytest.raises(SpoolFullError, match="file too large"):
                keep(spool, stream("again too large", size_bytes=20_000))
            assert keep(spool, stream("small"))
        assert keep(spool, stream("too large", size_bytes=20_000))
    wanted = [stream("before"), stream("small"), stream("too large", size_bytes=20_000)]
    assert kept(tmp_path) == wanted
    assert not list(tmp_path.glob("*.new"))
    with opened(tmp_path) as spool:
        assert spool.recovered.warnings == ()


def test_what_readers_may_have_counted_is_not_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = b""

    def lose(descriptor: int) -> None:
        """Fail as a disk does: readers have seen the data, and then the system has dropped them."""
        nonlocal seen
        written = segments(tmp_path)[0].read_bytes()
        seen = seen or written
        os.pwrite(descriptor, bytes(len(written) - before_bytes), before_bytes)
        _broken(descriptor)

    with opened(tmp_path) as spool:
        keep(spool, stream("before"))
        before_bytes = segments(tmp_path)[0].stat().st_size
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", lose)
            for name in ("lost", "lost", "other"):
                with pytest.raises(SpoolDiskError, match="input/output error"):
                    keep(spool, stream(name))
        # Its sender is told for the first time that it is on disk.
        assert keep(spool, stream("lost"))
        assert not keep(spool, stream("lost"))
        assert keep(spool, stream("other"))
        assert segments(tmp_path)[0].read_bytes().startswith(seen)
    assert kept(tmp_path) == [stream("before"), stream("lost"), stream("other")]


def test_what_was_not_forced_to_disk_is_tried_again_before_others_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()
    with opened(tmp_path) as spool:
        keep(spool, stream("before"))
        monkeypatch.setattr(os, "fdatasync", _broken)
        with pytest.raises(SpoolDiskError):
            keep(spool, stream("refused"))
        monkeypatch.setattr(os, "fdatasync", lambda _descriptor: synced.set())
        assert synced.wait(DEADLINE_S)
    assert kept(tmp_path) == [stream("before"), stream("refused")]


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_a_first_stream_that_cannot_be_forced_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with opened(tmp_path) as spool:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, _broken)
            with pytest.raises(SpoolDiskError):
                keep(spool, stream("first"))
            # Without its data it has no name; without its name it can be read all the same.
            assert len(segments(tmp_path)) == (call == "fsync")
        assert keep(spool, stream("first"))
    assert kept(tmp_path) == [stream("first")]


def _broken(_descriptor: int) -> None:
    raise OSError(5, "Input/output error")


def test_a_stream_is_not_acknowledged_into_a_deleted_segment(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        keep(spool, stream("gone"))
        segments(tmp_path)[0].unlink()
        assert keep(spool, stream("kept"))
        assert kept(tmp_path) == [stream("kept")]


def test_a_segment_that_is_broken_and_deleted_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as spool:
        keep(spool, stream("before"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", _broken)
            with pytest.raises(SpoolDiskError):
                keep(spool, stream("gone"))
        segments(tmp_path)[0].unlink()
        assert keep(spool, stream("gone"))
    assert kept(tmp_path) == [stream("gone")]


def test_a_folder_that_is_removed_is_made_again_for_this_process(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with opened(folder) as spool:
        keep(spool, stream("gone"))
        shutil.rmtree(folder)
        assert keep(spool, stream("kept"))
        assert kept(folder) == [stream("kept")]
        with pytest.raises(SpoolLockedError):
            Spool(SpoolOptions(folder))


def test_a_folder_that_somebody_else_has_taken_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    with opened(folder) as spool:
        shutil.rmtree(folder)
        with opened(folder) as other:
            with pytest.raises(SpoolDiskError, match="another process"):
                keep(spool, stream("a"))
            assert keep(other, stream("a"))
        assert keep(spool, stream("b"))
    assert kept(folder) == [stream("a"), stream("b")]


def test_whatever_fails_while_nothing_comes_is_told_and_the_next_stream_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    has_failed, synced = threading.Event(), os.fdatasync
    calls = count(1)

    def fail_once(descriptor: int) -> None:
        """Fail at the first look after the stream was forced to disk, however soon that is."""
        if next(calls) != 2:
            synced(descriptor)
            return
        has_failed.set()
        raise RuntimeError

    monkeypatch.setattr(os, "fdatasync", fail_once)
    with opened(tmp_path, segment_age_s=0.05) as spool:
        keep(spool, stream("a"))
        assert has_failed.wait(DEADLINE_S)
        assert keep(spool, stream("b"))
    assert kept(tmp_path) == [stream("a"), stream("b")]
    assert "open segment cannot be looked after" in caplog.messages


def test_without_a_writer_streams_are_refused_and_do_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> float:
        raise RuntimeError

    with opened(tmp_path) as spool:
        keep(spool, stream("a"))
        monkeypatch.setattr(time, "monotonic", fail)
        for name in "bcd":
            with pytest.raises((RuntimeError, SpoolFullError)):
                keep(spool, stream(name))
        monkeypatch.undo()
        with pytest.raises(SpoolFullError, match="closed"):
            keep(spool, stream("e"))
    assert kept(tmp_path) == [stream("a")]


def test_streams_that_wait_when_the_writer_ends_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_held, go_on = threading.Event(), threading.Event()

    def hold(_duration_s: float) -> None:
        is_held.set()
        go_on.wait(DEADLINE_S)

    def fail() -> float:
        raise RuntimeError

    spool = Spool(SpoolOptions(tmp_path), hold)
    first = spool.append(stream("first"), [1, 2, 3])
    assert is_held.wait(DEADLINE_S)
    others = [spool.append(stream(name), [1, 2, 3]) for name in "ab"]
    monkeypatch.setattr(time, "monotonic", fail)
    go_on.set()
    for waiting in others:
        with pytest.raises(SpoolFullError, match="closed"):
            waiting.result(DEADLINE_S)
    monkeypatch.undo()
    assert first.result(DEADLINE_S)
    spool.close()
    assert kept(tmp_path) == [stream("first")]


def test_a_disk_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_held, goes_on = threading.Event(), threading.Event()

    def stall(_descriptor: int) -> None:
        is_held.set()
        goes_on.wait(DEADLINE_S)

    spool = Spool(SpoolOptions(tmp_path))
    monkeypatch.setattr(os, "fdatasync", stall)
    waiting = spool.append(stream("a"), [1, 2, 3])
    assert is_held.wait(DEADLINE_S)
    assert not spool.finish(0.01)
    assert not waiting.done()
    goes_on.set()
    assert waiting.result(DEADLINE_S)
    spool.close()


def test_a_torn_tail_is_told_and_the_rest_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        for name in "abc":
            keep(spool, stream(name))
    path = segments(tmp_path)[0]
    os.truncate(path, path.stat().st_size - 50)
    with opened(tmp_path) as spool:
        assert spool.recovered.streams == 2
        assert len(spool.recovered.warnings) == 1
        assert "torn or damaged" in spool.recovered.warnings[0]
        assert [keep(spool, stream(name)) for name in "abc"] == [False, False, True]
    assert kept(tmp_path) == [stream(name) for name in "abc"]


def test_flipped_bits_are_told_and_nothing_is_deleted(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=1) as spool:
        for name in "ab":
            keep(spool, stream(name))
    path = segments(tmp_path)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with opened(tmp_path) as spool:
        assert spool.recovered.streams == 1
        assert path.name in spool.recovered.warnings[0]
    assert path.read_bytes() == content


def test_a_segment_that_was_never_begun_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "00000000000000000001.capture.arrows.new"
    left.write_bytes(b"half")
    with opened(tmp_path) as spool:
        assert spool.recovered.segments == 0
    assert not left.exists()


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    wanted = rf"another process \({os.getpid()}\) records"
    with opened(tmp_path), pytest.raises(SpoolLockedError, match=wanted):
        Spool(SpoolOptions(tmp_path))
    with opened(tmp_path) as spool:
        assert keep(spool, stream("a"))
    with pytest.raises(SpoolFullError, match="closed"):
        spool.append(stream("b"), [1, 2, 3])


def test_a_new_segment_comes_after_all_that_were_there_at_the_start(tmp_path: Path) -> None:
    future = 4 * 10**18
    with opened(tmp_path) as spool:
        keep(spool, stream("a"))
    segments(tmp_path)[0].rename(tmp_path / f"{future:020d}.capture.arrows")
    with opened(tmp_path) as spool:
        # The one that was newest is deleted, as stored ones are.
        segments(tmp_path)[0].unlink()
        keep(spool, stream("b"))
    assert int(segments(tmp_path)[0].name.split(".")[0]) == future + 1


def test_a_stream_that_is_given_up_holds_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalled, goes_on = threading.Event(), threading.Event()
    fdatasync = os.fdatasync

    def stall(descriptor: int) -> None:
        stalled.set()
        goes_on.wait(DEADLINE_S)
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", stall)
    with opened(tmp_path) as spool:
        first = spool.append(stream("a"), [1, 2, 3])
        assert stalled.wait(DEADLINE_S)
        large = bytes(10**7)
        before = sys.getrefcount(large)
        waiting = spool.append([large], [1])
        assert sys.getrefcount(large) == before + 1
        assert waiting.cancel()
        assert sys.getrefcount(large) == before
        goes_on.set()
        assert first.result(DEADLINE_S)
    assert kept(tmp_path) == [stream("a")]


def test_what_a_start_finds_is_forced_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, fsync=Fsync.NEVER) as spool:
        keep(spool, stream("a"))
    synced = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor)))
    with opened(tmp_path) as spool:
        assert [one.st_ino for one in synced] == [segments(tmp_path)[0].stat().st_ino]
        assert not keep(spool, stream("a"))
