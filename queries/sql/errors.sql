-- The endpoints with the most failed requests: how many, and what they were answered with.
SELECT
  service,
  endpoint,
  kubernetes_service_endpoint_http_call_cpm AS requests,
  kubernetes_service_endpoint_http_call_cpm
    - coalesce(kubernetes_service_endpoint_http_success_cpm, 0) AS failed,
  round(100 * failed / requests, 2) AS failed_percent,
  coalesce(kubernetes_service_endpoint_http_status_4xx_cpm, 0) AS status_4xx,
  coalesce(kubernetes_service_endpoint_http_status_5xx_cpm, 0) AS status_5xx
FROM endpoint_between($since, $until, divide_by := 1)
WHERE failed > 0
  AND ($service IS NULL OR service = $service)
  AND ($namespace IS NULL OR ends_with(service, '.' || $namespace))
ORDER BY failed DESC, service, endpoint;
