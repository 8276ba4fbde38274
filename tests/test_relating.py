"""Relations between endpoints in the store: made of paired calls, whatever came when."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from capture_parts import in_parts
from conftest import CAPTURES
from damage import spoil
from hypothesis import example, given
from hypothesis import strategies as st

from framewalk.engine import (
    CaptureReader,
    Entities,
    Plan,
    Store,
    read_entities,
    replay,
)
from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.archive.minutes import minutes_near
from framewalk.engine.calls import WINDOW_NS, read_http_logs, relations_of
from framewalk.engine.oal.plan import make_plan
from framewalk.engine.remaking import Related, RelatingOptions, relate
from framewalk.engine.schemas import LONGEST_SERVED_NS
from framewalk.fixtures import GenerateOptions, generate

ROVER = Path(__file__).parent / "rover"
VIEWS = ("endpoint_relation", "endpoint_calls")
EDGE = ("source_service", "source_endpoint", "dest_service", "dest_endpoint", "derivation")
CALLS = "kubernetes_service_endpoint_relation_http_call_cpm"
SEEN = ("seen_by_both", "seen_by_client", "seen_by_server")
HTTP = ArchiveOptions(Mode.HTTP)
MINUTE_NS = 60 * 10**9
LONG = pytest.mark.long

Rows = dict[str, list[tuple[object, ...]]]


def rows_of(store: Store) -> Rows:
    """Return all that a store says of relations, by view."""
    views = [f"{view}_{length}" for view in VIEWS for length in ("minute", "hour", "day")]
    return {
        view: store.query(f"SELECT * FROM {view} ORDER BY ALL").fetchall()
        for view in views
        if store.run("SELECT 1 FROM duckdb_views() WHERE view_name = ?", [view])
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A capture of two clocks over an hour's end, with what really happened."""
    folder = tmp_path_factory.mktemp("made")
    options = GenerateOptions("bookinfo", duration_s=200, requests_per_second=2, clock_offset_s=1)
    begins = options.start.replace(hour=9, minute=58)
    options = replace(options, start=begins)
    generate(options, folder / "made.capture.arrows", folder / "dump.yaml", truth_path=folder / "t")
    return folder


@pytest.fixture(scope="module")
def entities(made: Path) -> Entities:
    return read_entities(made / "dump.yaml")


@pytest.fixture(scope="module")
def parts(made: Path) -> list[Path]:
    """The capture in several, each of whole streams."""
    return in_parts(made / "made.capture.arrows", 6)


@pytest.fixture(scope="module")
def whole(made: Path, entities: Entities, few_plan: Plan) -> Rows:
    """What a replay of everything at once gives."""
    with (
        Store(":memory:", few_plan) as store,
        Archive(store, made / "whole", HTTP) as archive,
    ):
        replay([made / "made.capture.arrows"], entities, store, archive=archive)
        relate(store, archive)
        store.compact()
        return rows_of(store)


def test_relations_of_rover_are_in_the_store(tmp_path: Path, few_plan: Plan) -> None:
    with (
        Store(tmp_path / "metrics.duckdb", few_plan) as store,
        Archive(store, tmp_path / "logs", HTTP) as archive,
    ):
        replay([ROVER / "part1"], read_entities(ROVER / "cluster.json"), store, archive=archive)
        before = store.query(f"SELECT sum({CALLS}) FROM endpoint_relation_minute").fetchall()
        assert before == [(683,)]
        relate(store, archive)
        for length in ("minute", "hour", "day"):
            seen = ", ".join(f"sum({name})" for name in SEEN)
            counts = store.query(f"SELECT {seen} FROM endpoint_calls_{length}").fetchall()
            assert counts == [(683, 297, 0)]
        edges = store.query(
            f"SELECT {', '.join(EDGE)}, sum({CALLS}) FROM endpoint_relation_minute "
            "WHERE derivation <> 'unknown' GROUP BY ALL ORDER BY derivation"
        ).fetchall()
        items = ("frontend.shop", "GET:/api/items", "backend.shop", "GET:/items.json")
        assert edges == [(*items, "exact", 120), (*items, "inferred", 120)]
        total = store.query(f"SELECT sum({CALLS}) FROM endpoint_relation_minute").fetchall()
        assert total == [(980,)]
        nobody = "SELECT count(*) FROM endpoint_relation_day WHERE source_service = 'loadgen.shop'"
        known = f"{nobody} AND source_endpoint <> 'Unknown'"
        assert store.query(known).fetchall() == [(0,)]
        assert archive.changed_minutes() == []


