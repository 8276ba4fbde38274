"""The archive: the logs that count, each once, in files that the store lists."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from comparison import VIEWS, Values, differences, read_views
from conftest import CAPTURES

from framewalk.engine import CaptureReader, CaptureWriter, Store, read_entities, replay
from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.explain.plain_sql import logs_table, metric_sql
from framewalk.engine.oal.plan import Plan, make_plan
from framewalk.engine.schemas import OPERATIONS, PEER_SCHEMA
from framewalk.engine.stages.columns import with_sides

BOOKINFO = CAPTURES / "bookinfo"
ROVER = Path(__file__).parent / "rover"
VIEW_OF = {"http": "http_logs", "connection": "connection_logs", "transfer": "transfer_logs"}


def rows_of(store: Store) -> dict[str, int]:
    return {
        kind: store.query(f"SELECT count(*) FROM {view}").fetchall()[0][0]
        for kind, view in VIEW_OF.items()
    }


def listed(store: Store) -> dict[str, list[Path]]:
    """Return the files that the store lists, wherever its archive is."""
    rows = store.query("SELECT sql FROM duckdb_views() WHERE view_name LIKE '%_logs'").fetchall()
    names = [name for (sql,) in rows for name in sql.split("'") if name.endswith(".parquet")]
    return {
        kind: [Path(name) for name in names if Path(name).parent.parent.name == kind]
        for kind in VIEW_OF
    }


def as_second_engine(store: Store) -> duckdb.DuckDBPyConnection:
    """Return the archive as the tables that the plain SQL of a metric reads."""
    connection = duckdb.connect()
    peers = ", ".join(PEER_SCHEMA)
    files = listed(store)
    shown = {
        "http": "method AS method_name, status_code < 500 AS success, duration_ns // 1000000 "
        "AS latency_ms, ",
        "connection": "",
        "transfer": "syscall AS syscall_name, ",
    }
    endpoint = "REPLACE (coalesce(endpoint, left(method || ':' || path, 150)) AS endpoint)"
    for kind, paths in files.items():
        replaced = endpoint if kind == "http" else ""
        names = ", ".join(f"'{path}'" for path in paths)
        connection.execute(
            f"CREATE VIEW {kind} AS SELECT * {replaced}, {shown[kind]} epoch_ns(time) AS time_ns "
            f"FROM read_parquet([{names}])"
        )
    union = " UNION ".join(f"SELECT {peers} FROM {kind}" for kind in files)
    connection.execute(
        f"CREATE TABLE pairs AS SELECT *, row_number() OVER () AS peer FROM ({union})"
    )
    sides = with_sides(connection.sql("FROM pairs").pl())
    connection.register("sides", sides)
    connection.execute("CREATE TABLE peers AS FROM sides")
    joined = " AND ".join(f"logs.{name} IS NOT DISTINCT FROM pairs.{name}" for name in PEER_SCHEMA)
    for operation in OPERATIONS:
        kind = operation if operation in files else "transfer"
        kind = "connection" if operation in {"connect", "accept", "close"} else kind
        only = "" if kind == "http" else f"WHERE operation = '{operation}'"
        connection.execute(
            f"CREATE TABLE {logs_table(operation)} AS SELECT logs.* EXCLUDE ({peers}), peer "
            f"FROM {kind} AS logs JOIN pairs ON {joined} {only}"
        )
    return connection


def summed(logs: duckdb.DuckDBPyConnection, plan: Plan) -> Values:
    found: Values = {view: {} for view in VIEWS}
    for metric in plan.metrics:
        for start, *names, value in logs.execute(metric_sql(metric)).fetchall():
            if value is not None:
                key = tuple(names), int(start.replace(tzinfo=dt.UTC).timestamp())
                found[metric.scope.view].setdefault(key, {})[metric.name] = value
    return found


@pytest.mark.parametrize(
    ("capture", "dump", "step"),
    [
        (BOOKINFO, BOOKINFO / "kubectl.yaml", 20),
        (ROVER / "part1", ROVER / "cluster.json", 6),
    ],
)
def test_sums_over_each_log_are_the_metrics(
    tmp_path: Path, plan: Plan, capture: Path, dump: Path, step: int
) -> None:
    some = make_plan(plan.metrics[::step])
    with Store(":memory:", some) as store:
        with Archive(store, tmp_path, ArchiveOptions(Mode.ALL)) as archive:
            replay([capture], read_entities(dump), store, archive=archive)
        found = summed(as_second_engine(store), some)
        assert differences(found, read_views(store)) == []
    assert all(found[view] for view in VIEWS if view != "endpoint_relation")


@pytest.fixture(scope="module")
def few(plan: Plan) -> Plan:
    """Few definitions: a store of these is soon made."""
    return make_plan(plan.metrics[::60])


def test_requests_have_the_sums_of_their_own_reads_and_writes(tmp_path: Path, few: Plan) -> None:
    sums = (
        "SELECT count(*), sum(read_count), sum(write_count), sum(read_l4_duration_ns), "
        "sum(write_l4_total_package_size_bytes) FROM http_logs"
    )
    of_each = (
        "SELECT count(DISTINCT request), count(*) FILTER (operation = 'read'), "
        "count(*) FILTER (operation = 'write'), sum(l4_duration_ns) FILTER (operation = 'read'), "
        "sum(l4_total_package_size_bytes) FILTER (operation = 'write') "
        "FROM transfer_logs WHERE request IS NOT NULL"
    )
    apart = (
        "SELECT count(*) FROM http_logs JOIN (SELECT request, count(*) FILTER (operation = 'read') "
        "AS reads, sum(duration_ns) FILTER (operation = 'write') AS writing_ns FROM transfer_logs "
        "GROUP BY 1) USING (request) WHERE reads = read_count AND writing_ns = write_duration_ns"
    )
    with Store(":memory:", few) as store:
        with Archive(store, tmp_path, ArchiveOptions(Mode.ALL)) as archive:
            replay([BOOKINFO], read_entities(BOOKINFO / "kubectl.yaml"), store, archive=archive)
        assert store.query(sums).fetchall() == store.query(of_each).fetchall()
        (rows,) = store.query(apart).fetchall()[0]
        assert rows == rows_of(store)["http"] > 10_000


def parts_of_bookinfo(folder: Path, count: int) -> list[Path]:
    """Cut a capture into several, each of whole streams."""
    with CaptureReader(BOOKINFO / "bookinfo.capture.arrows") as reader:
        messages = pa.Table.from_batches([batch.messages for batch in reader])
    stream = pl.Series(messages["stream"])
    streams = stream.unique(maintain_order=True)
    paths = []
    for number in range(count):
        path = folder / f"part{number}.capture.arrows"
        own = stream.is_in(streams.gather_every(count, number).implode())
        with CaptureWriter(path) as writer:
            for batch in messages.filter(own.to_arrow()).to_batches():
                writer.write(batch)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return parts_of_bookinfo(tmp_path_factory.mktemp("parts"), 4)


@pytest.fixture
def archived(tmp_path: Path, few: Plan, parts: list[Path]) -> Iterator[Store]:
    """A store with an archive of as many files of a kind as there are captures."""
    entities = read_entities(BOOKINFO / "kubectl.yaml")
    with Store(tmp_path / "metrics.duckdb", few) as store:
        with Archive(store, tmp_path / "logs", ArchiveOptions(Mode.ALL)) as archive:
            replay(parts, entities, store, archive=archive)
        yield store
