"""What the shipped queries answer where not everything was seen."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from framewalk.engine import (
    CaptureReader,
    CaptureWriter,
    Entities,
    Store,
    load_plan,
    open_for_reading,
    read_entities,
    replay,
)
from framewalk.engine.kubernetes.dumps import read_dumps
from framewalk.engine.oal.plan import Plan
from framewalk.engine.wire.access_log_pb2 import EBPFAccessLogMessage
from framewalk.queries import Value, asked, shipped_queries, with_values
from framewalk.queries.narrowing import narrowed_text
from framewalk.queries.reading import read_tree, serialized

BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"
CAPTURE = BOOKINFO / "bookinfo.capture.arrows"
DUMP = BOOKINFO / "kubectl.yaml"
RELATION = "kubernetes_service_relation"
# Requests per minute, percent of success, p99 in ms.
Shown = tuple[float, float, float]


@pytest.fixture(params=["book-worker", "book-worker2", "book-worker3"])
def half_dead(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A capture in which the Rover of one node falls silent at half-time."""
    with CaptureReader(CAPTURE) as reader:
        messages = pa.Table.from_batches([batch.messages for batch in reader])
    node: dict[int, str] = {}
    columns = (messages[name].to_pylist() for name in ("stream", "message"))
    for stream, content in zip(*columns, strict=True):
        message = EBPFAccessLogMessage.FromString(content)
        if message.HasField("node"):
            node[stream] = message.node.name
    assert request.param in node.values()
    silent = pa.array([one for one, name in node.items() if name == request.param], pa.uint64())
    ends = pc.min_max(messages["received_at"].cast(pa.int64()))
    half_ns = (ends["min"].as_py() + ends["max"].as_py()) // 2
    is_late = pc.greater(messages["received_at"].cast(pa.int64()), half_ns)
    is_lost = pc.and_(is_late, pc.is_in(messages["stream"], silent))
    path = tmp_path / "half_dead.capture.arrows"
    with CaptureWriter(path) as writer:
        for batch in messages.filter(pc.invert(is_lost)).to_batches():
            writer.write(batch)
    return path


def ask(store: Store, name: str, **values: Value) -> list[tuple[object, ...]]:
    """Ask a shipped query, of all that there is if `since` and `until` are not given."""
    ((since, until),) = store.query(asked(shipped_queries()["time_range"], {})).fetchall()
    given = {"since": since, "until": until, **values}
    return store.query(asked(shipped_queries()[name], given)).fetchall()


def seen_by(store: Store, end: str) -> dict[tuple[str, str], tuple[int, Shown]]:
    """Return the requests that one end saw, and what should be shown of them."""
    calls = f"{RELATION}_{end}_http_call_cpm"
    rows = store.query(
        f"SELECT source_service, dest_service, sum({calls}), "
        "(SELECT count(DISTINCT time_bucket) FROM service_minute), "
        f"sum({RELATION}_{end}_http_success_cpm) FROM service_relation_minute "
        f"GROUP BY ALL HAVING sum({calls}) > 0"
    ).fetchall()
    slowest = store.query(
        f"SELECT source_service, dest_service, {RELATION}_{end}_http_latency_ns_percentile.p99"
        " / 1e6 FROM service_relation_day"
    ).fetchall()
    p99_ms = {(source, dest): value for source, dest, value in slowest}
    return {
        (source, dest): (
            int(count),
            (count / minutes, 100 * (well or 0) / count, p99_ms[source, dest]),
        )
        for source, dest, count, minutes, well in rows
    }


def test_the_map_shows_the_end_that_saw_more(
    half_dead: Path, plan: Plan, empty_store: Path, tmp_path: Path
) -> None:
    with Store(Path(shutil.copy(empty_store, tmp_path / "store.duckdb")), plan) as store:
        replay([half_dead], read_entities(DUMP), store)
        rows = ask(store, "service_map")
        server, client = seen_by(store, "server"), seen_by(store, "client")
    shown = {(source, dest): tuple(values) for source, dest, *values in rows}
    assert len(shown) == len(rows)
    assert shown.keys() == server.keys() | client.keys()
    both = server.keys() & client.keys()
    assert both
    for pair, values in shown.items():
        ends = [end[pair] for end in (server, client) if pair in end]
        _, expected = max(ends, key=lambda end: end[0])
        assert values == pytest.approx(expected, abs=0.051), pair
    assert any(client[pair][0] > server[pair][0] for pair in both)


