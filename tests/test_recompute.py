"""Metrics made again out of the archive: as if they had been there from the beginning."""

from __future__ import annotations

import datetime as dt
import math
import shutil
from collections import Counter
from pathlib import Path

import duckdb
import pytest
import yaml
from conftest import CAPTURES
from damage import spoil
from prepared import framewalk

from framewalk.engine import Plan, Store, load_plan, read_entities, replay
from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.oal.plan import make_plan
from framewalk.engine.remaking import (
    RecomputingOptions,
    plan_recomputation,
    recompute,
    relate,
    resolve_again,
)
from framewalk.fixtures import GenerateOptions, generate
from framewalk.server.changing import Remaking, State, read_answer

BOOKINFO = CAPTURES / "bookinfo"
ALL, HTTP = ArchiveOptions(Mode.ALL), ArchiveOptions(Mode.HTTP)
EVER = (0, 2**33)
SCOPES = (
    *("service", "service_instance", "endpoint"),
    *("service_relation", "service_instance_relation", "endpoint_relation"),
)

Rows = dict[str, list[tuple[object, ...]]]


def rows_of(store: Store) -> Rows:
    views = [f"{scope}_{length}" for scope in SCOPES for length in ("minute", "hour", "day")]
    columns = {view: sorted(store.query(f"FROM {view} LIMIT 0").columns) for view in views}
    return {
        view: store.query(f"SELECT {', '.join(columns[view])} FROM {view} ORDER BY ALL").fetchall()
        for view in views
    }


@pytest.fixture(scope="module")
def with_all(tmp_path_factory: pytest.TempPathFactory, few_plan: Plan) -> Rows:
    """What a replay with all definitions gives."""
    with (
        Store(":memory:", few_plan) as store,
        Archive(store, tmp_path_factory.mktemp("all"), HTTP) as archive,
    ):
        replay([BOOKINFO], read_entities(BOOKINFO / "kubectl.yaml"), store, archive=archive)
        relate(store, archive)
        store.compact()
        return rows_of(store)


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory, few_plan: Plan) -> Path:
    """A store with half of the definitions, and an archive of each log."""
    folder = tmp_path_factory.mktemp("some")
    plan = make_plan(few_plan.metrics[::2])
    with Store(folder / "metrics.duckdb", plan) as store:
        with Archive(store, folder / "logs", ALL) as archive:
            replay([BOOKINFO], read_entities(BOOKINFO / "kubectl.yaml"), store, archive=archive)
            relate(store, archive)
        store.compact()
    return folder


