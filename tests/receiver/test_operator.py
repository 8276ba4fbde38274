"""What an operator sees and asks for: signals, permissions, stores that cannot be opened."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from recording import Start, collect, stream
from serving import BOOKINFO, Serve

pytest_plugins = ["servers"]

DUMP = BOOKINFO / "kubectl.yaml"


# SIGHUP


def test_sighup_reads_the_entities_again(serve: Serve, tmp_path: Path) -> None:
    dump = tmp_path / "cluster.yaml"
    shutil.copy(DUMP, dump)
    server = serve("--entities", dump, FRAMEWALK_ENTITIES_RELOAD_SECONDS="0")
    server.wait_for("engine ready")
    dump.write_text("{")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("entities not read, the old ones stay")
    shutil.copy(DUMP, dump)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("entities read again")
    assert collect(server.address, stream("a")) == b""
    assert server.stop() == 0


def test_sighup_at_any_time_ends_nothing(serve: Serve) -> None:
    server = serve("--entities", DUMP)
    server.wait_for("spool opened")
    for _ in range(20):
        server.process.send_signal(signal.SIGHUP)
    server.wait_for("engine ready")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("entities read again")
    assert server.stop() == 0
    assert server.find("stopped")


def test_sighup_does_not_end_a_server_without_an_engine(start: Start) -> None:
    server = start()
    server.wait_for("ready")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("SIGHUP changes nothing, there is no engine")
    assert collect(server.address, stream("a")) == b""
    assert server.stop() == 0
