"""A write-ahead log that is damaged: a clear error, or a store as of its last whole transaction.

A process that is killed leaves one beside its store, and a disk or a copy may damage it. A count
that is wrong would be the one thing that nobody notices.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from comparison import Values, differences, read_views

from framewalk.engine import Plan, Store, StoreError, read_entities, replay

BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"
FEW_LOGS = 5_000

Killed = tuple[Path, Values]


@pytest.fixture(scope="session")
def plan(few_plan: Plan) -> Plan:
    return few_plan


@pytest.fixture(scope="module")
def killed(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """A folder with a store and its write-ahead log as a killed process leaves them."""
    folder = tmp_path_factory.mktemp("killed")
    left = tmp_path_factory.mktemp("left")
    with Store(folder / "w.duckdb", plan) as store:
        replay([BOOKINFO], read_entities(BOOKINFO / "kubectl.yaml"), store, commit_logs=FEW_LOGS)
        for path in folder.iterdir():
            shutil.copy(path, left)
        return left, read_views(store)


def cut_in_half(wal: bytes) -> bytes:
    return wal[: len(wal) // 2]


def cut_by_ten_bytes(wal: bytes) -> bytes:
    return wal[:-10]


def three_bytes_flipped(wal: bytes) -> bytes:
    damaged = bytearray(wal)
    for at in (len(wal) // 2, len(wal) // 2 + 1, len(wal) // 2 + 2):
        damaged[at] ^= 0xFF
    return bytes(damaged)


def end_zeroed(wal: bytes) -> bytes:
    return wal[:-200] + bytes(200)


def random_bytes(wal: bytes) -> bytes:
    return random.Random(13).randbytes(len(wal))  # noqa: S311 - damage, no secret


def complaint(path: Path, plan: Plan) -> str:
    """What is said of a store that cannot be opened; nothing if it can."""
    try:
        Store(path, plan).close()
    except StoreError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "damage", [cut_in_half, cut_by_ten_bytes, three_bytes_flipped, end_zeroed, random_bytes]
)
def test_nothing_is_counted_twice_or_left_out_in_silence(
    killed: Killed, plan: Plan, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    left, whole = killed
    path = Path(shutil.copytree(left, tmp_path / "copy")) / "w.duckdb"
    wal = path.with_name("w.duckdb.wal")
    wal.write_bytes(damage(wal.read_bytes()))
    told = complaint(path, plan)
    if told:
        assert str(path) in told
        assert "damaged" in told
        wal.rename(tmp_path / "moved aside")
    with Store(path, plan) as store:
        replay([BOOKINFO], read_entities(BOOKINFO / "kubectl.yaml"), store)
        assert differences(read_views(store), whole) == []


def test_a_whole_log_is_taken_and_nothing_is_counted_again(
    killed: Killed, plan: Plan, tmp_path: Path
) -> None:
    left, whole = killed
    path = Path(shutil.copytree(left, tmp_path / "copy")) / "w.duckdb"
    with Store(path, plan) as store:
        assert differences(read_views(store), whole) == []
        summary = replay([BOOKINFO], read_entities(BOOKINFO / "kubectl.yaml"), store)
        assert summary.counters.messages == 0
        assert differences(read_views(store), whole) == []
