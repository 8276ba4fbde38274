"""A store remembers its definitions: adding and removing is free, changing is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import CAPTURES

from framewalk.engine import Entities, Plan, Store, StoreError, load_plan, read_entities, replay

BOOKINFO = CAPTURES / "bookinfo"

READS = 'reads = from(K8SService.*).filter(type == "read").cpm();'
WRITES = 'writes = from(K8SService.*).filter(type == "write").cpm();'
SIZES = """
sizes = from(K8SService.write.l4.totalPackageSize).filter(type == "write").sum();
latencies = from(K8SService.protocol.http.latency).percentile2(10);
"""


@pytest.fixture(scope="module")
def entities() -> Entities:
    return read_entities(BOOKINFO / "kubectl.yaml")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture that ends in the middle of the whole one."""
    whole = (BOOKINFO / "bookinfo.capture.arrows").read_bytes()
    path = tmp_path_factory.mktemp("half") / "half.capture.arrows"
    path.write_bytes(whole[: len(whole) // 2])
    return path


def plan_of(folder: Path, *texts: str) -> Plan:
    path = folder / "definitions.oal"
    path.write_text("\n".join(texts), encoding="utf-8")
    return load_plan([path])


def rows(store: Store, columns: str) -> list[tuple[object, ...]]:
    query = f"SELECT time_bucket, service, {columns} FROM service_minute ORDER BY ALL"
    return store.query(query).fetchall()


def test_added_metrics_are_null_before_and_filled_after(
    tmp_path: Path, half: Path, entities: Entities
) -> None:
    path = tmp_path / "store.duckdb"
    with Store(path, plan_of(tmp_path, READS)) as store:
        replay([half], entities, store)
        before = rows(store, "reads")
    with Store(path, plan_of(tmp_path, READS, WRITES, SIZES)) as store:
        assert rows(store, "reads") == before
        assert {row[2:] for row in rows(store, "writes, sizes, latencies")} == {(None, None, None)}
        replay([BOOKINFO], entities, store)
        assert sum(row[2] for row in rows(store, "coalesce(sizes, 0)")) > 0
        assert any(row[2] for row in rows(store, "latencies"))
    with Store(tmp_path / "whole.duckdb", plan_of(tmp_path, READS)) as whole:
        replay([BOOKINFO], entities, whole)
        expected = rows(whole, "reads")
    with Store(path, plan_of(tmp_path, READS)) as store:
        assert rows(store, "reads") == expected


def test_removed_metrics_stay_but_are_not_filled(
    tmp_path: Path, half: Path, entities: Entities
) -> None:
    path = tmp_path / "store.duckdb"
    with Store(path, plan_of(tmp_path, READS, WRITES)) as store:
        replay([half], entities, store)
        before = sum(row[2] for row in rows(store, "coalesce(writes, 0)"))
    with Store(path, plan_of(tmp_path, READS)) as store:
        replay([BOOKINFO], entities, store)
        assert sum(row[2] for row in rows(store, "coalesce(writes, 0)")) == before > 0
        names = store.query("SELECT name FROM metrics ORDER BY name").fetchall()
        assert names == [("reads",), ("writes",)]


def test_a_changed_meaning_is_refused_and_nothing_is_lost(
    tmp_path: Path, half: Path, entities: Entities
) -> None:
    path = tmp_path / "store.duckdb"
    with Store(path, plan_of(tmp_path, READS)) as store:
        replay([half], entities, store)
        before = rows(store, "reads")
    changed = READS.replace("cpm", "count")
    with pytest.raises(
        StoreError, match=r"'reads' as .*cpm.*count.*give the new meaning a new name"
    ):
        Store(path, plan_of(tmp_path, changed, WRITES))
    with Store(path, plan_of(tmp_path, READS)) as store:
        assert rows(store, "reads") == before


def test_other_ways_to_write_the_same_are_no_change(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    client, read = "filter(detectPoint == DetectPoint.CLIENT)", 'filter(type == "read")'
    one = f"a = from(K8SService.*).{client}.{read}.cpm();"
    other = f"a=from(K8SService.*) . {read} . {client}\n.cpm()"
    Store(path, plan_of(tmp_path, one)).close()
    Store(path, plan_of(tmp_path, other)).close()


def test_a_copy_of_a_store_is_a_store(tmp_path: Path, half: Path, entities: Entities) -> None:
    plan = plan_of(tmp_path, READS)
    with Store(tmp_path / "one.duckdb", plan) as store:
        replay([half], entities, store)
        before = rows(store, "reads")
    shutil.copy(tmp_path / "one.duckdb", tmp_path / "two.duckdb")
    with Store(tmp_path / "two.duckdb", plan) as store:
        assert rows(store, "reads") == before
