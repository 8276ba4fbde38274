"""Stores of earlier versions are brought up to date when they are opened for writing."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from processes import ending

from framewalk.engine import Plan, Store, open_for_reading, read_entities, replay

STORES = Path(__file__).parent / "stores"
# Made by `framewalk replay` of commit 9513141 (version 1) and of commit 52c4980 with
# `--commit-logs 20000` (version 2), each out of its bookinfo capture.
CAPTURES = Path(__file__).parents[1] / "fixtures" / "captures"
METRICS = (
    "SELECT count(*), sum(value), "
    "sum(hash(time_bucket, resolution, metric, entity, label, value)) FROM metric_values"
)
# Identifiers were others.
ENTITIES = "SELECT * EXCLUDE entity_id FROM entities ORDER BY scope, names::VARCHAR"
NEWEST = 3

Unpack = Callable[[int], Path]


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    def unpacked(version: int) -> Path:
        path = tmp_path / "store.duckdb"
        with pa.input_stream(
            STORES / f"version_{version}.duckdb.zst", compression="zstd"
        ) as packed:
            path.write_bytes(packed.read())
        return path

    return unpacked


@pytest.fixture
def version_1(unpack: Unpack) -> Path:
    return unpack(1)


@pytest.fixture
def version_2(unpack: Unpack) -> Path:
    return unpack(2)


def read(path: Path, sql: str) -> list[Any]:
    connection = open_for_reading(path)
    try:
        return connection.sql(sql).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_an_earlier_version_is_read_as_it_is(version: int, unpack: Unpack) -> None:
    path = unpack(version)
    assert read(path, "FROM internal.store") == [(version,)]
    assert read(path, "SELECT count(*) FROM service_minute")[0][0] > 0


@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_an_earlier_version_keeps_every_value(
    version: int, unpack: Unpack, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = unpack(version)
    before = read(path, METRICS), read(path, ENTITIES)
    size_bytes = path.stat().st_size
    unknown = read(path, "FROM unknown_peers ORDER BY ALL") if version > 1 else []
    with Store(path, plan) as store:
        assert store.query(ENTITIES).fetchall() == before[1]
        assert store.query("FROM unknown_peers ORDER BY ALL").fetchall() == unknown
        store.compact(2**31)
        assert values_of(store) == before
    told = [(record.message, getattr(record, "facts", {})) for record in caplog.records]
    assert told[0][0] == "store of an earlier version is brought up to date"
    assert told[0][1]["version"] == version
    assert told[0][1]["wanted_bytes"] == size_bytes
    assert [facts["done"] for event, facts in told if "done" in facts][-1] == "6 of 6 scopes"
    assert read(path, "FROM internal.store") == [(NEWEST,)]
    # It is as good as a new one.
    with Store(path, plan) as store:
        entities = read_entities(CAPTURES / "boutique")
        assert replay([CAPTURES / "boutique"], entities, store).counters.logs > 0
        assert store.query("SELECT count(*) > 0 FROM unknown_peers").fetchall() == [(True,)]


def values_of(store: Store) -> tuple[list[Any], list[Any]]:
    return store.query(METRICS).fetchall(), store.query(ENTITIES).fetchall()


def test_unknown_is_identified_as_everybody_is(version_1: Path, plan: Plan) -> None:
    sql = "SELECT DISTINCT entity_id FROM service_relation_minute WHERE source_service = 'Unknown'"
    assert all(".0-" in one for (one,) in read(version_1, sql))
    with Store(version_1, plan) as store:
        identifiers = [one for (one,) in store.query(sql).fetchall()]
    assert identifiers
    assert all(one.startswith("VW5rbm93bg==.1-") for one in identifiers)


def test_a_migration_is_all_or_nothing(version_1: Path, plan: Plan) -> None:
    """What is in its way undoes all of it, and the store can be used as before."""
    connection = duckdb.connect(str(version_1))
    connection.execute("CREATE TABLE internal.pods (mine INTEGER)").fetchall()
    connection.close()
    with pytest.raises(Exception, match="pods"):
        Store(version_1, plan)
    assert read(version_1, "FROM internal.store") == [(1,)]
    assert read(version_1, "SELECT count(*) FROM service_minute")[0][0] > 0


MIGRATE = """
import logging, sys
from framewalk.engine import Store, load_plan
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
Store(sys.argv[1], load_plan()).close()
"""


@pytest.mark.parametrize(("lines", "version"), [(4, 2), (8, 3)])
def test_a_migration_that_is_killed_leaves_the_old_store_or_the_new_one(
    version_2: Path, plan: Plan, lines: int, version: int
) -> None:
    """Killed after a line of its progress: it begins, six scopes, it has ended."""
    columns = "time_bucket, source_service, kubernetes_service_relation_client_percentile"
    asked = f"SELECT count(*), sum(hash({columns})) FROM service_relation_hour"
    before = read(version_2, asked)
    # A line for the beginning, one for each scope, one for the end.
    command = [sys.executable, "-c", MIGRATE, str(version_2)]
    with ending(subprocess.Popen(command, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline().startswith(b"store ")
        process.kill()
    assert read(version_2, "FROM internal.store") == [(version,)]
    assert read(version_2, asked) == before
    with Store(version_2, plan) as store:
        assert store.query(asked).fetchall() == before
