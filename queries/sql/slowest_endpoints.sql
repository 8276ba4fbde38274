-- The endpoints whose requests take longest on average, with how often they are called.
SELECT
  service,
  endpoint,
  sum(kubernetes_service_endpoint_http_call_cpm) AS requests,
  sum(kubernetes_service_endpoint_http_call_duration)
    // sum(kubernetes_service_endpoint_http_call_cpm) AS average_ms,
  max(kubernetes_service_endpoint_http_call_time) AS slowest_minute_ms,
  round(max(kubernetes_service_endpoint_http_latency_ns_percentile.p99) / 1e6, 2)
    AS slowest_p99_ms,
  round(100 * coalesce(sum(kubernetes_service_endpoint_http_success_cpm), 0)
    / sum(kubernetes_service_endpoint_http_call_cpm), 2) AS success_percent
FROM endpoint_minute
GROUP BY ALL
HAVING requests > 0
ORDER BY average_ms DESC, requests DESC, service, endpoint
LIMIT 10;
