"""What an operator sees and asks for: signals, permissions, stores that cannot be opened."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

from recording import FRAMEWALK, Start, collect, stream
from serving import BOOKINFO, Serve, send

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


# Permissions


def test_files_and_folders_are_for_their_user_only(serve: Serve, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        server = serve("--entities", DUMP, FRAMEWALK_SQL="default")
        send(server, BOOKINFO)
        server.wait_until_stored(12_328)
        made = modes(tmp_path)
        replayed, copy = tmp_path / "replayed.duckdb", tmp_path / "copy.duckdb"
        framewalk("replay", BOOKINFO, "--entities", DUMP, "--store", replayed)
        framewalk("snapshot", copy, "--store", server.store)
        assert server.stop() == 0
        made |= modes(tmp_path)
    finally:
        os.umask(before)
    names = {path.name for path in made}
    assert {"spool", "lock", "metrics.duckdb", "metrics.duckdb.server.json"} < names
    assert {"replayed.duckdb", "copy.duckdb"} < names
    assert any(name.endswith(".capture.arrows") for name in names)
    assert set(made.values()) == {0o600, 0o700}
    assert not server.find("every user can read this")


def test_a_spool_that_every_user_can_read_is_named(serve: Serve, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(0o755)
    server = serve()
    assert server.wait_for("every user can read this")["path"] == str(spool)


def modes(folder: Path) -> dict[Path, int]:
    return {path: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def framewalk(*arguments: str | Path) -> None:
    subprocess.run([FRAMEWALK, *arguments], check=True, capture_output=True)