def test_the_store_has_the_calls_that_there_were(
    made: Path, whole: Rows, entities: Entities, few_plan: Plan
) -> None:
    """Against what the generator did, and against the same logs without a store."""
    with CaptureReader(made / "made.capture.arrows") as reader:
        logs = read_http_logs((batch.messages for batch in reader), entities)
    kept = Counter(logs.select("role", "time_ns").iter_rows())
    wanted = Counter[str]()
    for call in pq.read_table(made / "t").to_pylist():
        sides = [one for one in ("client", "server") if kept[one, call[f"{one}_log_ns"]]]
        if sides:
            wanted["both" if len(sides) > 1 else sides[0]] += 1
    seen = Counter[str]()
    for *_, both, client, server in whole["endpoint_calls_minute"]:
        seen.update(both=both, client=client, server=server)
    assert seen == wanted
    assert wanted["both"] > 1_000
    observed = relations_of(logs, few_plan).observed
    rows = {(row[0].minute, *row[1:]) for row in whole["endpoint_calls_minute"]}  # type: ignore[attr-defined]
    found = observed.select(pl.col("minute") % 60, *EDGE, "both", "client", "server")
    assert rows == set(found.iter_rows())
    assert len({row[0] for row in rows}) > 3
    hours = {row[0] for row in whole["endpoint_relation_hour"]}
    assert len(hours) == 2


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(one, marks=LONG) for one in (2, 3))])
def test_order_splits_and_lateness_do_not_matter(  # noqa: PLR0913, PLR0917 - fixtures
    tmp_path: Path,
    parts: list[Path],
    whole: Rows,
    entities: Entities,
    few_plan: Plan,
    seed: int,
) -> None:
    choose = random.Random(seed)  # noqa: S311 - the same each time
    order = choose.sample(parts, len(parts))
    with (
        Store(tmp_path / "metrics.duckdb", few_plan) as store,
        Archive(store, tmp_path / "logs", HTTP) as archive,
    ):
        for path in order:
            replay([path], entities, store, archive=archive)
            if choose.random() < 0.5:
                relate(store, archive)
            if choose.random() < 0.5:
                store.compact()
            if choose.random() < 0.3:
                archive.compact(0)
        once = RelatingOptions(at_most_once=True)
        while relate(store, archive, options=once).has_more:
            pass
        if seed % 2:
            store.compact()
        assert rows_of(store) == whole
        assert relate(store, archive) == Related()


def test_a_minute_that_is_made_again_forgets_what_is_gone(
    tmp_path: Path, parts: list[Path], entities: Entities, few_plan: Plan
) -> None:
    with (
        Store(tmp_path / "metrics.duckdb", few_plan) as store,
        Archive(store, tmp_path / "logs", HTTP) as archive,
    ):
        replay(parts, entities, store, archive=archive)
        relate(store, archive)
        store.forget_unused("endpoint_relation")
        catalogue = "SELECT count(*) FROM entities WHERE scope = 'K8SEndpointRelation'"
        named = f"SELECT count(DISTINCT ({', '.join(EDGE)})) FROM endpoint_relation_minute"
        assert store.query(catalogue).fetchall() == store.query(named).fetchall()


