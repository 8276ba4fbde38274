"""A replay that a Dask cluster computes: the same store, whichever of its processes dies."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from dask_cluster import Cluster, cluster_of
from prepared import COMMAND, framewalk
from processes import children_of, ending, free_port
from test_recompute_spread import half_of
from test_recompute_spread import made as made_again
from test_replay_once import cut, write_batches
from test_spreading import Stored, stored
from waiting import wait_until

from framewalk.engine.captures.format import CaptureReader
from framewalk.engine.errors import WorkersError
from framewalk.engine.kubernetes.addresses import Entities, read_entities
from framewalk.engine.oal.plan import Plan, make_plan
from framewalk.engine.remaking import Here
from framewalk.engine.runs.replayer import ReplayProgress, ReplaySummary
from framewalk.engine.spreading import (
    ClusterPool,
    ReplayOptions,
    SpreadMaking,
    TlsFiles,
    replay_spread,
)
from framewalk.engine.store.store import Store

CAPTURES = Path(__file__).parent.parent / "fixtures" / "captures"
BOOKINFO = CAPTURES / "bookinfo" / "bookinfo.capture.arrows"
BOUTIQUE = CAPTURES / "boutique" / "boutique.capture.arrows"
DUMP = CAPTURES / "bookinfo" / "kubectl.yaml"
FEW = Path(__file__).parent / "few.oal"

Made = tuple[ReplaySummary, Stored]


@pytest.fixture(scope="module")
def some(plan: Plan) -> Plan:
    return make_plan(plan.metrics[::12])


@pytest.fixture(scope="module")
def entities() -> Entities:
    return read_entities(DUMP)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with CaptureReader(BOOKINFO) as reader:
        rows = pa.Table.from_batches([batch.messages for batch in reader])
    return write_batches(tmp_path_factory.mktemp("capture") / "all.capture.arrows", cut(rows, 500))


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framewalk.engine.stages.pipeline.BATCH_MESSAGES", 1_000)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of(2, tmp_path_factory.mktemp("cluster") / "own") as started:
        yield started


def made(
    store: Path, plan: Plan, entities: Entities, captures: list[Path], cluster: Cluster | None
) -> Made:
    options = ReplayOptions(commit_logs=5_000)
    with Store(store, plan) as opened:
        if cluster is None:
            return replay_spread(captures, entities, opened, None, options), stored(opened)
        with ClusterPool(cluster.address, files_of(cluster)) as pool:
            return replay_spread(captures, entities, opened, pool, options), stored(opened)


def files_of(cluster: Cluster) -> TlsFiles:
    return TlsFiles(cluster.ca, cluster.certificate, cluster.key)


def test_a_cluster_makes_the_same_store(
    capture: Path, some: Plan, entities: Entities, cluster: Cluster, tmp_path: Path
) -> None:
    captures = [capture, BOUTIQUE]
    want = made(tmp_path / "one.duckdb", some, entities, captures, None)
    assert made(tmp_path / "several.duckdb", some, entities, captures, cluster) == want
    again, found = made(tmp_path / "several.duckdb", some, entities, captures, cluster)
    assert (again.counters.messages, found) == (0, want[1])


def test_a_cluster_makes_metrics_again(few_plan: Plan, cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    half = half_of(tmp_path / "half", few_plan)
    want = made_again(half, tmp_path / "one", few_plan, Here())
    with ClusterPool(cluster.address, files_of(cluster)) as pool:
        assert made_again(half, tmp_path / "several", few_plan, SpreadMaking(pool)) == want


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 4])
def test_so_do_other_numbers_of_workers(
    capture: Path, some: Plan, entities: Entities, tmp_path: Path, workers: int
) -> None:
    want = made(tmp_path / "one.duckdb", some, entities, [capture], None)
    with cluster_of(workers, tmp_path / "cluster") as cluster:
        assert made(tmp_path / "several.duckdb", some, entities, [capture], cluster) == want


def test_a_worker_and_a_nanny_are_killed(
    capture: Path, some: Plan, entities: Entities, tmp_path: Path
) -> None:
    want = made(tmp_path / "one.duckdb", some, entities, [capture, BOUTIQUE], None)
    with cluster_of(2, tmp_path / "cluster") as cluster:
        left, killed = cluster.nannies
        victims = [lambda: worker_of(left.pid), lambda: killed.pid]

        def kill(_: ReplayProgress) -> None:
            if victims:
                os.kill(victims.pop(0)(), signal.SIGKILL)

        with (
            Store(tmp_path / "several.duckdb", some) as store,
            ClusterPool(cluster.address, files_of(cluster)) as pool,
        ):
            wait_until(lambda: pool.workers == 2)
            options = ReplayOptions(commit_logs=5_000, on_progress=kill)
            summary = replay_spread([capture, BOUTIQUE], entities, store, pool, options)
            assert (summary, stored(store)) == want
        assert victims == []
        assert killed.wait() == -signal.SIGKILL


def worker_of(nanny: int) -> int:
    (worker,) = children_of(nanny, "spawn_main")
    return worker


def test_a_dead_scheduler_is_told_and_another_goes_on(
    capture: Path, some: Plan, entities: Entities, cluster: Cluster, tmp_path: Path
) -> None:
    want = made(tmp_path / "one.duckdb", some, entities, [capture], None)
    path = tmp_path / "several.duckdb"
    with cluster_of(1, tmp_path / "cluster") as dying, Store(path, some) as store:

        def kill(done: ReplayProgress) -> None:
            if done.logs > 10_000:
                dying.scheduler.kill()

        options = ReplayOptions(commit_logs=5_000, on_progress=kill)
        with (
            ClusterPool(dying.address, files_of(dying)) as pool,
            pytest.raises(WorkersError, match=f"^{dying.address}: the scheduler cannot be"),
        ):
            replay_spread([capture], entities, store, pool, options)
    summary, found = made(path, some, entities, [capture], cluster)
    assert found == want[1]
    assert 0 < summary.counters.messages < want[0].counters.messages


def test_the_command_uses_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    store = tmp_path / "store.duckdb"
    done = framewalk(*replaying(store), "--scheduler", cluster.address, *tls_options(cluster))
    assert (done.returncode, done.stderr) == (0, "")
    assert "messages\t12,875" in done.stdout


@pytest.mark.long
def test_the_command_tells_of_a_dead_scheduler_in_a_line(tmp_path: Path) -> None:
    store = tmp_path / "store.duckdb"
    with cluster_of(1, tmp_path / "cluster") as cluster:
        command = [COMMAND, *replaying(store), "--scheduler", cluster.address]
        command += tls_options(cluster)
        with ending(subprocess.Popen(command, stderr=subprocess.PIPE, text=True)) as process:
            # By then it has found its workers.
            wait_until(store.exists)
            cluster.scheduler.kill()
            _, told = process.communicate()
    assert process.returncode == 1
    assert told.startswith(f"error: {cluster.address}: the scheduler cannot be reached")
    assert len(told.splitlines()) == 1


def replaying(store: Path) -> list[str | Path]:
    return ["replay", BOOKINFO, "--entities", DUMP, "--oal", FEW, "--store", store]


def tls_options(cluster: Cluster) -> list[str | Path]:
    names = ("--scheduler-ca", "--scheduler-certificate", "--scheduler-key")
    paths = (cluster.ca, cluster.certificate, cluster.key)
    return [part for pair in zip(names, paths, strict=True) for part in pair]


# Files that are there, and are not PEM.
NO_PEM = [part for name in ("ca", "certificate", "key") for part in (f"--scheduler-{name}", DUMP)]


@pytest.mark.parametrize(
    ("address", "options", "words"),
    [
        ("tcp://127.0.0.1:{port}", [], "without TLS anyone who reaches this port runs code"),
        ("127.0.0.1:{port}", [], "without TLS anyone who reaches this port runs code"),
        ("tls://127.0.0.1:{port}", ["--scheduler-ca", DUMP], "TLS needs three files"),
        ("tls://127.0.0.1:{port}", [], "TLS needs three files"),
        ("tls://127.0.0.1:{port}", NO_PEM, "the files of TLS cannot be used"),
        ("nowhere", ["--scheduler-without-tls"], "this is no address of a scheduler"),
    ],
)
def test_what_is_no_safe_way_to_a_scheduler_is_refused(
    tmp_path: Path, address: str, options: list[str | Path], words: str
) -> None:
    asked = address.format(port=free_port())
    store = tmp_path / "store.duckdb"
    done = framewalk(*replaying(store), "--scheduler", asked, *options)
    assert done.returncode == 1
    assert words in " ".join(done.stderr.split())
    assert not store.exists()
