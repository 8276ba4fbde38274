"""A statement that is narrowed has the rows of the statement."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import httpx
import pyarrow as pa
import pytest
from sql_serving import ARROW, NO_TLS, ask, replay_into, serving, url
from waiting import DEADLINE_S

from framewalk.engine import Plan, Store, load_plan, open_for_reading
from framewalk.queries.metrics import KEYS, Catalogue
from framewalk.queries.narrowing import narrowed_text, readable, readable_text
from framewalk.queries.reading import Sandbox, read_tree, secure, serialized
from framewalk.queries.sql_endpoint.server import SqlServer

RANGE = "'2026-11-02 09:01', '2026-11-02 09:04'"
CALLS = "kubernetes_service_relation_server_http_call_cpm"
RATE = "kubernetes_service_http_call_successful_rate"
LATENCY = "kubernetes_service_http_latency_ns_percentile"
VALUES = (
    "kubernetes_service_connect_cpm",
    LATENCY,
    "kubernetes_service_instance_http_call_successful_rate",
)


@pytest.fixture(scope="module")
def path(few_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("narrowing") / "metrics.duckdb"
    with Store(path, few_plan) as store:
        replay_into(store, "bookinfo")
    return path


@pytest.fixture(scope="module")
def connection(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_for_reading(path) as connection:
        yield connection


@pytest.fixture(scope="module")
def catalogue(connection: duckdb.DuckDBPyConnection) -> Catalogue:
    return Catalogue.of(connection)


def narrow(connection: duckdb.DuckDBPyConnection, query: str) -> str | None:
    tree = serialized(connection, query)
    assert tree is not None
    return narrowed_text(connection, query, read_tree(tree))


def answer(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[object, list[str]]:
    found = connection.execute(query)
    columns = [(one[0], str(one[1])) for one in found.description or ()]
    return columns, sorted(map(repr, found.fetchall()))


def check(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    narrowed = narrow(connection, query)
    assert narrowed is not None, query
    wanted = answer(connection, query)
    assert answer(connection, narrowed) == wanted
    assert wanted[1], query
    return narrowed


@pytest.mark.parametrize("scope", KEYS)
def test_every_metric_of_views_and_ranges(
    connection: duckdb.DuckDBPyConnection, catalogue: Catalogue, scope: str
) -> None:
    metrics = [one.column for one in catalogue.stored if one.scope == scope]
    keys = ", ".join(KEYS[scope])
    sources = [(f"{scope}_{name}", "time_bucket, ") for name in ("minute", "hour", "day")]
    sources += [
        (f"{scope}_between({RANGE})", ""),
        (f"{scope}_between({RANGE}, divide_by := 1)", ""),
    ]
    for number, (source, time) in enumerate(sources):
        for some in ([metrics[number % len(metrics)]], metrics[::2], metrics[-1:]):
            text = check(connection, f"SELECT {time}{keys}, {', '.join(some)} FROM {source}")
            assert not [one for one in metrics if one not in some and f" AS {one} " in text]
    for minutes in (f"{scope}_hour", f"{scope}_between({RANGE})"):
        check(connection, f"SELECT entity_id, minutes FROM {minutes}")


def test_every_percentile(connection: duckdb.DuckDBPyConnection, catalogue: Catalogue) -> None:
    for metric in (one for one in catalogue.stored if one.labels):
        macro = f"{metric.scope}_percentiles_between({RANGE}, '{metric.column}'"
        for query in (
            f"FROM {macro})",
            f"SELECT p99, p50 AS half, {KEYS[metric.scope][0]} FROM {macro})",
            f"SELECT count(*) FROM {macro})",
            f"SELECT p75 FROM {macro}, of_service := NULL, of_namespace := 'bookinfo')",
        ):
            check(connection, query)


def test_every_value(connection: duckdb.DuckDBPyConnection, catalogue: Catalogue) -> None:
    """All that `metric_values` has, metric by metric: it is bound once here."""
    connection.execute("CREATE TEMP TABLE every AS FROM metric_values")
    empty = []
    for metric in catalogue.stored:
        where = f"WHERE metric = '{metric.name}'"
        wanted = answer(connection, f"FROM every {where}")
        text = narrow(connection, f"FROM metric_values {where}")
        assert text is not None
        assert answer(connection, text) == wanted
        of_metric = f"metric_values_of('{metric.name}', '2000-01-01', '2100-01-01'"
        for resolution in ("minute", "day"):
            query = f"SELECT * FROM {of_metric}, resolution := '{resolution}')"
            own = narrow(connection, query)
            assert own is not None
            columns = "time_bucket, entity_id, entity, label, value"
            within = f"SELECT {columns} FROM every {where} AND resolution = '{resolution}'"
            assert answer(connection, own) == answer(connection, within)
        empty += [] if wanted[1] else [metric.name]
    assert len(empty) < len(list(catalogue.stored)) / 2
    connection.execute("DROP TABLE every")


VALUES_NARROWED = {
    "several": f"SELECT * FROM metric_values WHERE metric IN {VALUES} AND resolution = 'hour'",
    "the other way round": f"SELECT value FROM metric_values WHERE '{VALUES[0]}' = metric",
    "an alias": f"SELECT v.value FROM metric_values v WHERE v.metric = '{VALUES[1]}' "
    "AND v.label = 'p99'",
    "of a scope": f"FROM metric_values WHERE metric IN {VALUES} AND scope = 'K8SService'",
    "joined": "SELECT name, unit, value FROM metrics JOIN metric_values ON name = metric "
    f"WHERE metric = '{VALUES[0]}' AND resolution = 'minute'",
    "both": f"FROM metric_values WHERE metric IN {VALUES} AND metric = '{VALUES[0]}'",
    "in a query": f"WITH own AS (FROM metric_values WHERE metric = '{LATENCY}') "
    "SELECT label, count(*) FROM own GROUP BY ALL",
    "of one entity": "SELECT entity, value FROM metric_values_of("
    f"'{LATENCY}', {RANGE}, of_entity := 'reviews.bookinfo')",
    "with comments": f"FROM metric_values_of('{LATENCY}', -- since, when\n"
    "'2026-11-02' /* ) */, '2026-11-03' -- the end\n)",
}


@pytest.mark.parametrize("query", VALUES_NARROWED.values(), ids=VALUES_NARROWED)
def test_values_of_some_metrics(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    text = check(connection, query)
    assert "endpoint_" not in text
    assert "FROM metric_values" not in text


ODD = {
    "an alias": f"SELECT own.{RATE} AS r FROM service_minute AS own WHERE own.service LIKE 'r%'",
    "an alias without AS": f"SELECT own.{RATE} FROM service_minute own ORDER BY ALL",
    "its own name": f"SELECT service_minute.{RATE} FROM service_minute",
    "capitals": f"select SERVICE, {RATE.upper()} from SERVICE_MINUTE",
    "quotes": f'SELECT "{RATE}" FROM "service_minute"',
    "a schema": f"SELECT {RATE} FROM main.service_minute",
    "fields": f"SELECT {LATENCY}.p99, m.{LATENCY}.p50 FROM service_minute m",
    "ordered": f"SELECT service FROM service_minute ORDER BY {RATE} DESC",
    "grouped": f"SELECT service, max({RATE}) AS most FROM service_minute GROUP BY ALL "
    "HAVING most > 0",
    "a window": "SELECT service, row_number() OVER (PARTITION BY service ORDER BY time_bucket, "
    f"{RATE}) FROM service_minute",
    "joined": f"SELECT a.{RATE}, b.{LATENCY}.p99 FROM service_minute a JOIN service_minute b "
    "USING (service, time_bucket)",
    "joined to a range": f"SELECT service, {RATE}, p99 FROM service_between({RANGE}) LEFT JOIN "
    f"service_percentiles_between({RANGE}, '{LATENCY}') USING (service)",
    "a query inside": f"SELECT max(r) FROM (SELECT {RATE} AS r FROM service_hour)",
    "a star of a query": f"SELECT * FROM (SELECT service, {RATE} FROM service_hour)",
    "a star of a name": f"WITH own AS (SELECT {RATE} FROM service_day) SELECT * FROM own",
    "a correlated query": "SELECT service FROM service_minute AS one WHERE "
    f"{RATE} = (SELECT max({RATE}) FROM service_minute WHERE service = one.service)",
    "a union": f"SELECT {RATE} FROM service_minute UNION ALL SELECT {RATE} FROM service_hour",
    "EXISTS": f"SELECT 1 WHERE EXISTS (SELECT {RATE} FROM service_minute)",
    "a count": "SELECT count(*) FROM service_minute",
    "texts": f"SELECT 'é, service_minute' AS \"FROM service_hour\", {RATE} -- service_day\n"
    "FROM service_minute /* service_minute */",
    "an alias of a column": f"SELECT {RATE} AS rate FROM service_minute WHERE rate > 0",
    "named ends": f"SELECT {RATE} FROM service_between("
    "until := '2026-11-03', since := '2026-11-02')",
    "computed ends": f"SELECT {RATE} FROM service_between("
    "TIMESTAMP '2026-11-02' + INTERVAL 9 HOURS, greatest('2026-11-02'::DATE, DATE '2026-11-03'))",
    "a time of a zone": f"SELECT {RATE} FROM service_between("
    "'2026-11-02 11:00+02'::TIMESTAMPTZ, "
    "'2027-01-01'::TIMESTAMPTZ)",
    "endless": f"SELECT {RATE}, minutes FROM service_between('1970-01-01', '9999-01-01')",
    "a pivot of a query": f"PIVOT (SELECT service, {RATE} FROM service_hour) ON service "
    "IN ('reviews.bookinfo') USING max(kubernetes_service_http_call_successful_rate)",
}


@pytest.mark.parametrize("query", ODD.values(), ids=ODD)
def test_statements_of_all_kinds(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    check(connection, query)


LEFT_ALONE = {
    "a star": "SELECT * FROM service_minute",
    "FROM": "FROM service_minute",
    "columns": "SELECT COLUMNS('.*cpm') FROM service_minute",
    "a star beside others": f"SELECT {RATE}, m.* FROM service_minute m",
    "a star inside": "SELECT (SELECT count(m.*)) FROM service_minute m",
    "the row": "SELECT service_minute FROM service_minute",
    "the row by its alias": "SELECT to_json(own) FROM service_minute AS own",
    "a natural join": f"SELECT {RATE} FROM service_minute NATURAL JOIN service_hour",
    "a position": "SELECT #3 FROM service_minute",
    "other names": "SELECT a FROM service_minute AS m(a)",
    "a sample": f"SELECT {RATE} FROM service_minute TABLESAMPLE 10%",
    "a sample of all": f"SELECT {RATE} FROM service_minute USING SAMPLE 1",
    "a name that hides it": f"WITH service_minute AS (SELECT 1 AS {RATE}) "
    f"SELECT {RATE} FROM service_minute",
    "another schema": "SELECT name FROM internal.definitions",
    "an order by all columns": f"SELECT {RATE} FROM service_minute ORDER BY COLUMNS(*)",
    "a summary": "SUMMARIZE service_minute",
    "ends that are columns": f"SELECT {RATE} FROM (SELECT DATE '2026-11-02' AS a) AS t, "
    "service_between(t.a, '2026-11-03')",
    "ends that are infinite": f"SELECT {RATE} FROM service_between('-infinity', 'infinity')",
    "ends that are NULL": f"SELECT {RATE} FROM service_between(NULL, NULL)",
    "no end": f"SELECT {RATE} FROM service_between('2026-11-02')",
    "no times": f"SELECT {RATE} FROM service_between('yesterday', 'today')",
    "something given twice": f"SELECT {RATE} FROM service_between("
    "'2026-11-02', '2026-11-03', since := '2026-11-01')",
    "something else": f"SELECT {RATE} FROM service_between('2026-11-02', '2026-11-03', by := 1)",
    "values of whatever": "SELECT count(*) FROM metric_values WHERE resolution = 'day'",
    "values of either": f"FROM metric_values WHERE metric = '{RATE}' OR label = 'p99'",
    "values of none": f"FROM metric_values WHERE NOT metric = '{RATE}'",
    "values of an outer join": f"SELECT value FROM metrics LEFT JOIN metric_values "
    f"ON name = metric WHERE metric = '{RATE}'",
    "values of a metric that is computed": f"FROM metric_values WHERE metric = '{RATE}' || ''",
    "values of no metric": f"FROM metric_values_of('none', {RANGE})",
    "values of no resolution": f"FROM metric_values_of('{RATE}', {RANGE}, resolution := 'week')",
    "a metric that is computed": f"FROM service_percentiles_between({RANGE}, concat('{LATENCY}'))",
}


@pytest.mark.parametrize("query", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_is_left_alone(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    assert narrow(connection, query) is None


FAULTY = (
    "SELECT nothing FROM service_minute",
    f"SELECT nothing, {RATE} FROM service_between({RANGE})",
    f"SELECT main.service_minute.nothing, {RATE} FROM service_minute",
    f"SELECT {RATE}::STRUCT(a INT) FROM service_minute",
    f"SELECT p99 FROM service_percentiles_between({RANGE}, 'none')",
    f"SELECT {RATE} FROM service_between(no_such_function(), '2026-11-03')",
    f"SELECT nothing FROM metric_values WHERE metric = '{RATE}'",
)


@pytest.fixture(scope="module")
def server(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlServer]:
    # What is made secure stays so, for all that have the file open.
    served = tmp_path_factory.mktemp("served") / "metrics.duckdb"
    shutil.copy(path, served)
    with open_for_reading(served) as connection:
        secure(connection)
        with serving(connection, served) as server:
            yield server


@pytest.mark.parametrize("query", FAULTY)
def test_an_error_is_about_what_was_asked(
    connection: duckdb.DuckDBPyConnection, server: SqlServer, query: str
) -> None:
    with pytest.raises(duckdb.Error) as wanted:
        connection.execute(query).fetchall()
    told = ask(server, query).json()
    first = " ".join(str(wanted.value).splitlines()[0].split())
    assert first in told["problem"]
    assert "internal." not in told["problem"]


def test_names_with_a_schema_and_a_table_are_understood(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """What is narrowed has no such name, and is run as it was."""
    query = f"SELECT main.service_minute.{RATE} AS rate FROM service_minute"
    assert narrow(connection, query) is not None
    connection.execute("BEGIN TRANSACTION READ ONLY")
    found = readable(connection, Sandbox(connection).checked(connection, query))
    rows = found.run(connection, connection.execute).fetchall()
    connection.rollback()
    assert sorted(map(repr, rows)) == answer(connection, query)[1]


def test_views_of_something_else_are_left_alone() -> None:
    with duckdb.connect() as other:
        other.execute("CREATE TABLE service_minute AS SELECT 7 AS calls")
        other.execute("BEGIN TRANSACTION READ ONLY")
        found = readable(other, Sandbox(other).checked(other, "SELECT calls FROM service_minute"))
        assert found.narrow is None
        assert found.run(other, other.execute).fetchall() == [(7,)]


def test_of_a_file_only_values_are_narrowed(connection: duckdb.DuckDBPyConnection) -> None:
    """To take a macro apart takes longer than to bind it once."""
    query = f"SELECT value FROM metric_values WHERE metric = '{VALUES[0]}'"
    found = readable_text(connection, query)
    assert found is not None
    assert found.narrow is not None
    rows = found.run(connection, connection.sql).fetchall()
    assert sorted(map(repr, rows)) == answer(connection, query)[1]
    for other in (
        f"SELECT {RATE} FROM service_minute",
        f"{query}; {query}",
        "SELECT",
        "",
        "SHOW x",
    ):
        assert readable_text(connection, other) is None


def test_a_server_narrows_what_it_is_asked(
    connection: duckdb.DuckDBPyConnection, server: SqlServer
) -> None:
    query = f"SELECT time_bucket, {RATE} FROM service_minute ORDER BY ALL"
    wanted = [rate for _, rate in connection.execute(query).fetchall()]
    assert [row[RATE] for row in ask(server, query).json()["rows"]] == wanted
    assert read_arrow(url(server), query).column(1).to_pylist() == wanted


def read_arrow(server: str, query: str) -> pa.Table:
    asked, headers = {"query": query}, {"accept": ARROW}
    response = httpx.post(
        f"{server}/sql", json=asked, headers=headers, timeout=DEADLINE_S, verify=NO_TLS
    )
    return pa.ipc.open_stream(response.content).read_all()


def test_what_is_narrowed_has_the_meaning_of_now(tmp_path: Path) -> None:
    """Values of before a change of a definition are those of its former meaning."""
    path, text = tmp_path / "store.duckdb", tmp_path / "mine.oal"
    for operation, at_s in (("read", None), ("write", 4e9)):
        text.write_text(f'mine = from(K8SService.*).filter(type == "{operation}").count();')
        with Store(path, load_plan([text]), at_s=at_s) as store:
            replay_into(store, "bookinfo")
    with open_for_reading(path) as connection:
        for query in (
            "SELECT service, mine FROM service_minute",
            "SELECT service, mine FROM service_between('2026-11-01', '2026-11-04')",
            "SELECT * FROM metric_values WHERE metric = 'mine'",
        ):
            check(connection, query)