@pytest.fixture
def copied(some: Path, tmp_path: Path) -> Path:
    shutil.copytree(some, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_new_definitions_have_values_as_if_they_had_been_there(
    copied: Path, few_plan: Plan, with_all: Rows
) -> None:
    with (
        Store(copied / "metrics.duckdb", few_plan) as store,
        Archive(store, copied / "logs", ALL) as archive,
    ):
        new = [metric.name for metric in few_plan.metrics[1::2]]
        asked = plan_recomputation(store, archive, new, *EVER)
        assert not asked.refused
        assert not asked.skipped
        assert rows_of(store) != with_all
        done = recompute(store, archive, asked)
        assert done.minutes == len(asked.minutes) > 2
        assert rows_of(store) == with_all
        store.compact()
        assert rows_of(store) == with_all
        rows = (
            "SELECT count(*), count(DISTINCT (time_bucket, entity)) FROM internal.service_minutes"
        )
        ((count, keys),) = store.query(rows).fetchall()
        assert count == keys
        # All of it again changes nothing.
        recompute(store, archive, plan_recomputation(store, archive, [], *EVER))
        assert rows_of(store) == with_all


def test_what_requests_alone_cannot_make_is_refused_and_named(
    tmp_path: Path, few_plan: Plan, with_all: Rows
) -> None:
    """Old values of what is made are replaced, and those of what is refused stay."""
    logs = tmp_path / "logs"
    with Store(tmp_path / "metrics.duckdb", few_plan) as store:
        with Archive(store, logs, HTTP) as archive:
            replay([BOOKINFO], read_entities(BOOKINFO / "kubectl.yaml"), store, archive=archive)
            relate(store, archive)
        store.run("UPDATE internal.service_states SET state_0 = NULL, traits = traits")
        assert rows_of(store) != with_all
        with Archive(store, logs, HTTP) as archive:
            asked = plan_recomputation(store, archive, [], *EVER)
            kernel = {name for name in asked.refused if "http" not in name and "apdex" not in name}
            assert kernel >= {"kubernetes_service_connect_cpm", "kubernetes_service_accept_time"}
            assert "kubernetes_service_percentile" not in asked.refused
            recompute(store, archive, asked)
            assert rows_of(store) == with_all
            store.compact()
            assert rows_of(store) == with_all


def test_minutes_whose_logs_are_not_all_there_keep_what_they_have(
    copied: Path, few_plan: Plan
) -> None:
    with Store(copied / "metrics.duckdb", few_plan) as store:
        before = rows_of(store)
        minute = store.query(
            "SELECT max(epoch(time_bucket))::BIGINT // 60 FROM service_minute"
        ).fetchall()[0][0]
        store.run("INSERT INTO internal.unarchived_minutes VALUES (?)", [minute])
        with Archive(store, copied / "logs", ALL) as archive:
            asked = plan_recomputation(store, archive, [], *EVER)
            assert (asked.skipped, max(asked.minutes)) == (1, minute - 1)
            recompute(store, archive, asked)
        after = rows_of(store)
        last = dt.datetime.fromtimestamp(minute * 60, dt.UTC).replace(tzinfo=None)
        for view in ("service_minute", "service_relation_minute"):
            place = store.query(f"FROM {view} LIMIT 0").columns
            at = sorted(place).index("time_bucket")
            kept = [row for row in before[view] if row[at] == last]
            assert kept == [row for row in after[view] if row[at] == last]
            assert before[view] != after[view]


def test_one_that_was_cut_off_goes_on_where_it_stopped(tmp_path: Path, few_plan: Plan) -> None:
    begins = GenerateOptions("bookinfo").start.replace(hour=9, minute=58)
    options = GenerateOptions("bookinfo", duration_s=200, requests_per_second=1, start=begins)
    generate(options, tmp_path / "made.capture.arrows", tmp_path / "dump.yaml")
    plan = make_plan(few_plan.metrics[:3])
    path, logs = tmp_path / "metrics.duckdb", tmp_path / "logs"
    with Store(path, plan) as store, Archive(store, logs, ALL) as archive:
        replay([tmp_path], read_entities(tmp_path / "dump.yaml"), store, archive=archive)
    names = [metric.name for metric in few_plan.metrics if metric.scope.view == "service"]
    made = f"SELECT count({names[5]}) FROM service_minute"

    def cut_off(done: int, every: int) -> None:
        if done < every:
            raise KeyboardInterrupt

    with Store(path, few_plan) as store, Archive(store, logs, ALL) as archive:
        asked = plan_recomputation(store, archive, names, *EVER)
        with pytest.raises(KeyboardInterrupt):
            recompute(store, archive, asked, RecomputingOptions(on_progress=cut_off))
        first = store.query(made).fetchall()
    with Store(path, few_plan) as store, Archive(store, logs, ALL) as archive:
        done = recompute(store, archive, plan_recomputation(store, archive, names, *EVER))
        assert done.known > 0 < done.minutes
        assert done.known + done.minutes == len(asked.minutes)
        assert store.query(made).fetchall() > first > [(0,)]
        assert recompute(store, archive, asked).known == 0


def test_the_command_says_what_it_makes_and_what_it_cannot(copied: Path, tmp_path: Path) -> None:
    store = copied / "metrics.duckdb"
    mine = tmp_path / "mine.oal"
    mine.write_text('my_calls = from(K8SService.*).filter(type == "connect").count();\n')
    new = ("--store", store, "--oal", mine, "--archive", copied / "logs")
    done = framewalk("recompute", *new, "--metric", "my_calls")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("metrics\t1\nminutes\t")
    with duckdb.connect(str(store), read_only=True) as connection:
        sums = [f"SELECT sum(my_calls) FROM service_{length}" for length in ("minute", "day")]
        logs = "SELECT count(*) FROM connection_logs WHERE operation = 'connect'"
        known = f"{logs} AND local_service <> 'Unknown'"
        minutes, days, counted = (connection.sql(one).fetchall() for one in (*sums, known))
        assert minutes == days == counted != [(0,)]
    wrong = framewalk("recompute", *new, "--metric", "my_call")
    assert wrong.stderr == "error: my_call: no definition has this name; did you mean my_calls?\n"
    nothing = framewalk("recompute", *new, "--to", "2020-01-01")
    assert "there are no minutes that its archive can make" in nothing.stderr
    # What is in such a file is seen when it is read: no minute is whole without it.
    for file in (copied / "logs" / "connection").glob("*/*"):
        spoil(file)
    damaged = framewalk("recompute", *new)
    assert "archived logs cannot be read, they are left out" in damaged.stderr
    assert damaged.stderr.endswith("keep logs with --archive-mode all\n")
    assert damaged.returncode == 1
    shutil.rmtree(copied / "logs")
    lost = framewalk("recompute", *new)
    assert "the archive of this store is not there; name it with --archive" in lost.stderr


MEANT = 'my_calls = from(K8SService.*).filter(type == "{}").count();\n'


@pytest.fixture
def of_two_hours(tmp_path: Path, few_plan: Plan) -> Path:
    """A folder with a store of what is `connect` in 09:58 to 10:01, and its archive."""
    begins = GenerateOptions("bookinfo").start.replace(hour=9, minute=58)
    options = GenerateOptions("bookinfo", duration_s=200, requests_per_second=2, start=begins)
    generate(options, tmp_path / "made.capture.arrows", tmp_path / "dump.yaml")
    mine = tmp_path / "mine.oal"
    mine.write_text(MEANT.format("connect"))
    plan = make_plan([*load_plan([mine]).metrics, few_plan.metrics[0]])
    with (
        Store(tmp_path / "metrics.duckdb", plan) as store,
        Archive(store, tmp_path / "logs", ALL) as archive,
    ):
        replay([tmp_path], read_entities(tmp_path / "dump.yaml"), store, archive=archive)
    return tmp_path


def counted(connection: duckdb.DuckDBPyConnection, operation: str, length: str) -> list[object]:
    """What the logs themselves say."""
    bucket = f"date_trunc('{length}', time)"
    return connection.sql(
        f"SELECT {bucket}, count(*) FROM connection_logs WHERE local_service <> 'Unknown' "
        f"AND operation = '{operation}' GROUP BY 1 ORDER BY 1"
    ).fetchall()


def of_views(connection: duckdb.DuckDBPyConnection, length: str) -> list[object]:
    return connection.sql(
        f"SELECT time_bucket, sum(my_calls) FROM service_{length} GROUP BY 1 ORDER BY 1"
    ).fetchall()


def test_a_meaning_that_changed_begins_with_the_minutes_that_are_made_again(
    of_two_hours: Path,
) -> None:
    """Before them the old one stands; an hour or day that has both has no value."""
    store, mine = of_two_hours / "metrics.duckdb", of_two_hours / "mine.oal"
    mine.write_text(MEANT.format("accept"))
    command = ("recompute", "--store", store, "--oal", mine)
    begins = dt.datetime(2026, 11, 2, 10)  # noqa: DTZ001 - as DuckDB has it
    former = [("my_calls", begins, MEANT.format("connect").strip())]
    hour, minute = dt.timedelta(hours=1), dt.timedelta(minutes=1)

    def look() -> dict[str, list[object]]:
        with duckdb.connect(str(store), read_only=True) as connection:
            found = {one: of_views(connection, one) for one in ("minute", "hour", "day")}
            for one in ("connect", "accept"):
                found |= {f"{one} {of}": counted(connection, one, of) for of in ("minute", "hour")}
            found["former"] = connection.sql(
                "SELECT name, until, replace(replace(definition, chr(10), ''), '    ', '') "
                "FROM former_meanings"
            ).fetchall()
        return found

    done = framewalk(*command, "--from", "2026-11-02T10:00")
    assert done.returncode == 0, done.stderr
    found = look()
    assert found["connect minute"] != found["accept minute"]
    assert found["former"] == former
    split = found["connect minute"][:2] + found["accept minute"][2:]
    assert [one[0] - begins for one in split] == [-2 * minute, -minute, 0 * minute, minute]
    assert found["minute"] == split
    assert found["hour"] == found["connect hour"][:1] + found["accept hour"][1:]
    assert found["day"] == [(begins - 10 * hour, None)]
    with duckdb.connect(str(store), read_only=True) as connection:
        between = "SELECT sum(my_calls) FROM service_between('{}', '{}')"
        spans = [("09:00", "10:00"), ("10:00", "11:00"), ("09:59", "10:01")]
        asked = (between.format(*(f"2026-11-02 {one}" for one in span)) for span in spans)
        before, after, both = (connection.sql(one).fetchall()[0][0] for one in asked)
    assert [before, after, both] == [found["hour"][0][1], found["hour"][1][1], None]
    framewalk(*command, "--from", "2026-11-02T09:59")
    found = look()
    assert found["minute"] == found["connect minute"][:1] + found["accept minute"][1:]
    assert [value for _, value in found["hour"]] == [None, found["accept hour"][1][1]]
    framewalk(*command)
    found = look()
    assert found["minute"] == found["accept minute"]
    assert found["hour"] == found["accept hour"]
    assert found["day"][0][1] == sum(value for _, value in found["hour"])
    assert found["former"] == []


def test_a_meaning_does_not_begin_where_its_newest_logs_are_not_there(of_two_hours: Path) -> None:
    store, mine = of_two_hours / "metrics.duckdb", of_two_hours / "mine.oal"
    mine.write_text(MEANT.format("close"))
    command = ("recompute", "--store", store, "--oal", mine)
    early = framewalk(*command, "--to", "2026-11-02T10:00")
    assert "my_calls: its meaning has changed, and its newest values cannot be" in early.stderr
    with duckdb.connect(str(store)) as connection:
        before = of_views(connection, "minute")
        connection.execute(
            "INSERT INTO internal.unarchived_minutes "
            "SELECT min(epoch(time_bucket)) // 60 + 1 FROM service_minute"
        )
    done = framewalk(*command)
    assert done.returncode == 0, done.stderr
    assert "2 minutes keep what they have" in done.stderr
    with duckdb.connect(str(store), read_only=True) as connection:
        found, made = of_views(connection, "minute"), counted(connection, "close", "minute")
        assert found == before[:2] + made[2:] != before
        assert of_views(connection, "day")[0][1] is None
    with duckdb.connect(str(store)) as connection:
        connection.execute(
            "INSERT INTO internal.unarchived_minutes "
            "SELECT max(epoch(time_bucket)) // 60 FROM service_minute"
        )
    mine.write_text(MEANT.format("connect"))
    lost = framewalk(*command)
    assert "the newest minute is not asked for, or the archive has not all its logs" in lost.stderr
    with duckdb.connect(str(store), read_only=True) as connection:
        assert of_views(connection, "minute") == found


def test_late_logs_count_in_what_a_metric_meant_then(of_two_hours: Path) -> None:
    store, mine = of_two_hours / "metrics.duckdb", of_two_hours / "mine.oal"
    mine.write_text('my_calls = from(K8SService.connect.duration).filter(type == "connect").sum();')
    plan = load_plan([mine])
    at_s = dt.datetime(2026, 11, 2, 11, tzinfo=dt.UTC).timestamp()
    dump = read_entities(of_two_hours / "dump.yaml")
    with Store(store, plan, at_s=at_s) as opened:
        before = of_views(opened.connection, "minute")
        opened.run("DELETE FROM internal.positions")
        opened.run("DELETE FROM internal.captures")
        replay([of_two_hours], dump, opened)
        twice = of_views(opened.connection, "minute")
        assert twice == [(minute, 2 * value) for minute, value in before]
        for _ in range(2):
            (_, nine), (_, ten) = of_views(opened.connection, "hour")
            assert (nine, ten) == (sum(value for _, value in twice[:2]), None)
            assert [value for _, value in of_views(opened.connection, "day")] == [None]
            opened.compact()
            assert of_views(opened.connection, "minute") == twice


def test_a_server_counts_each_log_once_that_it_makes_metrics_of(
    of_two_hours: Path, few_plan: Plan
) -> None:
    """Requests of which metrics and relations are made, and those about a minute, are no more."""
    path, name = of_two_hours / "metrics.duckdb", "asked"
    dump = read_entities(of_two_hours / "dump.yaml")
    kinds = ("http", "connection", "transfer")
    with Store(path, few_plan) as store, Archive(store, of_two_hours / "logs", ALL) as archive:
        counts = {
            kind: store.query(f"SELECT count(*) FROM {kind}_logs").fetchall()[0][0]
            for kind in kinds
        }
        remaking = Remaking(store, archive, 3_000)
        related = [one.name for one in few_plan.metrics if one.scope.view == "endpoint_relation"]
        for metrics, wanted in ([], sum(counts.values())), (related, counts["http"]):
            remaking.ask(name, metrics, *EVER)
            remaking.run(dump, math.inf, lambda: None)
            answer = read_answer(path, name)
            assert answer is not None
            assert (answer.state, answer.done) == (State.DONE, 4)
            assert answer.logs == wanted > 0


def without(dump: Path, name: str, target: Path) -> Path:
    """Write a dump without what is called so, or begins with that."""
    items = yaml.safe_load(dump.read_text())
    items["items"] = [one for one in items["items"] if not one["metadata"]["name"].startswith(name)]
    target.write_text(yaml.safe_dump(items))
    return target


def archived_names(store: Store) -> list[tuple[object, ...]]:
    sides = "local_service, local_pod, remote_service, remote_pod"
    return store.query(
        " UNION ALL ".join(
            f"SELECT '{kind}', time, role, {sides}, request IS NULL FROM {kind}_logs"
            for kind in ("http", "connection", "transfer")
        )
        + " ORDER BY ALL"
    ).fetchall()


def of_called(rows: Rows, called: str) -> Rows:
    """Return the rows of relations to a service whose caller is known, and of its endpoints."""
    return {
        view: [row for row in of_view if called in row and "Unknown" not in row]
        for view, of_view in rows.items()
        if "relation" in view or "endpoint" in view
    }


@pytest.mark.parametrize(
    ("name", "called", "talks_to_nobody"),
    [("kube-dns", "kube-dns.kube-system", True), ("details", "details.bookinfo", False)],
)
def test_names_that_are_known_later_are_those_of_what_was(
    tmp_path: Path, few_plan: Plan, name: str, called: str, *, talks_to_nobody: bool
) -> None:
    """As if they had been known from the beginning: metrics, unknown peers and the logs.

    But logs of which both sides had no name were not archived.
    """
    dump = BOOKINFO / "kubectl.yaml"
    lacking = without(dump, name, tmp_path / "lacking.yaml")
    unknown = "FROM unknown_peers ORDER BY ALL"
    found = []
    for time, known in ("early", dump), ("late", lacking):
        path, logs = tmp_path / f"{time}.duckdb", tmp_path / time
        with Store(path, few_plan) as store, Archive(store, logs, ALL) as archive:
            replay([BOOKINFO], read_entities(known), store, archive=archive)
            relate(store, archive)
            found.append((rows_of(store), archived_names(store), store.query(unknown).fetchall()))
    wanted, before = found
    assert all(one != other for one, other in zip(wanted, before, strict=True))
    with Store(path, few_plan) as store, Archive(store, logs, ALL) as archive:
        asked = plan_recomputation(store, archive, [], *EVER)
        assert resolve_again(store, archive, read_entities(dump), asked.minutes) > 0
        recompute(store, archive, asked)
        for _ in range(2):
            names, after = archived_names(store), rows_of(store)
            if talks_to_nobody:
                assert names == wanted[1]
                assert {view for view, rows in after.items() if rows != wanted[0][view]} == set()
                assert store.query(unknown).fetchall() == wanted[2]
            lost = Counter(wanted[1]) - Counter(names)
            assert not Counter(names) - Counter(wanted[1])
            assert all({called, "Unknown"} <= set(row) for row in lost)
            own = of_called(after, called)
            assert own == of_called(wanted[0], called) != of_called(before[0], called)
            assert own["service_relation_minute"]
            store.compact()
        assert resolve_again(store, archive, read_entities(dump), asked.minutes) == 0


def test_the_command_resolves_names_again(tmp_path: Path, of_two_hours: Path) -> None:
    dump, store = of_two_hours / "dump.yaml", tmp_path / "late.duckdb"
    lacking = without(dump, "details", tmp_path / "lacking.yaml")
    oal = ("--oal", of_two_hours / "mine.oal")
    archived = ("--archive", tmp_path / "late", "--archive-mode", "all")
    done = framewalk("replay", of_two_hours, "-e", lacking, "--store", store, *oal, *archived)
    assert done.returncode == 0, done.stderr
    command = ("recompute", "--store", store, *oal)
    known = "SELECT count(*) FROM connection_logs WHERE 'details.bookinfo' IN (local_service"
    named = f"{known}, remote_service)"

    def look() -> list[list[object]]:
        with duckdb.connect(str(store), read_only=True) as connection:
            found = [connection.sql(named).fetchall(), of_views(connection, "minute")]
            assert found[1] == counted(connection, "connect", "minute")
        return found

    before = look()
    nothing = framewalk(*command, "--resolve")
    assert nothing.returncode == 0, nothing.stderr
    assert "logs named\t0\n" in nothing.stdout
    assert look() == before
    one = framewalk(*command, "--entities", dump, "--metric", "my_calls")
    assert "names that are resolved again are those of all metrics" in one.stderr
    done = framewalk(*command, "--entities", dump)
    assert done.returncode == 0, done.stderr
    assert "logs named\t0\n" not in done.stdout
    assert look()[0] > before[0]
    # The store has kept the names.
    again = framewalk(*command, "--resolve")
    assert "logs named\t0\n" in again.stdout


def test_a_log_that_turns_out_to_be_within_a_service_is_dropped(
    tmp_path: Path, few_plan: Plan
) -> None:
    """As a replay drops it: here details calls its own pods."""
    lacking = without(BOOKINFO / "kubectl.yaml", "kube-dns", tmp_path / "lacking.yaml")
    items = yaml.safe_load(lacking.read_text())
    for one in items["items"]:
        if one["metadata"]["name"].startswith("coredns"):
            one["metadata"] |= {"namespace": "bookinfo", "labels": {"app": "details"}}
    known = tmp_path / "known.yaml"
    known.write_text(yaml.safe_dump(items))
    plan, found = make_plan(few_plan.metrics[:1]), []
    for time, dump in ("early", known), ("late", lacking):
        path, logs = tmp_path / f"{time}.duckdb", tmp_path / time
        with Store(path, plan) as store, Archive(store, logs, ALL) as archive:
            replay([BOOKINFO], read_entities(dump), store, archive=archive)
            found.append(archived_names(store))
    wanted, before = found
    assert len(wanted) < len(before)
    with Store(path, plan) as store, Archive(store, logs, ALL) as archive:
        asked = plan_recomputation(store, archive, [], *EVER)
        assert resolve_again(store, archive, read_entities(known), asked.minutes) > 0
        assert archived_names(store) == wanted