def test_endpoints_that_always_fail_succeed_in_no_percent(tmp_path: Path) -> None:
    oal = tmp_path / "failing.oal"
    oal.write_text(FAILING, encoding="utf-8")
    with Store(":memory:", load_plan([oal])) as store:
        replay([CAPTURE], read_entities(DUMP), store)
        rows = ask(store, "slowest_endpoints")
    assert {row[-1] for row in rows} == {0}


# As shipped, but of requests that failed only.
FAILING = "".join(
    f"kubernetes_service_endpoint_http_{name} = from(K8SEndpoint.{attribute})"
    f".filter(success == false){condition}.{function}();\n"
    for name, attribute, condition, function in (
        ("call_cpm", "*", "", "cpm"),
        ("call_duration", "http.latency", "", "sum"),
        ("call_time", "http.latency", "", "longAvg"),
        ("latency_ns_percentile", "http.latencyNs", "", "relativePercentile"),
        ("success_cpm", "*", ".filter(http.statusCode > 900)", "cpm"),
    )
)


@pytest.fixture(scope="module")
def bookinfo(plan: Plan) -> Iterator[Store]:
    inventories = read_dumps([DUMP]).inventories
    with Store(":memory:", plan) as store:
        store.keep_entities(None, Entities.of(inventories).described(inventories))
        replay([CAPTURE], read_entities(DUMP), store)
        yield store


GIVEN: dict[str, Value] = {
    "service": "reviews.bookinfo",
    "namespace": None,
    "source": "productpage.bookinfo",
    "dest": "reviews.bookinfo",
}
METRICS = {
    "top_services": "kubernetes_service_http_latency_ns_percentile.p99",
    "top_instances": "kubernetes_service_instance_write_package_size",
    "top_endpoints": "kubernetes_service_endpoint_http_call_cpm",
    "top_edges": "kubernetes_service_relation_server_http_call_cpm",
}


# Columns of the time before the capture.
NOTHING_BEFORE = {"changes": 3}


OF_STORES = [name for name, one in shipped_queries().items() if not one.is_of_archive]


@pytest.mark.parametrize("name", OF_STORES)
def test_a_macro_or_view_of_a_store_answers_as_its_query(bookinfo: Store, name: str) -> None:
    question = shipped_queries()[name]
    values = {**GIVEN, "metric": METRICS.get(name)}
    rows = ask(bookinfo, name, **values)
    ((since, until),) = bookinfo.query("FROM time_range").fetchall()
    named = [f"since := TIMESTAMP '{since}'", f"until := TIMESTAMP '{until}'"]
    named += [
        f"of_{place} := '{value}'"
        for place, value in values.items()
        if place in question.places and value is not None
    ]
    source = f"{name}({', '.join(named)})" if question.places else name
    assert bookinfo.query(f"FROM {source}").fetchall() == rows
    assert rows
    # A column of nothing would be of a wrong metric.
    nothing = [all(value is None for value in column) for column in zip(*rows, strict=True)]
    assert sum(nothing) <= NOTHING_BEFORE.get(name, 0)


# The twelve questions of an operator, in the order of the issue that asked for them: who calls
# whom, what fails, what is slow, who has most bytes, what is sent again, who cannot connect, where
# packages wait, who is unknown, what changed, versions, over time, request to request.
OF_OPERATORS = (
    "service_map errors slowest_endpoints talkers retransmits connect_failures queue_times unnamed "
    "changes versions trend endpoint_map"
)


@pytest.mark.parametrize("name", OF_OPERATORS.split())
def test_what_an_operator_asks_is_of_a_range_a_service_and_a_namespace(
    bookinfo: Store, name: str
) -> None:
    question = shipped_queries()[name]
    assert {"since", "until", "service", "namespace"} <= set(question.places)
    assert not question.needed
    range_only = "'2026-11-02 09:00', '2026-11-02 09:06'"
    rows = bookinfo.query(f"FROM {name}({range_only})").fetchall()
    assert rows == ask(bookinfo, name)
    for of_one in ("of_service := 'reviews.bookinfo'", "of_namespace := 'bookinfo'"):
        fewer = bookinfo.query(f"FROM {name}({range_only}, {of_one})").fetchall()
        assert 0 < len(fewer) <= len(rows)


def test_talkers_are_told_by_the_bytes_of_the_views(bookinfo: Store) -> None:
    sizes = ", ".join(
        f"coalesce(sum(kubernetes_service_instance_{way}_package_size), 0)::BIGINT"
        for way in ("write", "read")
    )
    told = bookinfo.query(
        f"SELECT service, instance, {sizes} FROM service_instance_minute GROUP BY ALL"
    ).fetchall()
    every = sum(sent + received for *_, sent, received in told)
    expected = {
        (service, pod): (sent, received, round((sent + received) / 6))
        for service, pod, sent, received in told
        if sent + received
    }
    rows = ask(bookinfo, "talkers")
    assert {row[:2]: row[2:5] for row in rows} == expected
    sums = [sent + received for _, _, sent, received, *_ in rows]
    assert sums == sorted(sums, reverse=True)
    assert [row[-1] for row in rows] == [
        pytest.approx(100 * one / every, abs=0.006) for one in sums
    ]