def test_logs_that_are_not_archived_leave_their_minutes_as_they_are(
    tmp_path: Path, parts: list[Path], entities: Entities, few_plan: Plan
) -> None:
    with Store(tmp_path / "metrics.duckdb", few_plan) as store:
        replay(parts[:1], entities, store)
        with Archive(store, tmp_path / "logs", HTTP) as archive:
            replay(parts[1:], entities, store, archive=archive)
            before = rows_of(store)["endpoint_relation_minute"]
            assert relate(store, archive) == Related()
            assert rows_of(store)["endpoint_relation_minute"] == before
    with Store(tmp_path / "other.duckdb", few_plan) as store:
        with Archive(store, tmp_path / "others", HTTP) as archive:
            replay(parts[1:], entities, store, archive=archive)
        replay(parts[:1], entities, store)
        with Archive(store, tmp_path / "others", HTTP) as archive:
            assert relate(store, archive) == Related()
            assert rows_of(store)["endpoint_relation_minute"] == before


@pytest.mark.parametrize("gone", ["missing", "deleted", "damaged", "misnamed"])
def test_logs_that_are_gone_leave_their_minutes_as_they_are(
    tmp_path: Path, parts: list[Path], entities: Entities, few_plan: Plan, gone: str
) -> None:
    with Store(tmp_path / "metrics.duckdb", few_plan) as store:
        with Archive(store, tmp_path / "logs", HTTP) as archive:
            replay(parts, entities, store, archive=archive)
            if gone == "deleted":
                archive.keep_budget(0, 0)
        if gone == "missing":
            shutil.rmtree(tmp_path / "logs" / "http")
        if gone == "damaged":
            for file in (tmp_path / "logs" / "http").glob("*/*"):
                spoil(file)
        if gone == "misnamed":
            for file in (tmp_path / "logs" / "http").glob("*/*"):
                file.write_bytes(file.read_bytes().replace(b"remote_service", b"remote_servicf"))
        before = rows_of(store)
        with Archive(store, tmp_path / "logs", HTTP) as archive:
            assert relate(store, archive) == Related()
            assert bool(store.query("FROM http_logs").fetchall()) is False
        assert rows_of(store)["endpoint_relation_minute"] == before["endpoint_relation_minute"]


def test_minutes_of_too_many_requests_have_what_called_sides_saw(
    tmp_path: Path, parts: list[Path], entities: Entities, few_plan: Plan
) -> None:
    """Also one that was made before the rest of its requests came."""
    with (
        Store(tmp_path / "metrics.duckdb", few_plan) as store,
        Archive(store, tmp_path / "logs", HTTP) as archive,
    ):
        replay(parts[:-1], entities, store, archive=archive)
        relate(store, archive)
        replay(parts[-1:], entities, store, archive=archive)
        done = relate(store, archive, options=RelatingOptions(most_requests=10))
        assert done.minutes > done.crowded > 4
        served = "SELECT count(*) FROM http_logs WHERE role = 'server'"
        counted = f"SELECT sum({CALLS}) FROM endpoint_relation_minute"
        assert store.query(counted).fetchall() == store.query(served).fetchall()
        seen = "SELECT sum(seen_by_both), sum(seen_by_client) FROM endpoint_calls_day"
        assert store.query(seen).fetchall() == [(0, 0)]


