"""The archive: the logs that count, each once, in files that the store lists."""

from __future__ import annotations

import datetime as dt
import errno
import threading
from collections.abc import Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from comparison import VIEWS, Values, differences, read_views
from conftest import CAPTURES
from waiting import wait_until

from framewalk.engine import CaptureReader, CaptureWriter, Store, read_entities, replay
from framewalk.engine.archive import Archive, ArchiveOptions, Keeper, Kept, Mode
from framewalk.engine.archive.schema import CONNECTION_COLUMNS, EDGE
from framewalk.engine.errors import StoreError, StoreLockedError, StoreRoomError
from framewalk.engine.explain.plain_sql import logs_table, metric_sql
from framewalk.engine.oal.plan import Plan, make_plan
from framewalk.engine.schemas import OPERATIONS, PEER_SCHEMA
from framewalk.engine.stages import ResolvedLogs
from framewalk.engine.stages.columns import with_sides
from framewalk.engine.wire.access_log_pb2 import EBPFAccessLogMessage
from framewalk.queries import Value, asked, shipped_queries

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
        "AS latency_ms, duration_ns - serving_before_ns - serving_after_ns "
        "AS serving_duration_ns, ",
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
    assert sum(bool(found[view]) for view in VIEWS) > 2


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


def test_requests_say_when_they_were_being_served(tmp_path: Path, few: Plan) -> None:
    start, duration = pl.col("time_ns") + 5, pl.col("duration_ns") - 12
    keeper = Keeper(Mode.HTTP)

    def keep(logs: ResolvedLogs, connections: pl.DataFrame) -> Kept:
        requests = logs.operations["http"].with_columns(
            serving_start_ns=pl.when(pl.col("method") == 0).then(start),
            serving_duration_ns=pl.when(pl.col("method") == 0).then(duration),
        )
        return keeper(replace(logs, operations={**logs.operations, "http": requests}), connections)

    question = (
        "SELECT method, epoch_ns(serving_start) - epoch_ns(time), duration_ns - serving_duration_ns"
        " FROM http_logs GROUP BY ALL ORDER BY ALL"
    )
    with Store(":memory:", few) as store:
        with Archive(store, tmp_path, ArchiveOptions(Mode.HTTP)) as archive:
            archive.keep = keep
            replay([BOOKINFO], read_entities(BOOKINFO / "kubectl.yaml"), store, archive=archive)
        assert ("GET", 5, 12) in (found := store.query(question).fetchall())
        assert all(row[1:] == (None, None) for row in found if row[0] != "GET")
        assert len(found) > 1


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


def contents(store: Store) -> dict[str, pl.DataFrame]:
    return {kind: store.query(f"FROM {view} ORDER BY ALL").pl() for kind, view in VIEW_OF.items()}


def test_merged_files_have_the_same_rows_sorted_by_edge_and_time(
    tmp_path: Path, archived: Store
) -> None:
    before = contents(archived)
    small = listed(archived)
    assert {kind: len(files) for kind, files in small.items()} == dict.fromkeys(VIEW_OF, 4)
    with Archive(archived, tmp_path / "logs", ArchiveOptions(Mode.ALL)) as archive:
        # An hour that still gets logs waits for more.
        assert archive.compact(1, open_from_ns=0) == 0
        assert sum(iter(lambda: archive.compact(2), 0)) == 4 * len(VIEW_OF)
        # What queries may be reading stays for as long as they may.
        archive.tidy(11, longest_query_s=10)
        assert all(path.exists() for paths in small.values() for path in paths)
        archive.tidy(12, longest_query_s=10)
        assert not any(path.exists() for paths in small.values() for path in paths)
    after = contents(archived)
    assert all(after[kind].equals(before[kind]) for kind in VIEW_OF)
    (merged,) = listed(archived)["http"]
    rows = pl.read_parquet(merged).select("local_service", "remote_service", "role", "time")
    assert rows.select("local_service").to_series().is_sorted()
    assert rows.equals(rows.sort("local_service", "remote_service", maintain_order=True))


