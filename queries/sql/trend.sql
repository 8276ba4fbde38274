-- Services over time: minute by minute, or by the hour where the range is above six hours.
-- Of one service it is printed whole.
WITH buckets AS (
  SELECT
    service,
    time_bucket,
    1 AS minutes,
    kubernetes_service_http_call_cpm AS cpm,
    kubernetes_service_http_call_successful_rate AS rate,
    kubernetes_service_http_call_time AS average_ms,
    kubernetes_service_http_latency_ns_percentile AS latency_ns
  FROM service_minute
  WHERE time_bucket >= $since::TIMESTAMP AND time_bucket < $until::TIMESTAMP
    AND $until::TIMESTAMP - $since::TIMESTAMP <= INTERVAL 6 HOUR
  UNION ALL
  SELECT
    service,
    time_bucket,
    minutes,
    kubernetes_service_http_call_cpm * 60,
    kubernetes_service_http_call_successful_rate,
    kubernetes_service_http_call_time,
    kubernetes_service_http_latency_ns_percentile
  FROM service_hour
  WHERE time_bucket >= date_trunc('hour', $since::TIMESTAMP) AND time_bucket < $until::TIMESTAMP
    AND $until::TIMESTAMP - $since::TIMESTAMP > INTERVAL 6 HOUR
)
SELECT
  service,
  time_bucket,
  round(cpm / minutes, 1) AS calls_per_minute,
  round(rate / 100, 2) AS success_percent,
  average_ms,
  round(latency_ns.p50 / 1e6, 2) AS p50_ms,
  round(latency_ns.p99 / 1e6, 2) AS p99_ms
FROM buckets
WHERE ($service IS NULL OR service = $service)
  AND ($namespace IS NULL OR ends_with(service, '.' || $namespace))
ORDER BY service, time_bucket;