def test_endpoints_beyond_the_cap_have_one_name(
    tmp_path: Path, parts: list[Path], entities: Entities, few_plan: Plan
) -> None:
    caps = RelatingOptions(endpoints_per_service=1)
    with (
        Store(tmp_path / "metrics.duckdb", few_plan) as store,
        Archive(store, tmp_path / "logs", HTTP) as archive,
    ):
        replay(parts, entities, store, archive=archive)
        relate(store, archive, options=caps)
        crowded = (
            "SELECT count(*) FROM (SELECT time_bucket, dest_service, "
            "count(DISTINCT dest_endpoint) FILTER (dest_endpoint <> 'others') AS called, "
            "count(DISTINCT (source_service, source_endpoint, dest_endpoint, derivation)) "
            "FILTER (source_endpoint NOT IN ('others', 'Unknown')) AS calling "
            "FROM endpoint_relation_minute GROUP BY ALL) WHERE called > 1 OR calling > 2"
        )
        assert store.query(crowded).fetchall() == [(0,)]
        totals = (
            f"SELECT sum({CALLS}), (SELECT sum(seen_by_both + seen_by_client + seen_by_server) "
            "FROM endpoint_calls_minute) FROM endpoint_relation_minute"
        )
        ((counted, seen),) = store.query(totals).fetchall()
        assert counted == seen > 1_000


# ---- killed meanwhile ---------------------------------------------------------------


@pytest.mark.parametrize("statement", [12, 60, pytest.param(90, marks=LONG)])
def test_a_process_that_is_killed_leaves_each_minute_as_before_or_after(  # noqa: PLR0913, PLR0917 - fixtures
    tmp_path: Path,
    parts: list[Path],
    whole: Rows,
    entities: Entities,
    few_plan: Plan,
    statement: int,
) -> None:
    path, logs = tmp_path / "metrics.duckdb", tmp_path / "logs"
    with Store(path, few_plan) as store, Archive(store, logs, HTTP) as archive:
        replay(parts, entities, store, archive=archive)
        store.compact()
        before = rows_of(store)["endpoint_relation_minute"]
    command = [sys.executable, Path(__file__).with_name("relating_killed.py"), path, logs]
    done = subprocess.run([*command, str(statement)], check=False)
    assert done.returncode == -signal.SIGKILL
    with Store(path, few_plan) as store, Archive(store, logs, HTTP) as archive:
        due = {minute % 60 for minute in archive.changed_minutes()}
        found = rows_of(store)["endpoint_relation_minute"]
        after = whole["endpoint_relation_minute"]
        for rows, is_due in ((before, True), (after, False)):
            wanted = [row for row in rows if (row[0].minute in due) == is_due]  # type: ignore[attr-defined]
            got = [row for row in found if (row[0].minute in due) == is_due]  # type: ignore[attr-defined]
            assert got == wanted
        relate(store, archive)
        store.compact()
        assert rows_of(store) == whole


# ---- connections without HTTP ----------------------------------------------------------


def test_what_a_database_is_used_for(tmp_path: Path, few_plan: Plan) -> None:
    entities = read_entities(CAPTURES / "bookinfo" / "kubectl.yaml")
    with (
        Store(tmp_path / "metrics.duckdb", few_plan) as store,
        Archive(store, tmp_path / "logs", ArchiveOptions(Mode.ALL)) as archive,
    ):
        replay([CAPTURES / "bookinfo"], entities, store, archive=archive)
        relate(store, archive)
        of_database = "FROM {} WHERE dest_service = 'mysqldb.bookinfo'"
        sums = "SELECT sum(bytes_written), sum(bytes_read) "
        logs = store.query(
            "SELECT sum(l4_total_package_size_bytes) FILTER (operation = 'write'), "
            "sum(l2_total_package_size_bytes) FILTER (operation = 'read') FROM transfer_logs "
            "WHERE role = 'client' AND remote_service = 'mysqldb.bookinfo'"
        ).fetchall()
        for length in ("minute", "hour", "day"):
            table = of_database.format(f"endpoint_tcp_relation_{length}")
            assert store.query(sums + table).fetchall() == logs
        rows = store.query(
            "SELECT source_service, derivation, list_sort(list(DISTINCT source_endpoint)), "
            "sum(bytes_written)::BIGINT, sum(connects)::BIGINT "
            + of_database.format("endpoint_tcp_relation_day")
            + " AND source_service <> 'Unknown' GROUP BY ALL ORDER BY derivation"
        ).fetchall()
        (_, _, endpoints, inferred_bytes, connects), (_, _, nowhere, other_bytes, _) = rows
        assert [row[:2] for row in rows] == [
            ("ratings.bookinfo", "inferred"),
            ("ratings.bookinfo", "unknown"),
        ]
        assert endpoints == [f"GET:/ratings/{number}" for number in range(4)]
        assert nowhere == ["Unknown"]
        assert inferred_bytes > 20 * other_bytes
        assert connects > 0
        spoken = "SELECT count(*) FROM endpoint_tcp_relation_day WHERE dest_service IN ({})"
        services = "'productpage.bookinfo', 'details.bookinfo', 'reviews.bookinfo'"
        assert store.query(spoken.format(services)).fetchall() == [(0,)]


