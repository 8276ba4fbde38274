"""What an operator sees and asks for: signals, permissions, stores that cannot be opened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2
from prepared import framewalk
from recording import (
    FRAMEWALK,
    Authority,
    Start,
    collect,
    health,
    needs_openssl,
    recorded,
    stream,
    wait_until,
)
from serving import BOOKINFO, Serve, part_of_bookinfo, send

from framewalk.engine import Store
from framewalk.engine.oal.plan import Plan

pytest_plugins = ["servers"]

SERVING = health_pb2.HealthCheckResponse.SERVING
DUMP = BOOKINFO / "kubectl.yaml"
PART = part_of_bookinfo()
MESSAGES = sum(map(len, recorded(PART)))


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


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
        send(server, PART)
        server.wait_until_stored(MESSAGES)
        made = modes(tmp_path)
        replayed, copy = tmp_path / "replayed.duckdb", tmp_path / "copy.duckdb"
        run("replay", PART, "--entities", DUMP, "--store", replayed)
        run("snapshot", copy, "--store", server.store)
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


def run(*arguments: str | Path) -> None:
    framewalk(*arguments).check_returncode()


# Stores that cannot be opened

CLOSED = "store cannot be opened, what comes is kept only"


def test_a_store_in_use_stops_computing_and_not_receiving(
    serve: Serve, tmp_path: Path, plan: Plan
) -> None:
    with Store(tmp_path / "metrics.duckdb", plan):
        server = serve("--entities", DUMP)
        send(server, PART)
        assert "another process has it open" in server.wait_for(CLOSED)["error"]
        assert server.metrics()["k8s_als_in_count"] == MESSAGES
        assert server.metrics()["framewalk_engine_up"] == 0
    server.wait_until_stored(MESSAGES)
    assert server.find("engine died, it is started again") == {}
    assert server.stop() == 0


def test_a_server_without_a_store_stops_in_time(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "metrics.duckdb").write_text("this is no store")
    server = serve()
    assert "this is not a DuckDB file" in server.wait_for(CLOSED)["error"]
    assert collect(server.address, stream("a")) == b""
    assert server.stop() == 0
    assert recorded(server.spool) == [stream("a")]


def test_a_damaged_log_is_named_and_costs_nothing_that_the_spool_has(
    serve: Serve, plan: Plan
) -> None:
    server = serve("--entities", DUMP)
    send(server, PART)
    server.wait_until_stored(MESSAGES)
    server.stop(signal.SIGKILL)
    log = server.store.with_name("metrics.duckdb.wal")
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 0xFF
    log.write_bytes(content)
    server = serve("--entities", DUMP)
    error = server.wait_for(CLOSED)["error"]
    assert f"its write-ahead log {log} is damaged; move the log aside" in error
    assert collect(server.address, stream("nonsense", messages=7)) == b""
    log.rename(log.with_name("aside"))
    wait_until(server.has_stored_all)
    assert server.stop() == 0
    with Store(server.store, plan) as store:
        query = "SELECT sum(count) FROM internal.counters WHERE kind = 'messages'"
        (counted,) = store.query(query).fetchall()[0]
    assert counted == MESSAGES + 7


# Stopping


def test_streams_are_acknowledged_until_the_engine_has_ended(serve: Serve, plan: Plan) -> None:
    server = serve("--entities", DUMP, FRAMEWALK_DRAIN_TIMEOUT_SECONDS="600")
    server.wait_for("engine ready")
    engine = server.engine()
    # As one that is in a long commit.
    os.kill(engine, signal.SIGSTOP)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("draining")
    send(server, PART)
    assert health(server.address) == SERVING
    assert server.process.poll() is None
    os.kill(engine, signal.SIGCONT)
    assert server.wait() == 0
    assert server.find("engine did not finish in time") == {}
    # What the one did not read, the next does.
    server = serve("--entities", DUMP)
    wait_until(server.has_stored_all)
    assert server.stop() == 0
    with Store(server.store, plan) as store:
        query = "SELECT sum(count) FROM internal.counters WHERE kind = 'messages'"
        assert store.query(query).fetchall() == [(MESSAGES,)]


# Variables


def test_variables_that_mean_nothing_are_named(start: Start, tmp_path: Path) -> None:
    unknown = {
        "FRAMEWALK_SPOOL_BUDGET_BYTE": "did you mean FRAMEWALK_SPOOL_BUDGET_BYTES?",
        "SW_AUTHENTIFICATION": "did you mean SW_AUTHENTICATION?",
        "SW_STORAGE_ES_CLUSTER_NODES": "framewalk has no such setting",
    }
    # What Kubernetes sets for a Service that is called framewalk.
    service = {
        "FRAMEWALK_SERVICE_HOST": "10.96.0.7",
        "FRAMEWALK_SERVICE_PORT": "11800",
        "FRAMEWALK_SERVICE_PORT_GRPC": "11800",
        "FRAMEWALK_PORT": "tcp://10.96.0.7:11800",
        "FRAMEWALK_PORT_11800_TCP": "tcp://10.96.0.7:11800",
        "FRAMEWALK_PORT_11800_TCP_ADDR": "10.96.0.7",
    }
    server = start(**dict.fromkeys(unknown, "1"), **service, FRAMEWALK_LOG_LEVEL="info")
    server.wait_for("ready")
    assert server.stop() == 0
    told = [json.loads(line) for line in server.lines if "this variable means nothing" in line]
    assert {one["variable"]: one["hint"] for one in told} == unknown
    file = tmp_path / "own.yml"
    file.write_text("core: {default: {gRPCPort: '${SW_OWN_PORT:1}'}}")
    done = subprocess.run(
        [FRAMEWALK, "config", "check", file],
        env=os.environ | dict.fromkeys(unknown, "1") | {"SW_OWN_PORT": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "SW_AUTHENTIFICATION: this variable means nothing; did you mean" in done.stderr
    assert "SW_OWN_PORT" not in done.stderr


# Status


@needs_openssl
def test_status_finds_the_server_that_sql_finds(serve: Serve, tmp_path: Path) -> None:
    key, chain = Authority(tmp_path / "tls").make("server")
    here = Path.cwd()
    server = serve(
        FRAMEWALK_SQL="default",
        SW_TELEMETRY_PROMETHEUS_HOST="0.0.0.0",  # noqa: S104 - it is asked for at another one
        SW_CORE_GRPC_SSL_ENABLED="true",
        SW_CORE_GRPC_SSL_KEY_PATH=os.path.relpath(key, here),
        SW_CORE_GRPC_SSL_CERT_CHAIN_PATH=os.path.relpath(chain, here),
    )
    server.wait_for("engine ready")
    beside = json.loads(server.store.with_name("metrics.duckdb.server.json").read_bytes())
    assert Path(beside["certificate"]).is_absolute()
    assert Path(beside["certificate"]).samefile(chain)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for command in (["status"], ["sql", "SELECT 1"]):
        done = subprocess.run(
            [FRAMEWALK, *command, "--store", server.store],
            cwd=elsewhere,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert server.stop() == 0


def test_status_of_a_server_without_metrics_says_so(serve: Serve) -> None:
    server = serve(FRAMEWALK_SQL="default", SW_TELEMETRY="none")
    server.wait_for("engine ready")
    done = framewalk("status", "--store", server.store)
    assert done.returncode == 1
    assert "this server serves no metrics; start it with SW_TELEMETRY=prometheus" in done.stderr
