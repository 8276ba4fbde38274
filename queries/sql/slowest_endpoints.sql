-- The endpoints whose requests take longest on average, with how often they are called.
SELECT
  service,
  endpoint,
  kubernetes_service_endpoint_http_call_cpm AS requests,
  kubernetes_service_endpoint_http_call_time AS average_ms,
  round(latency.p50 / 1e6, 2) AS p50_ms,
  round(latency.p99 / 1e6, 2) AS p99_ms,
  round(100 * coalesce(kubernetes_service_endpoint_http_success_cpm, 0)
    / kubernetes_service_endpoint_http_call_cpm, 2) AS success_percent
FROM endpoint_between($since, $until, divide_by := 1)
LEFT JOIN endpoint_percentiles_between(
  $since,
  $until,
  'kubernetes_service_endpoint_http_latency_ns_percentile',
  of_service := $service,
  of_namespace := $namespace
) AS latency USING (service, endpoint)
WHERE kubernetes_service_endpoint_http_call_cpm > 0
  AND ($service IS NULL OR service = $service)
  AND ($namespace IS NULL OR ends_with(service, '.' || $namespace))
ORDER BY average_ms DESC, requests DESC, service, endpoint;
