"""What query protocols read of a store is what its views say."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

from framewalk.engine import Plan, Store, load_plan, open_for_reading, read_entities, replay
from framewalk.queries.metrics import (
    KEYS,
    Buckets,
    Catalogue,
    EntityName,
    Leaf,
    Metric,
    Order,
    Statement,
    Step,
    Top,
    entity_of_id,
    list_entities,
    narrowed,
    read_block,
    read_leaves,
    top_list,
)

BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"


@pytest.fixture(scope="module")
def cursor(
    few_plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[duckdb.DuckDBPyConnection]:
    path = tmp_path_factory.mktemp("metrics") / "metrics.duckdb"
    with Store(path, few_plan) as store:
        replay([BOOKINFO], read_entities(BOOKINFO), store)
    with open_for_reading(path) as connection:
        yield connection


@pytest.fixture(scope="module")
def catalogue(cursor: duckdb.DuckDBPyConnection) -> Catalogue:
    return Catalogue.of(cursor)


@pytest.fixture(scope="module")
def buckets(cursor: duckdb.DuckDBPyConnection) -> Buckets:
    ((first, last),) = cursor.execute(
        "SELECT min(time_bucket), max(time_bucket) FROM service_minute"
    ).fetchall()
    return Buckets.between(Step.MINUTE, first - dt.timedelta(minutes=2), last)


def test_buckets_are_aligned_and_their_ends_belong_to_them() -> None:
    first, last = (
        dt.datetime.fromisoformat("2026-11-02T09:01:59"),
        dt.datetime.fromisoformat("2026-11-02T09:31"),
    )
    buckets = Buckets.between(Step.MINUTE, first, last)
    assert (buckets.first, buckets.count, buckets.last) == (
        dt.datetime.fromisoformat("2026-11-02T09:01"),
        31,
        last,
    )
    assert buckets.epoch_ms[1] - buckets.epoch_ms[0] == 60_000
    assert buckets.epoch_ms[0] == dt.datetime(2026, 11, 2, 9, 1, tzinfo=dt.UTC).timestamp() * 1e3
    assert Buckets.between(Step.DAY, first, last).times == [dt.datetime.fromisoformat("2026-11-02")]
    assert Buckets.between(Step.HOUR, last, first - dt.timedelta(hours=2)).count == 0


def test_identifiers_go_round() -> None:
    names = ("eu::käse/laden.shop", "GET:/a-b_c.1", "b" * 150, "-_.1")
    for scope, keys in KEYS.items():
        entity = EntityName(scope, names[: len(keys)])
        assert entity_of_id(scope, entity.id) == entity
    assert EntityName.service("Unknown").id == "VW5rbm93bg==.1"
    relation = EntityName("service_instance_relation", ("a", "b", "c", "d"))
    assert relation.id == "YQ==.1_Yg==-Yw==.1_ZA=="
    for text in ("", ".1", "YQ==", "YQ==.0", "!.1", "YQ==.1_", "_", "YQ==.1-YQ==.1-", "_w==.1"):
        for scope in KEYS:
            assert entity_of_id(scope, text) is None, (scope, text)


def test_leaves_are_what_the_views_say(
    cursor: duckdb.DuckDBPyConnection, catalogue: Catalogue, buckets: Buckets
) -> None:
    for metric in catalogue.stored:
        if metric.is_map or metric.is_histogram or metric.scope == "endpoint_relation":
            continue
        keys = ", ".join(KEYS[metric.scope])
        column = f"{metric.column}.p99" if metric.is_labelled else metric.column
        rows = cursor.execute(
            f"SELECT {keys}, time_bucket, {column} FROM {metric.scope}_minute"
        ).fetchall()
        entities = dict.fromkeys(EntityName(metric.scope, row[:-2]) for row in rows)
        found = read_leaves(cursor, [Leaf(metric, one, buckets) for one in entities])
        wanted = {entity: np.full(buckets.count, np.nan) for entity in entities}
        for *names, time, value in rows:
            at = buckets.times.index(time)
            wanted[EntityName(metric.scope, tuple(names))][at] = np.nan if value is None else value
        for leaf, series in found.items():
            values = [one for one in series if one.labels in {(), (("p", "99"),)}]
            empty = np.full(buckets.count, np.nan)
            got = values[0].values if values else empty
            np.testing.assert_array_equal(got, wanted[leaf.entity])


@pytest.mark.parametrize("step", list(Step))
def test_what_is_narrowed_has_the_rows_of_the_view(
    cursor: duckdb.DuckDBPyConnection, catalogue: Catalogue, step: Step
) -> None:
    minutes = step.seconds // 60
    for scope, keys in KEYS.items():
        columns = [one.column for one in catalogue.stored if one.scope == scope]
        for some in filter(None, (columns, columns[::3], columns[-1:])):
            narrow = narrowed(cursor, scope, step, some, minutes)
            assert narrow is not None
            assert narrow.count("UNION ALL") == 1
            left = set(columns) - set(some)
            assert not [name for name in left if f" AS {name} " in narrow]
            shown = ", ".join([*keys, "time_bucket", *map('"{}"'.format, some)])
            rows, wanted = (
                cursor.execute(f"SELECT {shown} FROM {source} ORDER BY ALL").fetchall()
                for source in (f"({narrow})", f"{scope}_{step.resolution}")
            )
            assert rows == wanted


def test_what_is_narrowed_is_of_the_store_that_is_asked(
    tmp_path: Path, cursor: duckdb.DuckDBPyConnection, catalogue: Catalogue, plan: Plan
) -> None:
    metric = next(
        one.column for one in catalogue.stored if one.scope == "service" and one.is_additive
    )
    with Store(tmp_path / "other.duckdb", plan) as other:
        found = {
            narrowed(one, "service", Step.MINUTE, [metric], 1)
            for one in (cursor, other.connection, cursor)
        }
        # Each has this metric, in a column of its own.
        assert len(found) == 2
        for one in (cursor, other.connection):
            assert (
                one.execute(
                    f"SELECT count({metric}) FROM "
                    f"({narrowed(one, 'service', Step.MINUTE, [metric], 1)})"
                ).fetchall()
                == one.execute(f"SELECT count({metric}) FROM service_minute").fetchall()
            )
    with duckdb.connect() as nothing:
        assert narrowed(nothing, "service", Step.MINUTE, [metric], 1) is None


def test_what_is_narrowed_has_the_meaning_of_now(tmp_path: Path) -> None:
    """A recomputation moves the time from which a metric means something else."""
    path, text = tmp_path / "store.duckdb", tmp_path / "mine.oal"
    for operation, at_s in (("read", None), ("write", 4e9)):
        text.write_text(f'mine = from(K8SService.*).filter(type == "{operation}").count();')
        with Store(path, load_plan([text]), at_s=at_s) as store:
            replay([BOOKINFO], read_entities(BOOKINFO), store)

    def rows(source: str) -> list[tuple[object, ...]]:
        sql = f"SELECT service, time_bucket, mine FROM {source} ORDER BY ALL"
        return store.connection.execute(sql).fetchall()

    with Store(path, load_plan([text])) as store:
        found = []
        for begin in (False, True):
            if begin:
                with store.transaction():
                    store.begin_meanings(["mine"], None)
            narrow = narrowed(store.connection, "service", Step.MINUTE, ["mine"], 1)
            found.append(rows(f"({narrow})"))
            assert found[-1] == rows("service_minute")
        assert found[0] != found[1]


def test_derivations_of_endpoint_relations_are_one() -> None:
    names = "'a', 'GET:/', 'b', 'GET:/x'"
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE endpoint_relation_minute AS FROM (VALUES "
            f"(TIMESTAMP '2026-11-02 09:01', {names}, 'unknown', 7, 70), "
            f"(TIMESTAMP '2026-11-02 09:01', {names}, 'exact', 2, 30), "
            f"(TIMESTAMP '2026-11-02 09:02', {names}, 'inferred', 4, 50), "
            f"(TIMESTAMP '2026-11-02 09:02', {names}, 'exact', NULL, NULL), "
            f"(TIMESTAMP '2026-11-02 09:03', {names}, 'exact', 6, 'Infinity'::DOUBLE)) "
            "AS t(time_bucket, source_service, source_endpoint, dest_service, dest_endpoint, "
            "derivation, calls, latency)"
        )
        scope = "endpoint_relation"
        calls, latency = Metric("calls", scope, "cpm"), Metric("latency", scope, "longAvg")
        buckets = Buckets(Step.MINUTE, dt.datetime.fromisoformat("2026-11-02T09:01"), 3)
        block = read_block(connection, [calls, latency], buckets)
        assert block.values[calls][()].tolist() == [[9, 4, 6]]
        # That of the surest; what is infinite is empty.
        np.testing.assert_array_equal(block.values[latency][()], [[30, 50, np.nan]])
        (ranked,) = top_list(connection, Top(calls, buckets, 5))
        assert (ranked.entity, ranked.value) == (*block.entities, 6)


def test_what_is_not_there_is_empty(
    cursor: duckdb.DuckDBPyConnection, catalogue: Catalogue, buckets: Buckets
) -> None:
    for metric in catalogue.metrics.values():
        if metric.scope != "service" or metric.is_histogram:
            continue
        leaf = Leaf(metric, EntityName.service("nobody"), buckets)
        series = read_leaves(cursor, [leaf])[leaf]
        assert len(series) == (0 if metric.is_labelled else 1)
        assert all(np.isnan(one.values).all() for one in series)


def test_a_list_of_the_largest_is_what_sql_says(
    cursor: duckdb.DuckDBPyConnection, catalogue: Catalogue, buckets: Buckets
) -> None:
    metric = next(
        one for one in catalogue.stored if one.scope == "service_instance" and one.is_additive
    )
    block = read_block(cursor, [metric], buckets)
    means = np.nanmean(block.values[metric][()], axis=1)
    by_mean = sorted(
        zip(means, block.entities, strict=True), key=lambda one: (-one[0], one[1].names)
    )
    wanted = [(entity, float(np.trunc(mean))) for mean, entity in by_mean]
    assert list(map(tuple, top_list(cursor, Top(metric, buckets, 3)))) == wanted[:3]
    smallest = top_list(cursor, Top(metric, buckets, 1, Order.SMALLEST))
    assert smallest[0].value == min(value for _, value in wanted)
    service = block.entities[-1].service_name
    of_service = top_list(cursor, Top(metric, buckets, 100, service=service))
    assert [one.entity for one in of_service] == [
        entity for entity, _ in wanted if entity.service_name == service
    ]


def test_entities_are_listed(cursor: duckdb.DuckDBPyConnection) -> None:
    for scope in KEYS:
        every = list_entities(cursor, scope)
        names = [one.name for one in every]
        assert names
        assert names == sorted(names, key=lambda one: one.names)
        assert [one.name for one in list_entities(cursor, scope, named=names[:2])] == names[:2]
        service = names[0].service_name
        own = [one.name for one in list_entities(cursor, scope, service=service)]
        sides = [at for at, key in enumerate(KEYS[scope]) if key.endswith("service")]
        assert own == [one for one in names if service in [one.names[at] for at in sides]]


def test_a_statement_is_written_with_its_values_where_they_belong() -> None:
    sql = """SELECT '?' AS "a?", ? AS one, 'it''s?', ? AS other"""
    written = Statement(sql, ["x'?", dt.datetime(2026, 11, 28, 14)]).written  # noqa: DTZ001
    with duckdb.connect() as connection:
        assert connection.sql(written).fetchall() == [("?", "x'?", "it's?", "2026-11-28 14:00:00")]