@given(st.integers(0, 10**13), st.integers(-1000, 10**13), st.integers(-1000, 10**13))
@example(59 * 10**9, 2 * 10**9, 0)
@example(0, 0, 2**62)
def test_each_minute_that_a_request_takes_part_in_is_made_again(
    begins_ns: int, before_ns: int, lasts_ns: int
) -> None:
    """As `relations_of` chooses the logs of a minute."""
    base_ns = 1_800_000_000 * 10**9
    table = pa.table(
        {
            "time": pa.array([base_ns + begins_ns], pa.timestamp("ns")),
            "duration_ns": [before_ns + lasts_ns],
            "serving_before_ns": [before_ns],
            "serving_after_ns": [0],
        }
    )
    start_ns = base_ns + begins_ns + before_ns
    end_ns = start_ns + min(max(lasts_ns, 0), LONGEST_SERVED_NS)
    first, last = (start_ns - WINDOW_NS) // MINUTE_NS, (end_ns + WINDOW_NS) // MINUTE_NS
    near = minutes_near([table])
    assert near >= set(range(first, last + 1))
    assert len(near) <= last - first + 5


@pytest.mark.parametrize("is_whole", [True, False])
def test_an_archive_of_an_earlier_version_is_related_where_it_has_all(
    tmp_path: Path, plan: Plan, made: Path, entities: Entities, *, is_whole: bool
) -> None:
    """As many requests as the metrics count; such a version did not note minutes."""
    counting = [one for one in plan.metrics if one.name in {*COUNTS, CALLS}]
    with Store(":memory:", make_plan(counting)) as store:
        with Archive(store, tmp_path / "logs", HTTP) as archive:
            replay([made / "made.capture.arrows"], entities, store, archive=archive)
            minutes = store.query(
                "SELECT DISTINCT epoch_ns(time) // 60000000000 FROM http_logs ORDER BY 1"
            ).fetchall()
            for table in ("changed_minutes", "unarchived_minutes", "requests_only_minutes"):
                store.run(f"DROP TABLE internal.{table}")
            if not is_whole:
                last = "(SELECT max(hour) FROM internal.archived)"
                store.run(f"DELETE FROM internal.archived WHERE hour = {last}")
        with Archive(store, tmp_path / "logs", HTTP) as archive:
            known = [minute for (minute,) in minutes if is_whole or minute % 60 >= 58]
            assert len(known) == (4 if is_whole else 2)
            assert [one for (one,) in minutes if one in archive.changed_minutes()] == known
            assert archive.whole_minutes([one for (one,) in minutes]) == known
            done = relate(store, archive)
        found = rows_of(store)
    assert done.minutes == (4 if is_whole else 0)
    if is_whole:
        with Store(":memory:", make_plan(counting)) as store:
            with Archive(store, tmp_path / "again", HTTP) as archive:
                replay([made / "made.capture.arrows"], entities, store, archive=archive)
                relate(store, archive)
            assert rows_of(store) == found
            assert len(found["endpoint_relation_minute"]) > 10


COUNTS = tuple(f"kubernetes_service_relation_{side}_http_call_cpm" for side in ("client", "server"))
