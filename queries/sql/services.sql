-- Each service by the requests that it answered, minute by minute.
SELECT
  time_bucket,
  service,
  kubernetes_service_http_call_cpm AS calls_per_minute,
  kubernetes_service_http_call_time AS average_ms,
  round(kubernetes_service_http_latency_ns_percentile.p99 / 1e6, 2) AS p99_ms,
  kubernetes_service_http_call_successful_rate / 100 AS success_percent,
  kubernetes_service_apdex / 10000 AS apdex
FROM service_minute
WHERE kubernetes_service_http_call_cpm IS NOT NULL
ORDER BY time_bucket, service;
