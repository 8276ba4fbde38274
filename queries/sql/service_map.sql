-- Who calls whom: requests per minute, the share that succeeded and how long the slowest 1% took.
-- As the end saw it that saw more of the calls: where they arrive, if both saw as many.
WITH seen AS NOT MATERIALIZED (
  SELECT
    *,
    coalesce(kubernetes_service_relation_server_http_call_cpm, 0) AS server_calls,
    coalesce(kubernetes_service_relation_client_http_call_cpm, 0) AS client_calls
  FROM service_relation_between($since, $until, divide_by := 1)
  WHERE ($service IS NULL OR source_service = $service OR dest_service = $service)
    AND ($namespace IS NULL OR ends_with(source_service, '.' || $namespace)
      OR ends_with(dest_service, '.' || $namespace))
), chosen AS (
  -- Each end for itself, as percentiles are costly: those that are not shown are not computed.
  SELECT
    source_service AS source,
    dest_service AS dest,
    minutes,
    server_calls AS calls,
    kubernetes_service_relation_server_http_success_cpm AS succeeded,
    kubernetes_service_relation_server_http_latency_ns_percentile.p99 AS p99_ns
  FROM seen
  WHERE server_calls > 0 AND server_calls >= client_calls
  UNION ALL
  SELECT
    source_service,
    dest_service,
    minutes,
    client_calls,
    kubernetes_service_relation_client_http_success_cpm,
    kubernetes_service_relation_client_http_latency_ns_percentile.p99
  FROM seen
  WHERE client_calls > server_calls
)
SELECT
  source,
  dest,
  round(calls / minutes, 1) AS calls_per_minute,
  round(100 * coalesce(succeeded, 0) / calls, 2) AS success_percent,
  round(p99_ns / 1e6, 2) AS p99_ms
FROM chosen
ORDER BY calls DESC, source, dest;
