"""Percentiles of a range by buckets that are added up as rows, beside those of lists of buckets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from framewalk.engine import Store, load_plan, open_for_reading, read_entities, replay
from framewalk.engine.oal import PERCENTILES, SCOPES, Former, Metric, Scope
from framewalk.engine.store.tables import state_columns
from framewalk.engine.views import between_macro, percentiles_macro

BOOKINFO = Path(__file__).parent.parent / "fixtures" / "captures" / "bookinfo"
SINCE, UNTIL = "TIMESTAMP '2026-11-02 09:00'", "TIMESTAMP '2026-11-02 10:00'"
MINUTE = "TIMESTAMP '2026-11-02 09:01'"
METRICS = [one for one in load_plan().metrics if one.function.sql_type.startswith("STRUCT")]
LATENCY, MILLISECONDS = (
    "kubernetes_service_http_latency_ns_percentile",
    "kubernetes_service_percentile",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bookinfo") / "bookinfo.duckdb"
    with Store(path, load_plan()) as made:
        captures = [BOOKINFO / "bookinfo.capture.arrows"]
        replay(captures, read_entities(BOOKINFO / "kubectl.yaml"), made)
        made.compact()
    return path


@pytest.fixture
def connection(store: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_for_reading(store) as opened:
        yield opened


Rows = list[tuple[object, ...]]


def by_lists(
    connection: duckdb.DuckDBPyConnection, metric: Metric, since: str, until: str, where: str
) -> Rows:
    names = ", ".join(metric.scope.keys)
    values = ", ".join(f"{metric.name}.p{p}" for p in PERCENTILES)
    rows = f"{metric.scope.view}_between({since}, {until})"
    return connection.sql(
        f"SELECT entity_id, {names}, {values} FROM {rows} "
        f"WHERE {metric.name} IS NOT NULL AND {where} ORDER BY ALL"
    ).fetchall()


def by_rows(
    connection: duckdb.DuckDBPyConnection, metric: Metric, since: str, until: str, named: str = ""
) -> Rows:
    rows = f"{metric.scope.view}_percentiles_between({since}, {until}, '{metric.name}'{named})"
    return connection.sql(f"FROM {rows} ORDER BY ALL").fetchall()


@pytest.mark.parametrize("metric", METRICS, ids=lambda one: one.name)
@pytest.mark.parametrize("until", [UNTIL, f"{MINUTE} + INTERVAL 1 MINUTE"])
def test_they_are_those_of_the_range(
    connection: duckdb.DuckDBPyConnection, metric: Metric, until: str
) -> None:
    since = SINCE if until == UNTIL else MINUTE
    found = by_rows(connection, metric, since, until)
    assert found
    assert found == by_lists(connection, metric, since, until, "true")


@pytest.mark.parametrize("scope", SCOPES.values(), ids=lambda one: one.view)
@pytest.mark.parametrize(
    ("named", "condition"),
    [
        (", of_service := 'reviews.bookinfo'", "{} = 'reviews.bookinfo'"),
        (", of_namespace := 'bookinfo'", "ends_with({}, '.bookinfo')"),
        (", of_service := 'nobody', of_namespace := 'bookinfo'", "{} = 'nobody'"),
    ],
)
def test_they_are_of_a_service_or_a_namespace_at_either_end(
    connection: duckdb.DuckDBPyConnection, scope: Scope, named: str, condition: str
) -> None:
    metric = next(one for one in METRICS if one.scope is scope)
    sides = [name for name in metric.scope.keys if name.endswith("service")]
    where = " OR ".join(condition.format(side) for side in sides)
    found = by_rows(connection, metric, SINCE, UNTIL, named)
    assert found == by_lists(connection, metric, SINCE, UNTIL, f"({where})")
    assert bool(found) == ("nobody" not in named)


@pytest.mark.parametrize("name", ["kubernetes_service_http_call_cpm", "nothing"])
def test_no_others_are_asked_for(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    sql = f"FROM service_percentiles_between({SINCE}, {UNTIL}, '{name}')"
    with pytest.raises(duckdb.InvalidInputException, match="FROM metrics lists all"):
        connection.sql(sql).fetchall()


def test_they_are_by_the_meaning_of_their_time(store: Path) -> None:
    now, before = (next(m for m in METRICS if m.name == name) for name in (LATENCY, MILLISECONDS))
    scope = now.scope
    with open_for_reading(store) as connection:
        columns = state_columns(connection)[scope.view]
    for earlier in (before, None):
        with duckdb.connect(":memory:") as connection:
            connection.execute(f"ATTACH '{store}' AS store (READ_ONLY)").fetchall()
            connection.execute("CREATE SCHEMA internal").fetchall()
            for name in ("newest", f"{scope.view}_entities"):
                connection.execute(f"CREATE VIEW internal.{name} AS FROM store.internal.{name}")
            for name in ("states", "minutes", "hours", "days"):
                table = f"internal.{scope.view}_{name}"
                connection.execute(f"CREATE VIEW {table} AS FROM store.{table}").fetchall()
            bounded = "CREATE MACRO internal.bounded(total) AS total::BIGINT"
            connection.execute(bounded).fetchall()
            (until_us,) = connection.sql(f"SELECT epoch_us({MINUTE})").fetchall()[0]
            formers = [Former(LATENCY, until_us, earlier)]
            for made in (between_macro, percentiles_macro):
                connection.execute(made(scope, [now], columns, formers)).fetchall()
            for since, until in ((SINCE, MINUTE), (MINUTE, UNTIL), (SINCE, UNTIL)):
                rows = by_rows(connection, now, since, until)
                told = [row for row in rows if row[-1] is not None]
                assert told == by_lists(connection, now, since, until, "true")
                assert bool(told) == (since == MINUTE or (until == MINUTE and earlier is before))
