-- Each instance (pod) with the requests that it answered: how many, how many well, how fast.
SELECT
  service,
  instance,
  round(kubernetes_service_instance_http_call_cpm / minutes, 1) AS calls_per_minute,
  round(kubernetes_service_instance_http_call_successful_rate / 100, 2) AS success_percent,
  kubernetes_service_instance_http_call_time AS average_ms,
  round(latency.p99 / 1e6, 2) AS p99_ms
FROM service_instance_between($since, $until, divide_by := 1)
LEFT JOIN service_instance_percentiles_between(
  $since,
  $until,
  'kubernetes_service_instance_http_latency_ns_percentile',
  of_service := $service,
  of_namespace := $namespace
) AS latency USING (service, instance)
WHERE ($service IS NULL OR service = $service)
  AND ($namespace IS NULL OR ends_with(service, '.' || $namespace))
ORDER BY kubernetes_service_instance_http_call_cpm DESC NULLS LAST, service, instance;
