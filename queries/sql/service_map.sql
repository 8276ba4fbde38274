-- Who calls whom: requests per minute, the share that succeeded and the slowest 1%.
-- As the end saw it that saw more of the calls: where they arrive, if both saw as many.
-- Per minute in which that end saw any; p99_ms is that of the slowest day.
WITH calls AS (
  SELECT
    'server' AS seen_by,
    entity_id,
    source_service AS source,
    dest_service AS dest,
    sum(kubernetes_service_relation_server_http_call_cpm) AS calls,
    count(kubernetes_service_relation_server_http_call_cpm) AS minutes,
    coalesce(sum(kubernetes_service_relation_server_http_success_cpm), 0) AS succeeded
  FROM service_relation_minute
  GROUP BY ALL
  UNION ALL
  SELECT
    'client',
    entity_id,
    source_service,
    dest_service,
    sum(kubernetes_service_relation_client_http_call_cpm),
    count(kubernetes_service_relation_client_http_call_cpm),
    coalesce(sum(kubernetes_service_relation_client_http_success_cpm), 0)
  FROM service_relation_minute
  GROUP BY ALL
), slowest AS (
  SELECT
    entity_id,
    max(kubernetes_service_relation_server_http_latency_ns_percentile.p99) / 1e6 AS server_ms,
    max(kubernetes_service_relation_client_http_latency_ns_percentile.p99) / 1e6 AS client_ms
  FROM service_relation_day
  GROUP BY ALL
)
SELECT
  source,
  dest,
  round(calls / minutes, 1) AS calls_per_minute,
  round(100 * succeeded / calls, 2) AS success_percent,
  round(CASE seen_by WHEN 'server' THEN server_ms ELSE client_ms END, 2) AS p99_ms
FROM calls JOIN slowest USING (entity_id)
WHERE calls > 0
QUALIFY row_number() OVER (PARTITION BY entity_id ORDER BY calls DESC, seen_by DESC) = 1
ORDER BY calls_per_minute DESC, source, dest;
