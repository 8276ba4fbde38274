"""The SQL of a metric, as a person reads it."""

from __future__ import annotations

from textwrap import dedent

import pytest

from framewalk.engine.explain.plain_sql import logs_table, metric_sql
from framewalk.engine.oal.binding import bind
from framewalk.engine.oal.bound import Metric
from framewalk.engine.oal.parser import parse
from framewalk.engine.schemas import OPERATIONS


def bound(text: str) -> Metric:
    found = bind([parse(text)])
    assert not found.diagnostics
    return found.metrics[0]


GOLDEN = {
    "average": (
        "slow = from(K8SService.connect.duration).filter(connect.success == true).longAvg();",
        """\
        WITH logs AS (
          SELECT
            make_timestamp(time_ns // 60_000_000_000 * 60_000_000) AS minute,
            local_service AS service,
            duration_ns AS value
          FROM logs_connect JOIN peers USING (peer)
          WHERE local_known
            AND success = true
        )
        SELECT
          minute,
          service,
          (least(sum(value), 9223372036854775807) // count(*))::BIGINT AS "slow"
        FROM logs
        GROUP BY ALL
        """,
    ),
    "extreme": (
        'peak = from(K8SServiceInstance.read.duration).filter(read.syscall like "Rec%").max();',
        """\
        WITH logs AS (
          SELECT
            make_timestamp(time_ns // 60_000_000_000 * 60_000_000) AS minute,
            local_service AS service,
            local_instance AS instance,
            duration_ns AS value
          FROM logs_read JOIN peers USING (peer)
          WHERE local_known
            AND local_instance IS NOT NULL
            AND starts_with(syscall_name, 'Rec')
        )
        SELECT
          minute,
          service,
          instance,
          max(value)::BIGINT AS "peak"
        FROM logs
        GROUP BY ALL
        """,
    ),
    "several operations": (
        'moved = from(K8SServiceRelation.*).filter(type in ["read", "write"]).cpm();',
        """\
        WITH logs AS (
          SELECT
            make_timestamp(time_ns // 60_000_000_000 * 60_000_000) AS minute,
            source_service,
            dest_service
          FROM logs_read JOIN peers USING (peer)
          UNION ALL
          SELECT
            make_timestamp(time_ns // 60_000_000_000 * 60_000_000) AS minute,
            source_service,
            dest_service
          FROM logs_write JOIN peers USING (peer)
        )
        SELECT
          minute,
          source_service,
          dest_service,
          count(*) AS "moved"
        FROM logs
        GROUP BY ALL
        """,
    ),
    "ratio": (
        "failed = from(K8SEndpointRelation.*).rate(http.statusCode >= 500, http.url != null);",
        """\
        WITH logs AS (
          SELECT
            make_timestamp(time_ns // 60_000_000_000 * 60_000_000) AS minute,
            source_service,
            source_endpoint,
            dest_service,
            endpoint AS dest_endpoint,
            derivation,
            status_code >= 500 AS numerator,
            path IS NOT NULL AS denominator
          FROM logs_http JOIN peers USING (peer)
          WHERE role IN ('server', 'proxy')
        )
        SELECT
          minute,
          source_service,
          source_endpoint,
          dest_service,
          dest_endpoint,
          derivation,
          count(*) FILTER (numerator) * 10000
          // nullif(count(*) FILTER (denominator), 0) AS "failed"
        FROM logs
        GROUP BY ALL
        """,
    ),
    "percent": (
        "https = from(K8SServiceRelation.connect.duration).percent(componentIds contain 129);",
        """\
        WITH logs AS (
          SELECT
            make_timestamp(time_ns // 60_000_000_000 * 60_000_000) AS minute,
            source_service,
            dest_service,
            (component_ids & 4) <> 0 AS condition
          FROM logs_connect JOIN peers USING (peer)
        )
        SELECT
          minute,
          source_service,
          dest_service,
          count(*) FILTER (condition) * 10000 // count(*) AS "https"
        FROM logs
        GROUP BY ALL
        """,
    ),
    "apdex": (
        "calm = from(K8SService.protocol.http.latency).apdex(name, protocol.success);",
        """\
        WITH logs AS (
          SELECT
            make_timestamp(time_ns // 60_000_000_000 * 60_000_000) AS minute,
            local_service AS service,
            latency_ms AS value,
            500 AS threshold_ms,
            success
          FROM logs_http JOIN peers USING (peer)
          WHERE local_known
        )
        SELECT
          minute,
          service,
          (
            count(*) FILTER (success AND value <= threshold_ms) * 10000
            + count(*) FILTER (success AND value > threshold_ms
                AND value <= 4 * threshold_ms::BIGINT) * 5000
          ) // count(*) AS "calm"
        FROM logs
        GROUP BY ALL
        """,
    ),
    "percentile": (
        "tail = from(K8SEndpoint.duration).percentile2(10);",
        """\
        WITH logs AS (
          SELECT
            make_timestamp(time_ns // 60_000_000_000 * 60_000_000) AS minute,
            local_service AS service,
            endpoint,
            latency_ms AS value
          FROM logs_http JOIN peers USING (peer)
          WHERE role IN ('server', 'proxy')
            AND local_known
        ),
        buckets AS (
          SELECT
            minute,
            service,
            endpoint,
            value // 10 AS bucket,
            count(*) AS bucket_logs
          FROM logs
          GROUP BY ALL
        ),
        ranks AS (
          SELECT
            *,
            sum(bucket_logs) OVER (entity ORDER BY bucket) AS running,
            sum(bucket_logs) OVER entity AS total
          FROM buckets
          WINDOW entity AS (PARTITION BY minute, service, endpoint)
        )
        SELECT
          minute,
          service,
          endpoint,
          {
            'p50': min(bucket) FILTER (running >= (total * 50 + 50) // 100) * 10,
            'p75': min(bucket) FILTER (running >= (total * 75 + 50) // 100) * 10,
            'p90': min(bucket) FILTER (running >= (total * 90 + 50) // 100) * 10,
            'p95': min(bucket) FILTER (running >= (total * 95 + 50) // 100) * 10,
            'p99': min(bucket) FILTER (running >= (total * 99 + 50) // 100) * 10
          }::STRUCT(p50 BIGINT, p75 BIGINT, p90 BIGINT, p95 BIGINT, p99 BIGINT) AS "tail"
        FROM ranks
        GROUP BY ALL
        """,
    ),
    "histogram": (
        "spread = from(K8SEndpoint.duration).histogram(100, 20);",
        """\
        WITH logs AS (
          SELECT
            make_timestamp(time_ns // 60_000_000_000 * 60_000_000) AS minute,
            local_service AS service,
            endpoint,
            latency_ms AS value
          FROM logs_http JOIN peers USING (peer)
          WHERE role IN ('server', 'proxy')
            AND local_known
        )
        SELECT
          minute,
          service,
          endpoint,
          map_from_entries(
            [row(i * 100, coalesce(histogram(least(greatest(value, 0) // 100, 20))[i], 0))
            for i in range(21)]
          )::MAP(BIGINT, BIGINT) AS "spread"
        FROM logs
        GROUP BY ALL
        """,
    ),
    "label count": (
        "calls = from(K8SService.*).labelCount(write.syscall);",
        """\
        WITH logs AS (
          SELECT
            make_timestamp(time_ns // 60_000_000_000 * 60_000_000) AS minute,
            local_service AS service,
            syscall_name AS label
          FROM logs_write JOIN peers USING (peer)
          WHERE local_known
        ),
        labels AS (
          SELECT
            minute,
            service,
            label,
            count(*) AS label_logs
          FROM logs
          GROUP BY minute, service, label
          QUALIFY row_number() OVER (
            PARTITION BY minute, service
            ORDER BY count(*) DESC, label
          ) <= 50
        )
        SELECT
          minute,
          service,
          map_from_entries(
            list(row(
              label,
              label_logs
            ))
          )::MAP(VARCHAR, BIGINT) AS "calls"
        FROM labels
        GROUP BY ALL
        """,
    ),
    "label average": (
        "by_path = from(K8SEndpoint.*).labelAvg(http.url, duration, 5);",
        """\
        WITH logs AS (
          SELECT
            make_timestamp(time_ns // 60_000_000_000 * 60_000_000) AS minute,
            local_service AS service,
            endpoint,
            path AS label,
            latency_ms AS value
          FROM logs_http JOIN peers USING (peer)
          WHERE role IN ('server', 'proxy')
            AND local_known
        ),
        labels AS (
          SELECT
            minute,
            service,
            endpoint,
            label,
            count(*) AS label_logs,
            least(sum(value), 9223372036854775807) AS label_total
          FROM logs
          GROUP BY minute, service, endpoint, label
          QUALIFY row_number() OVER (
            PARTITION BY minute, service, endpoint
            ORDER BY count(*) DESC, label
          ) <= 5
        )
        SELECT
          minute,
          service,
          endpoint,
          map_from_entries(
            list(row(
              label,
              CASE WHEN label_total // label_logs = 0 AND label_total <> 0 THEN 1
              ELSE label_total // label_logs END
            ))
          )::MAP(VARCHAR, BIGINT) AS "by_path"
        FROM labels
        GROUP BY ALL
        """,
    ),
    "cast": (
        "number = from((str->long)K8SEndpoint.http.url).filter((int)duration > 5).sum();",
        """\
        WITH logs AS (
          SELECT
            make_timestamp(time_ns // 60_000_000_000 * 60_000_000) AS minute,
            local_service AS service,
            endpoint,
            TRY_CAST(regexp_extract(path, '^[+-]?[0-9]+$') AS BIGINT) AS value
          FROM logs_http JOIN peers USING (peer)
          WHERE role IN ('server', 'proxy')
            AND local_known
            AND (((latency_ms::HUGEINT + 2147483648) & 4294967295) - 2147483648)::BIGINT > 5
            AND TRY_CAST(regexp_extract(path, '^[+-]?[0-9]+$') AS BIGINT) IS NOT NULL
        )
        SELECT
          minute,
          service,
          endpoint,
          greatest(least(sum(value), 9223372036854775807), -9223372036854775808)::BIGINT AS "number"
        FROM logs
        GROUP BY ALL
        """,
    ),
}