def test_files_alike_in_size_of_an_hour_that_is_over_become_one_in_a_server(
    tmp_path: Path, archived: Store
) -> None:
    """Each is a little larger than the one before, and far larger than a handful of logs."""
    sizes_bytes = sorted(path.stat().st_size for path in listed(archived)["http"])
    assert 2**16 < sizes_bytes[0] < sizes_bytes[-1] < 2 * sizes_bytes[0]
    before = contents(archived)
    with Archive(archived, tmp_path / "logs", ArchiveOptions(Mode.ALL)) as archive:
        while archive.compact(1, open_from_ns=2**62):
            pass
    assert {kind: len(files) for kind, files in listed(archived).items()} == dict.fromkeys(
        VIEW_OF, 1
    )
    after = contents(archived)
    assert all(after[kind].equals(before[kind]) for kind in VIEW_OF)


def test_what_a_process_left_that_was_ended_is_removed(tmp_path: Path, archived: Store) -> None:
    before = rows_of(archived)
    file = listed(archived)["http"][0]
    orphan = file.with_name("000000999999.parquet")
    orphan.write_bytes(file.read_bytes())
    foreign = file.with_name("mine.parquet")
    foreign.write_bytes(file.read_bytes())
    with Archive(archived, tmp_path / "logs", ArchiveOptions(Mode.ALL)) as archive:
        assert archive.problems == []
        assert not orphan.exists()
        assert foreign.exists()
        assert rows_of(archived) == before


@pytest.mark.parametrize("damage", ["missing", "short", "other"])
def test_files_that_cannot_be_read_are_told_and_the_rest_is_answered(
    tmp_path: Path, archived: Store, damage: str
) -> None:
    file = listed(archived)["http"][1]
    (rows,) = duckdb.sql(f"SELECT count(*) FROM '{file}'").fetchall()[0]
    before = rows_of(archived)
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(content[:-9] if damage == "short" else b"x" * len(content))
    with Archive(archived, tmp_path / "logs", ArchiveOptions(Mode.ALL)) as archive:
        assert [problem.split(":")[0] for problem in archive.problems] == [str(file)]
        assert rows_of(archived) == before | {"http": before["http"] - rows}
        assert archived.query("SELECT count(*) FROM service_minute").fetchall()[0][0]


def test_a_file_whose_inside_is_damaged_is_left_out_when_it_is_merged(
    tmp_path: Path, archived: Store
) -> None:
    file = listed(archived)["http"][1]
    (rows,) = duckdb.sql(f"SELECT count(*) FROM '{file}'").fetchall()[0]
    before = rows_of(archived)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8] = b"\xff" * 8
    file.write_bytes(content)
    with Archive(archived, tmp_path / "logs", ArchiveOptions(Mode.ALL)) as archive:
        while archive.compact(1):
            pass
        assert archive.compact(2) == 0
        assert rows_of(archived)["http"] == before["http"] - rows


