"""A disk that is full or broken: streams are refused, each is counted once, and it goes on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from faulty_disk import FaultyDisk
from recording import Messages, call_of, recorded, stream, wait_until
from serving import BOOKINFO, Serving

from framewalk.engine import Store, read_entities, replay
from framewalk.engine.captures.format import captures_in
from framewalk.engine.oal.plan import Plan

DISK_BYTES = 32 * 2**20
DUMP = BOOKINFO / "kubectl.yaml"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(filler: Path) -> None:
    """Use up the disk."""
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\1" * 4096):
                pass
        except OSError:
            return


def outcome(server: Serving, messages: Messages) -> grpc.StatusCode:
    with grpc.insecure_channel(server.address) as channel:
        try:
            call_of(channel)(iter(messages), timeout=20)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@contextmanager
def started(folder: Path, *arguments: str | Path, **environment: str) -> Iterator[Serving]:
    server = Serving(folder, *arguments, **environment)
    try:
        yield server
    finally:
        server.stop(signal.SIGKILL)


def test_a_full_disk_costs_what_was_refused(disk: Path, plan: Plan) -> None:
    streams = recorded(BOOKINFO)
    third = len(streams) // 3
    server = Serving(disk, "--entities", DUMP, FRAMEWALK_SQL="-")
    try:
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
        wait_until(lambda: server.metrics()["framewalk_engine_watermark_seconds"] > sent_s, 120)
        assert server.stop() == 0
    finally:
        server.process.send_signal(signal.SIGKILL)
    with Store(":memory:", plan) as whole, Store(server.store, plan) as store:
        replay([BOOKINFO], read_entities(DUMP), whole)
        wanted = whole.query("FROM service_minute ORDER BY ALL").fetchall()
        assert store.query("FROM service_minute ORDER BY ALL").fetchall() == wanted


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
        wait_until(lambda: path.stat().st_size > size_bytes, 120)
        # To whoever looks at the file, it was written to long ago.
        os.utime(path, (0, 0))
        looked_s = time.time()
        before = server.metrics()["framewalk_engine_watermark_seconds"]
        wait_until(lambda: server.metrics()["framewalk_engine_lag_seconds"] > 2, 120)
        after = server.metrics()
        assert after["framewalk_engine_unread_bytes"] == path.stat().st_size - size_bytes
        # What is not known to be stored is not said to be.
        assert before <= after["framewalk_engine_watermark_seconds"] < looked_s
        disk.heal()
        assert sending.result() is grpc.StatusCode.OK
        server.wait_until_stored(10)
        wait_until(lambda: server.metrics()["framewalk_engine_watermark_seconds"] > looked_s, 120)
        assert not server.find("spool segment is damaged")
