"""Stores of earlier versions are brought up to date when they are opened for writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from framewalk.engine import Plan, Store, open_for_reading, read_entities, replay

# Made by `framewalk replay` of commit 9513141 out of its bookinfo capture.
VERSION_1 = Path(__file__).parent / "stores" / "version_1.duckdb.zst"
CAPTURES = Path(__file__).parents[1] / "fixtures" / "captures"
METRICS = "SELECT count(*), sum(value), sum(hash(metric, entity, label, value)) FROM metric_values"


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    path = tmp_path / "store.duckdb"
    with pa.input_stream(VERSION_1, compression="zstd") as packed:
        path.write_bytes(packed.read())
    return path


def read(path: Path, sql: str) -> list[Any]:
    connection = open_for_reading(path)
    try:
        return connection.sql(sql).fetchall()
    finally:
        connection.close()


def test_a_store_of_version_1_is_read_as_it_is(version_1: Path) -> None:
    assert read(version_1, "FROM internal.store") == [(1,)]
    assert read(version_1, "SELECT count(*) FROM service_minute")[0][0] > 0


def test_a_store_of_version_1_keeps_every_value(version_1: Path, plan: Plan) -> None:
    before = read(version_1, METRICS)
    tables = "SELECT table_name, estimated_size FROM duckdb_tables() ORDER BY ALL"
    rows = dict(read(version_1, tables))
    with Store(version_1, plan) as store:
        assert store.query(METRICS).fetchall() == before
        assert store.query("SELECT count(*) FROM unknown_peers").fetchall() == [(0,)]
    after = dict(read(version_1, tables))
    assert {name: size for name, size in after.items() if name in rows} == rows
    assert read(version_1, "FROM internal.store") == [(2,)]
    # It is as good as a new one.
    with Store(version_1, plan) as store:
        entities = read_entities(CAPTURES / "boutique")
        assert replay([CAPTURES / "boutique"], entities, store).counters.logs > 0
        assert store.query("SELECT count(*) > 0 FROM unknown_peers").fetchall() == [(True,)]


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
    connection.execute("CREATE TABLE internal.pods (mine INTEGER)")
    connection.close()
    with pytest.raises(Exception, match="pods"):
        Store(version_1, plan)
    assert read(version_1, "FROM internal.store") == [(1,)]
    assert read(version_1, "SELECT count(*) FROM service_minute")[0][0] > 0