def test_old_logs_go_by_their_time_and_by_what_they_take(tmp_path: Path, archived: Store) -> None:
    first, last = archived.query("SELECT min(time), max(time) FROM http_logs").fetchall()[0]
    ends_ns = [round(one.replace(tzinfo=dt.UTC).timestamp() * 1e9) for one in (first, last)]
    with Archive(archived, tmp_path / "logs", ArchiveOptions(Mode.ALL)) as archive:
        assert archive.expire(ends_ns[0], 0) == 0
        whole = archive.size_bytes()
        assert archive.keep_budget(whole, 0) == 0
        assert archive.keep_budget(whole // 2, 0) > 0
        assert 0 < archive.size_bytes() <= whole // 2
        assert archive.expire(ends_ns[1] + 60 * 10**9, 0) > 0
        assert archive.size_bytes() == 0
    assert rows_of(archived) == dict.fromkeys(VIEW_OF, 0)
    assert not list((tmp_path / "logs").glob("*/*"))


def test_files_that_were_replaced_take_room_until_queries_are_over(
    tmp_path: Path, archived: Store
) -> None:
    with Archive(archived, tmp_path / "logs", ArchiveOptions(Mode.ALL)) as archive:
        small = archive.size_bytes()
        while archive.compact(1):
            pass
        assert archive.waiting_bytes() == small
        large = archive.size_bytes()
        on_disk = sum(one.stat().st_size for one in (tmp_path / "logs").glob("*/*/*.parquet"))
        assert on_disk == small + large
        assert archive.keep_budget(small + large, 1) == 0
        assert archive.keep_budget(small + large - 1, 1) == 1
        # What went for the budget does not have more go.
        assert archive.keep_budget(small + large - 1, 1) == 0
        archive.tidy(12, longest_query_s=10)
        assert archive.waiting_bytes() == 0


def test_a_folder_is_of_one_store_and_one_process(
    tmp_path: Path, archived: Store, few: Plan
) -> None:
    options = ArchiveOptions(Mode.HTTP)
    folder = tmp_path / "logs"
    with Store(":memory:", few) as other:
        with pytest.raises(StoreError, match="the archive of another store"):
            Archive(other, folder, options)
        with Archive(archived, folder, options), pytest.raises(StoreLockedError):
            Archive(archived, folder, options)
        with pytest.raises(StoreError, match="is no archive"):
            Archive(other, tmp_path, options)
        with pytest.raises(StoreError, match="pattern of names"):
            Archive(other, tmp_path / "a*b", options)
        (tmp_path / "file").touch()
        with pytest.raises(StoreError, match="cannot be used as an archive"):
            Archive(other, tmp_path / "file", options)
    assert rows_of(archived)["http"]


def test_an_archive_that_was_moved_or_lost(tmp_path: Path, archived: Store) -> None:
    before = rows_of(archived)
    metrics = archived.query("FROM service_minute ORDER BY ALL").fetchall()
    (tmp_path / "logs").rename(tmp_path / "moved")
    with pytest.raises(Exception, match="No files found"):
        archived.query("FROM http_logs").fetchall()
    assert archived.query("FROM service_minute ORDER BY ALL").fetchall() == metrics
    options = ArchiveOptions(Mode.ALL)
    with Archive(archived, tmp_path / "moved", options) as archive:
        assert archive.problems == []
        assert rows_of(archived) == before
    with Archive(archived, tmp_path / "empty", options) as archive:
        assert len(archive.problems) == 4 * len(VIEW_OF)
        assert rows_of(archived) == dict.fromkeys(VIEW_OF, 0)


def test_logs_find_the_hour_of_their_event(tmp_path: Path, few: Plan, parts: list[Path]) -> None:
    entities = read_entities(BOOKINFO / "kubectl.yaml")
    late = tmp_path / "late.capture.arrows"
    hour_ns = 3600 * 10**9
    with CaptureReader(parts[0]) as reader, CaptureWriter(late) as writer:
        for batch in reader:
            contents = batch.messages["message"].to_pylist()
            moved = [earlier(content, hours=number % 3) for number, content in enumerate(contents)]
            columns = [*batch.messages.columns[:-1], pa.array(moved, pa.binary())]
            writer.write(pa.RecordBatch.from_arrays(columns, schema=batch.messages.schema))
    for most_hours, hours in ((1_000, 3), (2, 1)):
        folder = tmp_path / f"logs {most_hours}"
        options = ArchiveOptions(Mode.HTTP, most_hours=most_hours)
        with Store(":memory:", few) as store, Archive(store, folder, options) as archive:
            replay([late], entities, store, archive=archive)
            found = store.query(
                "SELECT hour, count(*), min(first_ns), max(last_ns), sum(rows)::BIGINT "
                "FROM internal.archived GROUP BY 1"
            ).fetchall()
            own = [row for row in found if row[0] is not None]
            assert len(own) == hours
            assert all(
                hour * hour_ns <= first and last < (hour + 1) * hour_ns
                for hour, _, first, last, _ in own
            )
            assert sum(row[4] for row in found) == rows_of(store)["http"]
            # A file of several hours is for the others.
            assert len(found) == len(own) + (most_hours == 2)


def test_a_node_whose_clock_runs_wild_opens_so_many_hours(tmp_path: Path, few: Plan) -> None:
    hour_ns, most = 3600 * 10**9, 5
    options = ArchiveOptions(Mode.ALL, most_hours=3, most_hours_of_node=most)

    def of(node: str, hour: int, logs: int = 1) -> Kept:
        one = kept_log("transfer", hour * hour_ns, operation="read", syscall=0)
        many = {kind: pl.concat([frame] * logs) for kind, frame in one.frames.items()}
        named = one.connections.with_columns(node=pl.lit(node))
        return replace(one, connections=named, frames=many)

    def hours(store: Store) -> dict[int | None, int]:
        found = store.query("SELECT hour, sum(rows)::BIGINT FROM internal.archived GROUP BY 1")
        return dict(found.fetchall())

    with Store(":memory:", few) as store, Archive(store, tmp_path / "logs", options) as archive:
        archive.tidy(0, longest_query_s=1)
        for hour in range(20):
            add(store, archive, of("wild", 100 + hour))
        assert hours(store) == {100 + hour: 1 for hour in range(most)} | {None: 20 - most}
        # In one commit those hours come first that the most nodes have, however many logs one has.
        parts = [of("wild", 100, 9), of("wild", 101, 9), of("wild", 102, 9)]
        add(store, archive, *parts, of("a", 50), of("b", 50), of("c", 51), of("d", 51))
        assert (hours(store)[50], hours(store)[51]) == (2, 2)
        # Others open hours of their own, and after an hour so does the node.
        add(store, archive, of("a", 200))
        archive.tidy(3601, longest_query_s=1)
        add(store, archive, of("wild", 300))
        assert (hours(store)[200], hours(store)[300]) == (1, 1)


def test_nodes_whose_names_are_made_up_open_so_many_hours_that_are_not_about_now(
    tmp_path: Path, few: Plan
) -> None:
    now, hour_ns = 500_000, 3600 * 10**9
    options = ArchiveOptions(Mode.ALL, most_hours_of_node=2, most_far_hours=3)

    def of(node: int, hour: int) -> Kept:
        one = kept_log("transfer", hour * hour_ns, operation="read", syscall=0)
        return replace(one, connections=one.connections.with_columns(node=pl.lit(f"node {node}")))

    with Store(":memory:", few) as store, Archive(store, tmp_path / "logs", options) as archive:
        archive.tidy(0, longest_query_s=1, now_s=now * 3600)
        for number in range(20):
            add(store, archive, of(number, 100 + number))
        opened = "SELECT DISTINCT hour FROM internal.archived ORDER BY 1"
        assert store.query(opened).fetchall() == [(100,), (101,), (102,), (None,)]
        # Those where clocks are right are not in the way of anybody, nor is anybody in theirs.
        for number, hour in enumerate((now, now - 24, now + 1)):
            add(store, archive, of(number, hour))
        assert {(now,), (now - 24,), (now + 1,)} <= set(store.query(opened).fetchall())


def earlier(content: bytes, hours: int) -> bytes:
    """Have a message's node be started so much earlier, if it says when it was."""
    message = EBPFAccessLogMessage.FromString(content)
    if message.node.HasField("bootTime"):
        message.node.bootTime.seconds -= 3600 * hours
    return message.SerializeToString()


@pytest.mark.parametrize("gives_up", [True, False])
def test_rows_that_find_no_room_are_not_damage(
    tmp_path: Path, few: Plan, parts: list[Path], *, gives_up: bool
) -> None:
    def full(_table: pa.Table) -> pa.Table:
        raise OSError(errno.ENOSPC, "No space left on device")

    options = ArchiveOptions(Mode.HTTP, gives_up=gives_up)
    with (
        Store(tmp_path / "metrics.duckdb", few) as store,
        Archive(store, tmp_path / "logs", options) as archive,
    ):
        replay(parts[:1], read_entities(BOOKINFO / "kubectl.yaml"), store, archive=archive)
        file = archive.logs().files("http", 0, 2**62)[0]
        if gives_up:
            assert archive.change(file, full, 0) is None
        else:
            with pytest.raises(StoreRoomError, match="no space left on device"):
                archive.change(file, full, 0)
        assert file in archive.logs().files("http", 0, 2**62)


def test_readers_see_each_log_once_whatever_is_written_merged_and_deleted(
    tmp_path: Path, few: Plan, parts: list[Path]
) -> None:
    entities = read_entities(BOOKINFO / "kubectl.yaml")
    seen: list[tuple[int, int, int]] = []
    is_over = threading.Event()
    # What is sent is counted in the same transaction.
    question = (
        "SELECT (SELECT count(*) FROM http_logs), (SELECT count(*) FROM connection_logs) + "
        "(SELECT count(*) FROM transfer_logs), (SELECT sum(CASE WHEN kind = 'dropped' THEN -count "
        "WHEN kind = 'logs' THEN count ELSE 0 END) FROM internal.counters), "
        "(SELECT sum(rows) FROM internal.archived)"
    )

    def read(cursor: duckdb.DuckDBPyConnection) -> None:
        while not is_over.is_set():
            requests, others, *counts = cursor.execute(question).fetchall()[0]
            logs, rows = (int(count or 0) for count in counts)
            seen.append((requests + others, logs, rows))

    with (
        Store(tmp_path / "metrics.duckdb", few) as store,
        Archive(store, tmp_path / "logs", ArchiveOptions(Mode.ALL)) as archive,
        ThreadPoolExecutor(1) as threads,
    ):
        reading = threads.submit(read, store.connection.cursor())
        try:
            for elapsed_s, part in enumerate(parts):
                replay([part], entities, store, archive=archive)
                while archive.compact(elapsed_s):
                    pass
                # Nobody is at what was replaced before this turn but one.
                archive.tidy(elapsed_s, longest_query_s=2)
            wait_for_more(seen, reading)
            assert archive.keep_budget(archive.size_bytes() // 2, elapsed_s=9) > 0
            wait_for_more(seen, reading)
        finally:
            is_over.set()
            reading.result()
    assert [archived for archived, _, _ in seen] == [rows for _, _, rows in seen]
    assert len({logs for _, logs, _ in seen}) > 1
    # Of what was counted all is there, until some of it is deleted at once.
    gone = [logs - rows for _, logs, rows in seen]
    assert gone == sorted(gone)
    assert (gone[0], len(set(gone))) == (0, 2)


def wait_for_more(seen: Sized, reading: Future[None]) -> None:
    """Wait for an answer to what is asked from now on."""
    reached = len(seen)
    wait_until(lambda: len(seen) >= reached + 2 or reading.done())


def ask(store: Store, name: str, **values: Value) -> pl.DataFrame:
    """Ask a shipped query, of all that there is."""
    ((since, until),) = store.query(asked(shipped_queries()["time_range"], {})).fetchall()
    given = {"since": since, "until": until, **values}
    return store.query(asked(shipped_queries()[name], given)).pl()


def test_shipped_queries_of_logs(archived: Store) -> None:
    slowest, failed = ask(archived, "slowest_requests"), ask(archived, "failed_requests")
    question = "SELECT max(duration_ns) FROM http_logs WHERE role = 'server'"
    (most,) = archived.query(question).fetchall()[0]
    assert slowest["latency_ms"].to_list() == sorted(slowest["latency_ms"], reverse=True)
    assert slowest["latency_ms"][0] == round(most / 1e6, 3)
    assert slowest["write_l4_ms"].sum() > slowest["write_l2_ms"].sum() > 0
    question = "SELECT count(*) FROM http_logs WHERE status_code >= 500"
    (failures,) = archived.query(question).fetchall()[0]
    assert failed.height == failures > 0
    assert failed["time"].is_sorted(descending=True)
    pods = ask(archived, "pod_logs")
    assert set(pods["operation"]) == set(OPERATIONS)
    assert pods.select("pod", "time").equals(pods.select("pod", "time").sort("pod", "time"))
    traces = ask(archived, "traces")
    assert traces["trace_id"].n_unique() == 20
    assert set(traces["seen_by"]) == {"client", "server"}
    first = pods["time"].sort()[len(pods) // 4].replace(tzinfo=None)
    later = ask(archived, "pod_logs", pod=pods["pod"][0], since=first)
    assert set(later["pod"]) == {pods["pod"][0]}
    assert later["time"].min() >= first
    only = ask(archived, "slowest_requests", endpoint=slowest.row(3, named=True)["endpoint"])
    assert only["endpoint"].n_unique() == 1
    one = ask(archived, "traces", trace_id=traces["trace_id"][0])
    assert set(one["trace_id"]) == {traces["trace_id"][0]}


SECOND_NS = 10**9


def kept_log(kind: str, time_ns: int = SECOND_NS, **values: object) -> Kept:
    """Return one log, whose columns are null but for some."""
    peers = pl.DataFrame(
        {name: ["x"] for name in EDGE} | {"local_known": [True], "components": [1]}
    )
    sides = {name: ["x"] for name in CONNECTION_COLUMNS if not name.endswith("_port")}
    connections = pl.DataFrame(sides | {"local_port": [1], "remote_port": [2]})
    own = {"time_ns": time_ns, "duration_ns": 1, **values}
    frame = pl.DataFrame({"peer": [0], "connection": [0], **{k: [v] for k, v in own.items()}})
    numbers = frame.with_columns(pl.col("peer", "connection").cast(pl.UInt32))
    return Kept(peers, connections, {kind: numbers}, 0)


def add(store: Store, archive: Archive, *parts: Kept) -> None:
    files = archive.write(parts)
    with store.transaction():
        archive.list_files(files)


def transfer(**values: object) -> Kept:
    return kept_log("transfer", operation="read", syscall=0, **values)


def test_any_interface_number_is_kept_and_odd_values_stop_no_engine(
    tmp_path: Path, few: Plan
) -> None:
    odd = transfer(l2_ifindex=2**64 - 1)
    options = ArchiveOptions(Mode.ALL, gives_up=True)
    with Store(":memory:", few) as store:
        with Archive(store, tmp_path / "logs", options) as archive:
            add(store, archive, transfer(l2_ifindex=2**32 - 1))
            assert archive.write([odd]) == []
            assert archive.given_up_rows == 1
        found = store.query("SELECT l2_ifindex FROM transfer_logs").fetchall()
        assert found == [(2**32 - 1,)]
        with (
            Archive(store, tmp_path / "logs", ArchiveOptions(Mode.ALL)) as archive,
            pytest.raises(StoreError, match="without an archive"),
        ):
            archive.write([odd])


def test_times_that_do_not_fit_are_null_and_the_rest_is_read(tmp_path: Path, few: Plan) -> None:
    most, second = 2**63 - 1, SECOND_NS
    logs = [
        # time, duration, start and duration of serving
        (second, 100, second + 5, 88),
        (second, most, second + 5, -most),
        (second, -most, second - 5, 1),
        (-most, 100, most, 88),
        (most, 100, most, 88),
        (most - second, 100, most - 5, 88),
        (-most, 100, -most + 5, 88),
    ]
    parts = [
        kept_log(
            "http",
            time,
            duration_ns=duration,
            serving_start_ns=start,
            serving_duration_ns=serving,
            method=0,
            path="/",
            host="",
            trace_provider=0,
            trace_id="",
            trace_segment_id="",
            trace_span_id="",
        )
        for time, duration, start, serving in logs
    ]
    with (
        Store(":memory:", few) as store,
        Archive(store, tmp_path / "logs", ArchiveOptions(Mode.HTTP)) as archive,
    ):
        for part in parts:
            add(store, archive, part)
        read = store.query(
            "SELECT duration_ns, serving_duration_ns, serving_start - time FROM http_logs"
        )
        served = sorted(row[1] for row in read.fetchall() if row[1] is not None)
        assert served == sorted([88, 1, 88, 88, 88])
        assert len(store.query("SELECT * FROM http_logs").pl()) == len(logs)
        while archive.compact(1):
            pass
        assert len(store.query("SELECT * FROM http_logs").pl()) == len(logs)


def test_a_start_that_was_ended_leaves_a_folder_that_can_be_used(tmp_path: Path, few: Plan) -> None:
    logs = tmp_path / "logs"
    with Store(":memory:", few) as store:
        # Its views cannot be made while one is a table.
        store.run("CREATE TABLE http_logs (a INT)")
        with pytest.raises(Exception, match="http_logs"):
            Archive(store, logs, ArchiveOptions(Mode.HTTP))
        assert (logs / "archive.json").exists()
        store.run("DROP TABLE http_logs")
        Archive(store, logs, ArchiveOptions(Mode.HTTP)).close()


def test_a_new_file_systems_folder_can_be_an_archive(tmp_path: Path, few: Plan) -> None:
    (tmp_path / "lost+found").mkdir()
    with Store(":memory:", few) as store:
        Archive(store, tmp_path, ArchiveOptions(Mode.HTTP)).close()
        Archive(store, tmp_path, ArchiveOptions(Mode.HTTP)).close()


def test_a_restored_store_lists_what_was_merged_since(
    tmp_path: Path, few: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    path, options = tmp_path / "metrics.duckdb", ArchiveOptions(Mode.ALL)
    numbers = "SELECT l2_ifindex FROM transfer_logs ORDER BY 1"
    with Store(path, few) as store, Archive(store, tmp_path / "logs", options) as archive:
        for number in (1, 2, 3):
            add(store, archive, transfer(l2_ifindex=number))
        assert archive.compact(1) == 3
        add(store, archive, transfer(l2_ifindex=4))
    backup = path.read_bytes()
    with Store(path, few) as store, Archive(store, tmp_path / "logs", options) as archive:
        assert archive.compact(1) == 2
        # What came later comes again, from where it came.
        add(store, archive, transfer(l2_ifindex=5))
    path.write_bytes(backup)
    with Store(path, few) as store, Archive(store, tmp_path / "logs", options) as archive:
        assert archive.problems == []
        assert "listed again" in caplog.text
        assert store.query(numbers).fetchall() == [(1,), (2,), (3,), (4,)]
        add(store, archive, transfer(l2_ifindex=5))
        while archive.compact(1):
            pass
        assert store.query(numbers).fetchall() == [(1,), (2,), (3,), (4,), (5,)]
    with Store(path, few) as store, Archive(store, tmp_path / "logs", options) as archive:
        assert archive.problems == []
        assert store.query(numbers).fetchall() == [(1,), (2,), (3,), (4,), (5,)]


def test_a_restored_store_does_not_remove_what_was_merged_with_others_since(
    tmp_path: Path, few: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    path, options = tmp_path / "metrics.duckdb", ArchiveOptions(Mode.ALL)
    with Store(path, few) as store, Archive(store, tmp_path / "logs", options) as archive:
        for number in (1, 2):
            add(store, archive, transfer(l2_ifindex=number))
    backup = path.read_bytes()
    with Store(path, few) as store, Archive(store, tmp_path / "logs", options) as archive:
        add(store, archive, transfer(l2_ifindex=3))
        assert archive.compact(1) == 3
    (merged,) = (tmp_path / "logs" / "transfer").glob("*/*.parquet")
    path.write_bytes(backup)
    with Store(path, few) as store, Archive(store, tmp_path / "logs", options) as archive:
        assert len(archive.problems) == 2
        content = merged.read_bytes()
        add(store, archive, transfer(l2_ifindex=3))
    assert merged.read_bytes() == content
    assert "not removed" in caplog.text


def test_long_texts_are_merged_a_few_at_once(tmp_path: Path, few: Plan) -> None:
    texts = ("host", "trace_id", "trace_segment_id", "trace_span_id")
    one = kept_log("http", method=0, trace_provider=0, path="", **dict.fromkeys(texts, ""))
    rows = 10_000
    options = ArchiveOptions(Mode.HTTP)
    with Store(":memory:", few) as store, Archive(store, tmp_path / "logs", options) as archive:
        for file in range(2):
            path = pl.Series([f"/{file}/{row}/".ljust(2_048, "a") for row in range(rows)])
            frame = pl.concat([one.frames["http"]] * rows).with_columns(path=path)
            add(store, archive, replace(one, frames={"http": frame}))
        assert archive.compact(1) == 2
        (path_of_one,) = listed(store)["http"]
        assert store.query("SELECT count(DISTINCT path) FROM http_logs").fetchall() == [(2 * rows,)]
    assert pq.read_metadata(path_of_one).num_row_groups > 1


def test_late_logs_of_an_hour_that_is_over_do_not_write_it_again(
    tmp_path: Path, archived: Store
) -> None:
    with Archive(archived, tmp_path / "logs", ArchiveOptions(Mode.ALL)) as archive:
        while archive.compact(1):
            pass
        (large,) = listed(archived)["http"]
        (first,) = archived.query("SELECT min(epoch_ns(time)) FROM http_logs").fetchall()[0]
        before = rows_of(archived)["http"]
        for _ in range(5):
            late = kept_log("http", first, path="", method=0, trace_provider=0)
            texts = [pl.lit("").alias(name) for name in LATE_TEXTS]
            add(
                archived,
                archive,
                replace(late, frames={k: f.with_columns(texts) for k, f in late.frames.items()}),
            )
            archive.compact(2, open_from_ns=2**62)
        assert large in listed(archived)["http"]
        assert len(listed(archived)["http"]) == 2
        assert rows_of(archived)["http"] == before + 5


LATE_TEXTS = ("host", "trace_id", "trace_segment_id", "trace_span_id")