@pytest.mark.parametrize(("definition", "sql"), GOLDEN.values(), ids=GOLDEN)
def test_text(definition: str, sql: str) -> None:
    assert metric_sql(bound(definition)) == dedent(sql).rstrip()


def test_all_operations_of_a_metric_without_filters() -> None:
    sql = metric_sql(bound("every = from(K8SService.*).count();"))
    assert sql.count("UNION ALL") == len(OPERATIONS) - 1
    assert all(f"FROM {logs_table(operation)} JOIN" in sql for operation in OPERATIONS)


@pytest.mark.parametrize(("minutes", "count"), [(1, "count(*)"), (60, "count(*) // 60")])
def test_buckets(minutes: int, count: str) -> None:
    sql = metric_sql(bound("every = from(K8SEndpoint.*).cpm();"), minutes)
    assert f'  {count} AS "every"\n' in sql
    assert ("time_ns // (60 * 60_000_000_000) * 60 * 60_000_000" in sql) is (minutes == 60)


def test_apdex_thresholds() -> None:
    metric = bound("calm = from(K8SService.protocol.http.latency).apdex(name, protocol.success);")
    assert "    250 AS threshold_ms" in metric_sql(metric, 1, {}, 250)
    sql = metric_sql(metric, 1, {"a'b": 7, "c": 8}, 250)
    case = "CASE local_service WHEN 'a''b' THEN 7 WHEN 'c' THEN 8 ELSE 250 END AS threshold_ms"
    assert case in sql


def test_texts_and_names_are_quoted() -> None:
    sql = metric_sql(
        bound(r"""select = from(K8SEndpoint.*).filter(http.url == "';\"X").count();""")
    )
    assert """path = ''';"X'""" in sql
    assert 'count(*) AS "select"' in sql


def test_conditions_in_arguments_keep_their_case() -> None:
    sql = metric_sql(bound('gets = from(K8SEndpoint.*).percent(http.method == "GET");'))
    assert "method_name = 'GET' AS condition" in sql


@pytest.mark.parametrize("operand", [("==", True), ("!=", False)])
def test_a_missing_attribute_is_null(operand: tuple[str, bool]) -> None:
    operator, is_missing = operand
    sql = metric_sql(
        bound(f"rest = from(K8SService.*).filter(read.syscall {operator} null).cpm();")
    )
    assert ("FROM logs_write" in sql) is is_missing
    assert "FROM logs_read" in sql
