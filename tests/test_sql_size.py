"""Queries that become too large when DuckDB writes their names out are refused before it does."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest
from sql_serving import ask, error_of, rows, serving

from framewalk.queries.reading.trees import read_tree
from framewalk.queries.reading.weighing import table_weights
from framewalk.queries.sql_endpoint.server import SqlServer, secure


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlServer]:
    path = tmp_path_factory.mktemp("size") / "small.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE small AS SELECT 1 AS a, 2 AS b").fetchall()
        # As long as the store's longest view with those that it names.
        long = " UNION ALL ".join(["SELECT a, b, repeat('long', 1) FROM small"] * 13_000)
        connection.execute(f"CREATE VIEW long AS {long}").fetchall()
        secure(connection)
        with serving(connection, path) as server:
            yield server


def named(levels: int, query: str, kind: str = "") -> str:
    """Return a query of names that each stand for one before."""
    names = [f"t{level} AS {kind} ({query.format(level - 1)})" for level in range(1, levels)]
    return f"WITH t0 AS (SELECT 1 AS a), {', '.join(names)} SELECT count(*) FROM t{levels - 1}"


def inside(levels: int, before: str, after: str, innermost: str) -> str:
    return before * levels + innermost + after * levels


TWICE = "SELECT x.a FROM t{0} AS x, t{0}"
ATTACKS = {
    "names used twice": named(24, TWICE, "NOT MATERIALIZED"),
    "names used twice, as DuckDB likes": named(24, TWICE),
    "names in other cases": named(24, TWICE.upper(), "NOT MATERIALIZED"),
    "names inside names": "SELECT count(*) FROM "
    + inside(20, "(WITH t AS NOT MATERIALIZED (FROM ", ") FROM t x, t y, t z)", "small"),
    "names in EXPLAIN": "EXPLAIN " + named(24, TWICE, "NOT MATERIALIZED"),
    "names in EXISTS": f"SELECT 1 WHERE EXISTS ({named(24, TWICE, 'NOT MATERIALIZED')})",
    "stars": "SELECT count(*) FROM " + inside(20, "(SELECT *, * FROM ", ")", "small"),
    "stars of columns": "SELECT count(*) FROM "
    + inside(20, "(SELECT COLUMNS(*), COLUMNS(*) FROM ", ")", "small"),
    "stars of names": named(20, "SELECT *, * FROM t{}"),
    "aliases": "SELECT 1 AS a0" + "".join(f", a{i} + a{i} AS a{i + 1}" for i in range(24)),
    "aliases in lists": "SELECT 1 AS a0"
    + "".join(f", [a{i}, A{i}] AS a{i + 1}" for i in range(24)),
    "aliases in WHERE": "SELECT 1 AS a0"
    + "".join(f", a{i} + a{i} AS a{i + 1}" for i in range(14))
    + " WHERE a14 > a14 + a14",
    "many names": named(300, "FROM t{}"),
    "many joins": "SELECT 1 FROM small" + ", small" * 200,
    "other joins": "SELECT 1 FROM small" + " NATURAL JOIN small" * 200,
    "subqueries": inside(60, "SELECT (", ")", "SELECT 1"),
    "brackets": "SELECT " + inside(20_000, "(", ")", "1"),
    "open brackets": "SELECT " + "(" * 20_000 + "1",
    "open lists": "SELECT " + "[" * 20_000,
    "open structs": "SELECT " + "{'a': " * 9_000,
    "brackets after texts": "SELECT ')))' || E'\\')))' || $a$)))$a$, \")\" /* ) */, " + "(" * 4_000,
    "signs": "SELECT " + "- " * 10_000,
    "signs and comments": "SELECT " + "-/* */" * 9_000,
    "set operations": "SELECT 1" + " UNION SELECT 2 EXCEPT SELECT 3" * 100,
    "a long text": "SELECT 1" + " " * 70_000,
    "long views": "SELECT 1 FROM long, long, long, long",
}


@pytest.mark.parametrize("query", ATTACKS.values(), ids=ATTACKS)
def test_a_query_that_becomes_too_large_is_refused(server: SqlServer, query: str) -> None:
    error = error_of(ask(server, query), 400)
    assert error.startswith("this query is too ")
    assert "snapshot" in error


ALLOWED = {
    "a name used often": "WITH t AS (SELECT 1 AS a) SELECT count(*) FROM t" + ", t" * 50,
    "kept names": named(24, TWICE, "MATERIALIZED").replace("t0 AS x, t0", "t0 AS x"),
    "aliases": "SELECT 1 AS a0" + "".join(f", a{i} + 1 AS a{i + 1}" for i in range(100)),
    "recursion": "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t WHERE a < 9) "
    "SELECT sum(a) FROM t x",
    "a long list": f"SELECT 1 IN ({', '.join(map(str, range(5_000)))})",
    "a long union": "SELECT 1" + " UNION ALL SELECT 1" * 400,
    "a deep sum": "SELECT 1" + " + 1" * 800,
    "brackets in texts": f"SELECT '{'(' * 5_000}', \"{'a'}\" /* {'(' * 5_000} */ FROM small",
    "signs in texts": f"SELECT '{'-' * 5_000}' -- {'-' * 5_000}",
    "text beside brackets": "SELECT 'é(é' || '💶', (a) FROM small WHERE 'é' <> '('",
    "a query with the name of a view": "WITH long AS (SELECT 1) FROM long a, long b, long, long c",
}


@pytest.mark.parametrize("query", ALLOWED.values(), ids=ALLOWED)
def test_a_large_query_of_use_is_answered(server: SqlServer, query: str) -> None:
    assert rows(server, query)


def test_a_tree_is_read_as_what_it_is() -> None:
    text = '{"a": ["x\\"]}", {"b": 1.5, "c": {}}, [[]], true, "", 7], "d\\n": null, "e": "{"}'
    nothing = None
    assert read_tree(text) == {
        "a": ['x"]}', {"b": nothing, "c": {}}, [[]], True, "", 7],
        "d\n": nothing,
        "e": "{",
    }


def test_a_macro_weighs_what_it_names() -> None:
    columns = f"SELECT {', '.join(f'{i} AS c{i}' for i in range(500))}"
    with duckdb.connect() as connection:
        for statement in (
            f"CREATE VIEW long AS {columns}",
            "CREATE MACRO one(since) AS TABLE FROM long WHERE c0 = since",
            "CREATE MACRO two(since) AS TABLE SELECT * FROM one(since) JOIN one(since) USING (c1)",
            f"CREATE VIEW long_minute AS {columns}",
            "CREATE MACRO made_up(name) AS TABLE FROM query_table(name || '_minute')",
        ):
            connection.execute(statement).fetchall()
        weights = table_weights(connection)
    long = weights["long"].view_characters
    assert long > 5_000
    assert weights["one()"].view_characters > long
    assert weights["two()"].view_characters > 2 * long
    assert weights["made_up()"].view_characters > long
