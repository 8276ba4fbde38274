-- Who calls whom: requests per minute, the share that succeeded and how long the slowest 1% took.
-- As the end saw it that saw more of the calls: where they arrive, if both saw as many.
WITH seen AS (
  SELECT
    source_service AS source,
    dest_service AS dest,
    minutes,
    coalesce(kubernetes_service_relation_server_http_call_cpm, 0) AS server_calls,
    coalesce(kubernetes_service_relation_client_http_call_cpm, 0) AS client_calls,
    greatest(server_calls, client_calls) AS calls,
    CASE WHEN server_calls >= client_calls
      THEN kubernetes_service_relation_server_http_success_cpm
      ELSE kubernetes_service_relation_client_http_success_cpm END AS succeeded,
    CASE WHEN server_calls >= client_calls THEN server.p99 ELSE client.p99 END AS p99_ns
  FROM service_relation_between($since, $until, divide_by := 1)
  LEFT JOIN service_relation_percentiles_between(
    $since,
    $until,
    'kubernetes_service_relation_server_http_latency_ns_percentile',
    of_service := $service,
    of_namespace := $namespace
  ) AS server USING (source_service, dest_service)
  LEFT JOIN service_relation_percentiles_between(
    $since,
    $until,
    'kubernetes_service_relation_client_http_latency_ns_percentile',
    of_service := $service,
    of_namespace := $namespace
  ) AS client USING (source_service, dest_service)
  WHERE ($service IS NULL OR source_service = $service OR dest_service = $service)
    AND ($namespace IS NULL OR ends_with(source_service, '.' || $namespace)
      OR ends_with(dest_service, '.' || $namespace))
)
SELECT
  source,
  dest,
  round(calls / minutes, 1) AS calls_per_minute,
  round(100 * coalesce(succeeded, 0) / calls, 2) AS success_percent,
  round(p99_ns / 1e6, 2) AS p99_ms
FROM seen
WHERE calls > 0
ORDER BY calls DESC, source, dest;
