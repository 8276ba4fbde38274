"""A disk that is full or broken: streams are refused, each is counted once, and it goes on."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from faulty_disk import FaultyDisk
from recording import DEADLINE_S, Messages, Start, call_of, recorded, stream, wait_until
from serving import BOOKINFO, Serving
from small_disk import small_disk

from framewalk.engine import Store, read_entities, replay
from framewalk.engine.captures.format import captures_in
from framewalk.engine.oal.plan import Plan

pytest_plugins = ["servers"]

DISK_BYTES = 128 * 2**20
# A sixteenth of the disk, which is the most that there is.
RESERVE_BYTES = 8 * 2**20
DUMP = BOOKINFO / "kubectl.yaml"


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk(DISK_BYTES) as folder:
        yield folder


def fill(filler: Path, leaves_bytes: int = 0) -> None:
    """Use up the disk, but for so much."""
    with filler.open("wb", buffering=0) as file:
        if leaves_bytes:
            free = os.statvfs(filler.parent)
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leaves_bytes)
            return
        try:
            while file.write(b"\1" * 4096):
                pass
        except OSError:
            return


def reserved_bytes(disk: Path) -> int:
    """Return what a reserve takes of a disk, once it is there as a whole."""
    reserve = disk / "metrics.duckdb.reserve"
    return reserve.stat().st_size if reserve.exists() else 0


def outcome(server: Serving, messages: Messages) -> grpc.StatusCode:
    with grpc.insecure_channel(server.address) as channel:
        try:
            call_of(channel)(iter(messages), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def assert_whole(path: Path, plan: Plan) -> None:
    """Check that a store has all of the capture, once."""
    with Store(":memory:", plan) as whole, Store(path, plan) as store:
        replay([BOOKINFO], read_entities(DUMP), whole)
        wanted = whole.query("FROM service_minute ORDER BY ALL").fetchall()
        assert store.query("FROM service_minute ORDER BY ALL").fetchall() == wanted


@contextmanager
def started(folder: Path, *arguments: str | Path, **environment: str) -> Iterator[Serving]:
    with Serving(folder, *arguments, **environment) as server:
        yield server


def test_a_full_disk_costs_what_was_refused(disk: Path, plan: Plan) -> None:
    streams = recorded(BOOKINFO)
    third = len(streams) // 3
    with started(disk, "--entities", DUMP, FRAMEWALK_SQL="-") as server:
        server.wait_for("engine ready")
        for one in streams[:third]:
            assert outcome(server, one) is grpc.StatusCode.OK
        filler = disk / "filler"
        fill(filler)
        refused = []
        for one in streams[third : 2 * third]:
            status = outcome(server, one)
            assert status in {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            refused += [one] if status is not grpc.StatusCode.OK else []
        assert refused
        assert server.metrics()['k8s_als_drop_count{reason="disk"}'] == len(refused)
        assert server.metrics()['k8s_als_drop_count{reason="spool"}'] == 0
        assert "no space left" in server.wait_for("disk takes no streams")["error"]
        filler.unlink()
        for one in refused + streams[2 * third :]:
            assert outcome(server, one) is grpc.StatusCode.OK
        sent_s = time.time()
        # An engine that died of the full disk is started again, after some seconds.
        wait_until(lambda: server.metrics()["framewalk_engine_watermark_seconds"] > sent_s)
        assert server.stop() == 0
    assert_whole(server.store, plan)


def test_with_its_reserve_an_engine_goes_on_while_the_disk_is_full(disk: Path, plan: Plan) -> None:
    streams = recorded(BOOKINFO)
    third = len(streams) // 3
    # What is stored stays, as its segment is never over, so that only the reserve can help.
    kept = {
        "FRAMEWALK_STORE_RESERVE_BYTES": str(RESERVE_BYTES),
        "FRAMEWALK_SPOOL_SEGMENT_AGE_SECONDS": "86400",
        "FRAMEWALK_SQL": "-",
    }
    reserve = disk / "metrics.duckdb.reserve"
    with started(disk, "--entities", DUMP, **kept) as server:
        server.wait_for("engine ready")
        wait_until(lambda: reserved_bytes(disk) == RESERVE_BYTES)
        assert reserve.stat().st_blocks * 512 == RESERVE_BYTES
        for one in streams[:third]:
            assert outcome(server, one) is grpc.StatusCode.OK
        server.wait_until_stored(sum(map(len, streams[:third])))
        os.kill(server.engine(), signal.SIGSTOP)
        for one in streams[third : 2 * third]:
            assert outcome(server, one) is grpc.StatusCode.OK
        filler = disk / "filler"
        fill(filler)
        acknowledged_s = time.time()
        os.kill(server.engine(), signal.SIGCONT)
        # It cannot commit; the next one does, with the disk as full as before.
        told = server.wait_for("disk is full, the reserve is given up")
        assert "no space left" in told["problem"]
        watermark = "framewalk_engine_watermark_seconds"
        wait_until(lambda: server.metrics().get(watermark, 0) > acknowledged_s)
        assert server.metrics()["framewalk_engine_restarts"] >= 1
        assert not reserve.exists()
        # Senders do not get what it needs.
        assert outcome(server, streams[-1]) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "but what the engine needs" in server.wait_for("disk takes no streams")["error"]
        filler.unlink()
        wait_until(lambda: reserved_bytes(disk) > 0)
        for one in streams[2 * third :]:
            assert outcome(server, one) is grpc.StatusCode.OK
        sent_s = time.time()
        wait_until(lambda: server.metrics()[watermark] > sent_s)
        assert server.stop() == 0
    assert_whole(server.store, plan)


def test_stored_segments_go_before_streams_are_refused(disk: Path, plan: Plan) -> None:
    streams = recorded(BOOKINFO)
    half = len(streams) // 2
    small = {"FRAMEWALK_SPOOL_SEGMENT_AGE_SECONDS": "0.2", "FRAMEWALK_SQL": "-"}
    # Each commit takes room: a slow machine has no more of them than a fast one.
    small |= {"FRAMEWALK_FLUSH_INTERVAL_SECONDS": "3"}
    with started(disk, "--entities", DUMP, **small) as server:
        server.wait_for("engine ready")
        for one in streams[:half]:
            assert outcome(server, one) is grpc.StatusCode.OK
        server.wait_until_stored(sum(map(len, streams[:half])))
        wait_until(lambda: reserved_bytes(disk) > 0)
        before = captures_in(server.spool)
        fill(disk / "filler", leaves_bytes=DISK_BYTES // 32)
        given_up = "framewalk_engine_given_up_segments"
        wait_until(lambda: server.metrics()[given_up] > 0)
        told = server.wait_for("disk is nearly full, stored segments are deleted before their time")
        assert int(told["free_bytes"]) < int(told["wanted_bytes"])
        assert before[0] not in captures_in(server.spool)
        for one in streams[half:]:
            assert outcome(server, one) is grpc.StatusCode.OK
        sent_s = time.time()
        watermark = "framewalk_engine_watermark_seconds"
        wait_until(lambda: server.metrics()[watermark] > sent_s)
        assert server.metrics()['k8s_als_drop_count{reason="disk"}'] == 0
        assert server.metrics()["framewalk_engine_restarts"] == 0
        assert server.stop() == 0
    assert_whole(server.store, plan)


def test_a_server_starts_on_a_full_disk_and_computes_what_it_has(disk: Path, plan: Plan) -> None:
    """Killed with streams that are not in the store, and started with the disk full."""
    kept = {"FRAMEWALK_STORE_RESERVE_BYTES": str(RESERVE_BYTES)}
    with started(disk, "--entities", DUMP, **kept) as server:
        server.wait_for("engine ready")
        wait_until(lambda: reserved_bytes(disk) == RESERVE_BYTES)
        os.kill(server.engine(), signal.SIGSTOP)
        for one in recorded(BOOKINFO):
            assert outcome(server, one) is grpc.StatusCode.OK
        server.stop(signal.SIGKILL)
    fill(disk / "filler")
    with started(disk, "--entities", DUMP, **kept) as server:
        assert "are free" in server.wait_for("disk is full, the reserve is given up")["problem"]
        wait_until(server.has_stored_all)
        assert server.stop() == 0
    assert_whole(server.store, plan)


BUDGETS = {
    "FRAMEWALK_SPOOL_BUDGET_BYTES": 2**28,
    "FRAMEWALK_STORE_BUDGET_BYTES": 2**20,
    "FRAMEWALK_STORE_RESERVE_BYTES": 2**20,
}


@pytest.mark.parametrize("name", [None, *list(BUDGETS)[:2]])
def test_budgets_that_do_not_fit_are_told_at_the_start(tmp_path: Path, name: str | None) -> None:
    large = {name: 2**50} if name is not None else {}
    budgets = {one: str(size) for one, size in (BUDGETS | large).items()}
    with started(tmp_path, FRAMEWALK_SQL="-", **budgets) as server:
        server.wait_for("ready")
        event = "budgets are more than the disk has"
        if name is None:
            assert server.find(event) == {}
        else:
            told = server.wait_for(event)
            assert f"{name} {2**50:,}" in told["budgets"]
            assert "quarantine 67,108,864" in told["budgets"]
            assert int(told["together"]) == sum((BUDGETS | large).values()) + 2**26
            assert 0 < int(told["has"]) < 2**50


def test_who_records_only_has_no_budget_of_a_store(start: Start) -> None:
    server = start(FRAMEWALK_SPOOL_BUDGET_BYTES=str(2**50), FRAMEWALK_STORE_BUDGET_BYTES=str(2**50))
    server.wait_for("ready")
    told = server.wait_for("budgets are more than the disk has")
    assert told["budgets"] == f"FRAMEWALK_SPOOL_BUDGET_BYTES {2**50:,}"


def test_a_stream_that_is_computed_and_refused_is_counted_once(tmp_path: Path) -> None:
    with (
        FaultyDisk(tmp_path / "disk") as disk,
        started(tmp_path, FRAMEWALK_SQL="-", **disk.environment) as server,
        ThreadPoolExecutor() as threads,
    ):
        assert outcome(server, stream("first")) is grpc.StatusCode.OK
        server.wait_until_stored(5)
        disk.hang()
        sending = threads.submit(outcome, server, stream("refused"))
        # The engine has read it before the receiver knows whether it is on disk.
        server.wait_until_stored(10)
        disk.fail(errno.EIO)
        assert sending.result() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "input/output error" in server.wait_for("disk takes no streams")["error"]
        assert outcome(server, stream("refused")) is grpc.StatusCode.RESOURCE_EXHAUSTED
        disk.heal()
        for name in ("refused", "refused", "last"):
            assert outcome(server, stream(name)) is grpc.StatusCode.OK
        server.wait_until_stored(15)
        counts = server.metrics()
        assert counts["k8s_als_in_count"] == 15
        assert counts["framewalk_repeated_streams"] == 1
        assert counts['k8s_als_drop_count{reason="disk"}'] == 2
        sent = 0
        while not server.find("disk takes streams again"):
            sent += 1
            assert outcome(server, stream(f"more {sent}")) is grpc.StatusCode.OK
        assert server.stop() == 0
        kept = [one for one in recorded(server.spool) if not one[0].startswith(b"more")]
        assert kept == [stream("first"), stream("last"), stream("refused")]


def test_a_write_that_stalls_in_its_middle_for_long_is_counted_when_it_is_done(
    tmp_path: Path,
) -> None:
    with (
        FaultyDisk(tmp_path / "disk") as disk,
        started(tmp_path, FRAMEWALK_SQL="-", **disk.environment) as server,
        ThreadPoolExecutor() as threads,
    ):
        assert outcome(server, stream("first")) is grpc.StatusCode.OK
        server.wait_until_stored(5)
        (path,) = captures_in(server.spool)
        size_bytes = path.stat().st_size
        disk.stall()
        sending = threads.submit(outcome, server, stream("second"))
        wait_until(lambda: path.stat().st_size > size_bytes)
        # To whoever looks at the file, it was written to long ago.
        os.utime(path, (0, 0))
        looked_s = time.time()
        before = server.metrics()["framewalk_engine_watermark_seconds"]
        wait_until(lambda: server.metrics()["framewalk_engine_lag_seconds"] > 2)
        unread = "framewalk_engine_unread_bytes"
        wait_until(lambda: server.metrics()[unread] == path.stat().st_size - size_bytes)
        after = server.metrics()
        # What is not known to be stored is not said to be.
        assert before <= after["framewalk_engine_watermark_seconds"] < looked_s
        disk.heal()
        assert sending.result() is grpc.StatusCode.OK
        server.wait_until_stored(10)
        wait_until(lambda: server.metrics()["framewalk_engine_watermark_seconds"] > looked_s)
        assert not server.find("spool segment is damaged")