@pytest.mark.parametrize(
    "name", ["service_map", "endpoints", "namespaces", "tcp", "unnamed", "talkers", "trend"]
)
def test_a_filter_takes_rows_away_and_changes_none(bookinfo: Store, name: str) -> None:
    every = ask(bookinfo, name)
    assert ask(bookinfo, name, namespace="bookinfo") == [
        row for row in every if "bookinfo" in str(row)
    ]
    assert ask(bookinfo, name, namespace="info") == []
    own = [row for row in every if "reviews.bookinfo" in row]
    if name == "namespaces":
        assert not own
    elif name == "unnamed":
        assert len(ask(bookinfo, name, service="reviews.bookinfo")) < len(every)
    else:
        assert ask(bookinfo, name, service="reviews.bookinfo") == own
        assert 0 < len(own) < len(every)


def test_the_values_of_a_dashboard_are_those_of_the_views(bookinfo: Store) -> None:
    whole = {"since": dt.datetime(2000, 1, 1), "until": dt.datetime(2100, 1, 1)}  # noqa: DTZ001
    rows = ask(bookinfo, "service_dashboard", service="reviews.bookinfo", **whole)
    found = {(metric, label): value for metric, label, value, _ in rows}
    wanted = bookinfo.query(
        "SELECT metric, label, value FROM metric_values WHERE resolution = 'day' "
        "AND entity = 'reviews.bookinfo' AND scope = 'K8SService' AND metric NOT LIKE '%_cpm'"
    ).fetchall()
    assert len(wanted) > 50
    for metric, label, value in wanted:
        assert found[metric, label] == value
    units = {metric: unit for metric, _, _, unit in rows}
    assert units["kubernetes_service_http_call_cpm"] == "per minute"
    assert units["kubernetes_service_write_package_size"] == "bytes"


def test_a_rate_is_not_cut_to_whole_numbers(bookinfo: Store) -> None:
    since, until = dt.datetime(2026, 11, 2, 9, 1), dt.datetime(2026, 11, 2, 9, 4)  # noqa: DTZ001
    ((calls,),) = bookinfo.query(
        "SELECT sum(kubernetes_service_http_call_cpm) FROM service_minute "
        f"WHERE service = 'reviews.bookinfo' AND time_bucket >= '{since}' "
        f"AND time_bucket < '{until}'"
    ).fetchall()
    of_range: dict[str, Value] = {"since": since, "until": until, "service": "reviews.bookinfo"}
    metric = "kubernetes_service_http_call_cpm"
    rows = ask(bookinfo, "service_dashboard", **of_range)
    (shown,) = [value for name, _, value, _ in rows if name == metric]
    assert shown == round(calls / 3, 2) != calls // 3
    assert ask(bookinfo, "top_services", metric=metric, **of_range) == [("reviews.bookinfo", shown)]


OF_SCOPES = (
    "kubernetes_service_http_call_cpm",
    "kubernetes_service_percentile",
    "kubernetes_service_endpoint_http_call_time",
    "kubernetes_service_relation_server_http_latency_ns_percentile",
    "kubernetes_service_instance_relation_client_write_cpm",
    "kubernetes_service_endpoint_relation_http_call_cpm",
)


def test_a_server_asks_for_less_and_answers_the_same(bookinfo: Store) -> None:
    given = {
        "since": dt.datetime(2026, 11, 2, 9, 0),  # noqa: DTZ001 - in UTC, as the store is
        "until": dt.datetime(2026, 11, 2, 9, 4),  # noqa: DTZ001
        "namespace": "bookinfo",
    }
    narrowed = set()
    for name, question in shipped_queries().items():
        if question.is_of_archive or set(question.needed) - given.keys():
            continue
        query = with_values(question.query, {place: given.get(place) for place in question.places})
        tree = serialized(bookinfo.connection, query)
        assert tree is not None
        narrow = narrowed_text(bookinfo.connection, query, read_tree(tree))
        if narrow is not None:
            assert bookinfo.query(narrow).fetchall() == bookinfo.query(query).fetchall(), name
            narrowed.add(name)
    assert {"service_map", "services", "trend", "changes", "endpoint_map"} <= narrowed


