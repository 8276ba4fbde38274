-- What changed: each service beside itself in the time of the same length before.
-- First where most requests went from good to bad, then where the slowest 1% changed most.
WITH before AS (
  SELECT *
  FROM service_between(
    $since::TIMESTAMP - ($until::TIMESTAMP - $since::TIMESTAMP), $since, divide_by := 1
  )
  LEFT JOIN service_percentiles_between(
    $since::TIMESTAMP - ($until::TIMESTAMP - $since::TIMESTAMP),
    $since,
    'kubernetes_service_http_latency_ns_percentile',
    of_service := $service,
    of_namespace := $namespace
  ) USING (service)
), after AS (
  SELECT *
  FROM service_between($since, $until, divide_by := 1)
  LEFT JOIN service_percentiles_between(
    $since,
    $until,
    'kubernetes_service_http_latency_ns_percentile',
    of_service := $service,
    of_namespace := $namespace
  ) USING (service)
)
SELECT
  service,
  round(before.kubernetes_service_http_call_cpm / before.minutes, 1) AS calls_per_minute_before,
  round(after.kubernetes_service_http_call_cpm / after.minutes, 1) AS calls_per_minute,
  round(before.kubernetes_service_http_call_successful_rate / 100, 2) AS success_percent_before,
  round(after.kubernetes_service_http_call_successful_rate / 100, 2) AS success_percent,
  round(before.p99 / 1e6, 2) AS p99_ms_before,
  round(after.p99 / 1e6, 2) AS p99_ms
FROM before FULL JOIN after USING (service)
WHERE ($service IS NULL OR service = $service)
  AND ($namespace IS NULL OR ends_with(service, '.' || $namespace))
ORDER BY
  success_percent_before - success_percent DESC NULLS LAST,
  abs(ln(p99_ms / nullif(p99_ms_before, 0))) DESC NULLS LAST,
  service;
