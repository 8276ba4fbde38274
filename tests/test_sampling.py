"""Archives of which some requests are left: weights, the notable ones, both logs of a call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from prepared import framewalk

from framewalk.engine import Plan, Store, load_plan, read_entities, replay
from framewalk.engine.archive import Archive, ArchiveOptions, Mode, Sampling
from framewalk.engine.remaking import plan_recomputation, relate
from framewalk.fixtures import GenerateOptions, generate

ONE_IN = 5
SLOW_MS = 20
OPTIONS = ArchiveOptions(Mode.SAMPLED, sampling=Sampling(ONE_IN, SLOW_MS))
DEFINITIONS = """
requests = from(K8SService.*).filter(type == "protocol").count();
latency_ms = from(K8SService.protocol.http.latency).filter(type == "protocol").sum();
connects = from(K8SService.*).filter(type == "connect").count();
relations = from(K8SEndpointRelation.*).filter(type == "http").cpm();
"""
LOGS = "SELECT * EXCLUDE (request) FROM http_logs ORDER BY ALL"
# How long a request was really being served, or else its log.
LASTED_NS = "coalesce(serving_duration_ns, duration_ns)"
FAR_NS = 2**62


@dataclass(frozen=True, slots=True)
class Made:
    """A capture of a busy cluster, in parts, and what really happened."""

    parts: tuple[Path, ...]
    dump: Path
    truth: Path


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("plan") / "few.oal"
    path.write_text(DEFINITIONS, encoding="utf-8")
    return load_plan(path)


def made_capture(folder: Path, clock_offset_s: float) -> Made:
    capture, dump, truth = (folder / name for name in ("a.capture.arrows", "a.yaml", "a.parquet"))
    options = GenerateOptions(
        "bookinfo",
        duration_s=90,
        requests_per_second=30,
        clock_offset_s=clock_offset_s,
        lost_permille=10,
    )
    generate(options, capture, dump, truth_path=truth)
    return Made((capture,), dump, truth)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made_capture(tmp_path_factory.mktemp("made"), clock_offset_s=2)


def archived(store: Store, folder: Path, made: Made, options: ArchiveOptions = OPTIONS) -> Archive:
    archive = Archive(store, folder, options)
    replay(made.parts, read_entities(made.dump), store, archive=archive)
    return archive


def leave_some(store: Store, archive: Archive) -> None:
    relate(store, archive)
    while archive.compact(1, open_from_ns=FAR_NS):
        pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, plan: Plan, made: Made) -> pl.DataFrame:
    """All requests of the capture."""
    with Store(":memory:", plan) as store:
        with archived(store, tmp_path_factory.mktemp("whole") / "logs", made) as archive:
            assert archive.sampled_minutes(0, 2**40) == set()
        return store.query(LOGS).pl()


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory, plan: Plan, made: Made) -> Path:
    """A store whose archive has some requests left."""
    folder = tmp_path_factory.mktemp("left")
    with Store(folder / "metrics.duckdb", plan) as store:
        with archived(store, folder / "logs", made) as archive:
            leave_some(store, archive)
        store.compact()
    return folder / "metrics.duckdb"


def asked(path: Path, sql: str) -> pl.DataFrame:
    with duckdb.connect(path, read_only=True) as connection:
        return connection.sql(sql).pl()


def test_failed_and_slow_requests_are_all_there(left: Path, whole: pl.DataFrame) -> None:
    notable = f"status_code >= 500 OR {LASTED_NS} >= {SLOW_MS * 10**6}"
    found = asked(left, f"SELECT * EXCLUDE (weight, sample) FROM ({LOGS}) WHERE {notable}")
    known = whole.drop("weight", "sample")
    with duckdb.connect() as connection:
        connection.register("known", known)
        every = connection.sql(f"FROM known WHERE {notable} ORDER BY ALL").pl()
    assert found.equals(every)
    assert 500 < found.height < whole.height / 3
    assert asked(left, f"FROM http_logs WHERE ({notable}) AND weight <> 1").is_empty()


def test_one_in_so_many_of_the_rest_is_left_and_stands_for_as_many(
    left: Path, whole: pl.DataFrame
) -> None:
    rows = asked(left, LOGS)
    assert set(rows["weight"]) == {1, ONE_IN}
    assert rows["sample"].is_null().equals((rows["weight"] == 1).alias("sample"))
    own = rows.drop("weight", "sample")
    assert own.join(whole.drop("weight", "sample"), on=own.columns, nulls_equal=True).height >= (
        own.height
    )
    assert rows.height < whole.height / 2


def test_weighted_sums_are_the_metrics_within_their_stated_error(left: Path) -> None:
    """Of each service and minute: requests, and what they took together.

    The stated error is the standard deviation of the estimate, from what is left alone: requests
    of one fate count as one draw. So errors over it have mean 0 and mean square 1, whatever the
    sums; a mean square of so many draws within a factor of two is what chance leaves.
    """
    sums = f"""
        WITH draws AS (
            SELECT local_service AS service, date_trunc('minute', time) AS minute, weight, sample,
                   count(*) AS requests, sum(latency_ms) AS latency_ms
            FROM http_logs WHERE local_service <> 'Unknown' GROUP BY ALL
        ), estimates AS (
            SELECT service, minute,
                   sum(weight * requests) AS requests, sum(weight * latency_ms) AS latency_ms,
                   sqrt(sum(weight * (weight - 1) * requests * requests)) AS requests_error,
                   sqrt(sum(weight * (weight - 1) * latency_ms * latency_ms)) AS latency_ms_error,
                   count(*) FILTER (weight = {ONE_IN}) AS draws
            FROM draws GROUP BY ALL
        )
        SELECT (e.requests - m.requests) / e.requests_error AS of_requests,
               (e.latency_ms - m.latency_ms) / e.latency_ms_error AS of_latency_ms,
               e.requests, e.requests_error
        FROM estimates AS e JOIN service_minute AS m
        ON m.service = e.service AND m.time_bucket = e.minute WHERE e.draws >= 20
    """
    errors = asked(left, sums)
    assert errors.height >= 8
    for name in ("of_requests", "of_latency_ms"):
        values = errors[name].to_list()
        assert max(map(abs, values)) < 4
        assert 0.5 < math.sqrt(sum(value * value for value in values) / len(values)) < 2
    # An error that is as large as the sums would be met by anything.
    assert (errors["requests_error"] < errors["requests"] / 4).all()


def calls_of(rows: pl.DataFrame, made: Made) -> pl.DataFrame:
    """Return the call that each log is of, and whether the log alone lets it stay."""
    truth = pl.read_parquet(made.truth).drop_nulls(["client_log_ns", "server_log_ns"])
    sides = pl.concat(
        truth.select("call", "path", is_called=pl.lit(side == "server"), time=f"{side}_log_ns")
        for side in ("client", "server")
    ).with_columns(pl.col("path").str.extract("^([^?]*)"))
    lasted_ns = pl.coalesce("serving_duration_ns", "duration_ns")
    own = rows.select(
        "path",
        pl.col("time").cast(pl.Int64),
        is_called=pl.col("role") == "server",
        is_notable=(lasted_ns >= SLOW_MS * 10**6) | (pl.col("status_code") >= 500),
    )
    return own.join(sides, on=["path", "is_called", "time"]).unique(["call", "is_called"])


def shared(left: Path, whole: pl.DataFrame, made: Made) -> pl.DataFrame:
    """Return of the calls that both saw whether both logs share their fate, and what it hangs on.

    Columns: `logs` that are left, 0 to 2; `notable`: how many logs alone let it stay.
    """
    before = calls_of(whole, made).group_by("call").agg(pl.len(), notable=pl.sum("is_notable"))
    after = calls_of(asked(left, LOGS), made).group_by("call").agg(logs=pl.len())
    return before.filter(pl.col("len") == 2).join(after, on="call", how="left").fill_null(0)


def test_both_logs_of_a_call_share_its_fate(
    tmp_path: Path, plan: Plan, left: Path, whole: pl.DataFrame, made: Made
) -> None:
    """Also where one side alone was slow: the log of the other that is nearest stays with it.

    With clocks 2 s apart that is now and then the log of another call on the same connection.
    """
    alike = made_capture(tmp_path, clock_offset_s=0)
    path = tmp_path / "metrics.duckdb"
    with Store(path, plan) as store, archived(store, tmp_path / "logs", alike) as archive:
        every = store.query(LOGS).pl()
        leave_some(store, archive)
    found = shared(path, every, alike)
    assert set(found["logs"]) == {0, 2}
    assert set(found["notable"]) == {0, 1, 2}
    assert found.height > 3 * found.filter(pl.col("logs") > 0).height
    apart = shared(left, whole, made)
    some = apart.filter(pl.col("logs") > 0)
    assert some.filter(pl.col("logs") == 1).height < some.height / 20


@pytest.mark.parametrize("commit_logs", [3_000, 20_000])
def test_what_is_left_does_not_depend_on_how_logs_came(
    tmp_path: Path, plan: Plan, made: Made, left: Path, commit_logs: int
) -> None:
    entities = read_entities(made.dump)
    with Store(":memory:", plan) as store:
        with Archive(store, tmp_path / "logs", OPTIONS) as archive:
            replay(made.parts, entities, store, archive=archive, commit_logs=commit_logs)
            while archive.compact(1):
                pass
            # Relations come first: they are made of all requests.
            assert archive.sampled_minutes(0, 2**40) == set()
            leave_some(store, archive)
            # Nothing is drawn twice.
            assert archive.compact(2) == 0
        assert store.query(LOGS).pl().equals(asked(left, LOGS))


def test_an_hour_that_still_gets_logs_is_whole(
    tmp_path: Path, plan: Plan, made: Made, whole: pl.DataFrame
) -> None:
    with Store(":memory:", plan) as store, archived(store, tmp_path / "logs", made) as archive:
        relate(store, archive)
        (first_ns,) = store.query("SELECT min(epoch_ns(time)) FROM http_logs").fetchall()[0]
        while archive.compact(1, open_from_ns=first_ns):
            pass
        assert store.query(LOGS).pl().equals(whole)


def test_what_is_made_of_all_requests_stays_and_is_not_made_of_some(
    tmp_path: Path, plan: Plan, made: Made
) -> None:
    relations = "FROM endpoint_relation_minute ORDER BY ALL"
    seen = "FROM endpoint_calls_minute ORDER BY ALL"
    with Store(":memory:", plan) as store, archived(store, tmp_path / "logs", made) as archive:
        relate(store, archive)
        before = [store.query(sql).fetchall() for sql in (relations, seen)]
        leave_some(store, archive)
        minutes = sorted(archive.sampled_minutes(0, 2**40))
        assert minutes
        assert archive.whole_minutes(minutes) == []
        # As a late log has it.
        archive.note_changed(minutes)
        assert relate(store, archive).minutes == 0
        assert archive.changed_minutes() == []
        assert [store.query(sql).fetchall() for sql in (relations, seen)] == before
        planned = plan_recomputation(store, archive, ["requests"], 0, 2**40)
        assert (planned.minutes, planned.skipped, planned.sampled) == (
            (),
            len(minutes),
            len(minutes),
        )


def test_files_of_an_earlier_version_are_read_and_sampled(
    tmp_path: Path, plan: Plan, made: Made, whole: pl.DataFrame, left: Path
) -> None:
    with Store(":memory:", plan) as store:
        with archived(store, tmp_path / "logs", made) as archive:
            relate(store, archive)
        for path in (tmp_path / "logs" / "http").glob("*/*.parquet"):
            table = pq.read_table(path)
            pq.write_table(table.drop(["weight", "sample"]), path)
            size_bytes = path.stat().st_size
            sql = "UPDATE internal.archived SET is_sampled = NULL, size_bytes = ? WHERE file = ?"
            store.run(sql, [size_bytes, int(path.stem)])
        with Archive(store, tmp_path / "logs", OPTIONS) as archive:
            assert archive.problems == []
            assert store.query(LOGS).pl().equals(whole)
            assert archive.logs().count_requests(0, FAR_NS) == whole.height
            leave_some(store, archive)
        assert store.query(LOGS).pl().equals(asked(left, LOGS))


def test_commands_tell_that_a_sample_is_not_enough(tmp_path: Path, plan: Plan, made: Made) -> None:
    path, oal = tmp_path / "metrics.duckdb", tmp_path / "few.oal"
    oal.write_text(DEFINITIONS, encoding="utf-8")
    with Store(path, plan) as store, archived(store, tmp_path / "logs", made) as archive:
        leave_some(store, archive)
    done = framewalk("calls", "--store", path)
    assert done.returncode != 0
    assert "of these logs a sample is left" in done.stderr
    done = framewalk("recompute", "--store", path, "--oal", oal, "--metric", "requests")
    assert done.returncode != 0
    assert "metrics of a sample are not exact" in " ".join(done.stderr.split())
