"""While the spool reads what it has, streams are taken, and acknowledged when it is done."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty_disk import FaultyDisk
from recording import DEADLINE_S, Start, collect, recorded, refusal, stream

from framewalk.receiver.spool.spool import Spool, SpoolFullError, SpoolOptions

pytest_plugins = ["servers"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FaultyDisk]:
    with FaultyDisk(tmp_path / "disk") as one:
        yield one


def test_streams_that_come_while_the_spool_opens_are_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Spool(SpoolOptions(tmp_path))
    assert before.append(stream("known"), range(1, 6)).result(DEADLINE_S)
    before.close()
    goes_on, sync = threading.Event(), os.fdatasync

    def hold(descriptor: int) -> None:
        goes_on.wait(DEADLINE_S)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", hold)
    spool = Spool(SpoolOptions(tmp_path))
    waiting = [spool.append(stream(name), range(1, 6)) for name in ("known", "a", "b", "a")]
    assert not spool.opening.done()
    assert not any(one.done() for one in waiting)
    goes_on.set()
    assert [one.result(DEADLINE_S) for one in waiting] == [False, True, True, False]
    assert spool.recovered.streams == 1
    spool.close()
    assert recorded(tmp_path) == sorted(map(stream, ("known", "a", "b")))


def test_a_spool_that_cannot_be_opened_refuses_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Spool(SpoolOptions(tmp_path)).close()
    goes_on = threading.Event()

    def fail(_descriptor: int) -> None:
        goes_on.wait(DEADLINE_S)
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "fsync", fail)
    spool = Spool(SpoolOptions(tmp_path))
    waiting = spool.append(stream("a"), range(1, 6))
    goes_on.set()
    with pytest.raises(SpoolFullError):
        waiting.result(DEADLINE_S)
    with pytest.raises(OSError, match="no"):
        spool.opening.result(DEADLINE_S)
    with pytest.raises(SpoolFullError, match="closed"):
        spool.append(stream("b"), range(1, 6))
    spool.close()


def test_a_server_takes_streams_before_its_spool_is_read(start: Start, disk: FaultyDisk) -> None:
    first = start()
    collect(first.address, stream("known"))
    assert first.stop() == 0
    disk.hang()
    server = start(**disk.environment)
    with ThreadPoolExecutor() as senders:
        sent = [senders.submit(collect, server.address, stream(name)) for name in ("known", "a")]
        assert not server.find("spool opened")
        assert not any(one.done() for one in sent)
        disk.heal()
        assert [one.result(DEADLINE_S) for one in sent] == [b"", b""]
    assert server.wait_for("spool opened")["read_streams"] == "1"
    assert server.stop() == 0
    assert recorded(server.spool) == sorted(map(stream, ("known", "a")))


def test_a_spool_that_cannot_be_opened_ends_its_server_with_the_reason(
    start: Start, disk: FaultyDisk
) -> None:
    first = start()
    collect(first.address, stream("known"))
    assert first.stop() == 0
    disk.hang()
    server = start(**disk.environment)
    with ThreadPoolExecutor() as senders:
        refused = senders.submit(refusal, server.address, stream("a"))
        disk.fail(errno.EIO)
        assert server.wait() == 1
        assert refused.result(DEADLINE_S)[0] in {"RESOURCE_EXHAUSTED", "UNAVAILABLE"}
    assert server.lines[-1].startswith("error: ")
    assert os.strerror(errno.EIO).lower() in server.lines[-1].lower()
    assert recorded(server.spool) == [stream("known")]
