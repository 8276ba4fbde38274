"""A disk that is full: streams are refused, what was acknowledged is counted, and it goes on."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from recording import Messages, call_of, recorded, wait_until
from serving import BOOKINFO, Serving

from framewalk.engine import Store, read_entities, replay
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
        assert server.metrics()['k8s_als_drop_count{reason="spool"}'] == len(refused)
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
