-- Endpoint to endpoint: which request of one service makes which of another.
SELECT
  source_service AS source,
  source_endpoint,
  dest_service AS dest,
  dest_endpoint,
  derivation,
  round(kubernetes_service_endpoint_relation_http_call_cpm / minutes, 1) AS calls_per_minute,
  round(100 * coalesce(kubernetes_service_endpoint_relation_http_success_cpm, 0)
    / kubernetes_service_endpoint_relation_http_call_cpm, 2) AS success_percent,
  round(latency.p99 / 1e6, 2) AS p99_ms
FROM endpoint_relation_between($since, $until, divide_by := 1)
LEFT JOIN endpoint_relation_percentiles_between(
  $since,
  $until,
  'kubernetes_service_endpoint_relation_http_latency_ns_percentile',
  of_service := $service,
  of_namespace := $namespace
) AS latency USING (
  source_service, source_endpoint, dest_service, dest_endpoint, derivation
)
WHERE kubernetes_service_endpoint_relation_http_call_cpm > 0
  AND ($service IS NULL OR source_service = $service OR dest_service = $service)
  AND ($namespace IS NULL OR ends_with(source_service, '.' || $namespace)
    OR ends_with(dest_service, '.' || $namespace))
ORDER BY calls_per_minute DESC, source, source_endpoint, dest, dest_endpoint, derivation;
