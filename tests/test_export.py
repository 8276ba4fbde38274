"""Exports: what the views show, in files that other tools read."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import duckdb
import pytest
from prepared import framewalk

from framewalk.engine import Store, load_plan, read_entities, replay

BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"
OAL = """
calls = from(K8SService.*).cpm();
latencies = from(K8SService.protocol.http.latencyNs).relativePercentile();
kinds = from(K8SServiceRelation.*).labelCount(type);
"""
# What DuckDB 1.0.0 writes and reads.
VERSION_OF_1_0_0 = 64
VIEWS = ("service_minute", "service_day", "service_relation_hour", "metrics", "entities")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    (folder / "some.oal").write_text(OAL, encoding="utf-8")
    path = folder / "exported.duckdb"
    with Store(path, load_plan([folder / "some.oal"])) as opened:
        replay([BOOKINFO], read_entities(BOOKINFO / "kubectl.yaml"), opened)
    return path


def export(target: Path, form: str, store: Path) -> subprocess.CompletedProcess[str]:
    return framewalk("export", target, "--format", form, "--store", store)


def shown(connection: duckdb.DuckDBPyConnection, source: str) -> list[str]:
    columns = sorted(connection.sql(f"FROM {source}").columns)
    rows = connection.sql(f"SELECT {', '.join(columns)} FROM {source}").fetchall()
    return [str(columns), *sorted(map(str, rows))]


def test_parquet_has_what_the_views_show(store: Path, tmp_path: Path) -> None:
    done = export(tmp_path / "out", "parquet", store)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    with duckdb.connect(str(store), read_only=True) as connection:
        for view in VIEWS:
            exported = shown(duckdb.connect(), f"'{tmp_path}/out/{view}.parquet'")
            assert exported == shown(connection, view)
            assert len(exported) > 2


def test_a_file_for_duckdb_1_has_what_the_views_show(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.duckdb"
    done = export(target, "duckdb-1", store)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"out.duckdb"}
    name, version = struct.unpack_from("<4sQ", target.read_bytes(), 8)
    assert (name, version) == (b"DUCK", VERSION_OF_1_0_0)
    assert struct.unpack_from("<Q", store.read_bytes(), 12)[0] > VERSION_OF_1_0_0
    with (
        duckdb.connect(str(store), read_only=True) as connection,
        duckdb.connect(str(target), read_only=True) as old,
    ):
        assert old.sql("SELECT 1 FROM duckdb_views() WHERE NOT internal").fetchall() == []
        for view in VIEWS:
            assert shown(old, view) == shown(connection, view)


def test_nothing_is_overwritten_and_a_wrong_store_leaves_nothing(
    store: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.write_text("mine", encoding="utf-8")
    done = export(there, "duckdb-1", store)
    assert (done.returncode, there.read_text(encoding="utf-8")) == (1, "mine")
    assert "this is there already" in done.stderr
    done = export(tmp_path / "none", "parquet", tmp_path / "no.duckdb")
    assert done.returncode == 1
    assert "there is no such file" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"there"}
