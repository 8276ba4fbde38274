"""What may be asked of a running server, and that nobody gets anything else out of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import httpx
import pyarrow as pa
import pytest
from sql_serving import ARROW, NO_TLS, error_of, replay_into, rows, serving, url
from waiting import DEADLINE_S

from framewalk.engine import Store
from framewalk.engine.archive import Archive, ArchiveOptions, Mode
from framewalk.engine.oal.plan import Plan, make_plan
from framewalk.queries.sql_endpoint.server import SqlServer, secure

TABLES = "SELECT schema_name, table_name, estimated_size FROM duckdb_tables() ORDER BY ALL"
SETTINGS = "SELECT name, value FROM duckdb_settings() ORDER BY ALL"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("breakouts") / "metrics.duckdb"


@pytest.fixture(scope="module")
def some(plan: Plan) -> Plan:
    """Some metrics of every scope: a store of these is soon made."""
    return make_plan(plan.metrics[::12])


@pytest.fixture(scope="module")
def store(path: Path, some: Plan) -> Iterator[Store]:
    """A store that is open for writing, as an engine has it."""
    options = ArchiveOptions(Mode.HTTP)
    with Store(path, some) as store, Archive(store, path.with_name("logs"), options) as archive:
        replay_into(store, "bookinfo", archive)
        secure(store.connection, archive.folder)
        yield store


@pytest.fixture(scope="module")
def server(store: Store, path: Path) -> Iterator[SqlServer]:
    with serving(store.connection, path) as server:
        yield server


@pytest.fixture(scope="module")
def logs(store: Store, path: Path, secret: Path) -> Path:
    """A file of the archive; beside it is one that is none of it."""
    assert store.query("SELECT count(*) FROM http_logs").fetchall() == [(11_448,)]
    (file,) = path.with_name("logs").glob("http/*/*.parquet")
    (file.parent / "foreign.parquet").write_bytes(file.read_bytes())
    (file.parent / "link.parquet").symlink_to(secret)
    return file


@pytest.fixture(scope="module")
def secret(path: Path) -> Path:
    file = path.with_name("secret.csv")
    file.write_text("secret\n1\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) AS n FROM service_minute",
        "FROM service_minute LIMIT 3;",
        "/* two */ -- comments\n SELECT 1 AS one; ;",
        "WITH a AS (SELECT 1 AS i) FROM a",
        "VALUES (1)",
        "TABLE metrics",
        "DESCRIBE service_minute",
        "DESCRIBE SELECT 1",
        "SUMMARIZE FROM metrics",
        "SHOW TABLES",
        "SHOW ALL TABLES",
        "EXPLAIN FROM metrics",
        "explain analyze SELECT 1",
        "EXPLAIN (ANALYZE, FORMAT json) SELECT 1",
        "PIVOT metrics ON family IN ('http') USING count(*)",
        "FROM duckdb_views() WHERE NOT internal",
        "SELECT unnest(range(3)), list_sum([1, 2]), current_setting('threads')",
        "SELECT 'CREATE TABLE checkpoint()', 'read_csv(' AS \"read_text(\"",
        "SELECT 1" + " + 1" * 800,
        "FROM http_logs LIMIT 1",
        "FROM query_table('http_logs') LIMIT 1",
        "FROM query_table(['http_logs', 'http_logs']) LIMIT 1",
        "SELECT count(*) AS n FROM transfer_logs JOIN http_logs USING (request)",
    ],
)
def test_queries_are_answered(server: SqlServer, query: str) -> None:
    assert rows(server, query)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "no SQL"),
        ("-- nothing", "no SQL"),
        ("SELECT 1; SELECT 2", "several statements"),
        ("SELECT 1; /* */ DROP VIEW metrics", "several statements"),
        ("CREATE TABLE stolen AS FROM metrics", "only reads"),
        ("INSERT INTO internal.store VALUES (7)", "only reads"),
        ("DELETE FROM internal.store", "only reads"),
        ("DROP VIEW metrics", "only reads"),
        ("WITH a AS (INSERT INTO internal.store VALUES (7) RETURNING *) FROM a", "only reads"),
        ("EXPLAIN ANALYZE INSERT INTO internal.store VALUES (7)", "be explained"),
        ("EXPLAIN ANALYZE COPY metrics TO '{folder}/stolen.csv'", "be explained"),
        ("EXPLAIN /* */ ANALYZE CHECKPOINT", "be explained"),
        ("EXPLAIN ANALYZE ROLLBACK", "be explained"),
        ("EXPLAIN ANALYZE FROM read_text('{secret}')", "read_text"),
        ("COPY metrics TO '{folder}/stolen.csv'", "COPY"),
        ("EXPORT DATABASE '{folder}/stolen'", "EXPORT"),
        ("ATTACH '{folder}/stolen.duckdb' AS stolen", "ATTACH"),
        ("DETACH metrics", "DETACH"),
        ("INSTALL httpfs", "LOAD"),
        ("LOAD icu", "LOAD"),
        ("PRAGMA database_list", "PRAGMA"),
        ("CALL pragma_version()", "CALL"),
        ("CHECKPOINT", "CALL"),
        ("SET threads = 1", "SET"),
        ("RESET threads", "SET"),
        ("SET enable_external_access = true", "SET"),
        ("USE temp", "SET"),
        ("BEGIN", "TRANSACTION"),
        ("COMMIT", "TRANSACTION"),
        ("VACUUM", "VACUUM"),
        ("PREPARE x AS SELECT 1", "PREPARE"),
        ("PIVOT metrics ON family USING count(*)", "IN (...)"),
        ("FROM checkpoint()", "checkpoint"),
        ('FROM "CheckPoint"()', "checkpoint"),
        ("SELECT (FROM force_checkpoint())", "force_checkpoint"),
        ("WITH a AS (FROM checkpoint()) SELECT 1 FROM a", "checkpoint"),
        ("DESCRIBE FROM checkpoint()", "checkpoint"),
        ("SUMMARIZE FROM read_csv('{secret}')", "read_csv"),
        ("FROM query('FROM checkpoint()')", "query"),
        ("FROM json_execute_serialized_sql(json_serialize_sql('FROM checkpoint()'))", "json_exec"),
        ("FROM enable_logging()", "enable_logging"),
        ("FROM arrow_scan(1, 2, 3)", "arrow_scan"),
        ("FROM pandas_scan(1)", "pandas_scan"),
        ("SELECT write_log('x')", "write_log"),
        ("SELECT list_transform(['x'], lambda x: write_log(x))", "write_log"),
        ("SELECT 1 ORDER BY 'x'.write_log()", "write_log"),
        ("SELECT sleep_ms(1000)", "sleep_ms"),
        ("FROM read_csv('{secret}')", "read_csv"),
        ("FROM read_csv(['{secret}', '/dev/stdin'])", "read_csv"),
        ("FROM read_text('{secret}')", "read_text"),
        ("FROM read_text('/proc/self/environ')", "read_text"),
        ("FROM read_blob('{secret}')", "read_blob"),
        ("FROM read_duckdb('{secret}')", "read_duckdb"),
        ("FROM sniff_csv('{secret}')", "sniff_csv"),
        ("FROM parquet_metadata('{secret}')", "parquet_metadata"),
        ("FROM glob('{folder}/*')", "glob"),
        ("FROM which_secret('s3://a/b', 's3')", "which_secret"),
        ("FROM duckdb_secrets()", "duckdb_secrets"),
        ("FROM '{secret}'", "secret.csv"),
        ('FROM "{secret}"', "secret.csv"),
        ("FROM query_table('{secret}')", "secret.csv"),
        ("FROM 'https://127.0.0.1/secret.csv'", "secret.csv"),
        ("SELECT getenv('HOME')", "getenv"),
        ("FROM python_variable", "python_variable"),
        ("SELECT nope FROM metrics", "nope"),
        ("SELECT $1", ""),
        ("FROM '{logs}'", "is a file"),
        ('FROM "{logs}"', "is a file"),
        ("SELECT (SELECT count(*) FROM '{logs}')", "is a file"),
        ("WITH a AS (FROM '{logs}') FROM a", "is a file"),
        ("SELECT 1 WHERE EXISTS (FROM '{archive}/foreign.parquet')", "is a file"),
        ("FROM query_table('{logs}')", "is a file"),
        ("FROM query_table(['http_logs', '{archive}/foreign.parquet'])", "is a file"),
        ("FROM query_table('{archive}' || '/foreign' || '.parquet')", "not for queries"),
        (
            "FROM query_table(concat('{archive}', chr(47), 'foreign.', 'parquet'))",
            "not for queries",
        ),
        ("FROM read_parquet('{logs}')", "read_parquet"),
        ("FROM parquet_scan('{logs}')", "parquet_scan"),
        ("FROM parquet_metadata('{logs}')", "parquet_metadata"),
        ("FROM read_blob('{archive}/link.parquet')", "read_blob"),
        ("FROM glob('{archive}/*')", "glob"),
        ("COPY metrics TO '{archive}/stolen.parquet'", "COPY"),
        ("ATTACH '{archive}/stolen.duckdb'", "ATTACH"),
        ("FROM http_logs, '{archive}/foreign.parquet'", "is a file"),
    ],
)
def test_nothing_else_is(  # noqa: PLR0913, PLR0917 - what it is filled in with
    server: SqlServer, store: Store, secret: Path, logs: Path, query: str, words: str
) -> None:
    python_variable = pa.table({"secret": [1]})
    before = [store.query(text).fetchall() for text in (TABLES, SETTINGS)]
    names = {"secret": secret, "folder": secret.parent, "logs": logs, "archive": logs.parent}
    text = query.format(**names)
    place, content = f"{url(server)}/sql", {"query": text}
    for form in ({}, {"Accept": ARROW}):
        response = httpx.post(place, json=content, headers=form, timeout=DEADLINE_S, verify=NO_TLS)
        assert words in error_of(response, 400)
    assert not [*secret.parent.glob("stolen*"), *logs.parent.glob("stolen*")]
    assert [store.query(text).fetchall() for text in (TABLES, SETTINGS)] == before
    del python_variable


@pytest.mark.parametrize(
    "statement",
    [
        "FROM read_csv('{secret}')",
        "FROM '{secret}'",
        "FROM '{folder}/logs/../secret.csv'",
        "FROM read_blob('{archive}/link.parquet')",
        "FROM glob('{folder}/*')",
        "FROM glob('{folder}/metrics.duckdb.snapshot/../*')",
        "COPY metrics TO '{folder}/stolen.csv'",
        "ATTACH '{folder}/stolen.duckdb' AS stolen",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 1",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "FROM python_variable",
    ],
)
def test_the_instance_itself_is_closed(
    store: Store, secret: Path, logs: Path, statement: str
) -> None:
    """Whatever came through the check of a query."""
    python_variable = pa.table({"secret": [1]})
    text = statement.format(secret=secret, folder=secret.parent, archive=logs.parent)
    with store.connection.cursor() as cursor, pytest.raises(duckdb.Error):
        cursor.execute(text).fetchall()
    assert not list(secret.parent.glob("stolen*"))
    del python_variable


def test_a_secured_store_is_written_as_before(tmp_path: Path, some: Plan) -> None:
    contents = []
    for name in ("open", "secured"):
        with Store(tmp_path / f"{name}.duckdb", some) as store:
            if name == "secured":
                secure(store.connection)
            replay_into(store, "bookinfo")
            store.connection.execute("CHECKPOINT").fetchall()
            store.connection.execute("ALTER TABLE internal.store ADD COLUMN more INT").fetchall()
            store.connection.execute("CREATE OR REPLACE VIEW more AS FROM metrics").fetchall()
            contents.append(store.query("FROM metric_values ORDER BY ALL").fetchall())
    assert contents[0] == contents[1]
    assert contents[0]
