"""A store remembers its definitions: adding and removing is free, changing is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import CAPTURES

from framewalk.engine import (
    CaptureReader,
    CaptureWriter,
    Entities,
    Plan,
    Store,
    StoreError,
    load_plan,
    read_entities,
    replay,
)

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


def test_what_a_server_takes_begins_with_the_next_minute(
    tmp_path: Path, half: Path, entities: Entities
) -> None:
    """Of the minute in which it does all logs count in what metrics meant before."""
    path = tmp_path / "store.duckdb"
    changed = READS.replace('"read"', '"write"')
    columns = "reads, writes, sizes"
    with Store(path, plan_of(tmp_path, READS)) as store:
        replay([half], entities, store)
        newest = max(row[0] for row in rows(store, "reads"))
    with Store(path, plan_of(tmp_path, changed, WRITES, SIZES), at_s=4e9) as store:
        replay([BOOKINFO], entities, store)
        for _ in range(2):
            found = rows(store, columns)
            hours = store.query(f"SELECT {columns} FROM service_hour").fetchall()
            assert set(hours) == {(None, None, None)}
            store.compact()
    with (
        Store(":memory:", plan_of(tmp_path, READS)) as old,
        Store(":memory:", plan_of(tmp_path, changed, WRITES, SIZES)) as new,
    ):
        replay([BOOKINFO], entities, old)
        replay([BOOKINFO], entities, new)
        before = [row for row in rows(old, "reads, NULL, NULL") if row[0] <= newest]
        after = [row for row in rows(new, columns) if row[0] > newest]
    assert found == before + after
    assert before
    assert after


def test_what_can_be_made_of_the_states_that_are_there_has_values_at_once(
    tmp_path: Path, half: Path, entities: Entities
) -> None:
    path = tmp_path / "store.duckdb"
    with Store(path, plan_of(tmp_path, READS)) as store:
        replay([half], entities, store)
        before = store.query("SELECT service, reads FROM service_minute ORDER BY ALL").fetchall()
    counted = READS.replace("cpm", "count")
    with Store(
        path, plan_of(tmp_path, counted, counted.replace("reads", "again")), at_s=4e9
    ) as one:
        for name in ("reads", "again"):
            view = f"SELECT service, {name} FROM service_minute ORDER BY ALL"
            assert one.query(view).fetchall() == before
        assert one.query("FROM former_meanings").fetchall() == []


def test_a_meaning_that_comes_back_is_the_same_again(
    tmp_path: Path, half: Path, entities: Entities
) -> None:
    path = tmp_path / "store.duckdb"
    texts = [READS, READS.replace('"read"', '"write"'), READS]
    with Store(path, plan_of(tmp_path, READS)) as store:
        replay([half], entities, store)
        before = rows(store, "reads")
    for text in texts[1:]:
        with Store(path, plan_of(tmp_path, text), at_s=4e9) as store:
            assert rows(store, "reads") == before
            ((definition,),) = store.query("SELECT definition FROM metrics").fetchall()
            assert ('"write"' in definition) == ('"write"' in text)


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


def test_metrics_of_one_scope_are_all_values_that_there_are(
    tmp_path: Path, half: Path, entities: Entities
) -> None:
    plan = plan_of(tmp_path, "calls = from(K8SEndpoint.*).cpm();")
    with Store(tmp_path / "store.duckdb", plan) as store:
        replay([half], entities, store)
        calls = store.query("SELECT calls FROM endpoint_minute ORDER BY ALL").fetchall()
        long_form = "SELECT value FROM metric_values WHERE resolution = 'minute' ORDER BY ALL"
        assert store.query(long_form).fetchall() == calls != []


COUNT = 'w_count = from(K8SService.*).filter(type == "write").count();'
SUM = 'w_sum = from(K8SService.write.duration).filter(type == "write").sum();'
AVERAGE = 'w_avg = from(K8SService.write.duration).filter(type == "write").longAvg();'
SHARE = 'w_share = from(K8SService.*).percent(type == "write");'
LABELS = """
by_kind = from(K8SService.*).labelCount(type);
time_by_kind = from(K8SService.*).labelAvg(type, write.duration);
"""


def rows_of(store: Store, view: str, columns: str) -> list[tuple[object, ...]]:
    return store.query(f"SELECT service, {columns} FROM {view} ORDER BY ALL").fetchall()


def test_a_new_metric_that_shares_a_state_has_no_value_before(
    tmp_path: Path, half: Path, entities: Entities
) -> None:
    path = tmp_path / "store.duckdb"
    with Store(path, plan_of(tmp_path, COUNT)) as store:
        replay([half], entities, store)
    with Store(path, plan_of(tmp_path, COUNT, SUM, AVERAGE, SHARE, LABELS)) as store:
        columns = "w_sum, w_avg, w_share, by_kind, time_by_kind"
        for view in ("service_minute", "service_hour", "service_day"):
            assert {row[1:] for row in rows_of(store, view, columns)} == {(None,) * 5}
        assert store.query("SELECT count(*) FROM metric_values").fetchall() != [(0,)]


def test_a_bucket_does_not_mix_logs_of_before_and_after_a_change(
    tmp_path: Path, entities: Entities
) -> None:
    """The average of a day that has it for half of its logs is the average of that half."""
    even, odd = split_by_stream(tmp_path)
    columns = "w_sum, w_avg, by_kind, time_by_kind"
    plan = plan_of(tmp_path, COUNT, SUM, AVERAGE, LABELS)
    with Store(tmp_path / "odd.duckdb", plan) as store:
        replay([odd], entities, store)
        want = rows_of(store, "service_day", columns)
        odd_writes = store.query("SELECT sum(w_count) FROM service_day").fetchall()[0][0]
    with Store(tmp_path / "both.duckdb", plan_of(tmp_path, COUNT)) as store:
        replay([even], entities, store)
    with Store(tmp_path / "both.duckdb", plan) as store:
        replay([odd], entities, store)
        assert rows_of(store, "service_day", columns) == want
        assert store.query("SELECT sum(w_count) FROM service_day").fetchall()[0][0] > odd_writes


def split_by_stream(folder: Path) -> tuple[Path, Path]:
    """Write the streams with even and those with odd numbers as captures of their own."""
    with CaptureReader(BOOKINFO / "bookinfo.capture.arrows") as reader:
        table = pa.Table.from_batches([batch.messages for batch in reader])
    paths = []
    for parity in (0, 1):
        path = folder / f"{parity}.capture.arrows"
        mine = [number % 2 == parity for number in table["stream"].to_pylist()]
        with CaptureWriter(path) as writer:
            for batch in table.filter(mine).combine_chunks().to_batches():
                writer.write(batch)
        paths.append(path)
    return paths[0], paths[1]


def test_names_that_differ_in_case_only_are_one_name(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    Store(path, plan_of(tmp_path, "Foo = from(K8SService.*).cpm();")).close()
    with pytest.raises(StoreError, match="it defines 'Foo'"):
        Store(path, plan_of(tmp_path, "foo = from(K8SService.*).cpm();"))