def test_values_of_one_metric_are_those_of_all(bookinfo: Store) -> None:
    columns = "time_bucket, entity_id, entity, label, value"
    every = bookinfo.query(
        f"SELECT metric, {columns} FROM metric_values WHERE resolution = 'day'"
    ).fetchall()
    for metric in OF_SCOPES:
        wanted = sorted(row[1:] for row in every if row[0] == metric)
        of_metric = f"'{metric}', '2000-01-01', '2100-01-01', resolution := 'day'"
        found = bookinfo.query(f"SELECT {columns} FROM metric_values_of({of_metric})")
        assert sorted(found.fetchall()) == wanted
        entity = wanted[0][2]
        of_entity = f"{of_metric}, of_entity := '{entity}'"
        own = bookinfo.query(f"SELECT {columns} FROM metric_values_of({of_entity})")
        assert sorted(own.fetchall()) == [row for row in wanted if row[2] == entity]


def test_values_of_a_metric_are_within_their_range(bookinfo: Store) -> None:
    metric, ends = OF_SCOPES[0], ("2026-11-02 09:01:00", "2026-11-02 09:03:00")
    since, until = ends
    wanted = bookinfo.query(
        f"SELECT time_bucket, service, {metric} FROM service_minute WHERE {metric} IS NOT NULL "
        f"AND time_bucket >= '{since}' AND time_bucket < '{until}'"
    ).fetchall()
    found = bookinfo.query(
        f"SELECT time_bucket, entity, value FROM metric_values_of('{metric}', '{since}', '{until}')"
    ).fetchall()
    assert sorted(found) == sorted(wanted)
    assert {time for time, _, _ in found} == {dt.datetime(2026, 11, 2, 9, at) for at in (1, 2)}  # noqa: DTZ001


def test_what_duckdb_tells_of_a_store(bookinfo: Store) -> None:
    views = bookinfo.query(
        "SELECT view_name, comment FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal"
    ).fetchall()
    macros = bookinfo.query(
        "SELECT function_name, comment FROM duckdb_functions() "
        "WHERE schema_name = 'main' AND NOT internal AND function_type = 'table_macro'"
    ).fetchall()
    told = dict(views + macros)
    assert set(OF_STORES) <= told.keys()
    assert [name for name, comment in told.items() if not comment] == []
    assert told["service_map"] == shipped_queries()["service_map"].answers


def test_what_is_asked_with_other_definitions(tmp_path: Path) -> None:
    oal = tmp_path / "few.oal"
    oal.write_text("kinds = from(K8SService.*).labelCount(type);\n", encoding="utf-8")
    with Store(":memory:", load_plan([oal])) as store:
        replay([CAPTURE], read_entities(DUMP), store)
        rows = ask(store, "service_dashboard", service="reviews.bookinfo")
        assert {(metric, unit) for metric, _, _, unit in rows} == {("kinds", "count")}
        assert {"read", "write"} <= {label for _, label, _, _ in rows}
        names = "SELECT function_name FROM duckdb_functions() WHERE function_type = 'table_macro'"
        macros = {name for (name,) in store.query(f"{names} AND NOT internal").fetchall()}
    assert {"service_between", "unnamed", "top_edges", "metric_values_of"} <= macros
    assert "service_map" not in macros


def test_a_store_of_before_has_macros_when_it_is_written_again(tmp_path: Path) -> None:
    oal, path = tmp_path / "few.oal", tmp_path / "few.duckdb"
    oal.write_text("logs = from(K8SService.*).count();\n", encoding="utf-8")
    plan = load_plan([oal])
    with Store(path, plan) as store:
        store.query("SELECT 1").fetchall()
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP VIEW internal.macros_3; DROP MACRO TABLE top_services").fetchall()
    with Store(path, plan) as store:
        assert store.query("FROM time_range").fetchall() == [(None, None)]
        assert store.query("FROM top_services('logs', '2026-11-02', '2026-11-03')").fetchall() == []


def test_a_store_of_before_has_macros_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "few.duckdb"
    with Store(path, load_plan()):
        pass
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP VIEW internal.macros_3; DROP MACRO TABLE top_services").fetchall()
    with duckdb.connect(str(path), read_only=True), open_for_reading(path) as connection:
        # Somebody reads it: it cannot be written, and is read as it is.
        assert connection.execute("FROM service_minute").fetchall() == []
    with open_for_reading(path) as connection:
        asked = "FROM top_services('kubernetes_service_http_call_cpm', '2026-11-02', '2026-11-03')"
        assert connection.execute(asked).fetchall() == []
