-- Versions side by side: of each service, what the instances of each version answered.
-- An instance has the version that was known of it last.
WITH known AS (
  SELECT service, instance, arg_max(version, coalesce(from_time, '-infinity'::TIMESTAMP)) AS version
  FROM pods
  WHERE coalesce(from_time < $until::TIMESTAMP, true) AND coalesce(to_time > $since::TIMESTAMP, true)
  GROUP BY ALL
)
SELECT
  service,
  version,
  count(*) AS instances,
  round(sum(kubernetes_service_instance_http_call_cpm) / any_value(minutes), 1)
    AS calls_per_minute,
  round(100 * coalesce(sum(kubernetes_service_instance_http_success_cpm), 0)
    / sum(kubernetes_service_instance_http_call_cpm), 2) AS success_percent,
  sum(kubernetes_service_instance_http_call_duration)
    // sum(kubernetes_service_instance_http_call_cpm) AS average_ms,
  round(max(latency.p99) / 1e6, 2)
    AS slowest_p99_ms
FROM service_instance_between($since, $until, divide_by := 1)
LEFT JOIN service_instance_percentiles_between(
  $since,
  $until,
  'kubernetes_service_instance_http_latency_ns_percentile',
  of_service := $service,
  of_namespace := $namespace
) AS latency USING (service, instance)
JOIN known USING (service, instance)
WHERE kubernetes_service_instance_http_call_cpm > 0
  AND ($service IS NULL OR service = $service)
  AND ($namespace IS NULL OR ends_with(service, '.' || $namespace))
GROUP BY service, version
ORDER BY service, version;
