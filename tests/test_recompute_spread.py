"""Metrics made again by others: the same store, row by row, whoever dies meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from conftest import CAPTURES, FEW
from prepared import framewalk
from test_recompute import EVER, Rows, rows_of

from framewalk.engine import Plan, Store, read_entities, replay
from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.errors import DamagedLogsError
from framewalk.engine.oal.plan import make_plan
from framewalk.engine.remaking import (
    Here,
    Making,
    RecomputingOptions,
    plan_recomputation,
    recompute,
)
from framewalk.engine.spreading import LocalPool, SpreadMaking

BOOKINFO = CAPTURES / "bookinfo"
ALL = ArchiveOptions(Mode.ALL)


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framewalk.engine.spreading.remade._LOGS_OF_TASK", 3_000)
    monkeypatch.setattr("framewalk.engine.spreading.remade._MERGED_AT_ONCE", 2)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, few_plan: Plan) -> Path:
    return half_of(tmp_path_factory.mktemp("half"), few_plan)


def half_of(folder: Path, plan: Plan) -> Path:
    """Make a store with half of the definitions, and an archive of each log in many files."""
    entities = read_entities(BOOKINFO / "kubectl.yaml")
    with (
        Store(folder / "metrics.duckdb", make_plan(plan.metrics[::2])) as store,
        Archive(store, folder / "logs", ALL) as archive,
    ):
        replay([BOOKINFO], entities, store, archive=archive, commit_logs=4_000)
        store.compact()
    return folder


@pytest.fixture(scope="module")
def alone(half: Path, tmp_path_factory: pytest.TempPathFactory, few_plan: Plan) -> Rows:
    """What this process makes."""
    return made(half, tmp_path_factory.mktemp("alone"), few_plan, Here())[0]


def made(
    half: Path, folder: Path, plan: Plan, making: Making, **options: object
) -> tuple[Rows, int]:
    """Return what a copy of the store has when all is made again, and of how many logs."""
    shutil.copytree(half, folder, dirs_exist_ok=True)
    with (
        Store(folder / "metrics.duckdb", plan) as store,
        Archive(store, folder / "logs", ALL) as archive,
    ):
        asked = plan_recomputation(store, archive, [], *EVER)
        # Half of the logs at once: several parts, of several tasks each.
        how = RecomputingOptions(making=making, logs_at_once=20_000, **options)  # type: ignore[arg-type]
        done = recompute(store, archive, asked, how)
        store.compact()
        return rows_of(store), done.logs


@contextmanager
def local(workers: int, folder: Path) -> Iterator[LocalPool]:
    told: list[str] = []
    with LocalPool(workers, folder / "workers", told.append) as pool:
        yield pool
    assert not (folder / "workers").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_what_one_process_makes(
    half: Path, tmp_path: Path, few_plan: Plan, alone: Rows, workers: int
) -> None:
    with local(workers, tmp_path) as pool:
        found, logs = made(half, tmp_path / "store", few_plan, SpreadMaking(pool))
    assert found == alone
    assert logs == made(half, tmp_path / "again", few_plan, Here())[1] > 40_000
    assert found["endpoint_relation_minute"]


def test_what_a_killed_worker_was_at_is_done_again(
    half: Path, tmp_path: Path, few_plan: Plan, alone: Rows
) -> None:
    told: list[str] = []
    killed: set[int] = set()
    with LocalPool(2, tmp_path / "workers", told.append) as pool:

        def kill(_done: int, _all: int) -> None:
            for process in {*pool.processes} - killed:
                if len(killed) < 3:
                    killed.add(process)
                    os.kill(process, signal.SIGKILL)

        making = SpreadMaking(pool)
        found, _ = made(half, tmp_path / "store", few_plan, making, on_progress=kill)
    assert found == alone
    assert len(killed) == 3
    assert all("another worker does it again" in one for one in told)


def test_a_file_that_cannot_be_read_is_named_and_left_out(
    half: Path, tmp_path: Path, few_plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = shutil.copytree(half, tmp_path / "damaged")
    path = max((damaged / "logs" / "transfer").rglob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(content)
    for at, workers in enumerate((0, 2)):
        with local(workers, tmp_path) if workers else nullcontext() as pool:
            making = Here() if pool is None else SpreadMaking(pool)
            with pytest.raises(DamagedLogsError, match="some of its files are damaged"):
                made(damaged, tmp_path / f"{at}", few_plan, making)
        assert caplog.messages.pop() == "archived logs cannot be read, they are left out"


def test_the_command_has_workers_for_archives_and_captures(
    half: Path, tmp_path: Path, few_plan: Plan, alone: Rows
) -> None:
    store = shutil.copytree(half, tmp_path / "command") / "metrics.duckdb"
    asked = ("recompute", "--store", store, "--oal", FEW, "--workers", "2")
    done = framewalk(*asked, "--archive", store.parent / "logs")
    assert (done.returncode, done.stderr) == (0, "")
    done = framewalk(*asked, "--captures", BOOKINFO, "--entities", BOOKINFO / "kubectl.yaml")
    assert done.returncode == 0, done.stderr
    with Store(store, few_plan) as opened:
        assert rows_of(opened) == alone


def test_a_scheduler_without_tls_is_refused(half: Path, tmp_path: Path) -> None:
    store = shutil.copytree(half, tmp_path / "command") / "metrics.duckdb"
    asked = ("recompute", "--store", store, "--oal", FEW)
    done = framewalk(*asked, "--scheduler", "tcp://127.0.0.1:1")
    assert done.returncode == 1
    assert "without TLS anyone who reaches this port runs code" in " ".join(done.stderr.split())
